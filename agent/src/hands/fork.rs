//! [`fork`]: only where it cannot go wrong.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// Which side this is.
#[derive(Debug)]
pub(super) enum Fork {
    /// The one that forked; the child's id.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Another thread may hold a lock that would stay locked for ever in the child.
    #[error("this process has {0} threads, and may fork with one only")]
    Threads(usize),
    /// The thread count.
    #[error("/proc/self/task: {0}")]
    Count(std::io::Error),
    /// The system has no process left.
    #[error("fork: {0}")]
    Fork(#[from] Errno),
}

/// Forks, if this process has one thread.
pub(super) fn fork() -> Result<Fork, ForkError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(ForkError::Count)?
        .count();
    if threads != 1 {
        return Err(ForkError::Threads(threads));
    }
    // SAFETY: this is the only thread, so nothing in the child is left half-done or locked by a thread that is not there.
    #[allow(
        unsafe_code,
        reason = "fork is unsafe for the sake of other threads, and there are none"
    )]
    let forked = unsafe { nix::unistd::fork() }?;
    Ok(match forked {
        ForkResult::Parent { child } => Fork::Parent(child),
        ForkResult::Child => Fork::Child,
    })
}
