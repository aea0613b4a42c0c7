//! Evidence that is the same for every engine: pods, claims, nodes, room.

use hasteward_proto::primitive::{NodeName, PodUid, UnixMillis};
use serde::{Deserialize, Serialize};

/// The pod of one instance.
#[allow(clippy::struct_excessive_bools, reason = "each is one field of the pod")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: PodUid,
    /// `spec.nodeName`; `None` = not scheduled.
    pub node: Option<NodeName>,
    /// `status.phase` is Running.
    pub running: bool,
    /// The pod's Ready condition.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `metadata.deletionTimestamp`: when the grace period of a deletion ends (the API server adds it to the time of the call).
    #[serde(default)]
    pub delete_by: Option<UnixMillis>,
    /// State of the database container.
    pub container: ContainerState,
    /// Its `restartCount`.
    pub restarts: u32,
    /// Its `lastState.terminated`: the run before this one.
    pub previous: Option<PreviousRun>,
    /// `cnpg.io/instanceRole`, or mariadb-operator's `k8s.mariadb.com/role`, is `primary`.
    pub labelled_primary: bool,
    /// Why it is not scheduled (`PodScheduled=False`), where it is not.
    pub unschedulable: Option<String>,
    /// When the pod was created.
    pub created_at: UnixMillis,
}

/// `status.containerStatuses[].state` of the database container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Running since.
    Running {
        /// `startedAt`.
        since: UnixMillis,
    },
    /// Waiting: `CrashLoopBackOff`, `ImagePullBackOff`, `ContainerCreating` ...
    Waiting {
        /// `reason`.
        reason: String,
        /// Exit code of the run before, where there was one.
        last_exit: Option<i32>,
    },
    /// Ended and not restarted (yet).
    Terminated {
        /// `exitCode`.
        exit: i32,
    },
    /// The kubelet has not reported it.
    Unreported,
}

/// `lastState.terminated` of the database container. Its length tells a crash loop from one restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousRun {
    /// `exitCode`.
    pub exit: i32,
    /// `startedAt`.
    pub started_at: UnixMillis,
    /// `finishedAt`.
    pub finished_at: UnixMillis,
}

/// One PVC of an instance, with what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim<R> {
    /// `metadata.name`.
    pub name: String,
    /// What it is for, by the operator's label.
    pub role: R,
    /// `spec.volumeName`; `None` = not bound.
    pub volume: Option<String>,
    /// `status.phase` is Bound.
    pub bound: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// The operator's own word on it, where it has one.
    pub status: Option<String>,
    /// Requested bytes of storage, where it could be parsed.
    pub requested_bytes: Option<u64>,
}

/// The node of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Condition Ready is True.
    pub ready: bool,
    /// Whether an agent answers there.
    pub agent: AgentPresence,
}

/// The agent of a node, as the coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPresence {
    /// Connected.
    Connected,
    /// Connected earlier, or its pod exists; not now.
    Unreachable,
    /// No agent was ever seen on this node.
    None,
}

/// `statvfs` of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free for the database's user.
    pub free_bytes: u64,
    /// Inodes in all; 0 = the file system has no fixed number.
    pub total_inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Mounted read-only.
    pub read_only: bool,
}
