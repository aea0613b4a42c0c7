//! What an instance may hold although nothing of it seems worth keeping.

use rstest::rstest;

use super::{action, ids, oracle};
use crate::cnpg::{Question, assess, questions, unscanned};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, VerdictKind};
use crate::testing::{SEGMENT, World, ago, at, control, known, label, name, place, tl};

const END: u64 = 5 * SEGMENT + 1024;

/// A replica that receives nothing is not ahead because it was read later: the primary has lost what it has more.
#[rstest]
#[case::gigabytes(1 << 30)]
#[case::a_little(8192)]
fn a_replica_ahead_that_does_not_stream_holds_what_the_primary_lost(#[case] ahead: u64) {
    let mut world = World::healthy(2);
    world.disconnect(2);
    place(world.get(2), 1, &[], END + ahead);
    let mut down = world.clone();
    down.stop(2);
    if let Evidence::Known(known) = &mut world.get(2).server {
        known.value.receive = Some(at(END + ahead));
    }
    for mut world in [world, down] {
        assert!(!questions(&world.ev).is_empty());
        world.answer(|_| Some(1));
        let report = assess(&world.ev);
        assert_eq!(
            (report.verdict.kind, report.verdict.authority.clone()),
            (VerdictKind::LeaderNotPrimary, Some(name(2)))
        );
        assert_eq!(action(&report, 2), Action::Blocked);
    }
}

/// Its server runs and refuses everybody (57P03) for longer than a start usually takes.
#[test]
fn a_new_replica_that_replays_its_base_backup_is_not_erased() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    let one = world.get(2);
    control(one).backup_start = Some(at(7));
    one.server = Evidence::unread(
        UnreadReason::ServerError,
        "57P03: the database system is starting up",
    );
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 2)),
        (VerdictKind::Provable, Action::Wait)
    );
    assert!(!ids(&report).contains(&"cnpg-unfinished-backup"));
    assert!(report.diagnoses.iter().all(|one| !one.remedy.contains("destroy")));
    world.get(2).disk.processes = Evidence::unread(UnreadReason::Timeout, "x");
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
}

/// CNPG's manager sets a directory aside and clones beside it; the clone died.
#[rstest]
#[case(known(vec!["data volume: pgdata_20251120T074850Z".to_owned()]))]
#[case(known(vec!["data volume: pgdata.old".to_owned()]))]
#[case(known(vec!["data volume: pgdata.incoming-0191".to_owned()]))]
#[case(known(vec!["WAL volume: pg_wal_20251120T074850Z".to_owned()]))]
#[case(Evidence::unread(UnreadReason::Io, "x"))]
fn what_was_set_aside_may_hold_everything(#[case] leftovers: Evidence<Vec<String>>) {
    let mut unfinished = oracle::crash_loop();
    unfinished.get(2).disk.backup_label = known(label("streamed"));
    let mut empty = oracle::crash_loop();
    empty.get(2).disk.control = Evidence::absent("PGDATA is empty");
    empty.get(2).disk.wal_end = Evidence::absent("PGDATA is empty");
    for mut world in [unfinished, empty] {
        assert_eq!(action(&assess(&world.ev), 2), Action::Reseed);
        world.get(2).disk.leftovers = leftovers.clone();
        let report = assess(&world.ev);
        assert_eq!(
            (report.verdict.kind, action(&report, 2)),
            (VerdictKind::Undeterminable, Action::Blocked)
        );
        // Nor does the primary's lost directory make another instance the authority.
        world.resource().current_primary = Some(name(2));
        world.resource().target_primary = crate::evidence::cnpg::TargetPrimary::None;
        assert_eq!(assess(&world.ev).verdict.authority, None);
    }
}

