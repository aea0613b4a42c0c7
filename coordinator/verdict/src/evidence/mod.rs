//! What is known, and how it is known.
//!
//! Law 1: *unknown is never a fact*. Every item is [`Evidence`]: read, unread with a reason, or absent with a proof. There
//! is no default value and no way to get at a value without saying what happens when it was not read.

pub mod cnpg;
pub mod galera;
pub mod pod;

use hasteward_proto::primitive::UnixMillis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One item of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence<T> {
    /// It was read.
    Known(Known<T>),
    /// It could not be read; says nothing about the thing itself.
    Unread(Unread),
    /// It is proven not to exist.
    Absent(Absent),
}

/// A value with its provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known<T> {
    /// What was read.
    pub value: T,
    /// Where: a file, a query, an API object.
    pub source: String,
    /// When, by the clock of whoever read it.
    pub read_at: UnixMillis,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unread {
    /// The kind, for decisions.
    pub reason: UnreadReason,
    /// One line for people.
    pub detail: String,
}

/// What proves that something does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Absent {
    /// One line for people: `global/ lists no pg_control`.
    pub proof: String,
}

/// Kinds of not knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnreadReason {
    /// Readable, but not what it must be: bad CRC, bad syntax, impossible values.
    Corrupt,
    /// A format version that this release does not know.
    UnknownVersion,
    /// The volume is not mounted where it should be.
    NotMounted,
    /// Larger than the bound for its kind.
    TooLarge,
    /// A FIFO, device, directory or link where a plain file belongs.
    WrongType,
    /// Leads out of the volume, outside the allowed roots, or to a server of uid 0.
    Refused,
    /// The operating system said no.
    Permission,
    /// Input/output error.
    Io,
    /// Not answered in time.
    Timeout,
    /// The server does not run.
    ServerDown,
    /// The server runs and does not answer.
    ServerHung,
    /// The server answered with an error.
    ServerError,
    /// Nobody asked, because something better was read.
    NotNeeded,
    /// Depends on another item that could not be read.
    Depends,
    /// No running container of the pod has the program that would read it.
    NoProgram,
    /// The node has an agent that is not connected.
    AgentUnreachable,
    /// The node has no agent.
    NoAgent,
    /// The node itself is not ready.
    NodeDown,
    /// There is no pod, so nothing says where the volume is mounted.
    NoPod,
    /// The API server did not answer, or answered with an error.
    Api,
}

impl<T> Evidence<T> {
    /// A value read from `source` at `read_at`.
    pub fn known(value: T, source: impl Into<String>, read_at: UnixMillis) -> Self {
        Self::Known(Known {
            value,
            source: source.into(),
            read_at,
        })
    }

    /// Not read, and why.
    pub fn unread(reason: UnreadReason, detail: impl Into<String>) -> Self {
        Self::Unread(Unread {
            reason,
            detail: detail.into(),
        })
    }

    /// Proven not to exist.
    pub fn absent(proof: impl Into<String>) -> Self {
        Self::Absent(Absent { proof: proof.into() })
    }

    /// The value, where it was read. Use only where *absent* and *unread* are handled elsewhere or mean the same.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(&known.value),
            Self::Unread(_) | Self::Absent(_) => None,
        }
    }

    /// Why it was not read, where it was not.
    pub fn why_unread(&self) -> Option<&Unread> {
        match self {
            Self::Unread(unread) => Some(unread),
            Self::Known(_) | Self::Absent(_) => None,
        }
    }

    /// Proven not to exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }

    /// The same evidence of a derived value.
    pub fn map<U>(self, derive: impl FnOnce(T) -> U) -> Evidence<U> {
        match self {
            Self::Known(Known {
                value,
                source,
                read_at,
            }) => Evidence::Known(Known {
                value: derive(value),
                source,
                read_at,
            }),
            Self::Unread(unread) => Evidence::Unread(unread),
            Self::Absent(absent) => Evidence::Absent(absent),
        }
    }
}
