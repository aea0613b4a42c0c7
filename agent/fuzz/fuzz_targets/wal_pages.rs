#![no_main]
//! The end of WAL among two segments of arbitrary content, without a control file.

use hasteward_agent::postgres::reading::Deadline;
use hasteward_agent::postgres::wal::pages;
use hasteward_agent::postgres::wal::segment::SegmentName;
use hasteward_agent::postgres::wal::source::MemorySource;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let names = ["000000010000000000000005", "000000010000000000000006"];
    let source = MemorySource([(names[0].to_owned(), input.0), (names[1].to_owned(), input.1)].into());
    let names: Vec<_> = names.into_iter().filter_map(SegmentName::parse).collect();
    let _ = pages::end(&source, &names, &Deadline::never());
});
