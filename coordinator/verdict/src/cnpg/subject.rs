//! [`Subject`]: one instance with everything that follows from its own evidence alone.

use hasteward_proto::primitive::{InstanceName, SystemId};

use super::lineage::Lineage;
use super::position::{self, Position};
use super::supply;
use crate::evidence::cnpg::{
    Claim, ClaimRole, ClusterState, CnpgEvidence, ContainerState, InstanceEvidence, Pod, Server, StandbyState,
};
use crate::evidence::{Evidence, UnreadReason};

/// A container that has run shorter than this is starting: PostgreSQL may still replay WAL.
pub(crate) const STARTING_MS: u64 = 5 * 60 * 1000;
/// A run that ended badly after less than this was one turn of a crash loop.
const SHORT_RUN_MS: u64 = 2 * 60 * 1000;

/// A standby that confirmed all but this much works, whatever its own answer took.
const FED_WITHIN: u64 = 16 * 1024 * 1024;

/// One instance and what its own evidence says.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) ev: &'a InstanceEvidence,
    pub(crate) is_primary: bool,
    pub(crate) fenced: bool,
    /// Where it is, by its own server and files.
    pub(crate) position: Option<Position>,
    /// Its history, or why that is not known.
    pub(crate) lineage: Result<Lineage, String>,
    pub(crate) life: Life,
    /// The operator has named it and not yet made its pod and PVCs.
    being_made: bool,
}

