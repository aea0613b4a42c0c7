//! [`Failure`]: the one shape of an error at the RPC, command-line and CR-status seams.
//!
//! Inside a module errors are `thiserror` enums; at a seam they become a `Failure`, which says what kind of thing went
//! wrong, whether the same call may succeed later, and what to do next. Decide on [`FailureKind`], never on text.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request itself is wrong: a field, its value, the allowed form.
    Input,
    /// What was asked for does not exist.
    NotFound,
    /// The caller is not who it must be (no, bad or expired credentials).
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// A gate refused: doing it could lose data.
    Refused,
    /// Not enough could be read to know.
    Unknowable,
    /// Something needed did not answer (coordinator, agent, API server, database).
    Unreachable,
    /// A time limit was reached.
    Timeout,
    /// Another operation holds the cluster.
    Busy,
    /// A neighbour answered with an error (API server, restic, a database).
    Dependency,
    /// The machine is not as it must be (missing program, full disk).
    Environment,
    /// A defect of hasteward.
    Internal,
}

impl FailureKind {
    /// The exit code of the command line for this kind (design: 1 failed, 2 bad input, 3 refused, 4 cannot know).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Input | Self::NotFound => 2,
            Self::Refused => 3,
            Self::Unknowable | Self::Unreachable | Self::Timeout => 4,
            Self::Unauthenticated
            | Self::Forbidden
            | Self::Busy
            | Self::Dependency
            | Self::Environment
            | Self::Internal => 1,
        }
    }
}

/// An error as people and programs see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable id of this failure, `kebab-case`, for programs and for the documentation.
    pub code: String,
    /// What kind of thing went wrong.
    pub kind: FailureKind,
    /// One line for people; never a secret.
    pub message: String,
    /// Whether the same call may succeed later without anyone changing anything.
    pub retryable: bool,
    /// What to do next; a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// A failure that the same call will meet again.
    #[must_use]
    pub fn new(code: &str, kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            kind,
            message: message.into(),
            retryable: false,
            hint: None,
        }
    }

    /// The same, and the call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The same, with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
