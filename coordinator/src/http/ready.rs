//! [`Readiness`]: what must hold before the coordinator can serve.

use std::fmt;

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// The CA is not loaded yet.
    Ca,
    /// A watch has not brought its first complete list, or is interrupted.
    Watch {
        /// Of which kind.
        kind: &'static str,
        /// Why.
        why: String,
    },
    /// The listener for agents and people is not bound.
    Listener,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca => f.write_str("the certificate authority is not loaded"),
            Self::Watch { kind, why } => write!(f, "watch of {kind}: {why}"),
            Self::Listener => f.write_str("the gRPC listener is not bound"),
        }
    }
}

/// Says what is missing now; asked at every probe.
pub trait Readiness: Send + Sync {
    /// Everything that is missing; empty = ready.
    fn missing(&self) -> Vec<NotReady>;
}
