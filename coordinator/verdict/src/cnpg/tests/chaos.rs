//! Changes to evidence, sensible or not, for the properties.

use hasteward_proto::primitive::{SystemId, UnixMillis};
use proptest::prelude::*;

use crate::evidence::cnpg::{
    AgentPresence, ClusterState, ContainerState, Fences, HistoryFile, InstanceEvidence, Remembered, Signals,
    StandbyState, Switch, TargetPrimary, WalEnd, WalScan,
};
use crate::evidence::{Evidence, UnreadReason};
use crate::testing::{SEGMENT, World, at, control, known, label, name, tl, unread};

const END: u64 = 5 * SEGMENT + 1024;

pub(super) fn reason() -> impl Strategy<Value = UnreadReason> {
    use UnreadReason as R;
    prop::sample::select(vec![
        R::Corrupt,
        R::UnknownVersion,
        R::NotMounted,
        R::TooLarge,
        R::WrongType,
        R::Refused,
        R::Permission,
        R::Io,
        R::Timeout,
        R::ServerDown,
        R::ServerHung,
        R::ServerError,
        R::NotNeeded,
        R::Depends,
        R::AgentUnreachable,
        R::NoAgent,
        R::NodeDown,
        R::NoPod,
        R::Api,
    ])
}

/// A position near the fork, or anywhere.
fn lsn() -> impl Strategy<Value = u64> {
    prop_oneof![
        END - 3..END + 3,
        (1u64..60).prop_map(|segment| segment * SEGMENT),
        1u64..=u64::MAX,
        Just(END),
    ]
}

fn timeline() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1u32..5, 1 => 1u32..=u32::MAX]
}

/// One change to evidence, sensible or not.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Unread(usize, UnreadReason),
    Absent(usize),
    Dark(UnreadReason, AgentPresence),
    WalEnd(u64, u32, WalScan, Option<u64>),
    Control(u64, u32, Option<(u64, u32)>, ClusterState, Option<u64>),
    History(u32, Vec<(u32, u64)>),
    Live(bool, Option<u32>, Option<u64>, bool),
    Signals(bool, bool),
    Label(&'static str),
    Seen(u32, u64, i64),
    Wrote(u32, u64, i64),
    Standing(i64),
    Container(ContainerState, u32, bool),
    Row(StandbyState),
    Counted(Option<u64>),
    Claims(bool, Option<String>),
    Oldest(u64),
    Space(u64, u64),
    Primary(u32),
    Target(Option<u32>),
    Switches([bool; 6]),
    Fence(Fences),
    NoResource(UnreadReason),
    System(u64),
    Tool,
    Moved,
    Aside(Option<String>),
    Paused,
}

