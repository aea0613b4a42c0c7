//! Histories, positions and who holds the data that counts.

use rstest::rstest;

use super::{action, ids, oracle, state};
use crate::cnpg::lineage::{Lineage, LineageGap, Parting};
use crate::cnpg::{Question, assess, position, questions};
use crate::evidence::cnpg::{ClusterState, HistoryFile};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, VerdictKind};
use crate::testing::{SEGMENT, World, ago, at, control, history, known, label, name, place, pod, tl};

const END: u64 = 5 * SEGMENT + 1024;

fn lineage(timeline: u32, switches: &[(u32, u64)]) -> Lineage {
    Lineage::of(tl(timeline), &known(vec![history(timeline, switches)])).unwrap()
}

#[rstest]
#[case::same(lineage(1, &[]), lineage(1, &[]), Parting::Same)]
#[case::same_grown(lineage(3, &[(1, 5), (2, 9)]), lineage(3, &[(1, 5), (2, 9)]), Parting::Same)]
#[case::descendant(lineage(2, &[(1, 5)]), lineage(1, &[]), Parting::At { fork: at(5), first_left: true, second_left: false })]
#[case::ancestor(lineage(1, &[]), lineage(2, &[(1, 5)]), Parting::At { fork: at(5), first_left: false, second_left: true })]
#[case::one_number_two_histories(lineage(2, &[(1, 5)]), lineage(2, &[(1, 7)]), Parting::At { fork: at(5), first_left: true, second_left: false })]
#[case::parted_apart(lineage(2, &[(1, 5)]), lineage(3, &[(1, 5)]), Parting::At { fork: at(5), first_left: true, second_left: true })]
#[case::earlier_fork(lineage(4, &[(1, 5), (2, 9)]), lineage(5, &[(1, 5), (2, 8)]), Parting::At { fork: at(8), first_left: false, second_left: true })]
#[case::grandparent(lineage(3, &[(1, 5), (2, 9)]), lineage(1, &[]), Parting::At { fork: at(5), first_left: true, second_left: false })]
#[case::measured_collision(lineage(3, &[(1, 0x3E43_7E78), (2, 0x4000_0000)]), lineage(3, &[(1, 0x3E47_D428)]), Parting::At { fork: at(0x3E43_7E78), first_left: true, second_left: false })]
#[case::unrelated(lineage(4, &[(3, 5)]), lineage(2, &[(1, 5)]), Parting::Unrelated)]
fn histories_are_compared_by_content(#[case] a: Lineage, #[case] b: Lineage, #[case] expected: Parting) {
    assert_eq!(a.part(&b), expected);
}

#[test]
fn only_the_file_of_the_own_timeline_counts() {
    // Fetched, and of a later restore: neither is this instance's history.
    let files = vec![
        history(3, &[(1, 4)]),
        history(2, &[(1, 5)]),
        history(4, &[(1, 2), (3, 3)]),
    ];
    let own = Lineage::of(tl(2), &known(files)).unwrap();
    assert_eq!(own.parent(), Some((tl(1), at(5))));
    assert_eq!(
        Lineage::of(tl(1), &Evidence::unread(UnreadReason::Io, "x"))
            .unwrap()
            .parent(),
        None
    );
}

#[test]
fn a_history_that_cannot_be_is_none() {
    let of = |file: HistoryFile| Lineage::of(file.timeline, &known(vec![file]));
    assert_eq!(of(history(2, &[])), Err(LineageGap::Impossible(tl(2))));
    assert_eq!(
        of(history(3, &[(2, 5), (1, 9)])),
        Err(LineageGap::Impossible(tl(3)))
    );
    assert_eq!(of(history(2, &[(2, 5)])), Err(LineageGap::Impossible(tl(2))));
    assert_eq!(
        Lineage::of(tl(2), &known(vec![])),
        Err(LineageGap::Missing(tl(2)))
    );
    let two = vec![history(2, &[(1, 5)]), history(2, &[(1, 6)])];
    assert_eq!(
        Lineage::of(tl(2), &known(two)),
        Err(LineageGap::Impossible(tl(2)))
    );
    let torn = HistoryFile {
        timeline: tl(2),
        switches: Evidence::unread(UnreadReason::Corrupt, "line 1"),
    };
    assert!(matches!(of(torn), Err(LineageGap::Unparsed { .. })));
}

