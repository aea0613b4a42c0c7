use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::postgres::fixture::{Fixture, MAJORS};
use crate::postgres::wal::pages;
use crate::postgres::wal::segment::SegmentName;
use crate::postgres::wal::source::MemorySource;

fn scan<'a>(fixture: &'a Fixture, deadline: &'a Deadline) -> Scan<'a> {
    Scan {
        source: &fixture.wal,
        control: &fixture.control,
        histories: &[],
        deadline,
    }
}

fn names(source: &MemorySource) -> Vec<SegmentName> {
    source
        .0
        .keys()
        .filter_map(|name| SegmentName::parse(name))
        .collect()
}

#[test]
fn end_and_commits_are_those_of_the_server() {
    for major in MAJORS {
        let fixture = Fixture::load(major);
        let never = Deadline::never();
        let scan = scan(&fixture, &never);
        let end = scan.end().unwrap();
        assert_eq!(end.end, fixture.expected("flush"), "{major}");
        assert_eq!(end.last_record, Some(fixture.expected("redo_done")));
        assert_eq!((end.timeline, end.method), (TimelineId::FIRST, Method::Records));
        assert_eq!(end.from, fixture.control.redo);

        let commits = scan.commits(TimelineId::FIRST, fixture.expected("fork")).unwrap();
        assert_eq!(commits.count, fixture.expected::<u64>("commits"), "{major}");
        assert_eq!(commits.end, Some(end.end));
        let (first, last) = commits.span.unwrap();
        assert!(first <= last);
        assert!(first.millis_since(fixture.control.checkpoint_at) < 60_000);
        assert!(fixture.control.checkpoint_at.0 <= first.0 + 1000);
        assert_eq!(scan.commits(TimelineId::FIRST, end.end).unwrap().count, 0);
        assert_eq!(scan.commits(TimelineId::FIRST, end.end).unwrap().span, None);
        let other = scan.commits(TimelineId::new(2).unwrap(), end.end).unwrap_err();
        assert_eq!(other.kind, UnreadKind::Depends);
        // Before what pg_wal holds.
        let gone = scan
            .commits(TimelineId::FIRST, Lsn::new(0x10_0028).unwrap())
            .unwrap_err();
        assert_eq!(gone.kind, UnreadKind::Depends, "{gone}");
    }
}

#[test]
fn the_end_without_a_control_file() {
    for major in MAJORS {
        let fixture = Fixture::load(major);
        let end = pages::end(&fixture.wal, &names(&fixture.wal), &Deadline::never()).unwrap();
        assert_eq!(end.end, fixture.expected("flush"), "{major}");
        assert_eq!(
            (end.system_id, end.method),
            (fixture.control.system_id, Method::Pages)
        );
    }
}

#[test]
fn ambiguous_segments_are_refused_without_a_control_file() {
    let fixture = Fixture::load(15);
    let never = Deadline::never();
    let run = |wal: &MemorySource| pages::end(wal, &names(wal), &never);
    assert_eq!(
        run(&MemorySource::default()).unwrap_err().kind,
        UnreadKind::Corrupt
    );

    let mut hole = fixture.wal.clone();
    hole.0.remove("000000010000000000000007");
    assert_eq!(run(&hole).unwrap_err().kind, UnreadKind::Corrupt);

    let mut foreign = fixture.wal.clone();
    foreign.0.get_mut("000000010000000000000007").unwrap()[24] ^= 1;
    assert_eq!(run(&foreign).unwrap_err().kind, UnreadKind::Corrupt);

    // No record starts in the last two segments: page headers give the end to one page.
    let mut pages_only = fixture.wal.clone();
    pages_only.0.retain(|name, _| name == "000000010000000000000008");
    for page in pages_only
        .0
        .get_mut("000000010000000000000008")
        .unwrap()
        .chunks_mut(8192)
    {
        page[40..].fill(0);
    }
    let end = run(&pages_only).unwrap();
    let exact: Lsn = fixture.expected("flush");
    assert_eq!(end.end.bytes(), exact.bytes().next_multiple_of(8192));
}

#[test]
fn wal_that_ends_before_the_checkpoint_is_no_position() {
    for major in [13, 18] {
        let mut fixture = Fixture::load(major);
        fixture.wal.0.clear();
        assert_eq!(
            scan(&fixture, &Deadline::never()).end().unwrap_err().kind,
            UnreadKind::Corrupt
        );
        let mut fixture = Fixture::load(major);
        fixture.control.checkpoint = Lsn::new(fixture.control.checkpoint.bytes() + 8).unwrap();
        let unread = scan(&fixture, &Deadline::never()).end().unwrap_err();
        assert!(unread.detail.contains("no checkpoint record"), "{unread}");
        let mut fixture = Fixture::load(major);
        let name = SegmentName::new(
            TimelineId::FIRST,
            fixture.control.checkpoint.segment(1 << 20),
            fixture.control.segment_size,
        );
        let bytes = fixture.wal.0.get_mut(&name.unwrap().to_string()).unwrap();
        bytes[usize::try_from(fixture.control.checkpoint.bytes() % (1 << 20)).unwrap() + 30] ^= 1;
        let unread = scan(&fixture, &Deadline::never()).end().unwrap_err();
        assert_eq!(unread.kind, UnreadKind::Corrupt, "{unread}");
    }
}

#[test]
fn out_of_time_is_unread_wherever_it_strikes() {
    let fixture = Fixture::load(16);
    let fork: Lsn = fixture.expected("fork");
    for allowed in 0..200 {
        let after = |allowed: u32| {
            let asked = AtomicU32::new(0);
            Deadline::from_fn(move || asked.fetch_add(1, Ordering::Relaxed) >= allowed)
        };
        let deadline = after(allowed);
        let end = scan(&fixture, &deadline).end();
        let deadline = after(allowed);
        let commits = scan(&fixture, &deadline).commits(TimelineId::FIRST, fork);
        let pages = pages::end(&fixture.wal, &names(&fixture.wal), &after(allowed));
        match (end, commits, pages) {
            (Ok(end), Ok(commits), Ok(pages)) => {
                assert_eq!(end.end, fixture.expected("flush"));
                assert_eq!(commits.count, fixture.expected::<u64>("commits"));
                assert_eq!(pages.end, end.end);
                assert!(allowed > 0);
                return;
            }
            (end, commits, pages) => {
                let kinds = [end.err(), commits.err(), pages.err()].into_iter().flatten();
                assert!(kinds.into_iter().all(|unread| unread.kind == UnreadKind::Timeout));
            }
        }
    }
    panic!("never finished");
}
