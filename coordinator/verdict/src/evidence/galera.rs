//! Evidence about a MariaDB Galera cluster of mariadb-operator.

use hasteward_proto::primitive::{ClusterRef, History, InstanceName, MemberUuid, Seqno, UnixMillis};
use serde::{Deserialize, Serialize};

use super::pod::{Node, Pod, Space};
use super::{Evidence, UnreadReason};

/// One PVC of a node.
pub type Claim = super::pod::Claim<ClaimRole>;

/// Everything known of one cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaleraEvidence {
    /// Which cluster.
    pub cluster: ClusterRef,
    /// When collection ended, by the coordinator's clock.
    pub collected_at: UnixMillis,
    /// What the custom resource asks for and reports. Unread: the API did not give it.
    pub resource: Evidence<MariadbResource>,
    /// The StatefulSet that runs the pods.
    pub stateful_set: Evidence<StatefulSet>,
    /// Every ordinal below `spec.replicas`, and every other that a pod or PVC of this cluster exists for.
    pub instances: Vec<InstanceEvidence>,
}

/// The parts of `k8s.mariadb.com/v1alpha1 MariaDB` that decide something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MariadbResource {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion` of the copy that was read.
    pub resource_version: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.image`.
    pub image: Option<String>,
    /// `spec.galera.enabled`. Not: this is no Galera cluster, and nothing here applies.
    pub galera_enabled: bool,
    /// `spec.galera.sst`.
    pub sst: SstMethod,
    /// `spec.galera.availableWhenDonor`.
    pub available_when_donor: bool,
    /// `spec.galera.recovery`.
    pub recovery: RecoverySettings,
    /// `spec.galera.config.reuseStorageVolume`: one PVC holds data and configuration.
    pub reuse_storage_volume: bool,
    /// `spec.galera.primary.podIndex`.
    pub primary_pod_index: Option<u32>,
    /// `spec.maxScaleRef` is set: MaxScale chooses where writes go.
    pub max_scale: bool,
    /// `spec.updateStrategy.type` is `Never`, so the operator leaves the StatefulSet alone.
    pub update_never: bool,
    /// `spec.maintenance.enabled`.
    pub maintenance: bool,
    /// Condition `Ready`.
    pub ready: Option<Condition>,
    /// Condition `GaleraReady`. False makes the operator recover, un-suspending with it scales to zero, and it silences the liveness probe.
    pub galera_ready: Option<Condition>,
    /// Condition `GaleraConfigured`.
    pub galera_configured: Option<Condition>,
    /// `status.currentPrimary`: only where writes are routed.
    pub current_primary: Option<InstanceName>,
    /// `status.galeraRecovery`: a recovery of the operator's is under way.
    pub galera_recovery: Option<OperatorRecovery>,
    /// Names of the operator's recovery Jobs (`<pod>-recovery`) that are not done.
    pub recovery_jobs: Vec<String>,
    /// Who else writes the resource: `argocd`, `flux`, by managed fields and labels.
    pub managed_by: Vec<String>,
    /// What an operation of ours left in annotations (`clinic.hasteward.prplanit.com/...`).
    pub operation_marks: Vec<String>,
}

/// One of `status.conditions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `status` is True.
    pub holds: bool,
    /// `reason`.
    pub reason: String,
    /// `message`.
    pub message: String,
    /// `lastTransitionTime`.
    pub since: UnixMillis,
}

/// `spec.galera.sst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SstMethod {
    /// `mariabackup`, the default.
    #[default]
    Mariabackup,
    /// `rsync`
    Rsync,
    /// `mysqldump`
    Mysqldump,
    /// Another.
    Other,
}

/// `spec.galera.recovery`. `enabled: false` stops only the monitor, not a recovery that `GaleraReady=False` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverySettings {
    /// `enabled` (default true).
    pub enabled: bool,
    /// `minClusterSize` (default 1): a number, or a share of the replicas as it is written.
    pub min_cluster_size: String,
    /// `clusterHealthyTimeout`, seconds (default 30).
    pub healthy_timeout_s: u32,
    /// `clusterBootstrapTimeout`, seconds (default 600).
    pub bootstrap_timeout_s: u32,
    /// `podSyncTimeout`, seconds (default 300).
    pub pod_sync_timeout_s: u32,
    /// `forceClusterBootstrapInPod`.
    pub force_bootstrap_in: Option<InstanceName>,
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            min_cluster_size: "1".to_owned(),
            healthy_timeout_s: 30,
            bootstrap_timeout_s: 600,
            pod_sync_timeout_s: 300,
            force_bootstrap_in: None,
        }
    }
}

