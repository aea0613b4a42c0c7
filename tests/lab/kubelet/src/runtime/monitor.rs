//! `container-init`: a single-threaded process that starts one container and stays as its monitor.
//!
//! Standard input is a socket to the kubelet: first line the [`ContainerSpec`], then [`MonitorCommand`]s; back go
//! [`MonitorEvent`]s. The end of that socket is the end of the kubelet, and so of the container.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stdin, pipe2};

use super::spec::{ContainerSpec, MonitorCommand, MonitorEvent};
use super::step::{At, StepError};
use super::{fork, identity, rootfs};

/// Runs the monitor until its container has ended.
///
/// # Errors
/// Only when the socket to the kubelet is unusable; everything else is reported through it.
pub fn run(socket: &UnixStream) -> anyhow::Result<()> {
    let mut input = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let spec: ContainerSpec = serde_json::from_str(&line)?;
    match launch(&spec) {
        Ok(child) => {
            report(socket, &MonitorEvent::Started { pid: child.as_raw() })?;
            let status = watch(socket, &mut input, child)?;
            report(socket, &exit_event(status))?;
        }
        Err(error) => report(
            socket,
            &MonitorEvent::Failed {
                message: error.to_string(),
            },
        )?,
    }
    Ok(())
}

/// Writes one line to the kubelet.
pub(super) fn report<T: serde::Serialize>(mut socket: &UnixStream, message: &T) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    Ok(())
}

/// Exit code of a wait status as kubelet reports it.
pub(super) fn exit_event(status: WaitStatus) -> MonitorEvent {
    match status {
        WaitStatus::Exited(_, code) => MonitorEvent::Exited { code, signal: None },
        WaitStatus::Signaled(_, signal, _) => MonitorEvent::Exited {
            code: 128 + signal as i32,
            signal: Some(signal as i32),
        },
        _ => MonitorEvent::Exited {
            code: 255,
            signal: None,
        },
    }
}

/// Moves the calling process into the cgroup directory.
pub(super) fn join_cgroup(directory: &Path) -> Result<(), StepError> {
    fs::write(directory.join("cgroup.procs"), "0").at(&format!("join cgroup {}", directory.display()))
}

/// Joins namespaces of `pid`, by the names below `/proc/<pid>/ns`.
pub(super) fn join_namespaces(pid: i32, names: &[&str]) -> Result<(), StepError> {
    let open =
        |name: &&str| fs::File::open(format!("/proc/{pid}/ns/{name}")).at(&format!("namespace {name}"));
    let files: Vec<fs::File> = names.iter().map(open).collect::<Result<_, _>>()?;
    for (file, name) in files.iter().zip(names) {
        setns(file, CloneFlags::empty()).at(&format!("setns {name}"))?;
    }
    Ok(())
}

/// Forks the container's first process and waits until it has executed its program.
fn launch(spec: &ContainerSpec) -> Result<Pid, StepError> {
    if let Some(monitor) = &spec.monitor_cgroup {
        join_cgroup(monitor)?;
    }
    if !spec.host_pid {
        unshare(CloneFlags::CLONE_NEWPID).at("unshare pid")?;
    }
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).at("pipe")?;
    match fork::fork_single_threaded().at("fork")? {
        ForkResult::Child => {
            drop(reader);
            let error = become_container(spec, &writer);
            // The pipe is closed by a successful exec; what is in it is the reason of a failed one.
            let _ = fs::File::from(writer).write_all(error.to_string().as_bytes());
            std::process::exit(128);
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut message = String::new();
            fs::File::from(reader).read_to_string(&mut message).at("pipe")?;
            if message.is_empty() {
                return Ok(child);
            }
            waitpid(child, None).at("wait")?;
            Err(StepError::new("start", message))
        }
    }
}

fn become_container(spec: &ContainerSpec, parent: &OwnedFd) -> StepError {
    match prepare(spec, parent) {
        Ok(()) => identity::execute(&spec.command),
        Err(error) => error,
    }
}

fn prepare(spec: &ContainerSpec, parent: &OwnedFd) -> Result<(), StepError> {
    join_cgroup(&spec.cgroup)?;
    join_namespaces(spec.sandbox, &["net", "ipc", "uts"])?;
    unshare(CloneFlags::CLONE_NEWNS).at("unshare mounts")?;
    rootfs::enter(&spec.root)?;
    stdin_from_null()?;
    nix::unistd::setsid().at("setsid")?;
    let cwd = &spec.command.cwd;
    if !cwd.exists() {
        fs::create_dir_all(cwd).at("working directory")?;
    }
    chdir(cwd).at("working directory")?;
    identity::assume(&spec.credentials)?;
    // The death signal covers a monitor that dies from now on; a pipe without a reader, one that died before.
    let mut ends = [PollFd::new(parent.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).at("poll")?;
    if ends[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLERR))
    {
        return Err(StepError::new("start", "the monitor is gone"));
    }
    Ok(())
}

/// Standard input is the socket to the kubelet until here.
pub(super) fn stdin_from_null() -> Result<(), StepError> {
    let null = fs::File::open("/dev/null").at("/dev/null")?;
    dup2_stdin(null).at("standard input")
}

/// Relays signals until the container's first process has ended.
fn watch(socket: &UnixStream, input: &mut BufReader<UnixStream>, child: Pid) -> anyhow::Result<WaitStatus> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut kubelet_gone = false;
    loop {
        // Before each wait: the child may have ended before the signal was blocked.
        let status = waitpid(child, Some(WaitPidFlag::WNOHANG))?;
        if status != WaitStatus::StillAlive {
            return Ok(status);
        }
        let mut sources = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if !kubelet_gone {
            sources.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let asked = sources.get(1).is_some_and(|source| source.any().unwrap_or(true));
        while signals.read_signal()?.is_some() {}
        if asked && !relay(input, child)? {
            kubelet_gone = true;
            kill(child, Signal::SIGKILL)?;
        }
    }
}

/// One command; false when the kubelet is gone.
fn relay(input: &mut BufReader<UnixStream>, child: Pid) -> anyhow::Result<bool> {
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let MonitorCommand::Signal(number) = serde_json::from_str(&line)?;
        // The child is not reaped before `watch` looks again: the pid is still its own.
        kill(child, Signal::try_from(number)?)?;
        if input.buffer().is_empty() {
            return Ok(true);
        }
    }
}
