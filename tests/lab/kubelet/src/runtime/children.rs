//! All child processes of the kubelet, reaped by one thread: the kubelet may be pid 1 of its node, and inherits orphans.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// The children of this process. There must be one of it, and nothing else may wait for children.
#[derive(Debug, Default)]
pub struct Children {
    waiting: Mutex<HashMap<Pid, oneshot::Sender<WaitStatus>>>,
    spawned: Condvar,
}

/// A spawned child.
#[derive(Debug)]
pub struct Child {
    /// Its process id; valid until `ended` has fired.
    pub pid: Pid,
    /// Its end.
    pub ended: oneshot::Receiver<WaitStatus>,
}

/// A command that ended otherwise than with exit code 0.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started, or its pipes broke.
    #[error("{program}: {source}")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("{program} ended with {status:?}: {output}")]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        status: Option<WaitStatus>,
        /// What it said.
        output: String,
    },
}

impl Children {
    /// Becomes the reaper of all descendants and starts the thread.
    ///
    /// # Errors
    /// When the kernel or the thread refuses.
    pub fn start() -> io::Result<Arc<Self>> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let children = Arc::new(Self::default());
        let reaper = Arc::clone(&children);
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || reaper.reap())?;
        Ok(children)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, oneshot::Sender<WaitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        loop {
            match waitpid(None, None) {
                Ok(status) => {
                    if let Some(sender) = status.pid().and_then(|pid| self.lock().remove(&pid)) {
                        let _ = sender.send(status);
                    }
                }
                Err(Errno::ECHILD) => {
                    let waiting = self.lock();
                    if waiting.is_empty() {
                        drop(self.spawned.wait(waiting));
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Starts a process. Its end arrives even if it ends at once: the map is locked until it is in there.
    ///
    /// # Errors
    /// As `Command::spawn`.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let (sender, ended) = oneshot::channel();
        waiting.insert(pid, sender);
        self.spawned.notify_all();
        Ok(Child { pid, ended })
    }

    /// Runs a short program to its end on the calling (blocking) thread.
    ///
    /// # Errors
    /// It could not be started, or did not end with exit code 0.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), CommandError> {
        let start = |source| CommandError::Start {
            program: program.to_owned(),
            source,
        };
        let (mut reader, writer) = io::pipe().map_err(start)?;
        let (from, mut to) = io::pipe().map_err(start)?;
        let error = writer.try_clone().map_err(start)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(OwnedFd::from(from))
            .stdout(OwnedFd::from(writer))
            .stderr(OwnedFd::from(error));
        let child = self.spawn(&mut command).map_err(start)?;
        // The command keeps this process's copies of the pipe ends.
        drop(command);
        let sent = to.write_all(input.as_bytes());
        drop(to);
        let mut output = String::new();
        reader.read_to_string(&mut output).map_err(start)?;
        let status = child.ended.blocking_recv().ok();
        if matches!(status, Some(WaitStatus::Exited(_, 0))) {
            return sent.map_err(start);
        }
        Err(CommandError::Failed {
            program: program.to_owned(),
            status,
            output,
        })
    }
}

/// A command that re-executes the kubelet's own binary as one of its helpers.
pub(super) fn helper(binary: &std::path::Path, verb: &str, socket: OwnedFd) -> Command {
    let mut command = Command::new(binary);
    command
        .arg(verb)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
