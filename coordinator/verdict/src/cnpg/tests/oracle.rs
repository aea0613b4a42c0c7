//! Fault by fault: verdict, authority, diagnosis, action on the target, exit code.

use rstest::rstest;

use super::{action, ids};
use crate::cnpg::{assess, questions};
use crate::evidence::cnpg::{ClaimRole, ClusterState, Fences, Remembered, Signals, TargetPrimary, WalScan};
use crate::evidence::{Evidence, UnreadReason};
use crate::report::{Action, VerdictKind};
use crate::testing::{SEGMENT, World, ago, at, control, known, name, pod, tl, wal};

/// Where the primary of a healthy cluster is, and where histories part.
const FORK: u64 = 5 * SEGMENT + 1024;

pub(super) fn healthy() -> World {
    World::healthy(3)
}

/// `c-2` was promoted apart at the primary's end and wrote a little; the primary wrote on.
pub(super) fn diverge() -> World {
    let mut world = World::healthy(3);
    world.leads(1, 1, &[], FORK + 8192).streams(3);
    world.disconnect(2).leads(2, 2, &[(1, FORK)], FORK + 4096);
    world.answer(|_| Some(7));
    world
}

pub(super) fn diverge_empty() -> World {
    let mut world = diverge();
    for n in 1..=3 {
        world.get(n).commits_past.clear();
    }
    world.answer(|n| Some(if n == 2 { 0 } else { 7 }));
    world
}

/// `c-1` crashed with WAL that nobody received; `c-2` was promoted.
pub(super) fn failover(new_primary_wrote: bool) -> World {
    let mut world = World::healthy(3);
    world.elect(2).leads(2, 2, &[(1, FORK)], FORK + 4096).streams(3);
    world.leads(1, 1, &[], FORK + 65536).crash_loop(1);
    world.answer(|n| Some(if n == 2 && !new_primary_wrote { 0 } else { 11 }));
    world
}

pub(super) fn rewound() -> World {
    let mut world = World::healthy(3);
    world
        .elect(2)
        .leads(2, 2, &[(1, FORK)], FORK + 4096)
        .streams(3)
        .streams(1);
    world.get(1).last_written = Some(Remembered {
        timeline: tl(1),
        lsn: at(FORK + 65536),
        at: ago(120_000),
    });
    world
}

pub(super) fn crash_loop() -> World {
    let mut world = healthy();
    world.crash_loop(2);
    world
}

pub(super) fn lose_slot() -> World {
    let mut world = healthy();
    world.leads(1, 1, &[], 40 * SEGMENT).streams(3);
    world.disconnect(2).lose_wal(2, 30 * SEGMENT);
    world
}

pub(super) fn corrupt_control(readable: bool, seen: bool) -> World {
    let mut world = crash_loop();
    let one = world.get(2);
    one.disk.control = Evidence::unread(
        UnreadReason::Corrupt,
        "global/pg_control: CRC is wrong in two equal reads",
    );
    if !seen {
        one.remembered = None;
    }
    if let (true, Evidence::Known(known)) = (readable, &mut one.disk.wal_end) {
        known.value.method = WalScan::Pages;
    } else {
        one.disk.wal_end = Evidence::unread(UnreadReason::Io, "pg_wal: input/output error");
    }
    world
}

pub(super) fn fill_disk() -> World {
    let mut world = healthy();
    world.stop(1);
    let one = world.get(1);
    pod(one).container = crate::evidence::cnpg::ContainerState::Waiting {
        reason: "CrashLoopBackOff".to_owned(),
        last_exit: Some(4),
    };
    wal(one).ready = 37;
    for volume in &mut one.disk.volumes {
        if let (ClaimRole::Wal, Evidence::Known(known)) = (&volume.role, &mut volume.space) {
            known.value.free_bytes = 1 << 20;
        }
    }
    world.disconnect(2).disconnect(3);
    world
}

pub(super) fn fence() -> World {
    let mut world = healthy();
    world.stop(2).fence(&[2]);
    world
}

pub(super) fn paused() -> World {
    let mut world = healthy();
    world.resource().reconciliation_disabled = true;
    world
}

pub(super) fn leftovers() -> World {
    let mut world = healthy();
    world.get(2).disk.leftovers = known(vec!["pgdata.incoming-0191".to_owned()]);
    world
}

pub(super) fn agent_down() -> World {
    let mut world = healthy();
    world.agent_down(2);
    world
}

pub(super) fn node_down() -> World {
    let mut world = healthy();
    world.node_down(2);
    world
}

