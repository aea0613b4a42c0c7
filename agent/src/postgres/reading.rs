//! [`Reading`]: one item of evidence as the agent read it, and [`Deadline`], until when it may try.

use std::fmt;
use std::time::Instant;

use hasteward_proto::primitive::UnixMillis;

/// One item read from an instance. Unknown is never a fact: there is no default value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<T> {
    /// It was read.
    Known(Known<T>),
    /// It could not be read; says nothing about the thing itself.
    Unread(Unread),
    /// It is proven not to exist.
    Absent {
        /// What proves it: a successful listing of the parent that lacks the name.
        proof: String,
    },
}

/// A value with its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// What was read.
    pub value: T,
    /// Where: a file, a query.
    pub source: String,
    /// When, by this node's clock.
    pub read_at: UnixMillis,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct Unread {
    /// The kind, for decisions.
    pub kind: UnreadKind,
    /// One line for people.
    pub detail: String,
}

/// Kinds of not knowing; the agent's part of `hasteward.agent.v1.UnreadKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnreadKind {
    /// Readable, but not what it must be: bad CRC, bad syntax, impossible values.
    Corrupt,
    /// A format version that this release does not know.
    UnknownVersion,
    /// The volume is not mounted on this node.
    NotMounted,
    /// Larger than the bound for its kind.
    TooLarge,
    /// A FIFO, device, directory or link where a plain file belongs.
    WrongType,
    /// Leads out of the volume, or outside the allowed roots.
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
}

impl Unread {
    /// Not read, and why.
    pub fn new(kind: UnreadKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// Not read in time: `what` was under way.
    pub fn timeout(what: impl fmt::Display) -> Self {
        Self::new(UnreadKind::Timeout, format!("{what}: not finished in time"))
    }
}

impl<T> Reading<T> {
    /// A value read from `source` at `read_at`.
    pub fn known(value: T, source: impl Into<String>, read_at: UnixMillis) -> Self {
        Self::Known(Known {
            value,
            source: source.into(),
            read_at,
        })
    }

    /// Not read, and why.
    pub fn unread(kind: UnreadKind, detail: impl Into<String>) -> Self {
        Self::Unread(Unread::new(kind, detail))
    }

    /// Proven not to exist.
    pub fn absent(proof: impl Into<String>) -> Self {
        Self::Absent { proof: proof.into() }
    }

    /// The value, where it was read. Use only where *absent* and *unread* are handled elsewhere or mean the same.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(&known.value),
            Self::Unread(_) | Self::Absent { .. } => None,
        }
    }
}

impl<T> From<Unread> for Reading<T> {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

/// Until when a slow reader may go on. Asked once per buffer, not per byte.
pub struct Deadline(Box<dyn Fn() -> bool + Send + Sync>);

impl Deadline {
    /// Passes at `instant` of the monotonic clock.
    #[must_use]
    pub fn until(instant: Instant) -> Self {
        Self(Box::new(move || Instant::now() >= instant))
    }

    /// Never passes.
    #[must_use]
    pub fn never() -> Self {
        Self(Box::new(|| false))
    }

    /// Passes as soon as `passed` says so.
    pub fn from_fn(passed: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(passed))
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deadline")
    }
}
