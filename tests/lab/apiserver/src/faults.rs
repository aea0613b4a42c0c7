//! Requests that shall fail, for tests of what clients do then.
//!
//! The file holds a list; the first entry that matches counts:
//! `[{"method": "GET", "prefix": "/api/v1/pods", "code": 503, "delayMs": 100, "times": 3}]`.
//! `method` absent: any. `code` absent: only the delay. `times` absent: until the file changes. `user` absent: anybody.
//! `watch` (true or false) absent: watches and others alike. `{"compact": true}` forgets the watch history once.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::Method;
use serde::Deserialize;

use crate::error::ApiError;
use crate::store::Store;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    method: Option<String>,
    #[serde(default)]
    prefix: String,
    user: Option<String>,
    watch: Option<bool>,
    code: Option<u16>,
    #[serde(default)]
    delay_ms: u64,
    times: Option<u64>,
    #[serde(default)]
    compact: bool,
}

#[derive(Default)]
struct Loaded {
    stamp: Option<(SystemTime, u64)>,
    rules: Vec<Rule>,
}

/// The rules of the fault file.
pub struct Faults {
    path: Option<PathBuf>,
    loaded: Mutex<Loaded>,
}

/// What to do to a request.
#[derive(Debug, Default)]
pub struct Fault {
    /// Wait first.
    pub delay: Duration,
    /// Then answer this.
    pub error: Option<ApiError>,
}

/// What a request looks like to a rule.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path without query.
    pub path: &'a str,
    /// User name.
    pub user: &'a str,
    /// Whether it is a watch.
    pub watch: bool,
}

impl Rule {
    fn matches(&self, asked: Asked<'_>) -> bool {
        asked.path.starts_with(&self.prefix)
            && self.method.as_ref().is_none_or(|m| m == asked.method.as_str())
            && self.user.as_ref().is_none_or(|u| u == asked.user)
            && self.watch.is_none_or(|w| w == asked.watch)
            && self.times != Some(0)
            && !self.compact
    }
}

fn answer(code: u16) -> ApiError {
    match code {
        410 => ApiError::expired(0, 0),
        503 => ApiError::unavailable("fault file: unavailable"),
        429 => ApiError::too_many_requests("fault file: too many requests"),
        409 => ApiError {
            code,
            reason: "Conflict",
            message: "fault file: conflict".into(),
            details: serde_json::Value::Null,
        },
        403 => ApiError::forbidden("fault file: forbidden"),
        401 => ApiError::unauthorized(),
        404 => ApiError::no_such_path(),
        _ => ApiError {
            code,
            ..ApiError::internal("fault file: internal error")
        },
    }
}

impl Faults {
    /// Follows a file; without one nothing fails.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            loaded: Mutex::default(),
        }
    }

    /// What shall happen to a request.
    pub fn check(&self, store: &Store, asked: Asked<'_>) -> Fault {
        let Some(path) = &self.path else {
            return Fault::default();
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(path)
            .ok()
            .and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp != loaded.stamp {
            let text = std::fs::read(path).unwrap_or_default();
            loaded.rules = if text.is_empty() {
                Vec::new()
            } else {
                serde_json::from_slice(&text).unwrap_or_else(|error| {
                    tracing::error!(%error, path = %path.display(), "fault file");
                    Vec::new()
                })
            };
            loaded.stamp = stamp;
            if loaded.rules.iter().any(|r| r.compact) {
                store.compact();
            }
        }
        let Some(rule) = loaded.rules.iter_mut().find(|r| r.matches(asked)) else {
            return Fault::default();
        };
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Fault {
            delay: Duration::from_millis(rule.delay_ms),
            error: rule.code.map(answer),
        }
    }
}