#[test]
fn a_restore_to_before_a_known_fork_leaves_where_it_says_last() {
    let back = lineage(3, &[(1, 500), (2, 300)]);
    assert!(back.goes_backwards());
    assert_eq!(back.part(&lineage(1, &[])).fork(), Some(at(300)));
    assert_eq!(back.part(&lineage(2, &[(1, 500)])).fork(), Some(at(300)));
    assert!(!lineage(3, &[(1, 300), (2, 500)]).goes_backwards());
}

#[test]
fn the_timeline_is_the_newest_that_anything_proves() {
    // Promoted, not yet checkpointed: the checkpoint says 3, the recovery point 4.
    let mut world = World::healthy(1);
    let one = world.get(1);
    one.server = Evidence::unread(UnreadReason::ServerDown, "down");
    one.disk.wal_end = Evidence::unread(UnreadReason::Io, "x");
    control(one).checkpoint_timeline = tl(3);
    control(one).min_recovery = Some((at(0x4002_4F80), tl(4)));
    let found = position::own(one).unwrap();
    assert_eq!(
        (found.timeline, found.lsn, found.exact),
        (tl(4), at(0x4002_4F80), false)
    );
}

#[test]
fn the_end_of_wal_counts_and_not_the_checkpoint() {
    let mut world = World::healthy(2);
    world.elect(2).leads(2, 2, &[(1, END)], END + 4096);
    world.leads(1, 1, &[], END + 65536).crash_loop(1);
    // The checkpoint lies before the fork, the commits behind it.
    control(world.get(1)).checkpoint = at(END - 65536);
    control(world.get(1)).redo = at(END - 65536);
    let asked = questions(&world.ev);
    assert!(
        asked.contains(&Question {
            instance: name(1),
            timeline: tl(1),
            past: at(END)
        }),
        "{asked:?}"
    );
    assert!(
        asked.contains(&Question {
            instance: name(2),
            timeline: tl(2),
            past: at(END)
        }),
        "{asked:?}"
    );
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Diverged);
    // What could not be counted may hold anything.
    world.answer(|_| None);
    assert_eq!(questions(&world.ev), Vec::new());
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Diverged);
    assert_eq!(report.verdict.branches[1].commits_past_fork, None);
}

/// A control file without the end of WAL is a lower bound: it may condemn, it never acquits.
#[test]
fn a_checkpoint_alone_proves_nothing() {
    let mut world = oracle::crash_loop();
    let one = world.get(2);
    one.remembered = None;
    one.disk.wal_end = Evidence::unread(UnreadReason::Io, "pg_wal: input/output error");
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Undeterminable);
    assert_eq!(action(&report, 2), Action::Blocked);
    assert_eq!(report.exit_code(), 4);
}

#[test]
fn ending_exactly_at_the_fork_is_safe() {
    let mut world = World::healthy(2);
    world.elect(2).leads(2, 2, &[(1, END)], END + 4096);
    world.leads(1, 1, &[], END).crash_loop(1);
    assert_eq!(questions(&world.ev), Vec::new());
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Provable);
}

#[test]
fn a_stale_restore_with_nothing_past_the_fork_does_not_lead() {
    let mut world = World::healthy(2);
    world.disconnect(2);
    place(world.get(2), 2, &[(1, END - 4096)], END - 4096);
    world.stop(2);
    assert_eq!(assess(&world.ev).verdict.authority, Some(name(1)));
    // The same, but the stale one was made primary.
    world.elect(2).leads(2, 2, &[(1, END - 4096)], END - 4096);
    world.answer(|_| Some(3));
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.verdict.authority),
        (VerdictKind::LeaderNotPrimary, Some(name(1)))
    );
}

#[test]
fn a_replica_ahead_on_a_newer_timeline_leads() {
    let mut world = World::healthy(3);
    world.stop(1).disconnect(3).leads(2, 2, &[(1, END)], END + 8192);
    world.answer(|_| Some(2));
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.verdict.authority.clone()),
        (VerdictKind::LeaderNotPrimary, Some(name(2)))
    );
    assert!(ids(&report).contains(&"cnpg-authority-not-primary"));
    assert!(!ids(&report).contains(&"cnpg-authority-wal-trapped"));
}

#[test]
fn an_authority_that_cannot_start_for_space_is_trapped() {
    let mut world = oracle::failover(false);
    assert!(!ids(&assess(&world.ev)).contains(&"cnpg-authority-wal-trapped"));
    let pod = pod(world.get(1));
    pod.container = crate::evidence::cnpg::ContainerState::Waiting {
        reason: "CrashLoopBackOff".to_owned(),
        last_exit: Some(4),
    };
    world.get(1).disk.volumes.clear();
    assert!(ids(&assess(&world.ev)).contains(&"cnpg-authority-wal-trapped"));
}

