//! The recoverer and its child, the server: see [`super::recover`].

pub(super) mod clean;
mod namespace;
mod overlay;
mod server;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::fstatvfs;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::privilege::become_recoverer;
use super::verb::{RecoverError, RecoveryRun};

/// Bytes of the log that are kept: its end.
const LOG_MAX: usize = 256 * 1024;

/// How often the room that is used is counted.
const WATCH: Duration = Duration::from_millis(200);

/// What the recoverer tells the session.
pub(super) type Report = Result<RecoveryRun, RecoverError>;

/// Everything that a recoverer needs, opened while it still may.
#[derive(Debug)]
pub(super) struct Plan {
    /// Owner of the data.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// The data directory.
    pub(super) lower: OwnedFd,
    /// Where the container sees it.
    pub(super) place: String,
    /// Bytes that may be written beside it.
    pub(super) scratch_max: u64,
    /// When it must be done.
    pub(super) until: Instant,
    /// Whose programs run.
    pub(super) container: Container,
}

/// A running container.
#[derive(Debug)]
pub(super) struct Container {
    /// Its mount namespace.
    pub(super) mounts: OwnedFd,
    /// Its process namespace.
    pub(super) processes: OwnedFd,
    /// Its root directory.
    pub(super) root: OwnedFd,
    /// The server, absolute in the container.
    pub(super) program: String,
    /// Galera, absolute in the container.
    pub(super) provider: String,
}

fn step(step: &str, errno: Errno) -> RecoverError {
    RecoverError::Step {
        step: step.to_owned(),
        detail: errno.desc().to_owned(),
    }
}

/// In the recoverer: to the end, including what it leaves in `run`.
pub(super) fn run(plan: &Plan, run: BorrowedFd<'_>) -> Report {
    become_recoverer(plan.uid, plan.gid).map_err(|errno| step("becoming the data's owner", errno))?;
    // After the change of user, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| step("death signal", errno))?;
    let report = carry_out(plan, run);
    clean::all(run);
    report
}

fn carry_out(plan: &Plan, run: BorrowedFd<'_>) -> Report {
    let overlay = overlay::make(plan, run)?;
    let (log, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| step("pipe", errno))?;
    let free = free(run);
    let server = namespace::begin(&plan.container.processes, || server::exec(plan, &overlay, &write))?;
    drop((write, overlay));
    let watched = watch(plan, run, log, free);
    // Ended or not: neither it nor anything that it started must outlive us.
    let _ = kill(server, Signal::SIGKILL);
    let exit = reap(server);
    let scratch_bytes = clean::used(run, u64::MAX, plan.until);
    watched.map(|log| RecoveryRun {
        log,
        exit,
        elapsed_ms: 0,
        scratch_bytes,
    })
}

/// The server's output until it closes it, or until time or room are used up.
fn watch(
    plan: &Plan,
    run: BorrowedFd<'_>,
    log: OwnedFd,
    free_before: Option<u64>,
) -> Result<String, RecoverError> {
    let mut log = std::fs::File::from(log);
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut counted = Instant::now();
    loop {
        let now = Instant::now();
        if now >= plan.until {
            return Err(RecoverError::Timeout(format!(
                "the recovery was not done in time; it said last: {}",
                last_line(&kept)
            )));
        }
        if now.duration_since(counted) >= WATCH {
            counted = now;
            // Files without a name are counted by the room that they take, which others on that file system take too.
            let taken = free_before
                .zip(free(run))
                .map(|(before, now)| before.saturating_sub(now));
            if clean::used(run, plan.scratch_max, plan.until) > plan.scratch_max
                || taken.is_some_and(|taken| taken > plan.scratch_max)
            {
                return Err(RecoverError::NoRoom(format!(
                    "the recovery wrote more than {} bytes beside the data directory",
                    plan.scratch_max
                )));
            }
        }
        let wait = WATCH.min(plan.until - now).as_millis();
        let wait = PollTimeout::from(u16::try_from(wait).unwrap_or(200).max(1));
        match poll(&mut [PollFd::new(log.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(step("the server's output", errno)),
        }
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => kept.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if kept.len() > 2 * LOG_MAX {
            kept.drain(..kept.len() - LOG_MAX);
        }
    }
    let from = kept.len().saturating_sub(LOG_MAX);
    Ok(String::from_utf8_lossy(&kept[from..]).into_owned())
}

/// Bytes free on the file system of `run`.
fn free(run: BorrowedFd<'_>) -> Option<u64> {
    let found = fstatvfs(run).ok()?;
    Some(found.blocks_free().saturating_mul(found.fragment_size()))
}

fn last_line(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("nothing").chars().take(200).collect()
}

fn reap(server: Pid) -> Option<i32> {
    loop {
        match waitpid(server, None) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}