/// What its pod and processes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// A server answers.
    Serving,
    /// A postmaster is stopped, or has not answered for longer than a busy server would.
    Hung,
    /// It did not answer once, in time.
    Slow,
    /// A postmaster runs; nobody could ask it.
    Running,
    /// On its way up (or down and up again).
    Starting,
    /// Starts and dies again.
    CrashLooping,
    /// A pod is there and no server is.
    Down,
    /// The scheduler finds no node, or an image or volume cannot be had.
    Stuck,
    /// There is no pod.
    NoPod,
    /// Not known.
    Unknown,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(ev: &'a InstanceEvidence, all: &'a CnpgEvidence) -> Self {
        let resource = all.resource.value();
        let is_primary = resource.and_then(|resource| resource.current_primary.as_ref()) == Some(&ev.name);
        let fenced = resource.is_some_and(|resource| resource.fences.holds(&ev.name));
        let position = position::own(ev);
        let lineage = match position {
            Some(position) => {
                Lineage::of(position.timeline, &ev.disk.histories).map_err(|gap| gap.to_string())
            }
            None => Err("its position is not known".to_owned()),
        };
        Self {
            ev,
            is_primary,
            fenced,
            position,
            lineage,
            life: life(ev, all),
            being_made: being_made(ev, all),
        }
    }

    pub(crate) fn name(&self) -> &'a InstanceName {
        &self.ev.name
    }

    pub(crate) fn server(&self) -> Option<&'a Server> {
        self.ev.server.value()
    }

    /// Its server answers and is no standby.
    pub(crate) fn writes(&self) -> bool {
        self.server().is_some_and(|server| !server.in_recovery)
    }

    /// Its server answers and is a standby.
    pub(crate) fn recovers(&self) -> bool {
        self.server().is_some_and(|server| server.in_recovery)
    }

    /// Its own receiver streams.
    pub(crate) fn receives(&self) -> bool {
        self.server()
            .and_then(|server| server.receiver.as_ref())
            .is_some_and(|receiver| receiver.streaming)
    }

    /// It received more than it replayed, and does not receive any more: its end may lie inside a record.
    pub(crate) fn ends_in_doubt(&self) -> bool {
        let behind = |server: &Server| server.receive.is_some() && server.replay < server.receive;
        self.recovers() && !self.receives() && self.server().is_some_and(behind)
    }

    /// A database server process exists; `None` = not known.
    pub(crate) fn running(&self) -> Option<bool> {
        if self.server().is_some() {
            return Some(true);
        }
        match &self.ev.disk.processes {
            Evidence::Known(known) => Some(known.value.postmaster.is_some()),
            Evidence::Absent(_) => Some(false),
            Evidence::Unread(_) => None,
        }
    }

    /// Its postmaster is stopped by a signal or a tracer.
    pub(crate) fn stopped(&self) -> bool {
        let processes = self.ev.disk.processes.value();
        processes
            .and_then(|all| all.postmaster.as_ref())
            .is_some_and(|postmaster| postmaster.stopped)
    }

    /// Why what lies beside PGDATA may hold what PGDATA does not: CNPG's manager renames a directory that it does not trust
    /// (`pgdata_<time>`), and a dead operation leaves `pgdata.old` or `pgdata.incoming-<id>`. `None` = nothing lies there.
    pub(crate) fn set_aside(&self) -> Option<String> {
        match &self.ev.disk.leftovers {
            Evidence::Known(known) => known
                .value
                .iter()
                .find(|path| !path.ends_with("pg_control.old"))
                .map(|path| {
                    format!("another directory lies beside its data ({path}), and nobody compared it")
                }),
            Evidence::Absent(_) => None,
            Evidence::Unread(unread) => Some(format!(
                "whether another directory lies beside its data is not known: {}",
                unread.detail
            )),
        }
    }

    /// Every system identifier that its server, control file and WAL carry.
    pub(crate) fn systems(&self) -> Vec<SystemId> {
        let server = self.server().map(|server| server.system_id);
        let control = self.ev.disk.control.value().map(|control| control.system_id);
        let wal = self.ev.disk.wal_end.value().and_then(|wal| wal.system_id);
        let mut ids: Vec<_> = [server, control, wal].into_iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// An unfinished base backup or rewind: nothing in it is its own, and it can supply nothing.
    pub(crate) fn unfinished(&self) -> Option<String> {
        if let Some(label) = self.ev.disk.backup_label.value() {
            // `pg_start_backup` is the label of an exclusive backup of a live server (PostgreSQL 14 and older).
            if !self.writes() && matches!(label.method.as_str(), "streamed" | "pg_rewind") {
                return Some(format!(
                    "backup_label is there (method {}, from {})",
                    label.method, label.start
                ));
            }
        }
        let control = self.ev.disk.control.value()?;
        if self.writes() {
            return None;
        }
        control
            .backup_start
            .map(|start| format!("a base backup from {start} is not recovered to its end"))
            .or_else(|| {
                control
                    .backup_end_required
                    .then(|| "a base backup still needs its end record".to_owned())
            })
    }

    /// Where a `backup_label` cannot be excluded, the files of a stopped server prove nothing.
    pub(crate) fn label_in_doubt(&self) -> bool {
        if self.server().is_some() {
            return false;
        }
        match &self.ev.disk.backup_label {
            Evidence::Absent(_) => false,
            Evidence::Unread(_) => true,
            Evidence::Known(_) => self.unfinished().is_none(),
        }
    }

    /// It was a standby when it last ran. `None` = not known.
    ///
    /// The control file's state says what the server last was. `standby.signal` alone is weaker, because CNPG's manager
    /// writes it into any directory that is not the current primary's; it is asked only where the control file is gone.
    pub(crate) fn stood_by(&self) -> Option<bool> {
        if let Some(server) = self.server() {
            return Some(server.in_recovery);
        }
        match self.ev.disk.control.value().map(|control| control.state) {
            Some(ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery) => Some(true),
            Some(
                ClusterState::InProduction
                | ClusterState::ShuttingDown
                | ClusterState::ShutDown
                | ClusterState::StartingUp
                | ClusterState::InCrashRecovery,
            ) => Some(false),
            None => self
                .ev
                .disk
                .signals
                .value()
                .filter(|signals| signals.standby)
                .map(|_| true),
        }
    }

    /// `standby.signal` is there: the manager's start path then neither rewinds nor promotes. `None` = not known.
    pub(crate) fn standby_signal(&self) -> Option<bool> {
        match &self.ev.disk.signals {
            Evidence::Known(known) => Some(known.value.standby && !known.value.recovery),
            Evidence::Absent(_) => Some(false),
            Evidence::Unread(_) => None,
        }
    }

    /// `global/pg_control.old` is there: CNPG makes it before `pg_rewind` and removes it afterwards.
    pub(crate) fn half_rewound(&self) -> bool {
        let leftovers = self.ev.disk.leftovers.value();
        leftovers.is_some_and(|paths| paths.iter().any(|path| path.ends_with("pg_control.old")))
    }

    /// The control file is there (or WAL is) and cannot be used.
    pub(crate) fn control_corrupt(&self) -> bool {
        match &self.ev.disk.control {
            Evidence::Unread(unread) => unread.reason == UnreadReason::Corrupt,
            Evidence::Absent(_) => !self.ev.disk.wal_end.is_absent(),
            Evidence::Known(_) => false,
        }
    }

    pub(crate) fn data_claim(&self) -> Option<&'a Claim> {
        self.ev
            .claims
            .value()
            .and_then(|claims| claims.iter().find(|claim| claim.role == ClaimRole::Data))
    }

    /// Its volume is proven gone.
    pub(crate) fn volume_gone(&self) -> Option<String> {
        if self.ev.disk.control.value().is_some() || self.server().is_some() || self.being_made {
            return None;
        }
        match &self.ev.claims {
            Evidence::Absent(absent) => Some(absent.proof.clone()),
            Evidence::Known(_) => match self.data_claim() {
                None => Some("it has no PVC for PGDATA".to_owned()),
                // Phase `Lost`: it names a PersistentVolume that does not exist any more.
                Some(claim) if !claim.bound => claim
                    .volume
                    .as_ref()
                    .map(|volume| format!("PVC {} names volume {volume} and is not bound to it", claim.name)),
                Some(_) => None,
            },
            Evidence::Unread(_) => None,
        }
    }

    /// It is being cloned for the first time: CNPG sets `pvcStatus: ready` when the join is complete.
    pub(crate) fn joining(&self) -> bool {
        let fresh = |claim: &Claim| {
            claim.status.as_deref() == Some("initializing") || (!claim.bound && claim.volume.is_none())
        };
        self.server().is_none() && (self.being_made || self.data_claim().is_some_and(fresh))
    }

    /// PGDATA is proven to hold neither a control file nor WAL.
    pub(crate) fn empty(&self) -> bool {
        self.server().is_none() && self.ev.disk.control.is_absent() && self.ev.disk.wal_end.is_absent()
    }

    /// Its node is known not to be ready, or to be gone.
    pub(crate) fn node_down(&self) -> bool {
        match &self.ev.node {
            Evidence::Known(known) => !known.value.ready,
            // Also an instance that is bound to no node at all has none: only a pod can miss one.
            Evidence::Absent(_) => self.ev.pod.value().is_some_and(|pod| pod.node.is_some()),
            Evidence::Unread(unread) => unread.reason == UnreadReason::NodeDown,
        }
    }

    /// The one line that says why its position could not be had.
    pub(crate) fn why_unread(&self) -> String {
        let disk = &self.ev.disk;
        let first = [
            disk.control.why_unread(),
            disk.wal_end.why_unread(),
            self.ev.server.why_unread(),
            disk.histories.why_unread(),
        ];
        let mut reasons = first.into_iter().flatten();
        let telling = reasons.clone().find(|unread| {
            !matches!(
                unread.reason,
                UnreadReason::NotNeeded | UnreadReason::Depends | UnreadReason::ServerDown
            )
        });
        telling.or_else(|| reasons.next()).map_or_else(
            || "nothing says where it is in history".to_owned(),
            |unread| unread.detail.clone(),
        )
    }
}

