#![no_main]
//! Names of segments, and headers of pages and records.

use hasteward_agent::postgres::wal::page::PageHeader;
use hasteward_agent::postgres::wal::record::{self, RecordHeader};
use hasteward_agent::postgres::wal::segment::{SegmentName, SegmentSize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(page) = PageHeader::parse(bytes) {
        let _ = page.belongs_at(page.address, SegmentSize::DEFAULT);
    }
    if let Some(head) = bytes.first_chunk() {
        let _ = RecordHeader::parse(head).map(|header| header.kind());
    }
    let _ = (record::commit_time(bytes), record::overwritten(bytes));
    if let Some(name) = std::str::from_utf8(bytes).ok().and_then(SegmentName::parse) {
        assert_eq!(name.to_string().as_bytes(), bytes);
        let _ = (name.start(SegmentSize::DEFAULT), name.partial());
    }
});
