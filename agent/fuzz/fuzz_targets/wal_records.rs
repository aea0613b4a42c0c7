#![no_main]
//! Following records through a segment of arbitrary content, from an arbitrary position. Its first page is made genuine and
//! every record on the way gets a right CRC, else nothing behind the first check would ever be reached.

use hasteward_agent::postgres::reading::Deadline;
use hasteward_agent::postgres::wal::lineage::Lineage;
use hasteward_agent::postgres::wal::reader::{EndOfWal, Geometry, Halt, Position, Reader};
use hasteward_agent::postgres::wal::segment::{BlockSize, SegmentName, SegmentSize};
use hasteward_agent::postgres::wal::source::MemorySource;
use hasteward_proto::primitive::{SystemId, TimelineId};
use libfuzzer_sys::fuzz_target;

const START: u64 = 0x0500_0000;

fuzz_target!(|input: (u16, u64, Vec<u8>)| {
    let (offset, past, mut bytes) = input;
    let (Some(system_id), Some(segment_size), Some(block_size)) =
        (SystemId::new(7), SegmentSize::new(1 << 20), BlockSize::new(1024))
    else {
        return;
    };
    let geometry = Geometry {
        system_id,
        segment_size,
        block_size,
    };
    for (page, at) in bytes.chunks_mut(1024).zip((START..).step_by(1024)) {
        if page.len() == 1024 {
            page[..2].copy_from_slice(&0xD118u16.to_le_bytes());
            page[2] = (page[2] & 0x0D) | if at == START { 2 } else { 0 };
            page[3] = 0;
            page[4..8].copy_from_slice(&1u32.to_le_bytes());
            page[8..16].copy_from_slice(&at.to_le_bytes());
            if at == START {
                page[24..32].copy_from_slice(&7u64.to_le_bytes());
                page[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
                page[36..40].copy_from_slice(&1024u32.to_le_bytes());
            }
        }
    }
    let timeline = TimelineId::FIRST;
    let Some(name) = SegmentName::new(timeline, segment_size.number(START), segment_size) else {
        return;
    };
    let (lineage, deadline) = (Lineage::new(timeline, None), Deadline::never());
    let mut source = MemorySource([(name.to_string(), bytes)].into());
    let mut position = Position {
        next: START + u64::from(offset),
        previous: None,
    };
    // Seal a record that fails for its CRC alone, and try again.
    for _ in 0..64 {
        let mut reader = Reader::new(&source, geometry, &lineage, position, &deadline);
        let halt = loop {
            match reader.next_record() {
                Ok(record) => assert!(record.end > record.start),
                Err(halt) => break halt,
            }
        };
        position = reader.position();
        let Halt::End(EndOfWal::Checksum) = halt else {
            break;
        };
        let at = usize::try_from(position.next - START).unwrap_or(usize::MAX);
        let at = if at.is_multiple_of(1024) {
            at + if at == 0 { 40 } else { 24 }
        } else {
            at
        };
        let Some(bytes) = source.0.values_mut().next() else {
            break;
        };
        let Some(head) = bytes.get(at..at + 24) else { break };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = bytes.get(at + 24..at.saturating_add(length)) else {
            break;
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &head[..20]);
        bytes[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
    }
    let _ = Reader::new(&source, geometry, &lineage, position, &deadline).seek(past);
});