/// Named by the status of a cluster that grows, never seen, and nothing of it there yet.
fn being_made(ev: &InstanceEvidence, all: &CnpgEvidence) -> bool {
    let phase = all
        .resource
        .value()
        .and_then(|resource| resource.phase.as_deref());
    phase == Some("Creating a new replica")
        && ev.pod.is_absent()
        && ev.claims.is_absent()
        && ev.remembered.is_none()
        && ev.last_written.is_none()
}

fn life(ev: &InstanceEvidence, all: &CnpgEvidence) -> Life {
    let processes = ev.disk.processes.value();
    let postmaster = processes.and_then(|processes| processes.postmaster.as_ref());
    if ev.server.value().is_some() {
        return Life::Serving;
    }
    if postmaster.is_some_and(|postmaster| postmaster.stopped) {
        return Life::Hung;
    }
    let silent = ev
        .server
        .why_unread()
        .is_some_and(|unread| unread.reason == UnreadReason::ServerHung);
    if silent {
        // One answer that came too late is no hung server: it has to stand still meanwhile, and nobody else may see it work.
        let still = supply::stands_still(ev.standing_since, all.collected_at, supply::STALL_MS);
        return if still && !fed(ev, all) {
            Life::Hung
        } else {
            Life::Slow
        };
    }
    let pod = match &ev.pod {
        Evidence::Known(known) => &known.value,
        Evidence::Absent(_) => return absent_pod(ev, all),
        Evidence::Unread(_) => {
            return if postmaster.is_some() {
                Life::Running
            } else {
                Life::Unknown
            };
        }
    };
    let asked = !matches!(ev.disk.processes, Evidence::Unread(_))
        || ev
            .server
            .why_unread()
            .is_some_and(|unread| unread.reason == UnreadReason::ServerDown);
    match pod_life(pod, all) {
        Life::Down if postmaster.is_some() => Life::Running,
        // A running container is all that is known: that its server is down would be a guess.
        Life::Down | Life::Starting if !asked && pod.ready => Life::Running,
        Life::Down if !asked => Life::Unknown,
        // A fenced manager keeps the container up and the server down: neither starting nor broken.
        Life::Starting
            if fenced(all, &ev.name) && matches!(pod.container, ContainerState::Running { .. }) =>
        {
            Life::Down
        }
        other => other,
    }
}

