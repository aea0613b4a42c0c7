//! Builders of evidence for tests: a healthy cluster, and every fault as it shows in evidence.
//!
//! Numbers: WAL segments of 16 MiB; the primary of [`World::healthy`] is `c-1` on timeline 1 at segment 5.

use std::collections::BTreeSet;

use hasteward_proto::primitive::{
    ClusterRef, InstanceName, Lsn, NodeName, PodUid, SystemId, TimelineId, UnixMillis,
};

use crate::evidence::cnpg::{
    AgentPresence, BackupLabel, Claim, ClaimRole, ClusterResource, ClusterState, CnpgEvidence, Commits,
    CommitsPast, ContainerState, ControlFile, DiskEvidence, DiskSlot, DiskSlotState, Fences, HistoryFile,
    InstanceEvidence, Node, Pod, Postmaster, PreviousRun, Processes, Receiver, Remembered, Server,
    ServerSlot, Signals, SlotWal, Space, Standby, StandbyState, Switch, TargetPrimary, VolumeSpace,
    WalDirectory, WalEnd, WalScan,
};
use crate::evidence::{Evidence, UnreadReason};

/// When the evidence of every test is collected.
pub const NOW: UnixMillis = UnixMillis(1_763_600_000_000);
/// Bytes of a WAL segment.
pub const SEGMENT: u64 = 16 << 20;
/// The system of every healthy instance.
pub const SYSTEM: u64 = 7_401_234_567_890_123_456;

/// The position `bytes`.
///
/// # Panics
/// On zero.
#[must_use]
pub fn at(bytes: u64) -> Lsn {
    Lsn::new(bytes).expect("a position is not zero")
}

/// Timeline `id`.
///
/// # Panics
/// On zero.
#[must_use]
pub fn tl(id: u32) -> TimelineId {
    TimelineId::new(id).expect("a timeline is not zero")
}

/// Instance `c-<n>`.
///
/// # Panics
/// Never: the name is valid for every number.
#[must_use]
pub fn name(n: u32) -> InstanceName {
    InstanceName::new(&format!("c-{n}")).expect("a valid name")
}

/// Read just now.
pub fn known<T>(value: T) -> Evidence<T> {
    Evidence::known(value, "test", NOW)
}

/// `millis` before [`NOW`].
#[must_use]
pub fn ago(millis: i64) -> UnixMillis {
    UnixMillis(NOW.0 - millis)
}

/// The history of `timeline`: `(parent, left at)`, oldest first.
#[must_use]
pub fn history(timeline: u32, switches: &[(u32, u64)]) -> HistoryFile {
    let switches = switches
        .iter()
        .map(|&(parent, left)| Switch {
            parent: tl(parent),
            at: at(left),
        })
        .collect();
    HistoryFile {
        timeline: tl(timeline),
        switches: known(switches),
    }
}

/// Evidence of a cluster `demo/c`, to be broken by its methods.
#[derive(Debug, Clone)]
pub struct World {
    /// The evidence as it stands.
    pub ev: CnpgEvidence,
}

impl World {
    /// `n` instances on timeline 1; `c-1` is the primary at the start of segment 5 plus 1 KiB, the others stream.
    #[must_use]
    pub fn healthy(n: u32) -> Self {
        let resource = ClusterResource {
            uid: "5c0f2f5c-0000-4000-8000-000000000001".to_owned(),
            resource_version: "42".to_owned(),
            wanted_instances: n,
            ha_slots: true,
            phase: Some("Cluster in healthy state".to_owned()),
            current_primary: Some(name(1)),
            target_primary: TargetPrimary::Instance(name(1)),
            timeline: Some(tl(1)),
            system_id: SystemId::new(SYSTEM),
            instance_names: (1..=n).map(name).collect(),
            ready_instances: n,
            ..ClusterResource::default()
        };
        let ev = CnpgEvidence {
            cluster: ClusterRef {
                namespace: "demo".to_owned(),
                name: "c".to_owned(),
            },
            collected_at: NOW,
            resource: known(resource),
            instances: (1..=n).map(instance).collect(),
            roles_moved: false,
        };
        let mut world = Self { ev };
        world.leads(1, 1, &[], 5 * SEGMENT + 1024);
        for replica in 2..=n {
            world.streams(replica);
        }
        world
    }

    /// The cluster resource.
    ///
    /// # Panics
    /// Where a test made it unread.
    pub fn resource(&mut self) -> &mut ClusterResource {
        match &mut self.ev.resource {
            Evidence::Known(known) => &mut known.value,
            _ => panic!("the resource is not known"),
        }
    }

