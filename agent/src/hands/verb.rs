//! What the head may ask of the hands: a fixed list. No path of the host, argument vector or environment is among it.

use hasteward_proto::primitive::PodUid;
use serde::{Deserialize, Serialize};

use super::mariadb::RootPassword;
use crate::volume::{Listing, ReadError, RelativePath, Space, Stat, VolumeRole};

/// No session lives longer, seconds.
pub const SESSION_MAX_SECONDS: u16 = 600;

/// A message with the number that its answer repeats.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    /// The number.
    pub(super) id: u64,
    /// The message.
    pub(super) body: T,
}

/// Asked of the hands themselves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ControlRequest {
    /// How are you?
    Status,
    /// A process of its own for one instance; the answer carries its socket.
    Session {
        /// The instance.
        instance: InstanceLocator,
        /// It ends after this many seconds, whatever it is doing.
        seconds: u16,
        /// It may mount and enter namespaces, for [`SessionRequest::Recover`].
        recover: bool,
    },
}

/// The hands' answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ControlAnswer {
    /// To [`ControlRequest::Status`].
    Status(HandsStatus),
    /// To [`ControlRequest::Session`], with a descriptor.
    Session,
    /// No session: too many are open, or the system has no process left.
    Busy(String),
}

/// How the hands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandsStatus {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Sessions that are open.
    pub sessions: u32,
}

/// Asked of one session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionRequest {
    /// The processes of the instance's container.
    Processes,
    /// A connection to its server's socket, made as the server's own user; the answer carries it.
    Connect,
    /// [`DataDirectory::open`](crate::volume::DataDirectory::open); the answer carries the descriptor.
    Open(RelativePath),
    /// [`DataDirectory::list`](crate::volume::DataDirectory::list)
    List(RelativePath, usize),
    /// [`DataDirectory::list_volume`](crate::volume::DataDirectory::list_volume)
    ListVolume(VolumeRole, usize),
    /// [`DataDirectory::read_link`](crate::volume::DataDirectory::read_link)
    ReadLink(RelativePath),
    /// [`DataDirectory::stat`](crate::volume::DataDirectory::stat)
    Stat(RelativePath),
    /// [`DataDirectory::space`](crate::volume::DataDirectory::space)
    Space(VolumeRole),
    /// [`DataDirectory::open_on`](crate::volume::DataDirectory::open_on); the answer carries the descriptor.
    OpenOn(VolumeRole, RelativePath),
    /// The processes of a MariaDB instance's container.
    MariadbProcesses,
    /// The socket of its server, not connected; the answer carries it.
    MariadbSocket,
    /// `mariadbd --wsrep-recover` on an overlay of the data directory, within this many milliseconds.
    Recover(u32),
}

/// A session's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionAnswer {
    /// To [`SessionRequest::Processes`].
    Processes(Result<Processes, ProcessError>),
    /// To [`SessionRequest::Connect`]; with a descriptor where it succeeded.
    Connected(Result<(), ConnectError>),
    /// To [`SessionRequest::Open`]; with a descriptor where it succeeded.
    Opened(Result<(), ReadError>),
    /// To both kinds of listing.
    Listing(Result<Listing, ReadError>),
    /// To [`SessionRequest::ReadLink`].
    Link(Result<String, ReadError>),
    /// To [`SessionRequest::Stat`].
    Stat(Result<Stat, ReadError>),
    /// To [`SessionRequest::Space`].
    Space(Result<Space, ReadError>),
    /// To [`SessionRequest::MariadbProcesses`].
    MariadbProcesses(Result<MariadbProcesses, ProcessError>),
    /// To [`SessionRequest::MariadbSocket`]; with a descriptor where it succeeded.
    MariadbSocket(Result<Option<RootPassword>, ConnectError>),
    /// To [`SessionRequest::Recover`].
    Recovered(Result<RecoveryRun, RecoverError>),
}

/// Where an instance is, in the API server's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLocator {
    /// The pod.
    pub pod: PodUid,
    /// Its database container; `None`: the processes of all its containers count.
    pub container: Option<ContainerId>,
    /// Its volumes.
    pub volumes: Vec<VolumeLocator>,
}

/// Where a volume is, in the API server's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLocator {
    /// Which of the instance's volumes.
    pub role: VolumeRole,
    /// The PersistentVolume, or the pod's own name for an emptyDir.
    pub name: VolumeName,
    /// Its kind.
    pub source: VolumeSource,
    /// Where the container sees it.
    pub mount_path: ContainerPath,
    /// The directory on the volume that the container sees.
    pub sub_path: RelativePath,
}

/// The kind of a volume, which says where kubelet puts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// `kubernetes.io~csi/<pv>/mount`
    Csi,
    /// `kubernetes.io~local-volume/<pv>`, else the path below an allowed root.
    Local(HostPath),
    /// The path, below an allowed root.
    HostPath(HostPath),
    /// `kubernetes.io~empty-dir/<volume>`
    EmptyDir,
    /// `kubernetes.io~nfs/<pv>`
    Nfs,
}

/// A text that is no name or path of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct LocatorError {
    what: &'static str,
    text: String,
}

macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            pub fn new(text: &str) -> Result<Self, LocatorError> {
                let check: fn(&str) -> bool = $check;
                if text.len() <= RelativePath::MAX && check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(LocatorError { what: $what, text: text.chars().take(80).collect() })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = LocatorError;

            fn try_from(text: String) -> Result<Self, LocatorError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

/// `/`, or `/` and a [`RelativePath`].
fn absolute(text: &str) -> bool {
    text == "/"
        || text
            .strip_prefix('/')
            .is_some_and(|rest| RelativePath::new(rest.trim_end_matches('/')).is_ok())
}

checked!(
    /// The last element of a volume's path below the pod: one component.
    VolumeName,
    "volume name",
    |text| !text.contains('/') && text.len() <= 253 && RelativePath::new(text).is_ok()
);
checked!(
    /// An absolute path in a container, without `..`.
    ContainerPath,
    "path in a container",
    absolute
);
checked!(
    /// An absolute path of a PersistentVolume on the host, without `..`: a locator, refused unless below an allowed root.
    HostPath,
    "path of a volume on a host",
    absolute
);
checked!(
    /// A container's id without the runtime's prefix: hexadecimal digits.
    ContainerId,
    "container id",
    |text| (12..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

/// The processes of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processes {
    /// CNPG's instance manager runs.
    pub manager: bool,
    /// The postmaster, where one runs.
    pub postmaster: Option<Postmaster>,
    /// Names of PostgreSQL programs that run and belong to no postmaster: `pg_rewind`, `pg_basebackup`, `pg_ctl`, a
    /// single-user or orphaned `postgres`.
    pub tools: Vec<String>,
}

/// A running postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmaster {
    /// On the host.
    pub pid: u32,
    /// Its effective user on the host.
    pub uid: u32,
    /// Its effective group on the host.
    pub gid: u32,
    /// When it began, milliseconds since 1970.
    pub started_at_ms: i64,
    /// In state T or t: stopped by a signal or a tracer.
    pub stopped: bool,
}

/// The processes of a MariaDB instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MariadbProcesses {
    /// The server that others can connect to, where one runs.
    pub server: Option<ServerProcess>,
    /// Names of programs that use a data directory and are not that server: a recovering `mariadbd`, `wsrep_sst_*`,
    /// `mariadb-backup`, `rsync` ...
    pub tools: Vec<String>,
    /// Processes in all.
    pub count: u32,
}

/// A running `mariadbd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProcess {
    /// On the host.
    pub pid: u32,
    /// Its effective user on the host.
    pub uid: u32,
    /// Its effective group on the host.
    pub gid: u32,
    /// When it began, milliseconds since 1970.
    pub started_at_ms: i64,
    /// In state T or t: stopped by a signal or a tracer.
    pub stopped: bool,
    /// Started with `--wsrep-new-cluster`.
    pub new_cluster: bool,
}

/// What a recovery on an overlay did. Whether it found a position is for the reader of its log to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRun {
    /// The end of what the server wrote, at most 256 KiB.
    pub log: String,
    /// Its exit code; `None`: a signal ended it.
    pub exit: Option<i32>,
    /// How long it took.
    pub elapsed_ms: u64,
    /// What it wrote beside the data directory, bytes.
    pub scratch_bytes: u64,
}

/// Why there was no recovery, or none that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RecoverError {
    /// There is nothing to recover, proven by a listing.
    #[error("{0}")]
    NoData(String),
    /// Something uses the data directory, or has changed it meanwhile.
    #[error("the data directory is in use: {0}")]
    InUse(String),
    /// No running container has the server's program and Galera.
    #[error("{0}")]
    NoProgram(String),
    /// It would need more room beside the data directory than there is.
    #[error("{0}")]
    NoRoom(String),
    /// It was not done in time.
    #[error("{0}")]
    Timeout(String),
    /// A rule forbids it.
    #[error("{0}")]
    Refused(String),
    /// The kernel, or a security module, does.
    #[error("{step}: {detail}")]
    Step {
        /// What was tried.
        step: String,
        /// The system's words.
        detail: String,
    },
    /// The processes are not known.
    #[error(transparent)]
    Processes(#[from] ProcessError),
    /// The data directory cannot be read.
    #[error(transparent)]
    Volume(#[from] ReadError),
}

/// Why the processes of an instance are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ProcessError {
    /// `/proc` could not be listed.
    #[error("listing /proc: {0}")]
    List(String),
    /// `/proc/stat` has no boot time.
    #[error("/proc/stat: {0}")]
    BootTime(String),
    /// A process of the pod could not be looked at.
    #[error("process {pid}: {detail}")]
    Look {
        /// The process.
        pid: u32,
        /// The system's words.
        detail: String,
    },
    /// The server runs as uid 0, which PostgreSQL itself refuses.
    #[error("the server, process {pid}, runs as uid 0")]
    Root {
        /// The process.
        pid: u32,
    },
    /// Nothing runs in the container that was asked for, and a server or its manager runs in another one of the pod.
    #[error("nothing runs in the container that is known, but process {pid} in another one of the pod")]
    OtherContainer {
        /// The process.
        pid: u32,
    },
    /// The pod has more processes, or longer command lines, than are looked at.
    #[error("the pod has too many processes")]
    TooMany,
    /// Not answered in time.
    #[error("{0}")]
    Timeout(String),
    /// The hands are gone.
    #[error("{0}")]
    Lost(String),
}

/// Why there is no connection to an instance's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ConnectError {
    /// The processes are not known.
    #[error("{0}")]
    Processes(#[from] ProcessError),
    /// No postmaster runs.
    #[error("no postmaster runs")]
    NoServer,
    /// It has no socket, or nobody listens there: it starts, stops, or listens elsewhere.
    #[error("the postmaster, process {pid}, does not listen: {detail}")]
    NotListening {
        /// The process.
        pid: u32,
        /// What was met.
        detail: String,
    },
    /// It is stopped, or does not accept connections.
    #[error("the postmaster, process {pid}, does not accept connections: {detail}")]
    Hung {
        /// The process.
        pid: u32,
        /// What was met.
        detail: String,
    },
    /// What is at the socket's place is not this server's socket.
    #[error("{0}")]
    Refused(String),
    /// The attempt itself failed.
    #[error("connecting: {0}")]
    Attempt(String),
    /// Not answered in time.
    #[error("{0}")]
    Timeout(String),
}
