//! Evidence about a CloudNativePG cluster.

use std::collections::BTreeSet;

use hasteward_proto::primitive::{ClusterRef, InstanceName, Lsn, SystemId, TimelineId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::Evidence;
pub use super::pod::{AgentPresence, ContainerState, Node, Pod, PreviousRun, Space};

/// One PVC of an instance; its `status` is `cnpg.io/pvcStatus` (`initializing`, `ready`, `detached`).
pub type Claim = super::pod::Claim<ClaimRole>;

/// Everything known of one cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CnpgEvidence {
    /// Which cluster.
    pub cluster: ClusterRef,
    /// When collection ended, by the coordinator's clock.
    pub collected_at: UnixMillis,
    /// What the custom resource asks for and reports. Unread: the API did not give it.
    pub resource: Evidence<ClusterResource>,
    /// Every instance that the status names, or that a pod or PVC of this cluster exists for.
    pub instances: Vec<InstanceEvidence>,
    /// Current primary, target primary or timeline changed between the first and the last read of the resource, or that they
    /// did not change could not be confirmed. The instances were then read in different worlds, and nothing follows from them.
    #[serde(default)]
    pub roles_moved: bool,
}

/// The parts of `postgresql.cnpg.io/v1 Cluster` that decide something.
#[allow(clippy::struct_excessive_bools, reason = "each is one field of the resource")]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterResource {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion` of the copy that was read.
    pub resource_version: String,
    /// `spec.instances`.
    pub wanted_instances: u32,
    /// `spec.walStorage` is set.
    pub wal_storage: bool,
    /// `spec.tablespaces[].name`.
    pub tablespaces: Vec<String>,
    /// `spec.replicationSlots.highAvailability.enabled` (default true).
    pub ha_slots: bool,
    /// `status.phase`.
    pub phase: Option<String>,
    /// `status.phaseReason`.
    pub phase_reason: Option<String>,
    /// `status.currentPrimary`.
    pub current_primary: Option<InstanceName>,
    /// `status.targetPrimary`.
    pub target_primary: TargetPrimary,
    /// `status.timelineID`, as the primary last reported it.
    pub timeline: Option<TimelineId>,
    /// `status.systemID`.
    pub system_id: Option<SystemId>,
    /// `status.instanceNames`.
    pub instance_names: Vec<InstanceName>,
    /// `status.readyInstances`.
    pub ready_instances: u32,
    /// `cnpg.io/fencedInstances`.
    pub fences: Fences,
    /// `cnpg.io/reconciliationLoop: disabled`.
    pub reconciliation_disabled: bool,
    /// `cnpg.io/hibernation: on`.
    pub hibernation: bool,
    /// `spec.replica` makes this a replica cluster (no primary of its own).
    pub replica_cluster: bool,
    /// `status.switchReplicaClusterStatus.inProgress`.
    pub replica_switch_in_progress: bool,
    /// Phase `Upgrading Postgres major version`, or a major-upgrade job.
    pub major_upgrade: bool,
    /// An archive is configured: `spec.backup.barmanObjectStore`, or a plugin with `isWALArchiver`. Without one the
    /// manager's `archive_command` succeeds and keeps nothing, so `archive_mode = on` alone proves no archive.
    pub wal_archive: bool,
    /// Condition `ContinuousArchiving` is False: its message.
    pub archiving_failing: Option<String>,
    /// What an operation of ours left in annotations (`clinic.hasteward.prplanit.com/...`).
    pub operation_marks: Vec<String>,
}

/// `status.targetPrimary`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetPrimary {
    /// Unset.
    #[default]
    None,
    /// The literal `pending`: a failover waits for the WAL receivers to go down.
    Pending,
    /// An instance.
    Instance(InstanceName),
}

/// `cnpg.io/fencedInstances`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fences {
    /// No annotation, or an empty list.
    #[default]
    None,
    /// `["*"]`.
    All,
    /// These instances.
    Some(BTreeSet<InstanceName>),
    /// Not a JSON list of names. CNPG treats it as not fenced; we say so and touch nothing.
    Invalid(String),
}

impl Fences {
    /// Whether `instance` is fenced. An invalid annotation fences nobody (as CNPG reads it).
    #[must_use]
    pub fn holds(&self, instance: &InstanceName) -> bool {
        match self {
            Self::None | Self::Invalid(_) => false,
            Self::All => true,
            Self::Some(names) => names.contains(instance),
        }
    }
}

/// Everything known of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEvidence {
    /// Its name (and its pod's).
    pub name: InstanceName,
    /// Its pod.
    pub pod: Evidence<Pod>,
    /// Its PVC group.
    pub claims: Evidence<Vec<Claim>>,
    /// The node that the pod is bound to (or that a node-local PV is on).
    pub node: Evidence<Node>,
    /// What its files say.
    pub disk: DiskEvidence,
    /// What its server says.
    pub server: Evidence<Server>,
    /// Commit records past a fork, for the forks that [`crate::cnpg::questions`] asked about.
    pub commits_past: Vec<CommitsPast>,
    /// When the coordinator last saw it streaming: where it was then.
    pub remembered: Option<Remembered>,
    /// When the coordinator last saw it *writing* (as a primary): where it was then. Kept until it is seen writing again
    /// or the coordinator forgets; it alone can show that an operator rewound commits away.
    pub last_written: Option<Remembered>,
    /// Since when the coordinator has seen it at the very position that it has now, not streaming. `None`: seen once, or it moved.
    pub standing_since: Option<UnixMillis>,
}

