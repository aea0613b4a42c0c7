//! The privileged half of the agent: single-threaded, without network, with a fixed list of verbs.
//!
//! One process keeps the list of sessions ([`keeper`]); each session, one process for one instance ([`session`]), answers
//! the head on a socket of its own. So a volume that hangs holds up nobody but its own reader, and the kernel ends a
//! session that outlives its time. The head talks to them through [`Hands`] and [`Session`] ([`client`]).
//!
//! The hands keep `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT` for one verb: the position of a stopped MariaDB node is read by its
//! own server on an overlay ([`recover`]), which takes a mount and the container's namespaces. Sessions that only read give
//! both up before they touch anything ([`privilege`]).

mod cgroup;
mod client;
mod connect;
mod fork;
mod keeper;
mod locate;
mod mariadb;
mod mounting;
mod packet;
mod privilege;
mod process;
mod recover;
mod recoverer;
mod session;
mod verb;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Pid;

pub use client::{Hands, Session, SessionError};
pub use fork::ForkError;
use fork::{Fork, fork};
pub use mariadb::RootPassword;
pub use packet::PacketError;
use packet::PacketSocket;
pub use privilege::{HEAD_ID, PrivilegeError, become_head};
pub use verb::{
    ConnectError, ContainerId, ContainerPath, HandsStatus, HostPath, InstanceLocator, LocatorError,
    MariadbProcesses, Postmaster, ProcessError, Processes, RecoverError, RecoveryRun, SESSION_MAX_SECONDS,
    ServerProcess, VolumeLocator, VolumeName, VolumeSource,
};

/// What the hands know of their node. Fixed when they start; nothing of it can be changed over the socket.
#[derive(Debug, Clone)]
pub struct HandsConfig {
    /// Kubelet's root directory, `/var/lib/kubelet` by default.
    pub kubelet_root: PathBuf,
    /// Where the node's process table is mounted.
    pub proc: PathBuf,
    /// hostPath and local PersistentVolumes count only below one of these.
    pub allowed_volume_roots: Vec<PathBuf>,
    /// Where a recovery writes what it must not write to a data directory: on a file system that an overlay can have as
    /// its upper layer (not an overlay itself). Only root may enter it.
    pub scratch: PathBuf,
}

/// Why there are no hands.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// In a pid namespace of its own the agent sees none of the node's processes, and would take that for proof that no
    /// server runs.
    #[error("the agent is process 1: it runs in a pid namespace of its own (the pod needs hostPID: true)")]
    OwnPidNamespace,
    /// The socket pair.
    #[error("socket pair: {0}")]
    Socket(#[from] Errno),
    /// The pair by which each half sees the other end.
    #[error("lifeline: {0}")]
    Lifeline(std::io::Error),
    /// The fork.
    #[error(transparent)]
    Fork(#[from] ForkError),
}

/// Forks the hands; the caller goes on as the head, with every privilege until [`become_head`]. To be called before there
/// is a second thread. The hands end when the returned client is dropped.
pub fn split(config: &HandsConfig) -> Result<Hands, SplitError> {
    let (ours, theirs) = PacketSocket::pair()?;
    let (lifeline, far_end) = UnixStream::pair().map_err(SplitError::Lifeline)?;
    let head = Pid::this();
    if head.as_raw() == 1 {
        return Err(SplitError::OwnPidNamespace);
    }
    match fork()? {
        Fork::Parent(pid) => Ok(Hands::new(ours, lifeline, pid)),
        Fork::Child => {
            drop((ours, lifeline));
            let code = keeper::run(config, theirs, far_end, head);
            std::process::exit(code);
        }
    }
}
