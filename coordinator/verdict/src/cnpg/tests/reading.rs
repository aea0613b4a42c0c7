//! Read, unread, absent; starting, stuck, unreachable; space.

use rstest::rstest;

use super::{action, ids, oracle, state};
use crate::cnpg::assess;
use crate::evidence::cnpg::{
    AgentPresence, ClaimRole, ContainerState, DiskEvidence, PreviousRun, TargetPrimary,
};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, Severity, VerdictKind};
use crate::testing::{World, ago, known, name, node, pod, unread};

/// `c-2` without anything readable below its agent.
fn dark(reason: UnreadReason) -> World {
    let mut world = World::healthy(3);
    world.stop(2);
    unread(world.get(2), reason, AgentPresence::Connected);
    world.get(2).remembered = None;
    world
}

#[rstest]
#[case(UnreadReason::Io)]
#[case(UnreadReason::Corrupt)]
#[case(UnreadReason::UnknownVersion)]
#[case(UnreadReason::NotMounted)]
#[case(UnreadReason::Timeout)]
#[case(UnreadReason::Permission)]
#[case(UnreadReason::NoPod)]
#[case(UnreadReason::Api)]
fn unread_blocks_whatever_the_reason(#[case] reason: UnreadReason) {
    let report = assess(&dark(reason).ev);
    assert_eq!(
        (report.verdict.kind, report.exit_code()),
        (VerdictKind::Undeterminable, 4)
    );
    assert_eq!(action(&report, 2), Action::Blocked);
    assert!(ids(&report).contains(&"cnpg-instance-unreadable"));
}

#[test]
fn absent_is_proven_and_unknown_is_not() {
    let mut world = dark(UnreadReason::NotMounted);
    world.get(2).claims = Evidence::absent("no PVC");
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Provable);
    world.get(2).claims = Evidence::unread(UnreadReason::Api, "503");
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);

    let mut world = dark(UnreadReason::NotMounted);
    world.get(2).disk.control = Evidence::absent("PGDATA lists no global");
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
    world.get(2).disk.wal_end = Evidence::absent("PGDATA lists no pg_wal");
    // A directory that was set aside on the same volume could hold everything.
    assert_eq!(assess(&world.ev).verdict.kind, VerdictKind::Undeterminable);
    world.get(2).disk.leftovers = known(Vec::new());
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 2)),
        (VerdictKind::Provable, Action::Reseed)
    );
}

#[test]
fn an_unread_resource_or_primary_is_undeterminable() {
    let mut world = World::healthy(3);
    world.ev.resource = Evidence::unread(UnreadReason::Api, "connection refused");
    let report = assess(&world.ev);
    assert_eq!(report.exit_code(), 4);
    assert!(ids(&report).contains(&"cluster-unread"));

    let mut world = World::healthy(3);
    world.agent_down(1);
    let report = assess(&world.ev);
    assert_eq!(report.exit_code(), 4);
    assert_eq!(
        (action(&report, 2), state(&report, 2)),
        (Action::None, "streaming")
    );
    assert_eq!(ids(&report), ["agent-unreachable"]);

    let mut world = World::healthy(3);
    world.resource().current_primary = None;
    world.resource().target_primary = TargetPrimary::None;
    assert_eq!(assess(&world.ev).exit_code(), 4);

    let mut world = World::healthy(3);
    world.resource().instance_names.push(name(4));
    assert_eq!(assess(&world.ev).exit_code(), 4);
}

#[test]
fn no_agent_is_told_and_does_not_block_what_the_primary_sees() {
    let mut world = World::healthy(3);
    unread(world.get(3), UnreadReason::NoAgent, AgentPresence::None);
    world.get(3).remembered = None;
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 3), report.exit_code()),
        (VerdictKind::Provable, Action::None, 6)
    );
    assert_eq!(ids(&report), ["agent-missing"]);
    assert_eq!(report.diagnoses[0].remedy, "hasteward get agents");
}

