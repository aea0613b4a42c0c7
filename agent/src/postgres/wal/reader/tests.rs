use proptest::prelude::*;

use super::*;
use crate::postgres::fixture::{Fixture, MAJORS};
use crate::postgres::wal::record::HeaderFault;
use crate::postgres::wal::source::MemorySource;

fn geometry(fixture: &Fixture) -> Geometry {
    Geometry {
        system_id: fixture.control.system_id,
        segment_size: fixture.control.segment_size,
        block_size: fixture.control.wal_block_size,
    }
}

/// All records from the redo point, and why they end.
fn records(fixture: &Fixture, source: &MemorySource) -> (Vec<Record>, EndOfWal) {
    let lineage = Lineage::new(TimelineId::FIRST, None);
    let start = Position {
        next: fixture.control.redo.bytes(),
        previous: None,
    };
    let deadline = Deadline::never();
    let mut reader = Reader::new(source, geometry(fixture), &lineage, start, &deadline);
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(record) => records.push(record),
            Err(Halt::End(end)) => {
                let last = records.last().map_or(start.next, |record: &Record| record.end);
                assert_eq!(reader.position().next, last, "a failed read moves nothing");
                return (records, end);
            }
            Err(Halt::Failed(unread)) => panic!("{unread}"),
        }
    }
}

/// The file and offset of `lsn`.
fn place(fixture: &Fixture, lsn: u64) -> (String, usize) {
    let size = fixture.control.segment_size;
    let name = SegmentName::new(TimelineId::FIRST, size.number(lsn), size).unwrap();
    (
        name.to_string(),
        usize::try_from(lsn % u64::from(size.bytes())).unwrap(),
    )
}

fn flipped(fixture: &Fixture, lsn: u64) -> MemorySource {
    let mut source = fixture.wal.clone();
    let (name, offset) = place(fixture, lsn);
    source.0.get_mut(&name).unwrap()[offset] ^= 0x20;
    source
}

#[test]
fn records_end_where_recovery_says() {
    for major in MAJORS {
        let fixture = Fixture::load(major);
        let (records, _) = records(&fixture, &fixture.wal);
        let last = records.last().unwrap();
        let expected = |key| fixture.expected::<hasteward_proto::primitive::Lsn>(key).bytes();
        assert_eq!(
            (last.start, last.end),
            (expected("redo_done"), expected("flush")),
            "{major}"
        );
        let page = |lsn: u64| lsn / 8192;
        assert!(
            records.iter().any(|r| page(r.end) - page(r.start) > 2),
            "a record over several pages"
        );
        let segment = |lsn: u64| lsn >> 20;
        let over_segments = |r: &&Record| r.kind == Kind::Other && segment(r.end) > segment(r.start);
        assert_eq!(
            records.iter().filter(over_segments).count(),
            1,
            "a record over two segments"
        );
        assert!(
            records
                .iter()
                .any(|r| r.kind == Kind::Switch && r.end.is_multiple_of(1 << 20))
        );
    }
}

type Expect = fn(&EndOfWal) -> bool;

#[test]
fn each_class_of_damage_ends_the_log_before_it() {
    for major in [13, 15, 18] {
        let fixture = Fixture::load(major);
        let (good, _) = records(&fixture, &fixture.wal);
        let small = |record: &Record| record.end - record.start < 200 && record.start % 8192 + 200 < 8192;
        let nth = good
            .iter()
            .enumerate()
            .filter(|(n, r)| *n > 3 && small(r))
            .map(|(n, _)| n)
            .nth(4)
            .unwrap();
        let victim = good[nth];
        let classes: [(u64, Expect); 7] = [
            (0, |e| {
                matches!(
                    e,
                    EndOfWal::Checksum | EndOfWal::Header(_) | EndOfWal::ContinuesAnother
                )
            }),
            (3, |e| {
                matches!(
                    e,
                    EndOfWal::Header(HeaderFault::Length(_)) | EndOfWal::NotContinued(_)
                )
            }),
            (4, |e| matches!(e, EndOfWal::Checksum)),
            (8, |e| matches!(e, EndOfWal::Previous(_))),
            (17, |e| {
                matches!(e, EndOfWal::Header(HeaderFault::ResourceManager(_)))
            }),
            (20, |e| matches!(e, EndOfWal::Checksum)),
            (25, |e| matches!(e, EndOfWal::Checksum)),
        ];
        for (at, expected) in classes {
            let (found, end) = records(&fixture, &flipped(&fixture, victim.start + at));
            assert_eq!(found, good[..nth], "byte {at} of {major}: {end}");
            assert!(expected(&end), "byte {at}: {end}");
        }
    }
}

