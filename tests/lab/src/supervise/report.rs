//! What the supervisor tells about itself, in one file.

use std::io;

use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::process::write_whole;

/// The supervisor's report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every process of the lab was started.
    pub started: bool,
    /// Why the start failed.
    pub failure: Option<String>,
    /// Port of the API server on the host's 127.0.0.1.
    pub port: u16,
    /// The lab's processes, in the order in which they were started.
    pub processes: Vec<ProcessReport>,
}

/// One process of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// `apiserver`, `controllers`, `cnpg-operator`, `n1`, …: also the name of its log file.
    pub name: String,
    /// Process id in the lab's pid namespace.
    pub pid: i32,
    /// How it ended, if it did: `exit 1`, `signal 9`.
    pub ended: Option<String>,
}

impl Report {
    /// Reads the report of the lab at `place`; `None` before the supervisor wrote one.
    #[must_use]
    pub fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(place.report()).ok()?).ok()
    }

    /// Writes the report.
    pub fn write(&self, place: &Place) -> io::Result<()> {
        write_whole(&place.report(), &serde_json::to_vec_pretty(self)?)
    }

    /// The processes that ended though they should run.
    pub fn ended(&self) -> impl Iterator<Item = &ProcessReport> {
        self.processes.iter().filter(|process| process.ended.is_some())
    }
}