#[test]
fn a_server_that_runs_and_stays_silent_is_not_a_dead_one() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    world.get(2).server = Evidence::unread(UnreadReason::ServerError, "sorry, too many clients already");
    let report = assess(&world.ev);
    assert_eq!((state(&report, 2), action(&report, 2)), ("running", Action::Wait));
}

#[rstest]
#[case::one_restart(PreviousRun { exit: 137, started_at: ago(9_000_000), finished_at: ago(5_000) }, "starting", Action::Wait)]
#[case::loops(PreviousRun { exit: 1, started_at: ago(15_000), finished_at: ago(5_000) }, "crash-looping", Action::Restart)]
#[case::orderly(PreviousRun { exit: 0, started_at: ago(15_000), finished_at: ago(5_000) }, "starting", Action::Wait)]
fn one_restart_is_no_crash_loop(#[case] previous: PreviousRun, #[case] word: &str, #[case] expected: Action) {
    let mut world = World::healthy(3);
    world.restarted(2);
    pod(world.get(2)).restarts = 9;
    pod(world.get(2)).previous = Some(previous);
    let report = assess(&world.ev);
    assert_eq!((state(&report, 2), action(&report, 2)), (word, expected));
}

#[rstest]
#[case::image(ContainerState::Waiting { reason: "ImagePullBackOff".to_owned(), last_exit: None }, "stuck", Action::Blocked)]
#[case::creating(ContainerState::Waiting { reason: "ContainerCreating".to_owned(), last_exit: None }, "stuck", Action::Blocked)]
#[case::long_down(ContainerState::Running { since: ago(600_000) }, "down", Action::Restart)]
fn a_pod_that_does_not_come_up(
    #[case] container: ContainerState,
    #[case] word: &str,
    #[case] expected: Action,
) {
    let mut world = World::healthy(3);
    world.stop(2);
    pod(world.get(2)).container = container;
    let report = assess(&world.ev);
    assert_eq!((state(&report, 2), action(&report, 2)), (word, expected));
    assert_eq!(ids(&report), ["cnpg-replica-down"]);
}

/// A pod deleted a moment ago, its replica seen streaming: the operator makes it again.
#[test]
fn a_deleted_pod_is_waited_for() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    let one = world.get(2);
    one.pod = Evidence::absent("no pod c-2");
    one.disk = DiskEvidence::unread(UnreadReason::NoPod, "no pod c-2");
    one.server = Evidence::unread(UnreadReason::NoPod, "no pod c-2");
    let report = assess(&world.ev);
    assert_eq!(
        (action(&report, 2), report.exit_code()),
        (Action::Wait, 0),
        "{report:#?}"
    );
    if let Some(seen) = &mut world.get(2).remembered {
        seen.at = ago(3_600_000);
    }
    let report = assess(&world.ev);
    assert_eq!(
        (action(&report, 2), report.exit_code(), state(&report, 2)),
        (Action::Wait, 6, "no pod")
    );
}

#[test]
fn the_primary_down_is_critical_and_never_restarted() {
    let mut world = World::healthy(3);
    world.crash_loop(1).disconnect(2).disconnect(3);
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 1)),
        (VerdictKind::Provable, Action::Blocked)
    );
    assert_eq!(report.diagnoses[0].id, "cnpg-primary-down");
    assert_eq!(report.diagnoses[0].severity, Severity::Critical);
    assert!(
        report
            .instances
            .iter()
            .all(|one| matches!(one.action, Action::Blocked | Action::Wait)),
        "{report:#?}"
    );
    // A replica that is down has nobody to follow yet.
    world.crash_loop(2);
    assert_eq!(action(&assess(&world.ev), 2), Action::Wait);
    // A moment after it fell, with a replica that is broken: still nothing is erased.
    world.crash_loop(2);
    world.get(2).disk.control = Evidence::unread(UnreadReason::Corrupt, "CRC");
    assert_eq!(action(&assess(&world.ev), 2), Action::Blocked);
}