/// `status.galeraRecovery`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OperatorRecovery {
    /// Pods in `state` (their grastate.dat).
    pub states: Vec<InstanceName>,
    /// Pods in `recovered`.
    pub recovered: Vec<InstanceName>,
    /// `bootstrap.pod`: what the operator has chosen.
    pub bootstrap: Option<InstanceName>,
    /// `bootstrap.time`.
    pub bootstrap_at: Option<UnixMillis>,
    /// `podsRestarted`.
    pub pods_restarted: bool,
}

/// The StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatefulSet {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `status.replicas`: pods that exist.
    pub current: u32,
    /// `status.readyReplicas`.
    pub ready: u32,
    /// `spec.template.spec.containers[mariadb].image`.
    pub image: Option<String>,
}

/// Everything known of one node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEvidence {
    /// Its pod's name, `<m>-<ordinal>`.
    pub name: InstanceName,
    /// The ordinal.
    pub ordinal: u32,
    /// Its pod.
    pub pod: Evidence<Pod>,
    /// Its PVCs.
    pub claims: Evidence<Vec<Claim>>,
    /// The machine that the pod is bound to (or that a node-local PV is on).
    pub node: Evidence<Node>,
    /// What its files say.
    pub disk: DiskEvidence,
    /// What its server says.
    pub server: Evidence<Server>,
    /// When the coordinator last saw it Synced in a primary view of a named history: where it was then.
    pub remembered: Option<Remembered>,
}

/// `pvc.k8s.mariadb.com/role`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimRole {
    /// `storage`
    Data,
    /// `config`
    Config,
    /// Anything else.
    Other(String),
}

/// What a node's files say; readable while its server is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEvidence {
    /// Processes in the cgroup of the database container.
    pub processes: Evidence<Processes>,
    /// `grastate.dat`. Absent: Galera takes nil, no position, safe to bootstrap.
    pub grastate: Evidence<GraState>,
    /// `gvwstate.dat`. Absent after a clean stop.
    pub view_state: Evidence<ViewState>,
    /// `galera.cache`.
    pub cache: Evidence<GaleraCache>,
    /// What a state transfer leaves.
    pub state_transfer: Evidence<StateTransfer>,
    /// What the data directory holds.
    pub files: Evidence<DataFiles>,
    /// Bootstrap and hold files.
    pub config: Evidence<ConfigFiles>,
    /// Position by `mariadbd --wsrep-recover` on an overlay. Absent: there is no `ibdata1` to recover.
    pub recovered: Evidence<RecoveredPosition>,
    /// Space of each volume.
    pub volumes: Vec<VolumeSpace>,
    /// What dead operations of ours left on the volumes.
    pub leftovers: Evidence<Vec<String>>,
}

impl DiskEvidence {
    /// Nothing could be read, all for the same reason.
    #[must_use]
    pub fn unread(reason: UnreadReason, detail: &str) -> Self {
        Self {
            processes: Evidence::unread(reason, detail),
            grastate: Evidence::unread(reason, detail),
            view_state: Evidence::unread(reason, detail),
            cache: Evidence::unread(reason, detail),
            state_transfer: Evidence::unread(reason, detail),
            files: Evidence::unread(reason, detail),
            config: Evidence::unread(reason, detail),
            recovered: Evidence::unread(reason, detail),
            volumes: Vec::new(),
            leftovers: Evidence::unread(reason, detail),
        }
    }
}

/// The processes of the database container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processes {
    /// The server that others can connect to, where one runs.
    pub server: Option<ServerProcess>,
    /// `mariadbd --wsrep-recover`, `wsrep_sst_*`, `mariadb-backup`, `mbstream`, `rsync`, `socat` ... that are running.
    pub tools: Vec<String>,
    /// Processes in all. 0: no container runs.
    pub count: u32,
}

/// A running `mariadbd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProcess {
    /// Host pid.
    pub pid: u32,
    /// Its user; never 0 (refused before).
    pub uid: u32,
    /// When it started.
    pub started_at: UnixMillis,
    /// In `/proc` state T or t: stopped by a signal or a tracer.
    pub stopped: bool,
    /// Started with `--wsrep-new-cluster`.
    pub new_cluster: bool,
}