    /// Instance `c-<n>`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn get(&mut self, n: u32) -> &mut InstanceEvidence {
        let name = name(n);
        self.ev
            .instances
            .iter_mut()
            .find(|one| one.name == name)
            .expect("the instance exists")
    }

    /// `c-<n>` runs as a primary on this timeline with this history, up to `end`.
    pub fn leads(&mut self, n: u32, timeline: u32, switches: &[(u32, u64)], end: u64) -> &mut Self {
        let one = self.get(n);
        place(one, timeline, switches, end);
        control(one).state = ClusterState::InProduction;
        control(one).min_recovery = None;
        one.disk.signals = known(Signals::default());
        one.server = known(Server {
            in_recovery: false,
            flush: Some(at(end)),
            ..server(timeline)
        });
        self
    }

    /// `c-<n>` is the current primary, by the operator.
    pub fn elect(&mut self, n: u32) -> &mut Self {
        let resource = self.resource();
        resource.current_primary = Some(name(n));
        resource.target_primary = TargetPrimary::Instance(name(n));
        self
    }

    /// `c-<n>` follows the current primary: same timeline, same end, rows and slot on the primary.
    ///
    /// # Panics
    /// Where the primary was made unread.
    pub fn streams(&mut self, n: u32) -> &mut Self {
        let primary = self.primary();
        let leader = self.get(primary).clone();
        let wal = leader.disk.wal_end.value().expect("the primary's end is known");
        let (timeline, end) = (wal.timeline, wal.end);
        let one = self.get(n);
        place(one, timeline.get(), &[], end.bytes());
        one.disk.histories = leader.disk.histories.clone();
        // A standby's checkpoint stays behind, and its timeline too.
        control(one).checkpoint_timeline = tl(1);
        let receiver = Receiver {
            streaming: true,
            timeline: Some(timeline),
            flushed: Some(end),
        };
        one.server = known(Server {
            receive: Some(end),
            replay: Some(end),
            receiver: Some(receiver),
            ..server(timeline.get())
        });
        one.remembered = Some(Remembered {
            timeline,
            lsn: end,
            at: ago(10_000),
        });
        let slot = name(n).cnpg_slot_name();
        if let Evidence::Known(known) = &mut self.get(primary).server {
            let server = &mut known.value;
            server
                .standbys
                .retain(|row| row.application_name != name(n).as_str());
            server.slots.retain(|own| own.name != slot);
            server.standbys.push(Standby {
                application_name: name(n).as_str().to_owned(),
                state: StandbyState::Streaming,
                flush: Some(end),
                replay: Some(end),
            });
            server.slots.push(ServerSlot {
                name: slot,
                active: true,
                restart: Some(end),
                wal_status: SlotWal::Kept,
            });
        }
        self
    }

    /// The primary knows nothing of `c-<n>` streaming; its slot stays.
    pub fn disconnect(&mut self, n: u32) -> &mut Self {
        let primary = self.primary();
        if let Evidence::Known(known) = &mut self.get(primary).server {
            known
                .value
                .standbys
                .retain(|row| row.application_name != name(n).as_str());
            let slot = name(n).cnpg_slot_name();
            known
                .value
                .slots
                .iter_mut()
                .filter(|own| own.name == slot)
                .for_each(|own| own.active = false);
        }
        if let Evidence::Known(known) = &mut self.get(n).server {
            known.value.receiver = None;
        }
        self
    }

    /// The server of `c-<n>` does not run; its pod stays up.
    pub fn stop(&mut self, n: u32) -> &mut Self {
        self.disconnect(n);
        let one = self.get(n);
        one.server = Evidence::unread(UnreadReason::ServerDown, "no postmaster in the pod");
        one.disk.processes = known(Processes {
            manager: true,
            postmaster: None,
            tools: Vec::new(),
        });
        pod(one).ready = false;
        self
    }

    /// `c-<n>` dies some seconds after each start.
    pub fn crash_loop(&mut self, n: u32) -> &mut Self {
        self.stop(n);
        let pod = pod(self.get(n));
        pod.container = ContainerState::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            last_exit: Some(137),
        };
        pod.restarts = 6;
        pod.previous = Some(PreviousRun {
            exit: 137,
            started_at: ago(42_000),
            finished_at: ago(40_000),
        });
        self
    }

    /// The container of `c-<n>` was started a few seconds ago, after a long and orderly run.
    pub fn restarted(&mut self, n: u32) -> &mut Self {
        self.stop(n);
        let pod = pod(self.get(n));
        pod.container = ContainerState::Running { since: ago(4_000) };
        pod.restarts = 1;
        pod.previous = Some(PreviousRun {
            exit: 0,
            started_at: ago(9_000_000),
            finished_at: ago(5_000),
        });
        self
    }

    /// The slot of `c-<n>` is gone and the primary keeps WAL from `oldest` on only.
    pub fn lose_wal(&mut self, n: u32, oldest: u64) -> &mut Self {
        let primary = self.primary();
        let slot = name(n).cnpg_slot_name();
        let leader = self.get(primary);
        if let Evidence::Known(known) = &mut leader.server {
            known.value.slots.retain(|own| own.name != slot);
        }
        if let Evidence::Known(known) = &mut leader.disk.slots {
            known.value.retain(|own| own.name != slot);
        }
        wal(leader).oldest = Some((at(oldest), tl(1)));
        self
    }

    /// Nothing on the node of `c-<n>` answers any more; the primary lost the connection.
    pub fn node_down(&mut self, n: u32) -> &mut Self {
        self.disconnect(n);
        let one = self.get(n);
        node(one).ready = false;
        unread(one, UnreadReason::NodeDown, AgentPresence::Unreachable);
        pod(one).ready = false;
        self
    }

    /// The agent on the node of `c-<n>` does not answer; its server goes on.
    pub fn agent_down(&mut self, n: u32) -> &mut Self {
        unread(
            self.get(n),
            UnreadReason::AgentUnreachable,
            AgentPresence::Unreachable,
        );
        self
    }

    /// The number of the current primary.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn primary(&self) -> u32 {
        let resource = self.ev.resource.value().expect("the resource is known");
        resource
            .current_primary
            .as_ref()
            .and_then(InstanceName::ordinal)
            .expect("a primary is named")
    }

    /// Answer every open question with this many commits an instance, `None` = unread.
    pub fn answer(&mut self, count: impl Fn(u32) -> Option<u64>) -> &mut Self {
        for question in crate::cnpg::questions(&self.ev) {
            let n = question.instance.ordinal().unwrap_or_default();
            let commits = match count(n) {
                Some(count) => {
                    let span = (count > 0).then(|| (ago(600_000), ago(300_000)));
                    known(Commits { count, span })
                }
                None => Evidence::unread(UnreadReason::Io, "a segment is not readable"),
            };
            self.get(n).commits_past.push(CommitsPast {
                timeline: question.timeline,
                past: question.past,
                commits,
            });
        }
        self
    }

    /// Fence these.
    pub fn fence(&mut self, members: &[u32]) -> &mut Self {
        self.resource().fences = Fences::Some(members.iter().copied().map(name).collect::<BTreeSet<_>>());
        self
    }
}

