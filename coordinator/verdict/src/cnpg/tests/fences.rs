//! Fences, pause, hibernation, replica clusters: respected and told.

use super::{action, ids, oracle, state};
use crate::cnpg::assess;
use crate::evidence::cnpg::{DiskEvidence, Fences, TargetPrimary};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, Severity, VerdictKind};
use crate::testing::{World, known, name};

#[test]
fn a_fence_keeps_its_instance_and_carries_the_command() {
    let report = assess(&oracle::fence().ev);
    assert_eq!((state(&report, 2), action(&report, 2)), ("fenced", Action::None));
    assert_eq!(
        report.diagnoses[0].remedy,
        "if nobody holds it any more: kubectl cnpg fencing off -n demo c c-2"
    );
}

#[test]
fn a_fenced_instance_that_needs_work_is_blocked() {
    let mut world = oracle::fence();
    world.get(2).disk.control = Evidence::unread(UnreadReason::Corrupt, "CRC");
    world.get(2).disk.wal_end = Evidence::absent("no WAL");
    world.get(2).disk.control = Evidence::absent("no control file");
    assert_eq!(action(&assess(&world.ev), 2), Action::Blocked);
}

#[test]
fn a_fenced_primary_is_critical() {
    let mut world = World::healthy(2);
    world.stop(1).fence(&[1]);
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, action(&report, 1)),
        (VerdictKind::Provable, Action::None)
    );
    assert_eq!(
        (report.diagnoses[0].id.as_str(), report.diagnoses[0].severity),
        ("stale-fence", Severity::Critical)
    );
    assert!(!ids(&report).contains(&"cnpg-primary-down"));
}

#[test]
fn everything_fenced_and_nonsense() {
    let mut world = World::healthy(2);
    world.stop(1).stop(2);
    world.resource().fences = Fences::All;
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.kind, report.exit_code()),
        (VerdictKind::Provable, 6)
    );
    assert!(report.instances.iter().all(|one| one.action == Action::None));
    world.resource().replica_switch_in_progress = true;
    assert!(!ids(&assess(&world.ev)).contains(&"stale-fence"));

    let mut world = World::healthy(2);
    world.resource().fences = Fences::Invalid("[c-2".to_owned());
    let report = assess(&world.ev);
    assert_eq!(
        (ids(&report), action(&report, 2)),
        (vec!["fence-invalid"], Action::None)
    );
}

#[test]
fn a_fence_on_nobody_is_told_once() {
    let mut world = World::healthy(2);
    world.fence(&[9]);
    let report = assess(&world.ev);
    assert_eq!((ids(&report), report.exit_code()), (vec!["stale-fence"], 6));
}

/// Nobody makes a deleted pod again while the operator is paused.
#[test]
fn a_restart_waits_for_the_pause_to_be_lifted() {
    let mut world = oracle::crash_loop();
    let remedy = |world: &World| {
        assess(&world.ev)
            .diagnoses
            .into_iter()
            .find(|one| one.id == "cnpg-replica-down")
            .unwrap()
            .remedy
    };
    assert_eq!(remedy(&world), "kubectl delete pod -n demo c-2");
    world.resource().reconciliation_disabled = true;
    assert!(remedy(&world).starts_with("first lift"));
}

#[test]
fn hibernation_is_no_alarm() {
    let mut world = World::healthy(2);
    world.resource().hibernation = true;
    for n in 1..=2 {
        let one = world.get(n);
        one.pod = Evidence::absent("no pod");
        one.disk = DiskEvidence::unread(UnreadReason::NoPod, "no pod");
        one.server = Evidence::unread(UnreadReason::NoPod, "no pod");
        one.node = Evidence::unread(UnreadReason::NoPod, "no pod");
    }
    let report = assess(&world.ev);
    assert_eq!((report.exit_code(), ids(&report)), (4, vec!["hibernated"]));
    assert!(
        report
            .instances
            .iter()
            .all(|one| one.action == Action::None && one.state == "hibernated")
    );
}

#[test]
fn roles_on_the_move_and_upgrades_are_waited_for() {
    let mut world = oracle::crash_loop();
    world.resource().target_primary = TargetPrimary::Instance(name(3));
    let report = assess(&world.ev);
    assert_eq!(
        (report.exit_code(), action(&report, 2), action(&report, 3)),
        (4, Action::Wait, Action::None)
    );
    world.resource().target_primary = TargetPrimary::Instance(name(1));
    world.resource().major_upgrade = true;
    let report = assess(&world.ev);
    assert_eq!((report.exit_code(), action(&report, 2)), (4, Action::Wait));
}

/// Instances that were read before and after a failover do not fit together, whatever each of them says.
#[test]
fn roles_that_moved_while_they_were_read_prove_nothing() {
    for mut world in [
        oracle::crash_loop(),
        oracle::lose_slot(),
        oracle::diverge_empty(),
        oracle::volume_gone(),
    ] {
        world.ev.roles_moved = true;
        let report = assess(&world.ev);
        assert_eq!(
            (report.verdict.kind, report.exit_code(), action(&report, 2)),
            (VerdictKind::Undeterminable, 4, Action::Wait)
        );
        assert!(ids(&report).contains(&"cnpg-role-moving"));
        assert!(
            report
                .instances
                .iter()
                .all(|one| matches!(one.action, Action::None | Action::Wait))
        );
    }
}

#[test]
fn a_designated_primary_stands_for_its_cluster() {
    let mut world = World::healthy(2);
    world.resource().replica_cluster = true;
    let row = world.get(1).server.clone();
    world.leads(1, 1, &[], crate::testing::SEGMENT * 5 + 1024);
    world.get(1).server = row;
    if let Evidence::Known(known) = &mut world.get(1).server {
        known.value.in_recovery = true;
        known.value.receive = known.value.flush.take();
    }
    let report = assess(&world.ev);
    assert_eq!(
        (report.verdict.authority.clone(), report.exit_code()),
        (Some(name(1)), 0),
        "{report:#?}"
    );
    assert_eq!(
        (state(&report, 1), ids(&report)),
        ("designated primary", vec!["replica-cluster"])
    );
    // Without that switch a primary in recovery accepts no writes, and that is an error.
    world.resource().replica_cluster = false;
    assert!(ids(&assess(&world.ev)).contains(&"cnpg-primary-in-recovery"));
}

#[test]
fn marks_of_a_dead_operation_are_told_with_the_way_to_remove_them() {
    let mut world = World::healthy(2);
    world.resource().operation_marks = vec!["clinic.hasteward.prplanit.com/operation=0191".to_owned()];
    let report = assess(&world.ev);
    assert!(
        report.diagnoses[0]
            .remedy
            .ends_with(" clinic.hasteward.prplanit.com/operation-"),
        "{report:#?}"
    );
    world.resource().operation_marks.clear();
    world.get(2).disk.leftovers = known(vec!["pgdata/global/pg_control.old".to_owned()]);
    assert_eq!(ids(&assess(&world.ev)), ["operation-leftovers"]);
}
