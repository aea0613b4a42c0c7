//! The gate table, row by row.

use rstest::rstest;

use super::oracle;
use crate::cnpg::{Plan, Request, RequestKind, Step, plan};
use crate::evidence::cnpg::{Fences, Remembered, TargetPrimary};
use crate::evidence::{Evidence, UnreadReason};
use crate::gate::{Code, clear};
use crate::report::Action;
use crate::testing::{World, ago, at, name, tl};

fn request(target: Option<u32>, force: bool) -> Request {
    Request {
        kind: RequestKind::Repair,
        target: target.map(name),
        force,
    }
}

/// `Ok(steps)` or `Err((code, overridable))` for a plan made from the same evidence.
fn ask(world: &World, target: Option<u32>, force: bool) -> Result<usize, (Code, bool)> {
    let request = request(target, force);
    let plan = plan(&world.ev, &request);
    match clear(&world.ev, &request, &plan) {
        Ok(cleared) => Ok(cleared.steps().len()),
        Err(refusal) => Err((refusal.code, refusal.overridable)),
    }
}

fn hot(change: impl FnOnce(&mut crate::evidence::cnpg::ClusterResource)) -> World {
    let mut world = oracle::lose_slot();
    change(world.resource());
    world
}

fn moved() -> World {
    let mut world = oracle::lose_slot();
    world.ev.roles_moved = true;
    world
}

/// Stopped by a signal, while the primary still lists it.
fn stale_row() -> World {
    let mut world = World::healthy(3);
    world.get(2).server = Evidence::unread(UnreadReason::ServerHung, "no answer in 2 s");
    if let Evidence::Known(known) = &mut world.get(2).disk.processes {
        known.value.postmaster.as_mut().unwrap().stopped = true;
    }
    world
}

#[rstest]
#[case::plain(oracle::lose_slot(), None, false, Ok(1))]
#[case::plain_targeted(oracle::lose_slot(), Some(2), false, Ok(1))]
#[case::nothing_to_do(World::healthy(3), None, false, Ok(0))]
#[case::split_untargeted(oracle::diverge(), None, false, Err((Code::SplitBrain, false)))]
#[case::split_targeted(oracle::diverge(), Some(2), false, Err((Code::SplitBrain, true)))]
#[case::split_forced(oracle::diverge(), Some(2), true, Ok(1))]
#[case::force_without_target(oracle::diverge(), None, true, Err((Code::ForceNeedsTarget, false)))]
#[case::primary(oracle::lose_slot(), Some(1), false, Err((Code::TargetIsPrimary, false)))]
#[case::primary_forced(oracle::lose_slot(), Some(1), true, Err((Code::TargetIsPrimary, false)))]
#[case::authority(oracle::failover(false), Some(1), false, Err((Code::TargetIsAuthority, false)))]
#[case::authority_forced(oracle::failover(false), Some(1), true, Err((Code::TargetIsAuthority, false)))]
#[case::former_primary_forced(oracle::failover(true), Some(1), true, Ok(1))]
#[case::leader_untargeted(oracle::failover(false), None, false, Err((Code::AuthorityNotPrimary, false)))]
#[case::healthy(World::healthy(3), Some(2), false, Err((Code::TargetHealthy, true)))]
#[case::healthy_forced(World::healthy(3), Some(2), true, Ok(1))]
#[case::stale_row(stale_row(), Some(2), false, Ok(1))]
#[case::unknown(World::healthy(3), Some(8), true, Err((Code::TargetUnknown, false)))]
#[case::undeterminable(oracle::corrupt_control(false, false), None, false, Err((Code::Undeterminable, false)))]
#[case::undeterminable_target(oracle::corrupt_control(false, false), Some(2), false, Err((Code::Undeterminable, true)))]
#[case::undeterminable_forced(oracle::corrupt_control(false, false), Some(2), true, Ok(1))]
#[case::failover_pending(hot(|r| r.target_primary = TargetPrimary::Pending), Some(2), true, Err((Code::RoleMoving, false)))]
#[case::handover(hot(|r| r.target_primary = TargetPrimary::Instance(name(3))), Some(2), true, Err((Code::RoleMoving, false)))]
#[case::moved(moved(), Some(2), true, Err((Code::RoleMoving, false)))]
#[case::target_primary(hot(|r| r.target_primary = TargetPrimary::Instance(name(2))), Some(2), true, Err((Code::RoleMoving, false)))]
#[case::hibernation(hot(|r| r.hibernation = true), Some(2), true, Err((Code::Hibernation, false)))]
#[case::replica_switch(hot(|r| r.replica_switch_in_progress = true), None, false, Err((Code::ReplicaSwitch, false)))]
#[case::major_upgrade(hot(|r| r.major_upgrade = true), Some(2), true, Err((Code::MajorUpgrade, false)))]
#[case::paused(hot(|r| r.reconciliation_disabled = true), Some(2), true, Err((Code::Paused, false)))]
#[case::all_fenced(hot(|r| r.fences = Fences::All), Some(2), true, Err((Code::Fenced, false)))]
#[case::target_fenced(hot(|r| r.fences = Fences::Some([name(2)].into())), Some(2), true, Err((Code::Fenced, false)))]
#[case::other_fenced(hot(|r| r.fences = Fences::Some([name(3)].into())), Some(2), false, Ok(1))]
fn table(
    #[case] world: World,
    #[case] target: Option<u32>,
    #[case] force: bool,
    #[case] expected: Result<usize, (Code, bool)>,
) {
    assert_eq!(ask(&world, target, force), expected);
}

