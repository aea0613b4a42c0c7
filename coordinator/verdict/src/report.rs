//! What a triage says to people and programs: the `data` of `hasteward triage -o json`.
//!
//! One model for the wire, the command line and the JSON Schema. Fields are only added within a schema version.

use hasteward_proto::primitive::{ClusterRef, Engine, InstanceName, Lsn, TimelineId, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::Unread;

/// The result of one triage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriageReport {
    /// Which operator runs it.
    pub engine: Engine,
    /// Which cluster.
    pub cluster: ClusterRef,
    /// When the evidence was complete.
    pub collected_at: UnixMillis,
    /// What the operator says of itself (`status.phase`), verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Who holds the data that counts.
    pub verdict: Verdict,
    /// One entry an instance, by name.
    pub instances: Vec<InstanceReport>,
    /// What is wrong, worst first.
    pub diagnoses: Vec<Diagnosis>,
}

/// Who holds the data that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The kind.
    pub kind: VerdictKind,
    /// The instance whose data counts. Only with `provable` and `leader_not_primary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<InstanceName>,
    /// Why, one line each. With `undeterminable`: what blocks.
    pub reasons: Vec<String>,
    /// Where the branches part. Only with `diverged` and `leader_not_primary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<Lsn>,
    /// The branches, with what a human needs to choose. Empty unless histories parted.
    pub branches: Vec<Branch>,
}

/// Kinds of verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// One instance provably holds everything, and it is the primary.
    Provable,
    /// One instance provably holds everything, and it is not the primary.
    LeaderNotPrimary,
    /// Two instances hold commits that the other lacks.
    Diverged,
    /// Not enough could be read to say.
    Undeterminable,
}

/// One line of history past a fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// Who is on it.
    pub instances: Vec<InstanceName>,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Its end.
    pub end: Lsn,
    /// Bytes of WAL past the fork.
    pub bytes_past_fork: u64,
    /// Commits past the fork; `None` = could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits_past_fork: Option<u64>,
    /// Time of the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_commit_at: Option<UnixMillis>,
    /// Time of the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit_at: Option<UnixMillis>,
}

/// What is known of one instance, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReport {
    /// Its name.
    pub instance: InstanceName,
    /// Its pod's name; `None` = there is no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its node's name, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its role.
    pub role: Role,
    /// One or two words: `streaming`, `crash-looping`, `fenced`, `server hung`.
    pub state: String,
    /// A database server runs; `None` = not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// The pod is Ready; `None` = not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// What to do with it.
    pub action: Action,
    /// Why, one line each, most important first.
    pub reasons: Vec<String>,
    /// Where it is in history; `None` = not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Space of its volumes.
    pub disk: Vec<VolumeReport>,
    /// What could not be read.
    pub unread: Vec<UnreadItem>,
}

/// The role of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The operator's current primary.
    Primary,
    /// Any other.
    Replica,
    /// The operator does not say.
    Unknown,
}

/// What to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    None,
    /// Starting, joining, catching up: let it.
    Wait,
    /// Start it again; the start path provably erases nothing.
    Restart,
    /// Galera: start it again into an incremental state transfer.
    Rejoin,
    /// Take its directory back to the fork, on a copy.
    Rewind,
    /// Replace its data with a fresh copy of the authority's.
    Reseed,
    /// Its volume is gone: make the instance anew.
    Recreate,
    /// Nothing may be done before a human decides or something becomes readable.
    Blocked,
}

/// Where an instance is in history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The newest timeline that it has followed.
    pub timeline: TimelineId,
    /// The end of its WAL.
    pub lsn: Lsn,
    /// How this is known: `server`, `wal records`, `wal pages`, `seen streaming`.
    pub source: String,
    /// Bytes behind the authority; `None` = not comparable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// When it was seen, where not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<UnixMillis>,
}

/// Space of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeReport {
    /// `data`, `wal`, or `tablespace <name>`.
    pub volume: String,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free for the database.
    pub free_bytes: u64,
    /// Bytes of `pg_wal` on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_bytes: Option<u64>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadItem {
    /// What: `control file`, `server`, `pod`.
    pub item: String,
    /// Why.
    #[serde(flatten)]
    pub why: Unread,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Stable id: `cnpg-replica-down`.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// What it rests on, one line each.
    pub evidence: Vec<String>,
    /// A command that exists and is ready to paste, or what a human must decide.
    pub remedy: String,
    /// The instance it is about; `None` = the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<InstanceName>,
}

/// How bad a diagnosis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Data may be lost if the wrong thing is done now.
    Critical,
    /// Redundancy or service is impaired.
    Error,
    /// Will become worse.
    Warning,
    /// Worth knowing.
    Info,
}

/// Every watched cluster, a line each: the `data` of `hasteward get status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterList {
    /// By namespace and name.
    pub clusters: Vec<ClusterRow>,
}

/// One line of `get status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRow {
    /// Which operator runs it.
    pub engine: Engine,
    /// Which cluster.
    pub cluster: ClusterRef,
    /// `spec.instances` or `spec.replicas`.
    pub wanted_instances: u32,
    /// Ready instances, as the operator reports.
    pub ready_instances: u32,
    /// Current primary, as the operator reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The operator's phase, verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When the coordinator's copy of it was last confirmed by the API server.
    pub seen_at: UnixMillis,
}

impl TriageReport {
    /// The exit code of `triage`: 0 healthy, 4 cannot know, 6 something to act on. Never 3.
    ///
    /// Healthy = every action is `none` or `wait` and no diagnosis is worse than `info`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.verdict.kind == VerdictKind::Undeterminable {
            return 4;
        }
        let calm = self
            .instances
            .iter()
            .all(|i| matches!(i.action, Action::None | Action::Wait))
            && self.diagnoses.iter().all(|d| d.severity == Severity::Info)
            && self.verdict.kind == VerdictKind::Provable;
        if calm { 0 } else { 6 }
    }
}
