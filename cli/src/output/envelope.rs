//! [`Envelope`]: the one JSON shape around every answer, also of errors before the run.

use std::time::Instant;

use hasteward_proto::failure::{Failure, FailureKind};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Data, Outcome};

/// The version of every document that this release prints.
const SCHEMA_VERSION: &str = "v1alpha1";

/// An answer that is being made.
#[derive(Debug)]
pub struct Envelope {
    command: &'static str,
    run_id: uuid::Uuid,
    timestamp: jiff::Timestamp,
    begun: Instant,
}

/// A whole answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvelopeDocument {
    /// `v1alpha1`; fields are only added within a version.
    pub schema_version: &'static str,
    /// `triage`, `get-status` ...
    pub command: String,
    /// Unique to this run; sortable by time.
    pub run_id: String,
    /// There was no error. A triage that found something to act on is a success.
    pub success: bool,
    /// The exit code of the process.
    pub exit_code: u8,
    /// When the run began, RFC 3339, UTC.
    pub timestamp: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What the user should know besides.
    pub warnings: Vec<Warning>,
    /// What went wrong.
    pub errors: Vec<ErrorDocument>,
    /// The answer; null where there is none.
    pub data: Option<Data>,
}

/// Something that the user should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    /// Stable id.
    pub code: String,
    /// One line.
    pub message: String,
}

/// Something that went wrong.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDocument {
    /// Stable id.
    pub code: String,
    /// What kind of thing went wrong.
    pub category: FailureKind,
    /// One line.
    pub message: String,
    /// Whether the same call may succeed later without anyone changing anything.
    pub retryable: bool,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Failure> for ErrorDocument {
    fn from(failure: Failure) -> Self {
        let Failure {
            code,
            kind,
            message,
            retryable,
            hint,
        } = failure;
        Self {
            code,
            category: kind,
            message,
            retryable,
            hint,
        }
    }
}

/// Every command that an envelope may name.
const COMMANDS: [&str; 8] = [
    "triage",
    "get",
    "get-status",
    "get-agents",
    "version",
    "man",
    "schema",
    "serve",
];

impl Envelope {
    /// A run of `command` begins now.
    pub fn begin(command: &str) -> Self {
        let command = COMMANDS
            .into_iter()
            .find(|known| *known == command)
            .unwrap_or("hasteward");
        Self {
            command,
            run_id: uuid::Uuid::now_v7(),
            timestamp: jiff::Timestamp::now(),
            begun: Instant::now(),
        }
    }

    /// It ended.
    pub fn end(self, outcome: Result<Outcome, Failure>) -> EnvelopeDocument {
        let (exit_code, warnings, errors, data) = match outcome {
            Ok(Outcome {
                data,
                warnings,
                exit_code,
            }) => (exit_code, warnings, Vec::new(), Some(data)),
            Err(failure) => (failure.kind.exit_code(), Vec::new(), vec![failure.into()], None),
        };
        EnvelopeDocument {
            schema_version: SCHEMA_VERSION,
            command: self.command.to_owned(),
            run_id: self.run_id.to_string(),
            success: errors.is_empty(),
            exit_code,
            timestamp: self.timestamp.to_string(),
            duration_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            warnings,
            errors,
            data,
        }
    }
}