#[test]
fn a_hung_primary_is_not_restarted() {
    let mut world = World::healthy(2);
    world.get(1).server = Evidence::unread(UnreadReason::ServerHung, "no answer in 2 s");
    let report = assess(&world.ev);
    assert_eq!(
        (action(&report, 1), ids(&report)),
        (Action::Wait, vec!["server-slow"])
    );
    world.get(1).standing_since = Some(ago(61_000));
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 1)),
        (VerdictKind::Provable, Action::Blocked)
    );
    assert!(ids(&report).contains(&"server-hung"));
}

#[rstest]
#[case(1 << 20, 60_000, &["wal-volume-full"])]
#[case(100 << 20, 60_000, &["disk-low"])]
#[case(110 << 20, 60_000, &[])]
#[case(700 << 20, 6_000, &["inodes-low"])]
fn space(#[case] free: u64, #[case] inodes: u64, #[case] expected: &[&str]) {
    let mut world = World::healthy(2);
    for volume in &mut world.get(2).disk.volumes {
        if let (ClaimRole::Wal, Evidence::Known(known)) = (&volume.role, &mut volume.space) {
            known.value.free_bytes = free;
            known.value.free_inodes = inodes;
        }
    }
    let report = assess(&world.ev);
    assert_eq!(ids(&report), expected);
    assert_eq!(report.instances[1].disk[1].wal_bytes, Some(5 << 24));
}

#[test]
fn a_replica_on_a_full_volume_is_not_started_again() {
    let mut world = oracle::crash_loop();
    for volume in &mut world.get(2).disk.volumes {
        if let Evidence::Known(known) = &mut volume.space {
            known.value.free_bytes = 0;
        }
    }
    let report = assess(&world.ev);
    assert_eq!(action(&report, 2), Action::Blocked);
    assert!(ids(&report).contains(&"wal-volume-full") && !ids(&report).contains(&"cnpg-replica-down"));
}

#[test]
fn a_node_that_is_gone_is_waited_for() {
    let mut world = oracle::node_down();
    world.get(2).node = Evidence::absent("no node n2");
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2)),
        ("unreachable", Action::Wait)
    );
    let mut world = oracle::node_down();
    world.get(2).remembered = None;
    assert_eq!(node(world.get(2)).agent, AgentPresence::Unreachable);
    assert_eq!(assess(&world.ev).exit_code(), 4);
}

#[test]
fn archiving_that_fails_is_told() {
    let mut world = World::healthy(2);
    world.resource().archiving_failing = Some("403 from the bucket".to_owned());
    let report = assess(&world.ev);
    assert_eq!((ids(&report), report.exit_code()), (vec!["archiving-failing"], 6));
}

#[test]
fn a_volume_is_not_gone_while_its_files_are_read() {
    let mut world = oracle::crash_loop();
    world.get(2).claims = Evidence::absent("no PVC in this list");
    assert_eq!(action(&assess(&world.ev), 2), Action::Restart);
    world.get(2).claims = known(Vec::new());
    assert_eq!(action(&assess(&world.ev), 2), Action::Restart);
}

#[test]
fn an_instance_that_is_only_named_yet_is_being_made() {
    let mut world = World::healthy(3);
    world.disconnect(3);
    let one = world.get(3);
    one.pod = Evidence::absent("no pod c-3 is owned by the cluster");
    one.claims = Evidence::absent("no PVC of c-3 is owned by the cluster");
    one.node = Evidence::absent("bound to no node");
    one.disk = DiskEvidence::unread(UnreadReason::NoPod, "c-3 has no pod on a node");
    one.server = Evidence::unread(UnreadReason::NoPod, "c-3 has no pod on a node");
    one.remembered = None;
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 3), action(&report, 3)),
        ("volume gone", Action::Recreate)
    );
    world.resource().phase = Some("Creating a new replica".to_owned());
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 3), action(&report, 3), report.exit_code()),
        ("joining", Action::Wait, 0)
    );
}

