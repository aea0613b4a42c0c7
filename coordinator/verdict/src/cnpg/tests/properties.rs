//! What holds for all evidence.

use hasteward_proto::primitive::InstanceName;
use proptest::prelude::*;
use proptest::sample::Index;

use super::chaos::{ITEMS, apply, change, lose, reason};
use super::oracle;
use crate::cnpg::{Request, RequestKind, assess, plan, questions};
use crate::evidence::cnpg::{CnpgEvidence, DiskEvidence, InstanceEvidence, StandbyState, TargetPrimary};
use crate::evidence::{Evidence, UnreadReason};
use crate::gate::clear;
use crate::report::{Action, TriageReport, VerdictKind};
use crate::testing::{SEGMENT, World, known, label, name};

/// Evidence that no cluster ever gave, and some that one might.
fn chaos() -> impl Strategy<Value = World> {
    (0usize..12, prop::collection::vec((1u32..4, change()), 0..10)).prop_map(|(start, changes)| {
        let mut world = consistent(start);
        for (n, change) in changes {
            apply(&mut world, n, change);
        }
        world
    })
}

/// Evidence as a real cluster gives it, fault by fault.
fn consistent(start: usize) -> World {
    match start {
        0 => oracle::crash_loop(),
        1 => oracle::lose_slot(),
        2 => oracle::diverge(),
        3 => oracle::diverge_empty(),
        4 => oracle::failover(true),
        5 => oracle::failover(false),
        6 => oracle::corrupt_control(true, true),
        7 => oracle::switchover(),
        8 => oracle::volume_gone(),
        9 => oracle::hang(),
        10 => oracle::node_down(),
        _ => World::healthy(3),
    }
}

/// Two faults in one cluster: something broken beside something that is read or not.
fn two_faults() -> impl Strategy<Value = World> {
    (0usize..12, 0usize..6).prop_map(|(first, second)| {
        let mut world = consistent(first);
        match second {
            0 => {
                world.crash_loop(3);
            }
            1 => {
                world.disconnect(3).lose_wal(3, 40 * SEGMENT);
            }
            2 => {
                world.crash_loop(3);
                world.get(3).disk.control = Evidence::unread(UnreadReason::Corrupt, "CRC");
            }
            3 => {
                world.stop(3);
                world.get(3).disk.control = Evidence::absent("empty");
                world.get(3).disk.wal_end = Evidence::absent("empty");
            }
            4 => {
                world.stop(3);
                world.get(3).disk.backup_label = known(label("streamed"));
            }
            _ => {}
        }
        world
    })
}

/// How much an action takes away.
fn rank(action: Action) -> u8 {
    match action {
        Action::None | Action::Wait | Action::Blocked => 0,
        Action::Restart | Action::Rejoin => 1,
        Action::Rewind => 2,
        Action::Reseed => 3,
        Action::Recreate => 4,
    }
}

fn dark(one: &InstanceEvidence) -> bool {
    let disk: &DiskEvidence = &one.disk;
    one.server.value().is_none() && disk.control.value().is_none() && disk.wal_end.value().is_none()
}

fn sound(ev: &CnpgEvidence, report: &TriageReport) -> Result<(), TestCaseError> {
    prop_assert!(matches!(report.exit_code(), 0 | 4 | 6));
    prop_assert_eq!(report.instances.len(), ev.instances.len());
    let verdict = &report.verdict;
    let find = |wanted: &InstanceName| ev.instances.iter().find(|one| one.name == *wanted);
    if let Some(authority) = &verdict.authority {
        prop_assert!(matches!(
            verdict.kind,
            VerdictKind::Provable | VerdictKind::LeaderNotPrimary
        ));
        let one = find(authority).expect("the authority exists");
        prop_assert!(!dark(one), "an unread authority");
        let label = one
            .disk
            .backup_label
            .value()
            .is_some_and(|label| label.method != "pg_start_backup");
        prop_assert!(
            !label || one.server.value().is_some_and(|server| !server.in_recovery),
            "an unfinished authority"
        );
    }
    let primary = ev
        .resource
        .value()
        .and_then(|resource| resource.current_primary.as_ref());
    if verdict.kind == VerdictKind::Provable {
        prop_assert_eq!(verdict.authority.as_ref(), primary);
        let rows = primary
            .and_then(find)
            .and_then(|one| one.server.value())
            .map(|server| server.standbys.clone());
        let streams = |one: &InstanceEvidence| {
            rows.iter()
                .flatten()
                .any(|row| row.application_name == one.name.as_str() && row.state == StandbyState::Streaming)
        };
        for one in ev
            .instances
            .iter()
            .filter(|one| Some(&one.name) != primary && dark(one))
        {
            let nothing = one.claims.is_absent()
                || one.claims.value().is_some()
                || (one.disk.control.is_absent() && one.disk.wal_end.is_absent())
                || one.disk.backup_label.value().is_some();
            prop_assert!(
                streams(one) || one.remembered.is_some() || nothing,
                "{} could be ahead",
                one.name
            );
        }
    } else {
        prop_assert!(
            report.instances.iter().all(|one| rank(one.action) == 0),
            "unsafe and destructive"
        );
    }
    for one in &report.instances {
        let action = rank(one.action);
        let fenced = ev
            .resource
            .value()
            .is_some_and(|resource| resource.fences.holds(&one.instance));
        prop_assert!(
            action == 0 || Some(&one.instance) != primary,
            "the primary is never touched"
        );
        prop_assert!(
            action <= 1 || one.running != Some(true) || !fenced,
            "a fenced instance is never erased"
        );
        let signal = find(&one.instance)
            .and_then(|ev| ev.disk.signals.value())
            .is_some_and(|signals| signals.standby);
        prop_assert!(
            one.action != Action::Restart || signal,
            "a start path that may rewind"
        );
    }
    for diagnosis in &report.diagnoses {
        prop_assert!(
            !diagnosis.remedy.is_empty() && !diagnosis.remedy.contains("hasteward repair"),
            "{:?}",
            diagnosis
        );
        let erases =
            diagnosis.remedy.contains("cnpg destroy") || diagnosis.remedy.contains("unrecoverable=true");
        let action = diagnosis
            .target
            .as_ref()
            .and_then(|target| report.instances.iter().find(|one| one.instance == *target));
        prop_assert!(
            !erases || action.is_some_and(|one| rank(one.action) >= 2),
            "{:?}",
            diagnosis
        );
    }
    Ok(())
}

