//! The audit log: one JSON line a request.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::auth::{Attributes, User};
use crate::clock::Clock;

/// Writes the log, if there is one.
pub struct Audit {
    file: Option<Mutex<File>>,
    clock: Clock,
}

impl Audit {
    /// Appends to a file.
    pub fn open(path: Option<&Path>, clock: Clock) -> std::io::Result<Self> {
        let file = path
            .map(|path| File::options().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self {
            file: file.map(Mutex::new),
            clock,
        })
    }

    /// Notes a request: when, who, what, with which answer. A watch is noted when it starts.
    pub fn note(&self, user: &User, asked: &Attributes, dry_run: bool, code: u16) {
        let Some(file) = &self.file else { return };
        let resource = if asked.subresource.is_empty() {
            asked.resource.clone()
        } else {
            format!("{}/{}", asked.resource, asked.subresource)
        };
        let mut line = json!({
            "time": self.clock.now().to_string(), "user": user.name, "verb": asked.verb, "group": asked.group,
            "resource": resource, "namespace": asked.namespace, "name": asked.name, "code": code,
        });
        if !asked.path.is_empty() {
            line["path"] = asked.path.clone().into();
        }
        if dry_run {
            line["dryRun"] = true.into();
        }
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, "audit log");
        }
    }
}
