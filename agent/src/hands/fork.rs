//! [`fork`]: only where it cannot go wrong.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::unistd::{ForkResult, Pid};

use super::mounting::descriptor;

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

/// Forks a child of this process's own *parent*, the first process of a new process namespace; true in the new one. Only in a
/// process that came from [`fork`] and did nothing since.
pub(super) fn fork_first() -> Result<bool, Errno> {
    let flags = libc::CLONE_NEWPID | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork: this is the only thread, memory is copied, and the child goes on with the same stack.
    #[allow(
        unsafe_code,
        reason = "no wrapper of clone(2) makes a sibling that goes on here"
    )]
    let forked = unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), 0, 0, 0, 0) };
    Errno::result(forked).map(|pid| pid == 0)
}

/// A handle of this very process (`pidfd_open(2)`).
pub(super) fn own_handle() -> Result<OwnedFd, Errno> {
    // SAFETY: two numbers.
    #[allow(unsafe_code, reason = "there is no wrapper of pidfd_open(2)")]
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(std::process::id()), 0) })
}
