//! The server process, child of the manager.

use super::{Place, programs};
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Child;

/// How the server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// Waits for sessions to end.
    Smart,
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Leaves recovery to the next start.
    Immediate,
}

impl Shutdown {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::SIGTERM,
            Self::Fast => Signal::SIGINT,
            Self::Immediate => Signal::SIGQUIT,
        }
    }
}

/// A started server.
pub(super) struct Postmaster {
    child: Child,
    pid: Pid,
}

impl Postmaster {
    /// Starts the server; returns at once, whatever the server makes of it.
    pub(super) fn start(place: &Place, extra: &[&str]) -> anyhow::Result<Self> {
        let child = programs::command(place, "postgres")
            .arg("-D")
            .arg(&place.pgdata)
            .args(extra)
            // A dropped handle must not kill a server with SIGKILL.
            .kill_on_drop(false)
            .spawn()
            .context("starting postgres")?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("postgres left at once")?;
        tracing::info!(pid, "postgres started");
        Ok(Self {
            child,
            pid: Pid::from_raw(pid),
        })
    }

    /// Waits until the server has left, for whatever reason.
    pub(super) async fn gone(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Has the server read its configuration again.
    pub(super) fn reload(&self) {
        let _ = kill(self.pid, Signal::SIGHUP);
    }

    /// Asks the server to stop and waits at most this long; `true` when it is gone.
    pub(super) async fn stop(&mut self, how: Shutdown, patience: Duration) -> bool {
        tracing::info!(?how, "stopping postgres");
        let _ = kill(self.pid, how.signal());
        tokio::time::timeout(patience, self.child.wait()).await.is_ok()
    }

    /// Fast shutdown, immediate when it takes too long.
    pub(super) async fn stop_fast(&mut self, patience: Duration) {
        if !self.stop(Shutdown::Fast, patience).await {
            self.stop(Shutdown::Immediate, Duration::from_secs(30)).await;
        }
    }
}

/// Removes a `postmaster.pid` whose process is no server of this container.
pub(super) fn remove_stale_pid(place: &Place) -> std::io::Result<()> {
    let path = place.pgdata.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse::<u32>().ok());
    let alive = pid.is_some_and(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "postgres")
    });
    if alive {
        return Ok(());
    }
    tracing::info!("removing a stale postmaster.pid");
    fs::remove_file(path)
}