/// `grastate.dat` as Galera itself reads it (`galera/src/saved_state.cpp`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraState {
    /// `version`.
    pub version: Option<String>,
    /// `uuid`; `None` = no such line, which Galera takes for nil. Nil does *not* mean that the data is gone: every DDL
    /// writes it for its duration.
    pub history: Option<History>,
    /// `seqno`; `None` = -1 or no such line: running, crashed, or in a transfer.
    pub seqno: Option<Seqno>,
    /// `safe_to_bootstrap`; true where there is no such line. Says nothing of the data's age.
    pub safe_to_bootstrap: bool,
    /// The last line, where it lacks its newline: Galera drops it.
    pub unterminated: Option<String>,
    /// The file has no byte, as after ENOSPC.
    pub empty: bool,
}

impl GraState {
    /// Where the node stands by this file alone: a named history and a position in it.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match (self.history, self.seqno) {
            (Some(history @ History::Uuid(_)), Some(seqno)) => Some(Position {
                history,
                seqno: Some(seqno),
            }),
            _ => None,
        }
    }
}

/// A history and a position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which history. Nil with a position: it came out of a nil-UUID cluster; the data is real, its name is lost.
    pub history: History,
    /// Where in it; `None` = -1: with nil, never part of a cluster.
    pub seqno: Option<Seqno>,
}

/// `gvwstate.dat`: the last primary view (Galera `gcomm/src/view.cpp`). There while running and after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewState {
    /// The file has no byte. Harmless to Galera 4.
    Empty,
    /// A view.
    View(View),
}

/// A view of the group communication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// `my_uuid`
    pub me: MemberUuid,
    /// Second field of `view_id`.
    pub representative: MemberUuid,
    /// Third field of `view_id`. With the representative it tells who was in one view last.
    pub seq: u32,
    /// `bootstrap: 1`: the view came from `pc.bootstrap`.
    pub bootstrap: bool,
    /// `member`, in order.
    pub members: Vec<ViewMember>,
}

/// A member of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ViewMember {
    /// Its `wsrep_gcomm_uuid`.
    pub uuid: MemberUuid,
    /// Its segment (`gmcast.segment`).
    pub segment: u8,
}

/// Preamble of `galera.cache` (Galera `gcache/src/gcache_rb_store.cpp`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaleraCache {
    /// `Version`.
    pub version: u32,
    /// `GID`; `None` = no such line.
    pub history: Option<History>,
    /// `seqno_min` and `seqno_max`: write-sets *received*, known only after a clean stop.
    pub range: Option<(Seqno, Seqno)>,
    /// `synced: 1`: closed cleanly.
    pub synced: bool,
}

/// What a state transfer leaves in the data directory while it runs or when it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateTransfer {
    /// `sst_in_progress`
    pub in_progress: bool,
    /// `wsrep_sst.pid` or `rsync_sst.pid`
    pub pid_file: bool,
    /// `.sst`
    pub receive_directory: bool,
    /// Names of all of them.
    pub names: Vec<String>,
}

impl StateTransfer {
    /// A transfer runs, or was killed: the data directory cannot be trusted to be whole.
    #[must_use]
    pub const fn began(&self) -> bool {
        self.in_progress || self.pid_file || self.receive_directory
    }
}

/// What the data directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFiles {
    /// Directory `mysql`: without it the image's entrypoint initialises an empty database.
    pub mysql_directory: bool,
    /// Bytes of `ibdata1`; 0 = there is none.
    pub ibdata1_bytes: u64,
    /// `ib_logfile*`
    pub redo_files: u32,
    /// `aria_log_control`
    pub aria_control: bool,
    /// Names in all, without `lost+found`.
    pub entries: u32,
    /// `GRA_*.log`: write-sets that failed to apply.
    pub failed_write_sets: u32,
    /// Bytes of `gcache.page.*`.
    pub cache_page_bytes: u64,
    /// `mariadb_upgrade_info` or `mysql_upgrade_info`: the version that last upgraded the directory.
    pub upgrade_version: Option<String>,
    /// Device and inode of the directory.
    pub identity: (u64, u64),
}

/// Whether a data directory is all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Everything that a server needs to start on it.
    Complete,
    /// Some of it.
    Partial,
    /// None of it: never filled, wiped, or emptied by a state transfer.
    Emptied,
}

impl DataFiles {
    /// Whether the directory is all there. The inside of the files is not looked at.
    #[must_use]
    pub const fn completeness(&self) -> Completeness {
        match (self.mysql_directory, self.ibdata1_bytes > 0, self.redo_files > 0) {
            (true, true, true) => Completeness::Complete,
            (false, false, _) => Completeness::Emptied,
            _ => Completeness::Partial,
        }
    }
}

/// The files of the configuration volume that decide something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigFiles {
    /// `1-bootstrap.cnf`: the next start forms a new cluster.
    pub bootstrap: bool,
    /// `zz-hasteward-hold.cnf`: the server exits at once when it is started.
    pub hold: Option<Hold>,
    /// `0-galera.cnf`: the init container has run.
    pub galera: bool,
}