#[test]
fn each_field_of_a_page_header_ends_the_log_before_it() {
    let fixture = Fixture::load(15);
    let (good, _) = records(&fixture, &fixture.wal);
    // The second page of a record over several pages, and a later segment's first page.
    let long = good
        .iter()
        .position(|r| r.end - r.start > 20_000 && r.kind == Kind::Other)
        .unwrap();
    let over = good
        .iter()
        .position(|r| r.kind == Kind::Other && r.end >> 20 > r.start >> 20)
        .unwrap();
    let second = (good[long].start / 8192 + 1) * 8192;
    let segment = (good[over].start / (1 << 20) + 1) << 20;
    for (address, nth, fields) in [
        (second, long, &[0, 3, 8, 16][..]),
        (segment, over, &[0, 3, 8, 16, 24, 33, 37]),
    ] {
        for field in fields {
            let (found, end) = records(&fixture, &flipped(&fixture, address + field));
            assert_eq!(found.len(), nth, "field at {field}: {end}");
            assert_eq!(found, good[..nth]);
        }
    }
}

#[test]
fn flags_and_timeline_of_a_page() {
    let fixture = Fixture::load(15);
    let (good, _) = records(&fixture, &fixture.wal);
    let long = good
        .iter()
        .position(|r| r.end - r.start > 20_000 && r.kind == Kind::Other)
        .unwrap();
    let second = (good[long].start / 8192 + 1) * 8192;
    let set = |at: u64, value: u8| {
        let mut source = fixture.wal.clone();
        let (name, offset) = place(&fixture, second + at);
        source.0.get_mut(&name).unwrap()[offset] = value;
        records(&fixture, &source)
    };
    let (found, end) = set(2, 0);
    assert_eq!((found.len(), end), (long, EndOfWal::NotContinued(second)));
    let (found, end) = set(4, 2);
    assert_eq!(found.len(), long);
    assert!(
        matches!(
            end,
            EndOfWal::Page {
                fault: PageFault::Timeline(2),
                ..
            }
        ),
        "{end}"
    );
    let (found, end) = set(4, 0);
    assert!(
        matches!(
            end,
            EndOfWal::Page {
                fault: PageFault::Timeline(0),
                ..
            }
        ),
        "{end}"
    );
    assert_eq!(found.len(), long);
    let (found, end) = set(0, 0x13);
    assert!(
        matches!(
            end,
            EndOfWal::Page {
                fault: PageFault::OtherVersion(16),
                ..
            }
        ),
        "{end}"
    );
    assert_eq!(found.len(), long);
}