pub(super) fn primary_node_down() -> World {
    let mut world = healthy();
    world.node_down(1);
    world.resource().target_primary = TargetPrimary::Pending;
    world.resource().phase = Some("Failing over".to_owned());
    world
}

pub(super) fn hang() -> World {
    let mut world = healthy();
    world.disconnect(2);
    let one = world.get(2);
    one.server = Evidence::unread(UnreadReason::ServerHung, "no answer in 2 s");
    if let Evidence::Known(known) = &mut one.disk.processes {
        known.value.postmaster.as_mut().unwrap().stopped = true;
    }
    world
}

pub(super) fn volume_gone() -> World {
    let mut world = healthy();
    world.stop(2);
    let one = world.get(2);
    crate::testing::unread(
        one,
        UnreadReason::NotMounted,
        crate::evidence::cnpg::AgentPresence::Connected,
    );
    one.claims = Evidence::absent("no PVC carries cnpg.io/instanceName=c-2");
    one.pod = Evidence::absent("no pod c-2");
    world
}

/// `c-2` was made primary in order; `c-1` restarts into its new role.
pub(super) fn switchover() -> World {
    let mut world = World::healthy(3);
    world.elect(2).leads(2, 2, &[(1, FORK)], FORK + 4096).streams(3);
    world.restarted(1);
    control(world.get(1)).state = ClusterState::ShutDown;
    world
}

/// Abrupt, but nothing was lost: the former primary is on its way back.
pub(super) fn failover_clean() -> World {
    let mut world = switchover();
    control(world.get(1)).state = ClusterState::InProduction;
    world
}

pub(super) fn replica_restarts() -> World {
    let mut world = healthy();
    world.restarted(3);
    world
}

pub(super) fn scale_up() -> World {
    let mut world = World::healthy(3);
    world.disconnect(3);
    let one = world.get(3);
    one.pod = Evidence::absent("no pod c-3");
    one.node = Evidence::unread(UnreadReason::NoPod, "no pod");
    one.disk = crate::evidence::cnpg::DiskEvidence::unread(UnreadReason::NoPod, "no pod c-3");
    one.server = Evidence::unread(UnreadReason::NoPod, "no pod c-3");
    one.remembered = None;
    if let Evidence::Known(known) = &mut one.claims {
        known.value[0].status = Some("initializing".to_owned());
    }
    world
}