#[test]
fn three_branches_have_no_leader_unless_one_holds_all() {
    // Both replicas were promoted apart from a dead primary, at different points.
    let mut world = World::healthy(3);
    world.stop(1);
    world
        .leads(2, 2, &[(1, END)], END + 8192)
        .leads(3, 3, &[(1, END - 512)], END + 8192);
    world.answer(|n| Some(if n == 1 { 0 } else { 4 }));
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Diverged);
    for n in 1..=3 {
        world.get(n).commits_past.clear();
    }
    world.answer(|n| Some(if n == 2 { 4 } else { 0 }));
    assert_eq!(assess(&world.ev).verdict.authority, Some(name(2)));
}

#[test]
fn one_number_drawn_twice_at_one_position_is_two_branches() {
    let mut world = World::healthy(3);
    world.elect(2).leads(2, 2, &[(1, END)], END + 4096);
    world.leads(3, 2, &[(1, END)], END + 4096);
    world.disconnect(1);
    place(world.get(1), 1, &[], END);
    world.answer(|_| Some(1));
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Diverged, "{report:#?}");
    // Also when the second writer is down by now.
    world.stop(3);
    assert_eq!(control(world.get(3)).state, ClusterState::InProduction);
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Diverged);
}

#[test]
fn a_replica_read_a_moment_later_is_no_alarm() {
    let mut world = World::healthy(3);
    world.leads(1, 1, &[], END - 100_000);
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.exit_code()),
        (VerdictKind::Provable, 0),
        "{report:#?}"
    );
    assert_eq!(questions(&world.ev), Vec::new());
    // Without a running primary nothing was written in between.
    world.stop(1);
    assert!(!questions(&world.ev).is_empty());
    assert_ne!(assess(&world.ev).verdict.kind, VerdictKind::Provable);
}

#[test]
fn all_empty_has_no_leader() {
    let mut world = World::healthy(2);
    for n in 1..=2 {
        world.stop(n);
        let one = world.get(n);
        one.disk.control = Evidence::absent("PGDATA is empty");
        one.disk.wal_end = Evidence::absent("pg_wal is not there");
    }
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.verdict.authority.clone()),
        (VerdictKind::Undeterminable, None)
    );
    assert_eq!(action(&report, 2), Action::Blocked);
}

#[test]
fn a_lost_primary_leaves_the_furthest_of_the_others() {
    let mut world = World::healthy(3);
    world.stop(1).stop(3);
    world.get(1).disk.control = Evidence::absent("PGDATA is empty");
    world.get(1).disk.wal_end = Evidence::absent("pg_wal is not there");
    place(world.get(3), 1, &[], END - 4096);
    world.answer(|_| Some(1));
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.verdict.authority.clone()),
        (VerdictKind::LeaderNotPrimary, Some(name(2)))
    );
    assert!(ids(&report).contains(&"cnpg-primary-lost"));
    assert!(
        report
            .instances
            .iter()
            .all(|one| !matches!(one.action, Action::Reseed | Action::Recreate))
    );
}

#[test]
fn another_system_stops_everything() {
    let mut world = oracle::crash_loop();
    let other = hasteward_proto::primitive::SystemId::new(7).unwrap();
    control(world.get(3)).system_id = other;
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Undeterminable);
    assert_eq!(
        (action(&report, 2), action(&report, 3)),
        (Action::Blocked, Action::Blocked)
    );
    assert!(ids(&report).contains(&"cnpg-system-id-mismatch"));
    // A primary that was initialised anew is the foreigner, not the replicas that hold the data.
    let mut world = World::healthy(2);
    if let Evidence::Known(known) = &mut world.get(1).server {
        known.value.system_id = other;
    }
    control(world.get(1)).system_id = other;
    let report = assess(&world.ev);
    assert_eq!(report.verdict.kind, VerdictKind::Undeterminable);
    assert!(report.instances.iter().all(|one| one.action != Action::Reseed));
}