/// The primary streams to it, and it has flushed nearly everything.
fn fed(ev: &InstanceEvidence, all: &CnpgEvidence) -> bool {
    let primary = all
        .resource
        .value()
        .and_then(|resource| resource.current_primary.as_ref());
    let server = all
        .instances
        .iter()
        .find(|one| Some(&one.name) == primary)
        .and_then(|one| one.server.value());
    server.is_some_and(|server| {
        server.standbys.iter().any(|row| {
            let near = match (server.flush.or(server.receive), row.flush) {
                (Some(end), Some(flushed)) => end.bytes_past(flushed) <= FED_WITHIN,
                _ => false,
            };
            row.application_name == ev.name.as_str() && row.state == StandbyState::Streaming && near
        })
    })
}

fn fenced(all: &CnpgEvidence, name: &InstanceName) -> bool {
    all.resource
        .value()
        .is_some_and(|resource| resource.fences.holds(name))
}

/// A pod that was deleted is made again within seconds; one that was not seen streaming lately is simply not there.
fn absent_pod(ev: &InstanceEvidence, all: &CnpgEvidence) -> Life {
    let lately = |at| all.collected_at.millis_since(at) < STARTING_MS;
    if ev.remembered.is_some_and(|seen| lately(seen.at)) {
        Life::Starting
    } else {
        Life::NoPod
    }
}

fn pod_life(pod: &Pod, all: &CnpgEvidence) -> Life {
    let age = all.collected_at.millis_since(pod.created_at);
    if pod.terminating {
        let overdue = pod
            .delete_by
            .is_some_and(|by| all.collected_at.millis_since(by) >= STARTING_MS);
        return if overdue { Life::Stuck } else { Life::Starting };
    }
    if pod.node.is_none() {
        return if age < STARTING_MS && pod.unschedulable.is_none() {
            Life::Starting
        } else {
            Life::Stuck
        };
    }
    let looping = pod
        .previous
        .is_some_and(|run| run.exit != 0 && run.finished_at.millis_since(run.started_at) < SHORT_RUN_MS);
    match &pod.container {
        ContainerState::Running { since } if all.collected_at.millis_since(*since) < STARTING_MS => {
            if looping {
                Life::CrashLooping
            } else {
                Life::Starting
            }
        }
        ContainerState::Running { .. } => Life::Down,
        ContainerState::Waiting { reason, last_exit } => match reason.as_str() {
            "ContainerCreating" | "PodInitializing" if age < STARTING_MS => Life::Starting,
            "CrashLoopBackOff" => {
                // The kubelet's back-off also follows two orderly ends in a row, as two switchovers make them.
                let orderly = pod.previous.map_or(*last_exit == Some(0), |run| run.exit == 0);
                if orderly && pod.restarts <= 2 {
                    Life::Starting
                } else {
                    Life::CrashLooping
                }
            }
            _ => Life::Stuck,
        },
        ContainerState::Terminated { exit } => {
            if looping {
                Life::CrashLooping
            } else if *exit == 0 || pod.restarts == 0 || age < STARTING_MS {
                Life::Starting
            } else {
                Life::Down
            }
        }
        ContainerState::Unreported => {
            if age < STARTING_MS {
                Life::Starting
            } else {
                Life::Stuck
            }
        }
    }
}
