//! [`Clock`]: what time it is, given from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hasteward_proto::primitive::UnixMillis;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> UnixMillis;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// `at` moved by a span; saturating.
pub(crate) fn later(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// `at` moved back by a span; saturating.
pub(crate) fn earlier(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
