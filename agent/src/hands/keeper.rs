//! The hands' first process: starts sessions, and never touches a volume or a process of a database itself.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use hasteward_proto::primitive::PodUid;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use super::fork::{Fork, ForkError, fork};
use super::packet::{PacketError, PacketSocket};
use super::privilege::{PrivilegeError, become_hands, become_reader};
use super::verb::{
    ControlAnswer, ControlRequest, HandsStatus, InstanceLocator, Numbered, SESSION_MAX_SECONDS,
};
use super::{HandsConfig, session};

/// Sessions at a time; one that hangs on a dead volume counts until the kernel lets it go.
const SESSIONS_MAX: usize = 48;

/// Sessions at a time for one pod.
const SESSIONS_PER_POD: usize = 4;

/// How often ended sessions are collected while there are any.
const COLLECT_MILLIS: u16 = 500;

#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error("process attributes: {0}")]
    Attributes(Errno),
    #[error("the head was gone before the hands began")]
    Orphaned,
    #[error("waiting for the head: {0}")]
    Wait(Errno),
    #[error("socket to the head: {0}")]
    Socket(#[from] PacketError),
}

/// Runs until the head is gone; the exit code. `lifeline` is held open for as long: the head reads its closing.
pub(super) fn run(config: &HandsConfig, control: PacketSocket, lifeline: UnixStream, head: Pid) -> i32 {
    match keep(config, control, lifeline, head) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "hands");
            1
        }
    }
}

fn keep(
    config: &HandsConfig,
    control: PacketSocket,
    lifeline: UnixStream,
    head: Pid,
) -> Result<(), KeeperError> {
    become_hands()?;
    let _ = prctl::set_name(c"hasteward-hands");
    // For a head that dies while it is still root; later the kernel finds it may not signal us, and its socket closes.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(KeeperError::Attributes)?;
    if getppid() != head {
        return Err(KeeperError::Orphaned);
    }
    // The head decides when to end, also when the whole process group is signalled.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block().map_err(KeeperError::Attributes)?;
    let keeper = Pid::this();
    let mut sessions: HashMap<Pid, PodUid> = HashMap::new();
    loop {
        collect(&mut sessions);
        let wait = if sessions.is_empty() {
            PollTimeout::NONE
        } else {
            PollTimeout::from(COLLECT_MILLIS)
        };
        match poll(&mut [PollFd::new(control.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(KeeperError::Wait(errno)),
        }
        let Numbered { id, body } = match control.receive::<Numbered<ControlRequest>>() {
            Ok((request, _)) => request,
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        collect(&mut sessions);
        let (answer, socket) = match body {
            ControlRequest::Status => {
                let sessions = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
                (
                    ControlAnswer::Status(HandsStatus {
                        rss_bytes: crate::memory::resident_bytes(),
                        sessions,
                    }),
                    None,
                )
            }
            ControlRequest::Session {
                instance,
                seconds,
                recover,
            } => {
                let of_pod = sessions.values().filter(|pod| **pod == instance.pod).count();
                if sessions.len() >= SESSIONS_MAX || of_pod >= SESSIONS_PER_POD {
                    (
                        ControlAnswer::Busy(format!(
                            "{} sessions are open, {of_pod} of this pod",
                            sessions.len()
                        )),
                        None,
                    )
                } else {
                    match PacketSocket::pair()
                        .map_err(ForkError::from)
                        .and_then(|pair| Ok((pair, fork()?)))
                    {
                        Ok(((ours, theirs), Fork::Child)) => {
                            // What belongs to the keeper alone.
                            drop((ours, control, lifeline));
                            session_process(config, &instance, seconds, recover, &theirs, keeper);
                        }
                        Ok(((ours, _), Fork::Parent(pid))) => {
                            sessions.insert(pid, instance.pod);
                            (ControlAnswer::Session, Some(ours.into_descriptor()))
                        }
                        Err(error) => (ControlAnswer::Busy(error.to_string()), None),
                    }
                }
            }
        };
        let answered = control.send(&Numbered { id, body: answer }, socket.as_ref().map(AsFd::as_fd));
        match answered {
            Ok(()) => {}
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The process of one session: to its end.
fn session_process(
    config: &HandsConfig,
    instance: &InstanceLocator,
    seconds: u16,
    recover: bool,
    socket: &PacketSocket,
    keeper: Pid,
) -> ! {
    // Before anything that could wait: the kernel's own limit, then the end of the keeper.
    nix::unistd::alarm::set(u32::from(seconds).clamp(1, u32::from(SESSION_MAX_SECONDS)));
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != keeper {
        std::process::exit(1);
    }
    // Only a session that recovers may mount; the others meet hostile volumes without that power.
    if !recover && become_reader().is_err() {
        std::process::exit(1);
    }
    let code = match session::serve(config, instance, socket, recover) {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!(%error, pod = %instance.pod, "session");
            1
        }
    };
    std::process::exit(code);
}

fn collect(sessions: &mut HashMap<Pid, PodUid>) {
    while !sessions.is_empty() {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                sessions.remove(&pid);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