/// `cnpg.io/pvcRole`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimRole {
    /// `PG_DATA`
    Data,
    /// `PG_WAL`
    Wal,
    /// `PG_TABLESPACE`, with `cnpg.io/tablespaceName`.
    Tablespace(String),
    /// Anything else.
    Other(String),
}

/// What an instance's files say; readable while its server is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEvidence {
    /// Processes in the pod's cgroup.
    pub processes: Evidence<Processes>,
    /// `global/pg_control`.
    pub control: Evidence<ControlFile>,
    /// `standby.signal`, `recovery.signal`.
    pub signals: Evidence<Signals>,
    /// `backup_label`.
    pub backup_label: Evidence<BackupLabel>,
    /// Every `*.history` in `pg_wal`.
    pub histories: Evidence<Vec<HistoryFile>>,
    /// End of valid WAL.
    pub wal_end: Evidence<WalEnd>,
    /// Size and backlog of `pg_wal`.
    pub wal: Evidence<WalDirectory>,
    /// Replication slots on disk.
    pub slots: Evidence<Vec<DiskSlot>>,
    /// Tablespace links.
    pub tablespaces: Evidence<Vec<Tablespace>>,
    /// Space of each volume.
    pub volumes: Vec<VolumeSpace>,
    /// `pgdata.incoming-*`, `global/pg_control.old` ...
    pub leftovers: Evidence<Vec<String>>,
}

impl DiskEvidence {
    /// Nothing could be read, all for the same reason.
    #[must_use]
    pub fn unread(reason: super::UnreadReason, detail: &str) -> Self {
        Self {
            processes: Evidence::unread(reason, detail),
            control: Evidence::unread(reason, detail),
            signals: Evidence::unread(reason, detail),
            backup_label: Evidence::unread(reason, detail),
            histories: Evidence::unread(reason, detail),
            wal_end: Evidence::unread(reason, detail),
            wal: Evidence::unread(reason, detail),
            slots: Evidence::unread(reason, detail),
            tablespaces: Evidence::unread(reason, detail),
            volumes: Vec::new(),
            leftovers: Evidence::unread(reason, detail),
        }
    }
}

/// The processes of the database container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processes {
    /// The instance manager runs.
    pub manager: bool,
    /// The postmaster, where one runs.
    pub postmaster: Option<Postmaster>,
    /// `pg_rewind`, `pg_basebackup`, `pg_ctl` that are running.
    pub tools: Vec<String>,
}

/// A running postmaster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmaster {
    /// Host pid.
    pub pid: u32,
    /// Its user; never 0 (refused before).
    pub uid: u32,
    /// When it started.
    pub started_at: UnixMillis,
    /// In `/proc` state T or t: stopped by a signal or a tracer.
    pub stopped: bool,
}