#[test]
fn no_donor_aborts_even_when_forced() {
    let mut world = oracle::lose_slot();
    world.stop(1);
    assert_eq!(ask(&world, Some(2), true), Err((Code::NoHealthyDonor, false)));
    // Not even a restart.
    let mut world = oracle::crash_loop();
    let request = request(Some(2), false);
    let restart = plan(&world.ev, &request);
    assert_eq!(restart.steps[0].action, Action::Restart);
    world.stop(1);
    assert_eq!(
        clear(&world.ev, &request, &restart)
            .map_err(|refusal| refusal.code)
            .map(|_| ()),
        Err(Code::NoHealthyDonor)
    );
}

/// An unread third instance stops nobody where it can be neither authority nor target.
#[test]
fn an_unread_bystander() {
    let dark = |timeline: u32, history: &[(u32, u64)]| {
        let mut world = World::healthy(4);
        let end = 40 * crate::testing::SEGMENT;
        world
            .leads(1, timeline, history, end)
            .streams(3)
            .streams(4)
            .crash_loop(2);
        world.get(2).disk.histories = world.get(1).disk.histories.clone();
        world.agent_down(4).disconnect(4);
        world.get(4).server = Evidence::unread(UnreadReason::AgentUnreachable, "x");
        world.get(4).remembered = None;
        world
    };
    let world = dark(1, &[]);
    let cut = |world: &World| {
        // Triage offers nothing while undeterminable; the plan is a person's.
        let basis = plan(&world.ev, &request(Some(2), true)).steps[0].basis.clone();
        let plan = Plan {
            steps: vec![Step {
                instance: name(2),
                action: Action::Restart,
                basis,
            }],
        };
        clear(&world.ev, &request(Some(2), false), &plan)
            .map(|_| ())
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(cut(&world), Ok(()));
    // On a second timeline it may have been the primary of the first one.
    let mut world = dark(2, &[(1, 5 * crate::testing::SEGMENT + 1024)]);
    assert_eq!(cut(&world), Err(Code::Undeterminable));
    // Unless another is known to have been.
    let wrote = Remembered {
        timeline: tl(1),
        lsn: at(1000),
        at: ago(1),
    };
    world.get(3).last_written = Some(wrote);
    assert_eq!(cut(&world), Ok(()));
    world.get(4).last_written = Some(wrote);
    assert_eq!(cut(&world), Err(Code::Undeterminable));
    // A read instance that holds commits which the primary lacks is no bystander.
    let mut world = dark(1, &[]);
    let end = 40 * crate::testing::SEGMENT;
    world
        .disconnect(3)
        .leads(3, 2, &[(1, end)], end + 8192)
        .answer(|_| Some(1));
    assert_eq!(cut(&world), Err(Code::Undeterminable));
}

/// The gate believes no plan: each of these was never proposed by triage.
#[test]
fn a_wrong_plan_is_refused() {
    let refused = |world: &World, n: u32, action: Action| {
        let request = request(Some(n), true);
        let basis = plan(&world.ev, &request)
            .steps
            .first()
            .map(|step| step.basis.clone())
            .unwrap();
        let plan = Plan {
            steps: vec![Step {
                instance: name(n),
                action,
                basis,
            }],
        };
        clear(&world.ev, &request, &plan)
            .map(|_| ())
            .map_err(|refusal| refusal.code)
    };
    let mut no_signal = oracle::crash_loop();
    no_signal.get(2).disk.signals = Evidence::unread(UnreadReason::Io, "x");
    assert_eq!(refused(&no_signal, 2, Action::Restart), Err(Code::NotProven));
    assert_eq!(
        refused(&oracle::crash_loop(), 2, Action::Recreate),
        Err(Code::NotProven)
    );
    assert_eq!(
        refused(&oracle::crash_loop(), 2, Action::Rejoin),
        Err(Code::NotProven)
    );
    assert_eq!(refused(&oracle::volume_gone(), 2, Action::Recreate), Ok(()));

    // Another directory lies beside an empty one; only a person may say that it is worth nothing.
    let mut beside = oracle::crash_loop();
    let basis = plan(&beside.ev, &request(Some(2), true)).steps[0].basis.clone();
    beside.get(2).disk.control = Evidence::absent("PGDATA is empty");
    beside.get(2).disk.wal_end = Evidence::absent("PGDATA is empty");
    beside.get(2).disk.leftovers = crate::testing::known(vec!["data volume: pgdata_1".to_owned()]);
    let reseed = Plan {
        steps: vec![Step {
            instance: name(2),
            action: Action::Reseed,
            basis,
        }],
    };
    assert_eq!(
        clear(&beside.ev, &request(Some(2), false), &reseed)
            .map(|_| ())
            .map_err(|refusal| refusal.code),
        Err(Code::Undeterminable)
    );

    // Its server runs and refuses everybody: it may be replaying the base backup that it was made from.
    let mut replays = oracle::crash_loop();
    replays.get(2).disk.backup_label = crate::testing::known(crate::testing::label("streamed"));
    let unforced = request(Some(2), false);
    let reseed = plan(&replays.ev, &unforced);
    assert_eq!(reseed.steps[0].action, Action::Reseed);
    replays.get(2).disk.processes = World::healthy(3).get(2).disk.processes.clone();
    assert_eq!(
        clear(&replays.ev, &unforced, &reseed)
            .map(|_| ())
            .map_err(|refusal| refusal.code),
        Err(Code::Undeterminable)
    );

    // WAL that only it has, on a timeline that its history left.
    let mut left = oracle::lose_slot();
    let unforced = request(Some(2), false);
    let reseed = plan(&left.ev, &unforced);
    if let Evidence::Known(known) = &mut left.get(2).disk.wal_end {
        known.value.abandoned = Some((tl(1), at(1000)));
    }
    left.answer(|_| Some(1));
    assert_eq!(
        clear(&left.ev, &unforced, &reseed)
            .map(|_| ())
            .map_err(|refusal| (refusal.code, refusal.overridable)),
        Err((Code::SplitBrain, true))
    );

    let world = oracle::lose_slot();
    let mut elsewhere = plan(&world.ev, &request(Some(2), false));
    elsewhere.steps[0].instance = name(3);
    assert_eq!(
        clear(&world.ev, &request(Some(2), true), &elsewhere)
            .unwrap_err()
            .code,
        Code::NotProven
    );
    let mut other = plan(&world.ev, &request(Some(2), false));
    other.steps[0].basis.system_id = hasteward_proto::primitive::SystemId::new(1);
    assert_eq!(
        clear(&world.ev, &request(Some(2), true), &other)
            .unwrap_err()
            .code,
        Code::NotProven
    );
}

#[test]
fn what_force_overrode_is_kept_for_the_journal() {
    let world = oracle::diverge();
    let request = request(Some(2), true);
    let cleared = clear(&world.ev, &request, &plan(&world.ev, &request)).unwrap();
    assert!(
        cleared
            .overridden()
            .iter()
            .any(|refusal| refusal.code == Code::SplitBrain)
    );
}