#[test]
fn missing_short_and_recycled_segments_end_the_log() {
    let fixture = Fixture::load(15);
    let (good, _) = records(&fixture, &fixture.wal);
    let switch = good.iter().position(|r| r.kind == Kind::Switch).unwrap();
    let (next, _) = place(&fixture, good[switch].end);
    let run = |change: &dyn Fn(&mut MemorySource)| {
        let mut source = fixture.wal.clone();
        change(&mut source);
        let (found, end) = records(&fixture, &source);
        assert_eq!(found, good[..=switch]);
        end
    };
    assert!(matches!(
        run(&|s| drop(s.0.remove(&next))),
        EndOfWal::NoSegment(_)
    ));
    assert!(matches!(
        run(&|s| s.0.get_mut(&next).unwrap().truncate(100)),
        EndOfWal::Page {
            fault: PageFault::Short,
            ..
        }
    ));
    assert!(matches!(
        run(&|s| s.0.get_mut(&next).unwrap().fill(0)),
        EndOfWal::Segment {
            fault: PageFault::Zero,
            ..
        }
    ));
    // Recycled: the bytes of the segment before under the next one's name.
    let (before, _) = place(&fixture, good[switch].start);
    let old = fixture.wal.0[&before].clone();
    assert!(matches!(
        run(&|s| drop(s.0.insert(next.clone(), old.clone()))),
        EndOfWal::Segment {
            fault: PageFault::Address(_),
            ..
        }
    ));
    // Under its `.partial` name it counts.
    let mut source = fixture.wal.clone();
    let bytes = source.0.remove(&next).unwrap();
    source.0.insert(format!("{next}.partial"), bytes);
    assert_eq!(records(&fixture, &source).0, good);
}

#[test]
fn a_given_up_record_is_passed_over_only_with_its_mark() {
    let fixture = Fixture::load(15);
    let (good, _) = records(&fixture, &fixture.wal);
    let long = good
        .iter()
        .position(|r| r.end - r.start > 20_000 && r.kind == Kind::Other)
        .unwrap();
    let (victim, second) = (good[long], (good[long].start / 8192 + 1) * 8192);
    // What a server writes that finds the rest of this record missing at start (CreateOverwriteContrecordRecord).
    let with_mark = |overwritten: u64| {
        let mut source = fixture.wal.clone();
        let (name, offset) = place(&fixture, second);
        let page = &mut source.0.get_mut(&name).unwrap()[offset..offset + 8192];
        page[2..4].copy_from_slice(&8u16.to_le_bytes());
        page[16..].fill(0);
        let record = &mut page[24..24 + 24 + 18];
        record[..4].copy_from_slice(&42u32.to_le_bytes());
        record[8..16].copy_from_slice(&good[long - 1].start.to_le_bytes());
        record[16] = 0xD0;
        record[24..26].copy_from_slice(&[255, 16]);
        record[26..34].copy_from_slice(&overwritten.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[24..42]), &record[..20]);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        records(&fixture, &source)
    };
    let (found, _) = with_mark(victim.start);
    assert_eq!(found.len(), long + 1);
    let mark = found[long];
    assert_eq!(
        (mark.kind, mark.start, mark.end),
        (Kind::OverwriteContrecord, second + 24, second + 24 + 48)
    );
    let (found, end) = with_mark(victim.start + 8);
    assert_eq!((found.len(), end), (long, EndOfWal::NotOverwritten));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_segment_content_ends_somewhere(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), next: u64) {
        let fixture = Geometry {
            system_id: SystemId::new(1).unwrap(),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            block_size: BlockSize::new(1024).unwrap(),
        };
        let name = SegmentName::new(TimelineId::FIRST, fixture.segment_size.number(next), fixture.segment_size);
        let source = MemorySource(name.map(|name| (name.to_string(), bytes)).into_iter().collect());
        let (lineage, deadline) = (Lineage::new(TimelineId::FIRST, None), Deadline::never());
        let mut reader = Reader::new(&source, fixture, &lineage, Position { next, previous: None }, &deadline);
        let _ = reader.seek(next);
        while reader.next_record().is_ok() {}
    }
}

#[test]
fn any_flipped_byte_leaves_a_prefix() {
    let fixture = Fixture::load(17);
    let (good, _) = records(&fixture, &fixture.wal);
    let (first, last) = (good[0].start, good[good.len() - 1].end);
    let step = (last - first) / 400;
    for lsn in (first..last).step_by(usize::try_from(step).unwrap()) {
        let (found, end) = records(&fixture, &flipped(&fixture, lsn));
        assert_eq!(found, good[..found.len()], "{end}");
        let damaged = good.iter().position(|r| r.end > lsn).unwrap();
        // Padding after a record, and the unused rest of a switched segment, may hold anything.
        assert!(
            found.len() == damaged || found.len() == good.len(),
            "{lsn:X}: {end}"
        );
    }
}
