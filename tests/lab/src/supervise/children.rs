//! Child processes of a process 1: started, collected, and told apart from adopted orphans.

use std::io;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::report::ProcessReport;

/// The children that were started on purpose.
#[derive(Debug, Default)]
pub struct Children(Vec<ProcessReport>);

impl Children {
    /// Starts a child under a name.
    pub fn spawn(&mut self, name: &str, command: &mut Command) -> io::Result<i32> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.0.push(ProcessReport {
            name: name.to_owned(),
            pid,
            ended: None,
        });
        Ok(pid)
    }

    /// Collects every process that has ended, adopted orphans included. Whether one of the children was among them.
    pub fn collect(&mut self) -> bool {
        let mut news = false;
        loop {
            let (pid, how) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("signal {}", signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return news,
                Ok(_) | Err(_) => continue,
            };
            if let Some(child) = self
                .0
                .iter_mut()
                .find(|c| c.pid == pid.as_raw() && c.ended.is_none())
            {
                eprintln!("{} ended: {how}", child.name);
                child.ended = Some(how);
                news = true;
            }
        }
    }

    /// How the child `name` ended, if it did.
    #[must_use]
    pub fn ended(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|child| child.name == name)?.ended.as_deref()
    }

    /// All of them, in order.
    #[must_use]
    pub fn report(&self) -> Vec<ProcessReport> {
        self.0.clone()
    }
}