/// The control file of an instance.
///
/// # Panics
/// Where a test made it unread.
pub fn control(one: &mut InstanceEvidence) -> &mut ControlFile {
    match &mut one.disk.control {
        Evidence::Known(known) => &mut known.value,
        _ => panic!("the control file is not known"),
    }
}

/// The pod of an instance.
///
/// # Panics
/// Where a test made it unread.
pub fn pod(one: &mut InstanceEvidence) -> &mut Pod {
    match &mut one.pod {
        Evidence::Known(known) => &mut known.value,
        _ => panic!("the pod is not known"),
    }
}

/// The node of an instance.
///
/// # Panics
/// Where a test made it unread.
pub fn node(one: &mut InstanceEvidence) -> &mut Node {
    match &mut one.node {
        Evidence::Known(known) => &mut known.value,
        _ => panic!("the node is not known"),
    }
}

/// The WAL directory of an instance.
///
/// # Panics
/// Where a test made it unread.
pub fn wal(one: &mut InstanceEvidence) -> &mut WalDirectory {
    match &mut one.disk.wal {
        Evidence::Known(known) => &mut known.value,
        _ => panic!("the WAL directory is not known"),
    }
}

/// Everything below the agent of this instance is unread.
pub fn unread(one: &mut InstanceEvidence, reason: UnreadReason, agent: AgentPresence) {
    let detail = match reason {
        UnreadReason::NodeDown => "its node is not ready",
        UnreadReason::NoAgent => "its node has no agent",
        _ => "its agent does not answer",
    };
    one.disk = DiskEvidence::unread(reason, detail);
    one.server = Evidence::unread(reason, detail);
    if let Evidence::Known(known) = &mut one.node {
        known.value.agent = agent;
    }
}