/// `pg_control`'s `DBState` (PostgreSQL `catalog/pg_control.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// `DB_STARTUP`
    StartingUp,
    /// `DB_SHUTDOWNED`
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`
    InProduction,
}

/// The parts of `global/pg_control` that decide something; its CRC was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFile {
    /// `system_identifier`.
    pub system_id: SystemId,
    /// `pg_control_version`.
    pub version: u32,
    /// `state`.
    pub state: ClusterState,
    /// `time`: last update.
    pub updated_at: UnixMillis,
    /// `checkPoint`: LSN of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// `checkPointCopy.redo`.
    pub redo: Lsn,
    /// `checkPointCopy.ThisTimeLineID`.
    pub checkpoint_timeline: TimelineId,
    /// `minRecoveryPoint` with `minRecoveryPointTLI`.
    pub min_recovery: Option<(Lsn, TimelineId)>,
    /// `backupStartPoint`: set while an unfinished base backup is being recovered.
    pub backup_start: Option<Lsn>,
    /// `backupEndRequired`.
    pub backup_end_required: bool,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `data_checksum_version` is not 0.
    pub data_checksums: bool,
    /// `xlog_seg_size`, bytes.
    pub wal_segment_size: u32,
}

/// Which signal files exist. CNPG's manager takes a PGDATA without `standby.signal` for a primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signals {
    /// `standby.signal`
    pub standby: bool,
    /// `recovery.signal`
    pub recovery: bool,
}

/// `backup_label`: this directory is an unfinished base backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupLabel {
    /// `START WAL LOCATION`.
    pub start: Lsn,
    /// `BACKUP METHOD`: `streamed` or `pg_rewind`.
    pub method: String,
    /// `START TIMELINE`.
    pub timeline: Option<TimelineId>,
}

/// One `%08X.history` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryFile {
    /// The timeline that it is the history of.
    pub timeline: TimelineId,
    /// Its lines, oldest first. Unread: the file could not be parsed.
    pub switches: Evidence<Vec<Switch>>,
}

/// One line of a history file: `parent` was left at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that was left.
    pub parent: TimelineId,
    /// Where.
    pub at: Lsn,
}

/// The end of valid WAL on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEnd {
    /// End of the last valid record.
    pub end: Lsn,
    /// On this timeline.
    pub timeline: TimelineId,
    /// How it was found.
    pub method: WalScan,
    /// System identifier in the WAL's long page header.
    pub system_id: Option<SystemId>,
    /// WAL of an older timeline past the point where the current one left it: that timeline and where it was left. A rewind
    /// or a promotion removed it from history, and it may be held nowhere else.
    #[serde(default)]
    pub abandoned: Option<(TimelineId, Lsn)>,
}

/// How the end of WAL was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalScan {
    /// Records were followed and checked from the redo point.
    Records,
    /// Only page headers: `pg_control` was not readable. Precise to one page.
    Pages,
}

/// `pg_wal` as a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalDirectory {
    /// Allocated bytes.
    pub bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// `archive_status/*.ready`.
    pub ready: u32,
    /// Start of the oldest segment that is really there, and its timeline.
    pub oldest: Option<(Lsn, TimelineId)>,
    /// `pg_wal` is a link to the WAL volume.
    pub on_wal_volume: bool,
}

/// A replication slot on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSlot {
    /// Its name.
    pub name: String,
    /// Its state file. Unread: not parsed.
    pub state: Evidence<DiskSlotState>,
}

/// The state file of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSlotState {
    /// `restart_lsn`; `None` = reserves nothing.
    pub restart: Option<Lsn>,
    /// It belongs to a database.
    pub logical: bool,
}

/// A link below `pg_tblspc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it leads, as the container sees it.
    pub target: String,
    /// That lies in a volume of this instance and exists.
    pub resolved: bool,
}

/// Space of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpace {
    /// Which volume.
    pub role: ClaimRole,
    /// `statvfs`.
    pub space: Evidence<Space>,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `pg_control_system().system_identifier`.
    pub system_id: SystemId,
    /// `server_version_num`.
    pub version_num: u32,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The timeline that it writes or replays.
    pub timeline: Option<TimelineId>,
    /// Primary: `pg_current_wal_flush_lsn()`.
    pub flush: Option<Lsn>,
    /// Standby: `pg_last_wal_receive_lsn()`.
    pub receive: Option<Lsn>,
    /// Standby: `pg_last_wal_replay_lsn()`.
    pub replay: Option<Lsn>,
    /// `pg_is_wal_replay_paused()`.
    pub replay_paused: bool,
    /// `pg_stat_wal_receiver`.
    pub receiver: Option<Receiver>,
    /// `pg_stat_replication`.
    pub standbys: Vec<Standby>,
    /// `pg_replication_slots`.
    pub slots: Vec<ServerSlot>,
    /// `archive_mode` is not off.
    pub archive_enabled: bool,
    /// `pg_stat_archiver`: the last attempt failed, with the segment's name.
    pub archive_failing: Option<String>,
    /// Sum of `pg_database_size`, where asked.
    pub database_bytes: Option<u64>,
}

/// `pg_stat_wal_receiver`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// `status` is `streaming`.
    pub streaming: bool,
    /// `received_tli`.
    pub timeline: Option<TimelineId>,
    /// `flushed_lsn`.
    pub flushed: Option<Lsn>,
}

/// A row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// `application_name`: the instance's name under CNPG.
    pub application_name: String,
    /// `state`.
    pub state: StandbyState,
    /// `flush_lsn`.
    pub flush: Option<Lsn>,
    /// `replay_lsn`.
    pub replay: Option<Lsn>,
}

/// `pg_stat_replication.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyState {
    /// `startup`
    Startup,
    /// `catchup`
    Catchup,
    /// `streaming`
    Streaming,
    /// `backup`, `stopping`, or unknown.
    Other,
}

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSlot {
    /// `slot_name`.
    pub name: String,
    /// `active`.
    pub active: bool,
    /// `restart_lsn`.
    pub restart: Option<Lsn>,
    /// `wal_status`.
    pub wal_status: SlotWal,
}

/// `pg_replication_slots.wal_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotWal {
    /// `reserved` or `extended`.
    Kept,
    /// `unreserved`: may go at the next checkpoint.
    Unreserved,
    /// `lost`.
    Lost,
    /// Null: reserves nothing.
    None,
}

/// Commit records past a fork on one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitsPast {
    /// Counted on this timeline,
    pub timeline: TimelineId,
    /// from here on.
    pub past: Lsn,
    /// The count.
    pub commits: Evidence<Commits>,
}

/// How many commits, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commits {
    /// Commit records.
    pub count: u64,
    /// Time of the first and of the last one.
    pub span: Option<(UnixMillis, UnixMillis)>,
}

/// What the coordinator saw of an instance earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// It streamed (or wrote) on this timeline,
    pub timeline: TimelineId,
    /// had flushed up to here,
    pub lsn: Lsn,
    /// at this time.
    pub at: UnixMillis,
}
