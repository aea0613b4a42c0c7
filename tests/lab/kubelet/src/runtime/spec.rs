//! What a container process is told: everything is decided before, nothing is looked up after the fork.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who the process is, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User id inside the container.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups (fsGroup, supplementalGroups, groups of the image).
    pub groups: Vec<u32>,
    /// Bounding set, by canonical name (`CAP_CHOWN`). A process that is not root has no effective capability.
    pub capabilities: Vec<String>,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
}

/// How mounts made later on the node reach the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    None,
    /// `HostToContainer`: rslave.
    HostToContainer,
}

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// A path in the node's mount namespace.
    pub from: PathBuf,
    /// An absolute path in the container.
    pub to: PathBuf,
    /// Only the top mount becomes read-only, as with a real runtime.
    pub read_only: bool,
    /// With all mounts below it.
    pub recursive: bool,
    /// See [`Propagation`].
    pub propagation: Propagation,
}

/// A file written into the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFile {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// Its text.
    pub content: String,
}

/// The root file system of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// A directory of the node over which the tmpfs is mounted (in the container's own mount namespace).
    pub scratch: PathBuf,
    /// The image: read-only binds.
    pub image: Vec<Bind>,
    /// The image: files.
    pub files: Vec<RootFile>,
    /// Volumes and files of the kubelet, in the order of mounting.
    pub mounts: Vec<Bind>,
    /// `readOnlyRootFilesystem`.
    pub read_only: bool,
    /// The node's `/dev`, `/sys` and `/proc/sys` writable.
    pub privileged: bool,
}

/// What to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; the program is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; made if it does not exist.
    pub cwd: PathBuf,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Pid of the sandbox in the node's pid namespace: owner of the net, ipc and uts namespaces.
    pub sandbox: i32,
    /// Share the node's pid namespace.
    pub host_pid: bool,
    /// Directory in the cgroup file system of the container's processes.
    pub cgroup: PathBuf,
    /// Directory of the monitor (CRI-O's conmon), if it has one of its own.
    pub monitor_cgroup: Option<PathBuf>,
    /// Root file system.
    pub root: RootFs,
    /// Program.
    pub command: Command,
    /// Identity.
    pub credentials: Credentials,
}

/// The first message to a sandbox process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Host name of the pod; `None` leaves the node's uts namespace in place (`hostNetwork`).
    pub hostname: Option<String>,
    /// Use the node's network namespace.
    pub host_network: bool,
    /// Use the node's ipc namespace.
    pub host_ipc: bool,
    /// Its cgroup directory.
    pub cgroup: PathBuf,
}

/// A program to run inside a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Main process of the container, in the node's pid namespace.
    pub pid: i32,
    /// cgroup directory to join.
    pub cgroup: PathBuf,
    /// Program.
    pub command: Command,
    /// Identity.
    pub credentials: Credentials,
}

/// What the monitor of a container reports, one JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MonitorEvent {
    /// The program was executed.
    Started {
        /// Pid in the node's pid namespace.
        pid: i32,
    },
    /// The program could not be executed.
    Failed {
        /// Step and cause.
        message: String,
    },
    /// The program ended.
    Exited {
        /// Exit code, or 128 + signal.
        code: i32,
        /// Signal that ended it.
        signal: Option<i32>,
    },
}

/// What the kubelet asks of the monitor of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MonitorCommand {
    /// Send this signal to the main process.
    Signal(i32),
}