/// Nothing is done without a primary that serves, on evidence of two worlds, or to what was not read; and none of it is
/// passed over in silence.
fn careful(ev: &CnpgEvidence, report: &TriageReport) -> Result<(), TestCaseError> {
    let find = |wanted: &InstanceName| ev.instances.iter().find(|one| one.name == *wanted);
    let primary = ev
        .resource
        .value()
        .and_then(|resource| resource.current_primary.as_ref());
    let resource = ev.resource.value();
    let asleep = resource.is_some_and(|resource| resource.hibernation);
    let serves = primary
        .and_then(find)
        .and_then(|one| one.server.value())
        .is_some_and(|server| {
            server.in_recovery == resource.is_some_and(|resource| resource.replica_cluster)
                || !server.in_recovery
        });
    prop_assert!(
        report.exit_code() != 0 || serves || asleep,
        "nothing is said of a primary that does not serve"
    );
    prop_assert!(
        serves || report.instances.iter().all(|one| rank(one.action) == 0),
        "nothing is done without a primary that serves"
    );
    prop_assert!(
        !ev.roles_moved || report.instances.iter().all(|one| rank(one.action) == 0),
        "nothing is done on evidence of two worlds"
    );
    for one in &report.instances {
        let erased = matches!(one.action, Action::Rewind | Action::Reseed);
        let unread = find(&one.instance).is_some_and(|ev| {
            dark(ev) && !ev.disk.wal_end.is_absent() && ev.disk.backup_label.value().is_none()
        });
        prop_assert!(
            !erased || !unread,
            "{} is erased and nothing of it was read",
            one.instance
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_judged_soundly(world in chaos(), turn in any::<Index>()) {
        let report = assess(&world.ev);
        sound(&world.ev, &report)?;
        careful(&world.ev, &report)?;
        let mut turned = world.ev.clone();
        let middle = turn.index(turned.instances.len());
        turned.instances.rotate_left(middle);
        prop_assert_eq!(&assess(&turned), &report);
        prop_assert_eq!(questions(&turned), questions(&world.ev));
        turned.instances.reverse();
        prop_assert_eq!(&assess(&turned), &report);
    }

    #[test]
    fn questions_end(world in chaos(), count in prop::option::of(0u64..3)) {
        let mut world = world;
        world.answer(|_| count);
        prop_assert_eq!(questions(&world.ev), Vec::new());
    }

    /// The gate passes nothing onto the primary, nor anything unforced that triage would not do.
    #[test]
    fn the_gate_holds(world in chaos(), target in prop::option::of(1u32..5), force in any::<bool>()) {
        let request = Request { kind: RequestKind::Repair, target: target.map(name), force };
        let plan = plan(&world.ev, &request);
        let Ok(cleared) = clear(&world.ev, &request, &plan) else { return Ok(()) };
        let report = assess(&world.ev);
        let resource = world.ev.resource.value().expect("an unread resource clears nothing");
        for step in cleared.steps() {
            prop_assert_ne!(Some(&step.instance), resource.current_primary.as_ref());
            prop_assert_ne!(&TargetPrimary::Instance(step.instance.clone()), &resource.target_primary);
            prop_assert!(!resource.fences.holds(&step.instance));
            if !force {
                let own = report.instances.iter().find(|one| one.instance == step.instance).expect("it exists");
                prop_assert_eq!(own.action, step.action);
                prop_assert_eq!(report.verdict.kind, VerdictKind::Provable);
            }
        }
    }

    /// Knowing less of one instance never makes what is done to another worse.
    #[test]
    fn not_knowing_never_erases(world in two_faults(), n in 1u32..4, item in 0usize..ITEMS, reason in reason()) {
        let before = assess(&world.ev);
        if before.verdict.authority == Some(name(n)) {
            return Ok(());
        }
        let mut less = world.clone();
        lose(less.get(n), item, Some(reason));
        let after = assess(&less.ev);
        for (was, is) in before.instances.iter().zip(&after.instances).filter(|(was, _)| was.instance != name(n)) {
            prop_assert!(rank(is.action) <= rank(was.action), "{}: {:?} became {:?}\n{:#?}", was.instance, was.action, is.action, after.verdict);
        }
    }
}