fn container() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        any::<i64>().prop_map(|since| ContainerState::Running {
            since: UnixMillis(since)
        }),
        (
            "(CrashLoopBackOff|ContainerCreating|ImagePullBackOff|x)",
            any::<Option<i32>>()
        )
            .prop_map(|(reason, last_exit)| ContainerState::Waiting { reason, last_exit }),
        any::<i32>().prop_map(|exit| ContainerState::Terminated { exit }),
        Just(ContainerState::Unreported),
    ]
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    use prop::option::of;
    let method = prop::sample::select(vec![WalScan::Records, WalScan::Pages]);
    let state = prop::sample::select(vec![
        ClusterState::StartingUp,
        ClusterState::ShutDown,
        ClusterState::ShutDownInRecovery,
        ClusterState::ShuttingDown,
        ClusterState::InCrashRecovery,
        ClusterState::InArchiveRecovery,
        ClusterState::InProduction,
    ]);
    let row = prop::sample::select(vec![
        StandbyState::Startup,
        StandbyState::Catchup,
        StandbyState::Streaming,
        StandbyState::Other,
    ]);
    let fence = prop_oneof![
        Just(Fences::None),
        Just(Fences::All),
        Just(Fences::Some([name(2)].into())),
        ".*".prop_map(Fences::Invalid),
    ];
    let agent = prop::sample::select(vec![
        AgentPresence::Connected,
        AgentPresence::Unreachable,
        AgentPresence::None,
    ]);
    let first = prop_oneof![
        (0usize..ITEMS, reason()).prop_map(|(item, reason)| Change::Unread(item, reason)),
        (0usize..ITEMS).prop_map(Change::Absent),
        (reason(), agent).prop_map(|(reason, agent)| Change::Dark(reason, agent)),
        (lsn(), timeline(), method, of(1u64..3)).prop_map(|(a, b, c, d)| Change::WalEnd(a, b, c, d)),
        (lsn(), timeline(), of((lsn(), timeline())), state, of(lsn()))
            .prop_map(|(a, b, c, d, e)| Change::Control(a, b, c, d, e)),
        (timeline(), prop::collection::vec((timeline(), lsn()), 0..4))
            .prop_map(|(a, b)| Change::History(a, b)),
        (any::<bool>(), of(timeline()), of(lsn()), any::<bool>())
            .prop_map(|(a, b, c, d)| Change::Live(a, b, c, d)),
        any::<(bool, bool)>().prop_map(|(a, b)| Change::Signals(a, b)),
        prop::sample::select(vec!["streamed", "pg_rewind", "pg_start_backup"]).prop_map(Change::Label),
        (timeline(), lsn(), any::<i64>()).prop_map(|(a, b, c)| Change::Seen(a, b, c)),
        (timeline(), lsn(), any::<i64>()).prop_map(|(a, b, c)| Change::Wrote(a, b, c)),
    ];
    let second = prop_oneof![
        any::<i64>().prop_map(Change::Standing),
        (container(), any::<u32>(), any::<bool>()).prop_map(|(a, b, c)| Change::Container(a, b, c)),
        row.prop_map(Change::Row),
        of(0u64..3).prop_map(Change::Counted),
        (any::<bool>(), of("(initializing|ready|detached)")).prop_map(|(a, b)| Change::Claims(a, b)),
        lsn().prop_map(Change::Oldest),
        any::<(u64, u64)>().prop_map(|(a, b)| Change::Space(a, b)),
        (1u32..5).prop_map(Change::Primary),
        of(0u32..5).prop_map(Change::Target),
        any::<[bool; 6]>().prop_map(Change::Switches),
        fence.prop_map(Change::Fence),
        reason().prop_map(Change::NoResource),
        (1u64..3).prop_map(Change::System),
        Just(Change::Tool),
        Just(Change::Moved),
        of("pgdata(_1|.old|.incoming-1)").prop_map(Change::Aside),
        Just(Change::Paused),
    ];
    prop_oneof![first, second]
}

/// How many items of an instance [`lose`] knows.
pub(super) const ITEMS: usize = 14;

/// Make one item of an instance something else than known.
pub(super) fn lose(one: &mut InstanceEvidence, item: usize, reason: Option<UnreadReason>) {
    fn put<T>(slot: &mut Evidence<T>, reason: Option<UnreadReason>) {
        *slot = reason.map_or_else(
            || Evidence::absent("proven"),
            |reason| Evidence::unread(reason, "not read"),
        );
    }
    let disk = &mut one.disk;
    match item {
        0 => put(&mut one.pod, reason),
        1 => put(&mut one.claims, reason),
        2 => put(&mut one.node, reason),
        3 => put(&mut one.server, reason),
        4 => put(&mut disk.processes, reason),
        5 => put(&mut disk.control, reason),
        6 => put(&mut disk.signals, reason),
        7 => put(&mut disk.backup_label, reason),
        8 => put(&mut disk.histories, reason),
        9 => put(&mut disk.wal_end, reason),
        10 => put(&mut disk.wal, reason),
        11 => put(&mut disk.slots, reason),
        12 => one
            .commits_past
            .iter_mut()
            .for_each(|count| put(&mut count.commits, reason)),
        _ => put(&mut disk.leftovers, reason),
    }
}

/// Put `change` in, at `c-<n>` where it is about an instance.
pub(super) fn apply(world: &mut World, n: u32, change: Change) {
    to_cluster(world, n, &change);
    beside(world.get(n), &change);
    to_instance(world.get(n), change);
}

fn to_cluster(world: &mut World, n: u32, change: &Change) {
    if let Evidence::Known(known) = &mut world.ev.resource {
        let resource = &mut known.value;
        match change {
            Change::Primary(to) => resource.current_primary = (*to < 4).then(|| name(*to)),
            Change::Target(to) => {
                resource.target_primary = match to {
                    None => TargetPrimary::None,
                    Some(0) => TargetPrimary::Pending,
                    Some(to) => TargetPrimary::Instance(name(*to)),
                };
            }
            Change::Switches([paused, hibernates, replica, switches, upgrades, also]) => {
                resource.reconciliation_disabled = *paused;
                resource.hibernation = *hibernates && *also;
                resource.replica_cluster = *replica;
                resource.replica_switch_in_progress = *switches && *also;
                resource.major_upgrade = *upgrades && *also;
                resource.wal_archive = *also;
            }
            Change::Fence(fences) => resource.fences = fences.clone(),
            Change::System(id) => resource.system_id = SystemId::new(*id),
            _ => {}
        }
    }
    if matches!(change, Change::Moved) {
        world.ev.roles_moved = true;
    }
    if let Change::NoResource(reason) = change {
        world.ev.resource = Evidence::unread(*reason, "not read");
    }
    if let Change::Row(state) = change {
        for one in &mut world.ev.instances {
            if let Evidence::Known(known) = &mut one.server {
                known
                    .value
                    .standbys
                    .iter_mut()
                    .filter(|row| row.application_name == name(n).as_str())
                    .for_each(|row| row.state = *state);
            }
        }
    }
    if let Change::Counted(count) = change {
        let count = *count;
        world.answer(|_| count);
    }
}