/// A hold of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The operation, where the file says so.
    pub operation: Option<String>,
}

/// What `mariadbd --wsrep-recover` found in InnoDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredPosition {
    /// Where the node stands. InnoDB may be behind what was acknowledged if `innodb_flush_log_at_trx_commit` is not 1.
    pub position: Position,
    /// With `wsrep_gtid_mode`: domain-server-sequence.
    pub gtid: Option<String>,
    /// Of the server that read it.
    pub server_version: Option<String>,
}

/// Space of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpace {
    /// Which volume.
    pub role: ClaimRole,
    /// `statvfs`.
    pub space: Evidence<Space>,
}

/// `wsrep_cluster_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentStatus {
    /// `Primary`
    Primary,
    /// `non-Primary`: connected, without quorum.
    NonPrimary,
    /// `Disconnected`: the provider is closed; the process needs a restart.
    Disconnected,
}

/// `wsrep_local_state` with its comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalState {
    /// 0, without quorum or not connected.
    Initialized,
    /// 1, or a comment that begins with `Joining`: waiting for or receiving a state transfer.
    Joining,
    /// 2: gives a state transfer, or was desynced.
    Donor,
    /// 3: catching up.
    Joined,
    /// 4
    Synced,
    /// Lost a vote: its data differs from the majority's.
    Inconsistent,
    /// Closed, or a word that this release does not know.
    Other,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `@@version`
    pub version: String,
    /// `@@wsrep_on`
    pub wsrep_on: bool,
    /// `wsrep_cluster_status`
    pub cluster_status: ComponentStatus,
    /// `wsrep_cluster_state_uuid`. Nil while Primary: the silent-divergence alarm.
    pub cluster_history: Option<History>,
    /// `wsrep_cluster_conf_id`; `None` = -1. Some versions give it always: prefer members.
    pub cluster_conf_id: Option<u64>,
    /// `wsrep_cluster_size`
    pub cluster_size: u32,
    /// `wsrep_local_state_uuid`; `None` = empty.
    pub local_history: Option<History>,
    /// `wsrep_local_state`, `wsrep_local_state_comment`
    pub local_state: LocalState,
    /// The comment as it is.
    pub local_state_comment: String,
    /// `wsrep_last_committed`; `None` = -1.
    pub last_committed: Option<Seqno>,
    /// `wsrep_ready`
    pub ready: bool,
    /// `wsrep_connected`
    pub connected: bool,
    /// `wsrep_local_index`
    pub local_index: Option<u32>,
    /// `wsrep_incoming_addresses`
    pub incoming_addresses: Vec<String>,
    /// `wsrep_gcomm_uuid`
    pub member: Option<MemberUuid>,
    /// `wsrep_evs_state` is `OPERATIONAL`.
    pub evs_operational: bool,
    /// `wsrep_provider_version`
    pub provider_version: String,
    /// `wsrep_protocol_version`
    pub protocol_version: u32,
    /// `wsrep_desync_count`: forgotten, it keeps the node out of readiness.
    pub desync_count: u32,
    /// `wsrep_local_cached_downto`: the first write-set that it can send to a joiner.
    pub cached_down_to: Option<Seqno>,
    /// Flow control and queues.
    pub flow: FlowControl,
    /// `@@read_only`
    pub read_only: bool,
    /// `Uptime`, seconds.
    pub uptime_s: u64,
    /// `@@innodb_flush_log_at_trx_commit` is 1: what it acknowledged survives a crash.
    pub durable_commits: bool,
}

/// Whether this node slows the cluster, or is slowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowControl {
    /// `wsrep_flow_control_paused`, parts per million of the time since start or FLUSH STATUS.
    pub paused_ppm: u32,
    /// `wsrep_flow_control_paused_ns`
    pub paused_ns: u64,
    /// `wsrep_flow_control_sent`: rising, this node is the slow one.
    pub sent: u64,
    /// `wsrep_flow_control_recv`
    pub received: u64,
    /// `wsrep_flow_control_active`
    pub active: bool,
    /// `wsrep_local_recv_queue`
    pub recv_queue: u32,
    /// `wsrep_local_send_queue`
    pub send_queue: u32,
    /// `wsrep_local_cert_failures`
    pub cert_failures: u64,
    /// `wsrep_local_bf_aborts`
    pub bf_aborts: u64,
}

/// What the coordinator saw of a node earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its history and position.
    pub position: Position,
    /// When.
    pub at: UnixMillis,
}