/// Put the files of an instance on this timeline, up to `end`, as a standby's.
///
/// # Panics
/// Where `end` is zero.
pub fn place(one: &mut InstanceEvidence, timeline: u32, switches: &[(u32, u64)], end: u64) {
    let checkpoint = end.saturating_sub(4096).max(1);
    one.disk.control = known(ControlFile {
        system_id: SystemId::new(SYSTEM).expect("not zero"),
        version: 1700,
        state: ClusterState::InArchiveRecovery,
        updated_at: ago(20_000),
        checkpoint: at(checkpoint),
        redo: at(checkpoint.saturating_sub(64).max(1)),
        checkpoint_timeline: tl(timeline),
        min_recovery: Some((at(checkpoint + 512), tl(timeline))),
        backup_start: None,
        backup_end_required: false,
        wal_log_hints: true,
        data_checksums: true,
        wal_segment_size: u32::try_from(SEGMENT).expect("16 MiB"),
    });
    one.disk.signals = known(Signals {
        standby: true,
        recovery: false,
    });
    one.disk.histories = if switches.is_empty() {
        known(Vec::new())
    } else {
        known(vec![history(timeline, switches)])
    };
    one.disk.wal_end = known(WalEnd {
        end: at(end),
        timeline: tl(timeline),
        method: WalScan::Records,
        system_id: SystemId::new(SYSTEM),
        abandoned: None,
    });
}

fn server(timeline: u32) -> Server {
    Server {
        system_id: SystemId::new(SYSTEM).expect("not zero"),
        version_num: 170_006,
        in_recovery: true,
        timeline: Some(tl(timeline)),
        flush: None,
        receive: None,
        replay: None,
        replay_paused: false,
        receiver: None,
        standbys: Vec::new(),
        slots: Vec::new(),
        archive_enabled: true,
        archive_failing: None,
        database_bytes: Some(7 << 20),
    }
}

/// An instance with a running pod on node `n<n>`; its data is put in place afterwards.
fn instance(n: u32) -> InstanceEvidence {
    let node_name = NodeName::new(&format!("n{n}")).expect("a valid name");
    let claim = |suffix: &str, role| Claim {
        name: format!("c-{n}{suffix}"),
        role,
        volume: Some(format!("pv-{n}{suffix}")),
        bound: true,
        terminating: false,
        status: Some("ready".to_owned()),
        requested_bytes: Some(1 << 30),
    };
    let space = |role| VolumeSpace {
        role,
        space: known(Space {
            total_bytes: 1 << 30,
            free_bytes: 700 << 20,
            total_inodes: 65_536,
            free_inodes: 60_000,
            read_only: false,
        }),
    };
    let slot = |of: u32| DiskSlot {
        name: name(of).cnpg_slot_name(),
        state: known(DiskSlotState {
            restart: Some(at(5 * SEGMENT)),
            logical: false,
        }),
    };
    let mut one = InstanceEvidence {
        name: name(n),
        pod: known(Pod {
            uid: PodUid::new(&format!("00000000-0000-4000-8000-{n:012}")).expect("a valid uid"),
            node: Some(node_name.clone()),
            running: true,
            ready: true,
            terminating: false,
            delete_by: None,
            container: ContainerState::Running {
                since: ago(3_600_000),
            },
            restarts: 0,
            previous: None,
            labelled_primary: n == 1,
            unschedulable: None,
            created_at: ago(7_200_000),
        }),
        claims: known(vec![claim("", ClaimRole::Data), claim("-wal", ClaimRole::Wal)]),
        node: known(Node {
            name: node_name,
            ready: true,
            agent: AgentPresence::Connected,
        }),
        disk: DiskEvidence::unread(UnreadReason::NotNeeded, "not put in place yet"),
        server: Evidence::unread(UnreadReason::NotNeeded, "not put in place yet"),
        commits_past: Vec::new(),
        remembered: None,
        last_written: None,
        standing_since: None,
    };
    let postmaster = Postmaster {
        pid: 4000 + n,
        uid: 26,
        started_at: ago(3_590_000),
        stopped: false,
    };
    one.disk.processes = known(Processes {
        manager: true,
        postmaster: Some(postmaster),
        tools: Vec::new(),
    });
    one.disk.backup_label = Evidence::absent("PGDATA lists no backup_label");
    one.disk.wal = known(WalDirectory {
        bytes: 5 * SEGMENT,
        segments: 5,
        ready: 0,
        oldest: Some((at(SEGMENT), tl(1))),
        on_wal_volume: true,
    });
    one.disk.slots = known((1..=3).filter(|&of| of != n).map(slot).collect());
    one.disk.tablespaces = known(Vec::new());
    one.disk.volumes = vec![space(ClaimRole::Data), space(ClaimRole::Wal)];
    one.disk.leftovers = known(Vec::new());
    one
}

/// A `backup_label` as `pg_basebackup` or `pg_rewind` leaves it.
#[must_use]
pub fn label(method: &str) -> BackupLabel {
    BackupLabel {
        start: at(4 * SEGMENT),
        method: method.to_owned(),
        timeline: Some(tl(1)),
    }
}