/// The primary keeps the row of a stopped standby until its timeout.
#[test]
fn a_stale_row_hides_no_hung_server() {
    let mut world = World::healthy(3);
    world.get(2).server = Evidence::unread(UnreadReason::ServerHung, "no answer in 2 s");
    if let Evidence::Known(known) = &mut world.get(2).disk.processes {
        known.value.postmaster.as_mut().unwrap().stopped = true;
    }
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2)),
        ("server hung", Action::Restart)
    );
    assert_eq!(ids(&report), ["server-hung"]);
}

/// A busy server that answers late is not stopped for it.
#[test]
fn one_slow_answer_is_no_hung_server() {
    let mut world = World::healthy(3);
    world.get(2).server = Evidence::unread(UnreadReason::ServerHung, "no answer in 2 s");
    let slow = |world: &World, expected: Action| {
        let report = assess(&world.ev);
        assert_eq!(
            (ids(&report), action(&report, 2)),
            (vec!["server-slow"], expected)
        );
        assert_eq!(report.diagnoses[0].severity, Severity::Warning);
    };
    slow(&world, Action::None);
    // The primary sees it flush, however long it has stood there.
    world.get(2).standing_since = Some(ago(600_000));
    slow(&world, Action::None);
    // Nobody sees it work, but only once.
    world.disconnect(2);
    world.get(2).standing_since = None;
    slow(&world, Action::Wait);
    world.get(2).standing_since = Some(ago(59_000));
    slow(&world, Action::Wait);
    world.get(2).standing_since = Some(ago(61_000));
    let report = assess(&world.ev);
    assert_eq!(
        (ids(&report), action(&report, 2)),
        (vec!["server-hung"], Action::Restart)
    );
}

#[test]
fn a_primary_that_does_not_serve_is_never_passed_over() {
    let said = |world: &World| {
        let report = assess(&world.ev);
        assert_ne!(report.exit_code(), 0);
        let found = report
            .diagnoses
            .iter()
            .find(|one| one.target == Some(name(1)))
            .unwrap();
        (found.id.clone(), found.severity)
    };
    // On its way up.
    let mut world = World::healthy(2);
    world.restarted(1).disconnect(2);
    assert_eq!(said(&world), ("cnpg-primary-down".to_owned(), Severity::Warning));
    // Runs for an hour and refuses everybody.
    let mut world = World::healthy(2);
    world.get(1).server = Evidence::unread(
        UnreadReason::ServerError,
        "57P03: the database system is shutting down",
    );
    assert_eq!(said(&world), ("cnpg-primary-down".to_owned(), Severity::Critical));
    // Serves, and will never start again.
    let mut world = World::healthy(2);
    world.get(1).disk.control = Evidence::unread(UnreadReason::Corrupt, "CRC");
    assert_eq!(
        said(&world),
        ("cnpg-control-file-corrupt".to_owned(), Severity::Critical)
    );
    assert_eq!(action(&assess(&world.ev), 1), Action::None);
}

#[test]
fn a_deleted_pod_that_does_not_end_is_told() {
    let mut world = World::healthy(3);
    world.stop(2);
    pod(world.get(2)).terminating = true;
    pod(world.get(2)).delete_by = Some(ago(60_000));
    assert_eq!(state(&assess(&world.ev), 2), "starting");
    pod(world.get(2)).delete_by = Some(ago(400_000));
    let report = assess(&world.ev);
    assert_eq!(
        (state(&report, 2), action(&report, 2), ids(&report)),
        ("stuck", Action::Blocked, vec!["cnpg-replica-down"])
    );
}

#[test]
fn a_standby_that_received_nothing_yet_is_scanned() {
    let mut world = World::healthy(3);
    world.disconnect(2);
    let one = world.get(2);
    one.disk.wal_end = Evidence::unread(UnreadReason::NotNeeded, "the server answers");
    assert_eq!(crate::cnpg::unscanned(&world.ev), Vec::new());
    if let Evidence::Known(known) = &mut world.get(2).server {
        known.value.receive = None;
    }
    assert_eq!(crate::cnpg::unscanned(&world.ev), [name(2)]);
    // Not scanned, but seen: neither the verdict nor the instance suffers.
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 2)),
        (VerdictKind::Provable, Action::Wait)
    );
}
