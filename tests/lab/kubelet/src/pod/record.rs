//! What the kubelet knows of the containers of a pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// The signal.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`, …
    pub reason: String,
    /// The termination message.
    pub message: Option<String>,
    /// Begin of the run.
    pub started_at: Timestamp,
    /// Its end.
    pub finished_at: Timestamp,
    /// Which container, without scheme.
    pub container_id: String,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not running.
    Waiting {
        /// `PodInitializing`, `ContainerCreating`, `CrashLoopBackOff`, …
        reason: String,
        /// For people.
        message: Option<String>,
    },
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Terminated(Terminated),
}

impl State {
    /// Waiting for `reason`.
    pub fn waiting(reason: &str) -> Self {
        Self::Waiting {
            reason: reason.to_owned(),
            message: None,
        }
    }

    /// Waiting for `reason`, explained.
    pub fn waiting_with(reason: &str, message: impl std::fmt::Display) -> Self {
        Self::Waiting {
            reason: reason.to_owned(),
            message: Some(message.to_string()),
        }
    }
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Now.
    pub state: State,
    /// The run before.
    pub last: Option<Terminated>,
    /// Runs before this one.
    pub restarts: u32,
    /// Without scheme; the latest container's.
    pub container_id: Option<String>,
    /// Readiness (of an init container: that it has done its work).
    pub ready: bool,
    /// Past its startup probe.
    pub started: bool,
    /// Main process in the node's pid namespace while it runs.
    pub pid: Option<i32>,
}

impl Record {
    /// A container that has not run, with `restarts` runs under an earlier kubelet.
    pub fn new(restarts: u32, last: Option<Terminated>) -> Self {
        let (ready, started) = (false, false);
        let state = State::waiting("ContainerCreating");
        Self {
            state,
            last,
            restarts,
            container_id: None,
            ready,
            started,
            pid: None,
        }
    }
}

/// The containers of a pod by name; whoever waits is told of changes.
#[derive(Clone, Debug, Default)]
pub struct Board {
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    changed: Arc<Notify>,
}

impl Board {
    /// All records.
    pub fn all(&self) -> BTreeMap<String, Record> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One record.
    pub fn get(&self, name: &str) -> Option<Record> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Puts a container there.
    pub fn insert(&self, name: &str, record: Record) {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), record);
        self.changed.notify_one();
    }

    /// Changes a container.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(name)
        {
            change(record);
        }
        self.changed.notify_one();
    }

    /// Wakes the one who waits.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change since the last wait.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
