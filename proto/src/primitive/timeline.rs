//! [`TimelineId`]: which branch of history a PostgreSQL server writes or follows.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PostgreSQL timeline id (`TimeLineID`, `access/xlogdefs.h`). Never zero.
///
/// Two equal numbers do not prove one history: instances that were promoted apart may draw the same number. Compare
/// histories by content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
pub struct TimelineId(u32);

/// A number or text that is no timeline id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a timeline id: expected a positive 32-bit number")]
pub struct TimelineIdError {
    text: String,
}

impl TimelineId {
    /// The timeline that `initdb` starts.
    pub const FIRST: Self = Self(1);

    /// The timeline `id`; `None` for zero.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The name of this timeline's history file (`TLHistoryFileName`, `access/xlog_internal.h`).
    #[must_use]
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl TryFrom<u32> for TimelineId {
    type Error = TimelineIdError;

    fn try_from(id: u32) -> Result<Self, TimelineIdError> {
        Self::new(id).ok_or_else(|| TimelineIdError { text: id.to_string() })
    }
}

impl From<TimelineId> for u32 {
    fn from(timeline: TimelineId) -> Self {
        timeline.0
    }
}

impl FromStr for TimelineId {
    type Err = TimelineIdError;

    fn from_str(text: &str) -> Result<Self, TimelineIdError> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| TimelineIdError {
                text: text.chars().take(64).collect(),
            })
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tli {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_signs_are_refused() {
        for bad in ["0", "", "-1", "+1", "4294967296", "1 "] {
            assert!(bad.parse::<TimelineId>().is_err(), "{bad}");
        }
        assert_eq!("10".parse(), Ok(TimelineId(10)));
    }

    #[test]
    fn history_files_are_named_in_hex() {
        assert_eq!(TimelineId(26).history_file_name(), "0000001A.history");
    }
}