#[rstest]
#[case::none(healthy(), VerdictKind::Provable, Some(1), None, 2, &[Action::None], 0)]
#[case::after_switchover(switchover(), VerdictKind::Provable, Some(2), None, 1, &[Action::Wait], 0)]
#[case::after_failover(failover_clean(), VerdictKind::Provable, Some(2), None, 1, &[Action::Wait], 0)]
#[case::replica_restarts(replica_restarts(), VerdictKind::Provable, Some(1), None, 3, &[Action::Wait], 0)]
#[case::scale_up(scale_up(), VerdictKind::Provable, Some(1), None, 3, &[Action::Wait], 0)]
#[case::crash_loop(crash_loop(), VerdictKind::Provable, Some(1), Some("cnpg-replica-down"), 2, &[Action::Restart], 6)]
#[case::lose_slot(lose_slot(), VerdictKind::Provable, Some(1), Some("cnpg-replica-missing-wal"), 2, &[Action::Reseed], 6)]
#[case::diverge(diverge(), VerdictKind::Diverged, None, Some("cnpg-split-brain-diverged"), 2, &[Action::Blocked], 6)]
#[case::diverge_empty(diverge_empty(), VerdictKind::Provable, Some(1), Some("cnpg-replica-off-timeline"), 2, &[Action::Rewind, Action::Reseed], 6)]
#[case::unreplicated_diverged(failover(true), VerdictKind::Diverged, None, Some("cnpg-unreplicated-commits"), 1, &[Action::Blocked], 6)]
#[case::unreplicated_leader(failover(false), VerdictKind::LeaderNotPrimary, Some(1), Some("cnpg-unreplicated-commits"), 1, &[Action::Blocked], 6)]
#[case::rewound(rewound(), VerdictKind::Provable, Some(2), Some("cnpg-history-lost"), 1, &[Action::None], 6)]
#[case::corrupt_control(corrupt_control(true, false), VerdictKind::Provable, Some(1), Some("cnpg-control-file-corrupt"), 2, &[Action::Reseed], 6)]
#[case::corrupt_unreadable(corrupt_control(false, false), VerdictKind::Undeterminable, None, Some("cnpg-instance-unreadable"), 2, &[Action::Blocked], 4)]
#[case::corrupt_seen(corrupt_control(false, true), VerdictKind::Provable, Some(1), Some("cnpg-control-file-corrupt"), 2, &[Action::Blocked], 6)]
#[case::fill_disk(fill_disk(), VerdictKind::Provable, Some(1), Some("wal-volume-full"), 1, &[Action::Blocked], 6)]
#[case::fence(fence(), VerdictKind::Provable, Some(1), Some("stale-fence"), 2, &[Action::None], 6)]
#[case::paused(paused(), VerdictKind::Provable, Some(1), Some("reconciliation-disabled"), 2, &[Action::None], 6)]
#[case::leftovers(leftovers(), VerdictKind::Provable, Some(1), Some("operation-leftovers"), 2, &[Action::None], 6)]
#[case::agent_down(agent_down(), VerdictKind::Provable, Some(1), Some("agent-unreachable"), 2, &[Action::None], 6)]
#[case::node_down(node_down(), VerdictKind::Provable, Some(1), Some("node-unreachable"), 2, &[Action::Wait], 6)]
#[case::primary_node_down(primary_node_down(), VerdictKind::Undeterminable, None, Some("failover-pending"), 1, &[Action::Wait], 4)]
#[case::hang(hang(), VerdictKind::Provable, Some(1), Some("server-hung"), 2, &[Action::Restart], 6)]
#[case::volume_gone(volume_gone(), VerdictKind::Provable, Some(1), Some("volume-gone"), 2, &[Action::Recreate], 6)]
fn row(
    #[case] world: World,
    #[case] kind: VerdictKind,
    #[case] authority: Option<u32>,
    #[case] diagnosis: Option<&str>,
    #[case] target: u32,
    #[case] actions: &[Action],
    #[case] exit: u8,
) {
    let report = assess(&world.ev);
    let text = format!("{report:#?}");
    assert!(questions(&world.ev).is_empty(), "{text}");
    assert_eq!(report.verdict.kind, kind, "{text}");
    assert_eq!(report.verdict.authority, authority.map(name), "{text}");
    match diagnosis {
        Some(id) => {
            let found = report
                .diagnoses
                .iter()
                .find(|one| one.id == id)
                .unwrap_or_else(|| panic!("{text}"));
            assert!(
                found.target.is_none() || found.target == Some(name(target)),
                "{text}"
            );
        }
        None => assert_eq!(ids(&report), Vec::<&str>::new(), "{text}"),
    }
    assert!(actions.contains(&action(&report, target)), "{text}");
    assert_eq!(report.exit_code(), exit, "{text}");
    let case = std::thread::current()
        .name()
        .and_then(|name| name.rsplit("::").next())
        .unwrap()
        .to_owned();
    let case = case
        .split_once('_')
        .and_then(|(_, rest)| rest.split_once('_'))
        .map_or(case.clone(), |(_, name)| name.to_owned());
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "snapshots" }, {
        insta::assert_json_snapshot!(format!("oracle_{case}"), report);
    });
}

#[test]
fn all_of_them_leave_the_healthy_alone() {
    for world in [
        crash_loop(),
        lose_slot(),
        diverge_empty(),
        corrupt_control(true, false),
        hang(),
        volume_gone(),
    ] {
        let report = assess(&world.ev);
        assert_eq!(action(&report, 1), Action::None);
        assert_eq!(action(&report, 3), Action::None);
    }
}

#[test]
fn ambiguous_states_print_no_destructive_command() {
    let mut fenced = diverge();
    fenced.fence(&[2]);
    let mut all = diverge();
    all.resource().fences = Fences::All;
    for world in [
        diverge(),
        failover(true),
        failover(false),
        corrupt_control(false, false),
        primary_node_down(),
        fenced,
        all,
    ] {
        for diagnosis in assess(&world.ev).diagnoses {
            for word in [
                "destroy",
                "delete",
                "unrecoverable",
                "fencing off",
                "fencedInstances-",
                "--force",
            ] {
                assert!(!diagnosis.remedy.contains(word), "{diagnosis:?}");
            }
        }
    }
}

#[test]
fn a_start_path_that_may_rewind_is_not_taken() {
    let mut world = crash_loop();
    world.get(2).disk.signals = Evidence::unread(UnreadReason::Io, "PGDATA: input/output error");
    assert_eq!(action(&assess(&world.ev), 2), Action::Blocked);
    world.get(2).disk.signals = known(Signals {
        standby: false,
        recovery: false,
    });
    assert!(matches!(
        action(&assess(&world.ev), 2),
        Action::Rewind | Action::Reseed
    ));
}