fn beside(one: &mut InstanceEvidence, change: &Change) {
    match change {
        Change::Aside(path) => one.disk.leftovers = known(path.iter().cloned().collect()),
        Change::Paused => {
            if let Evidence::Known(known) = &mut one.server {
                known.value.replay_paused = true;
            }
        }
        _ => {}
    }
}

fn to_instance(one: &mut InstanceEvidence, change: Change) {
    let seen = |timeline, lsn, at: i64| {
        Some(Remembered {
            timeline: tl(timeline),
            lsn: crate::testing::at(lsn),
            at: UnixMillis(at),
        })
    };
    match change {
        Change::Unread(item, reason) => lose(one, item, Some(reason)),
        Change::Absent(item) => lose(one, item, None),
        Change::Dark(reason, agent) => unread(one, reason, agent),
        Change::WalEnd(end, timeline, method, id) => {
            one.disk.wal_end = known(WalEnd {
                end: at(end),
                timeline: tl(timeline),
                method,
                system_id: id.and_then(SystemId::new),
                abandoned: (end % 5 == 0).then(|| (tl(timeline), at(end))),
            });
        }
        Change::Control(lsn, timeline, recovered, state, backup) if one.disk.control.value().is_some() => {
            let control = control(one);
            control.checkpoint = at(lsn);
            control.checkpoint_timeline = tl(timeline);
            control.min_recovery = recovered.map(|(lsn, timeline)| (at(lsn), tl(timeline)));
            control.state = state;
            control.backup_start = backup.map(at);
            control.wal_segment_size = u32::try_from(lsn % 3).unwrap_or(0) << 24;
        }
        Change::History(timeline, switches) => {
            let switches = switches
                .into_iter()
                .map(|(parent, left)| Switch {
                    parent: tl(parent),
                    at: at(left),
                })
                .collect();
            one.disk.histories = known(vec![HistoryFile {
                timeline: tl(timeline),
                switches: known(switches),
            }]);
        }
        Change::Live(recovery, timeline, lsn, streams) => {
            if let Evidence::Known(known) = &mut one.server {
                let server = &mut known.value;
                server.in_recovery = recovery;
                server.timeline = timeline.map(tl);
                server.flush = lsn.map(at);
                server.receive = lsn.filter(|lsn| lsn % 2 == 0).map(at);
                server.replay = lsn.map(at);
                server.receiver = server.receiver.take().filter(|_| streams);
            }
        }
        Change::Signals(standby, recovery) => one.disk.signals = known(Signals { standby, recovery }),
        Change::Label(method) => one.disk.backup_label = known(label(method)),
        Change::Seen(timeline, lsn, at) => one.remembered = seen(timeline, lsn, at),
        Change::Wrote(timeline, lsn, at) => one.last_written = seen(timeline, lsn, at),
        Change::Standing(at) => one.standing_since = Some(UnixMillis(at)),
        Change::Container(container, restarts, ready) => {
            if let Evidence::Known(known) = &mut one.pod {
                let pod = &mut known.value;
                pod.container = container;
                pod.restarts = restarts;
                pod.ready = ready;
                pod.terminating = restarts % 7 == 0;
            }
        }
        Change::Claims(bound, status) => {
            if let Evidence::Known(known) = &mut one.claims {
                known.value.iter_mut().for_each(|claim| {
                    claim.bound = bound;
                    claim.status.clone_from(&status);
                });
            }
        }
        Change::Oldest(lsn) => {
            if let Evidence::Known(known) = &mut one.disk.wal {
                known.value.oldest = Some((at(lsn), tl(1)));
            }
        }
        Change::Space(free, total) => {
            for volume in &mut one.disk.volumes {
                if let Evidence::Known(known) = &mut volume.space {
                    known.value.free_bytes = free;
                    known.value.total_bytes = total;
                    known.value.free_inodes = total;
                    known.value.total_inodes = free;
                }
            }
        }
        Change::Tool => {
            if let Evidence::Known(known) = &mut one.disk.processes {
                known.value.tools.push("pg_rewind".to_owned());
            }
        }
        _ => {}
    }
}