/// An ordinary failover: the sender was cut off inside a record, and nobody committed anything there.
#[test]
fn what_was_received_may_end_inside_a_record() {
    let mut world = World::healthy(3);
    world.elect(2).leads(2, 2, &[(1, END)], END + 4096).streams(1);
    place(world.get(3), 1, &[], END);
    let one = world.get(3);
    one.disk.wal_end = Evidence::unread(UnreadReason::NotNeeded, "the server answers");
    if let Evidence::Known(known) = &mut one.server {
        known.value.receiver = None;
        known.value.receive = Some(at(END + 120));
        known.value.replay = Some(at(END));
    }
    assert_eq!(unscanned(&world.ev), [name(3)]);
    let mut scanned = world.clone();
    place(scanned.get(3), 1, &[], END);
    assert_eq!((unscanned(&scanned.ev), questions(&scanned.ev)), (vec![], vec![]));
    let report = assess(&scanned.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 3)),
        (VerdictKind::Provable, Action::Wait)
    );
    assert!(!ids(&report).contains(&"cnpg-replica-off-timeline"));
    // It could not be scanned, but nothing was committed there: it runs, so it gets the time that a reconnection takes.
    world.answer(|_| Some(0));
    world.get(3).standing_since = Some(ago(299_000));
    assert_eq!(action(&assess(&world.ev), 3), Action::Wait);
    world.get(3).standing_since = Some(ago(301_000));
    assert!(matches!(
        action(&assess(&world.ev), 3),
        Action::Rewind | Action::Reseed
    ));
}

/// Both drew one number; the second one stands by now, with a history that looks the same.
#[test]
fn who_was_seen_writing_the_primarys_timeline_is_no_follower_of_it() {
    let mut world = World::healthy(3);
    world
        .elect(2)
        .leads(2, 2, &[(1, END)], END + 8192)
        .streams(1)
        .streams(3)
        .crash_loop(3);
    let seen = |at| crate::evidence::cnpg::Remembered {
        timeline: tl(2),
        lsn: crate::testing::at(END + 4096),
        at,
    };
    world.get(3).last_written = Some(seen(ago(60_000)));
    world.get(3).remembered = Some(seen(ago(30_000)));
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Provable);
    for before in [None, Some(seen(ago(90_000)))] {
        world.get(3).remembered = before;
        world.answer(|_| Some(0));
        let report = assess(&world.ev);
        assert_eq!(report.verdict.kind, VerdictKind::LeaderNotPrimary, "{report:#?}");
        assert_eq!(action(&report, 3), Action::Blocked);
        world.get(2).commits_past.clear();
        world.answer(|_| Some(1));
        assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Diverged);
        world.get(2).commits_past.clear();
        // Unread, it is not excused by a row of its name either.
        let mut dark = world.clone();
        dark.streams(3).agent_down(3);
        dark.get(3).remembered = before;
        assert_eq!(assess(&dark.ev).verdict.kind, VerdictKind::Undeterminable);
    }
}

/// A rewind put the history right and left the old segments where they were.
#[test]
fn abandoned_wal_is_counted_told_and_not_erased() {
    let mut world = oracle::lose_slot();
    let mut rest = World::healthy(2);
    for (world, erased) in [(&mut world, true), (&mut rest, false)] {
        let one = world.get(2);
        if let Evidence::Known(known) = &mut one.disk.wal_end {
            known.value.abandoned = Some((tl(1), at(END)));
        }
        let asked = Question {
            instance: name(2),
            timeline: tl(1),
            past: at(END),
        };
        assert_eq!(questions(&world.ev), [asked]);
        for (count, told) in [(Some(3), true), (None, true), (Some(0), false)] {
            world.get(2).commits_past.clear();
            world.answer(|_| count);
            let report = assess(&world.ev);
            assert_eq!(report.verdict.kind, VerdictKind::Provable);
            assert_eq!(ids(&report).contains(&"cnpg-abandoned-wal"), told);
            let expected = match (erased, told) {
                (false, _) => Action::None,
                (true, true) => Action::Blocked,
                (true, false) => Action::Reseed,
            };
            assert_eq!(action(&report, 2), expected);
        }
    }
}