#[rstest]
#[case("streamed")]
#[case("pg_rewind")]
fn an_unfinished_base_backup_neither_leads_nor_blocks(#[case] method: &str) {
    let mut world = oracle::crash_loop();
    place(world.get(2), 9, &[(1, 5)], END + (1 << 32));
    world.get(2).disk.backup_label = known(label(method));
    let report = assess(&world.ev);
    assert_eq!(report.verdict.authority, Some(name(1)));
    assert_eq!(action(&report, 2), Action::Reseed);
    assert!(ids(&report).contains(&"cnpg-unfinished-backup"));
    // A tool that is at work there is left alone.
    if let Evidence::Known(known) = &mut world.get(2).disk.processes {
        known.value.tools = vec!["pg_rewind".to_owned()];
    }
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
    // Whether there is a label is not known: then the control file says nothing.
    let mut world = oracle::crash_loop();
    world.get(2).remembered = None;
    world.get(2).disk.backup_label = Evidence::unread(UnreadReason::Io, "x");
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
    // The current primary as an unfinished copy: nobody supplies anything.
    let mut world = World::healthy(2);
    world.stop(1);
    control(world.get(1)).backup_start = Some(at(7));
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
}

#[test]
fn a_restore_to_an_earlier_point_is_told() {
    let mut world = World::healthy(1);
    world.leads(1, 3, &[(1, END - 10), (2, END - 20)], END + 10);
    assert_eq!(ids(&assess(&world.ev)), ["cnpg-timeline-rewind"]);
    world.leads(1, 3, &[(1, END - 20), (2, END - 10)], END + 10);
    assert_eq!(ids(&assess(&world.ev)), Vec::<&str>::new());
}

#[test]
fn what_was_seen_may_excuse_and_only_on_the_right_timeline() {
    let seen = |timeline: u32, lsn: u64| {
        let mut world = World::healthy(3);
        world
            .elect(2)
            .leads(2, 3, &[(1, END - 4096), (2, END)], END + 4096)
            .streams(1)
            .node_down(3);
        world.get(3).remembered = Some(crate::evidence::cnpg::Remembered {
            timeline: tl(timeline),
            lsn: at(lsn),
            at: ago(900_000),
        });
        assess(&world.ev).verdict.kind
    };
    assert_eq!(seen(3, END + 9), VerdictKind::Provable);
    // On the parent it is where it was at least: it may have received more, past the fork, before its node went down.
    assert_eq!(seen(2, END), VerdictKind::Undeterminable);
    assert_eq!(seen(2, END - 4096), VerdictKind::Undeterminable);
    assert_eq!(seen(2, END + 1), VerdictKind::Undeterminable);
    // It may have been the primary of timeline 2 in between.
    assert_eq!(seen(1, END - 5000), VerdictKind::Undeterminable);
    assert_eq!(seen(7, END), VerdictKind::Undeterminable);
    // The reason says why a sighting is not enough.
    let mut world = oracle::node_down();
    world.elect(1).leads(1, 2, &[(1, END)], END + 4096).streams(3);
    let report = assess(&world.ev);
    assert_eq!((report.exit_code(), action(&report, 2)), (4, Action::Blocked));
    assert!(
        report.verdict.reasons[0].contains("may have gone on from there"),
        "{report:#?}"
    );
}

#[test]
fn a_primary_that_wrote_since_is_not_excused_by_streaming_before() {
    let mut world = World::healthy(3);
    world
        .elect(2)
        .leads(2, 2, &[(1, END)], END + 4096)
        .streams(3)
        .node_down(1);
    let seen = |at| crate::evidence::cnpg::Remembered {
        timeline: tl(1),
        lsn: crate::testing::at(END - 9),
        at,
    };
    world.get(1).remembered = Some(seen(ago(90_000)));
    world.get(1).last_written = Some(seen(ago(60_000)));
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
}

#[test]
fn a_replica_off_the_timeline_is_rewound_only_where_that_is_proven() {
    let mut world = oracle::diverge_empty();
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2)),
        ("promoted", Action::Rewind)
    );
    // It has made a checkpoint since: the last one before the fork is not known.
    control(world.get(2)).checkpoint = at(END + 64);
    assert_eq!(action(&assess(&world.ev), 2), Action::Reseed);
    let mut world = oracle::diverge_empty();
    control(world.get(2)).wal_log_hints = false;
    control(world.get(2)).data_checksums = false;
    assert_eq!(action(&assess(&world.ev), 2), Action::Reseed);
}

/// A control file on the former timeline, the end of its WAL unread: it may reach past the fork, whatever was seen before.
#[test]
fn what_was_seen_on_the_parent_does_not_excuse_half_read_files() {
    let mut world = World::healthy(3);
    world
        .elect(2)
        .leads(2, 2, &[(1, END)], END + 4096)
        .streams(1)
        .stop(3);
    place(world.get(3), 1, &[], END + 512);
    assert!(world.get(3).remembered.is_some());
    world.get(3).disk.wal_end = Evidence::unread(UnreadReason::Io, "pg_wal: input/output error");
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
}
