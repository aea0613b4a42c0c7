//! The one place where a process is forked.

use nix::unistd::ForkResult;

/// Forks a helper process that has one thread.
///
/// # Errors
/// `EINVAL` when the process has more than one thread; else what `fork(2)` says.
#[allow(
    unsafe_code,
    reason = "a pid namespace starts with the next fork; no safe call exists for a fork that goes on in Rust"
)]
pub(super) fn fork_single_threaded() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(nix::Error::EINVAL);
    }
    // SAFETY: there is no other thread that could hold a lock at the time of the fork (checked above).
    unsafe { nix::unistd::fork() }
}
