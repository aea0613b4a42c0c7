//! The server is process 1 of a process namespace of its own, below the container's: whatever it starts, in whatever session,
//! is in there and ends with it. And it is the recoverer's own child, so that waiting for it waits for all of that.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::super::fork::{Fork, fork, fork_first, own_handle};
use super::super::packet::PacketSocket;
use super::super::verb::RecoverError;
use super::step;

/// A fork that takes longer hangs.
const TIME: Duration = Duration::from_secs(10);

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
enum Begun {
    /// Process 1 is there, with a handle of itself, and waits.
    First,
    Failed {
        step: String,
        errno: i32,
    },
}

/// Starts `server` as the first process of a new namespace below `container`'s; its number, as this process sees it.
pub(super) fn begin(container: &OwnedFd, server: impl FnOnce()) -> Result<Pid, RecoverError> {
    let (ours, theirs) = PacketSocket::pair().map_err(|errno| step("socket pair", errno))?;
    // Its child, not itself, will be in the container's process namespace, where /proc is that of the container.
    setns(container, CloneFlags::CLONE_NEWPID)
        .map_err(|errno| step("the container's process namespace (needs CAP_SYS_ADMIN)", errno))?;
    let between = match fork().map_err(|error| RecoverError::Step {
        step: "server".to_owned(),
        detail: error.to_string(),
    })? {
        Fork::Child => {
            drop(ours);
            // A process namespace is made by a process that is in the one above it.
            match fork_first() {
                Ok(true) => {
                    if first(&theirs).is_some() {
                        drop(theirs);
                        server();
                    }
                    std::process::exit(127)
                }
                Ok(false) => std::process::exit(0),
                Err(errno) => fail(
                    &theirs,
                    "a process namespace of its own (needs CAP_SYS_ADMIN)",
                    errno,
                ),
            }
        }
        Fork::Parent(between) => between,
    };
    drop(theirs);
    let _ = ours.set_timeout(TIME);
    let begun = ours.receive::<Begun>();
    let _ = waitpid(between, None);
    match begun {
        Ok((Begun::First, Some(handle))) => {
            let first = number(&handle).ok_or_else(|| step("the server's number", Errno::ESRCH))?;
            // Not before it is known: what cannot be ended is not started.
            ours.send(&(), None).map_err(|error| RecoverError::Step {
                step: "server".to_owned(),
                detail: error.to_string(),
            })?;
            Ok(first)
        }
        Ok((Begun::First, None)) => Err(step("the server's handle", Errno::EBADF)),
        Ok((Begun::Failed { step: at, errno }, _)) => Err(step(&at, Errno::from_raw(errno))),
        Err(error) => Err(RecoverError::Step {
            step: "server".to_owned(),
            detail: error.to_string(),
        }),
    }
}

/// In process 1: says who it is, and waits until that is known.
fn first(socket: &PacketSocket) -> Option<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).ok()?;
    match own_handle() {
        Ok(handle) => socket.send(&Begun::First, Some(handle.as_fd())).ok()?,
        Err(errno) => fail(socket, "a handle of itself", errno),
    }
    socket.receive::<()>().ok().map(drop)
}

fn fail(socket: &PacketSocket, step: &str, errno: Errno) -> ! {
    let failed = Begun::Failed {
        step: step.to_owned(),
        errno: errno as i32,
    };
    let _ = socket.send(&failed, None);
    std::process::exit(127)
}

/// The number of a process in our own namespace, by a handle of it (`Pid:` of pidfd's fdinfo, proc(5)); -1: it has ended.
fn number(handle: &OwnedFd) -> Option<Pid> {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).ok()?;
    let number = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 1)
        .map(Pid::from_raw)
}
