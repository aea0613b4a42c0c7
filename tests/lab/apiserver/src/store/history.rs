//! The bounded past of one resource.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It was written again.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// The resourceVersion that this change made.
    pub version: u64,
    /// What happened.
    pub change: Change,
    /// The object after the change (for a deletion: its last state).
    pub object: Arc<Value>,
    /// The object before.
    pub previous: Option<Arc<Value>>,
}

/// Changes in order; the oldest fall off.
#[derive(Default)]
pub(super) struct History {
    events: VecDeque<Event>,
    /// Changes up to and including this version are forgotten.
    forgotten: u64,
}

impl History {
    pub(super) fn push(&mut self, event: Event, limit: usize) {
        self.events.push_back(event);
        while self.events.len() > limit {
            if let Some(old) = self.events.pop_front() {
                self.forgotten = old.version;
            }
        }
    }

    pub(super) fn forget(&mut self, upto: u64) {
        self.events.clear();
        self.forgotten = upto;
    }

    /// The changes past `version`, or the oldest version that can still be asked.
    pub(super) fn since(&self, version: u64) -> Result<Vec<Event>, u64> {
        if version < self.forgotten {
            return Err(self.forgotten);
        }
        let from = self.events.partition_point(|event| event.version <= version);
        Ok(self.events.range(from..).cloned().collect())
    }
}
