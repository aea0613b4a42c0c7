//! [`ReadError`]: why a file of an instance could not be read.

use std::io;

use hasteward_proto::wire::agent::UnreadKind;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::FileKind;

/// Why something below a volume could not be read. Crosses the socket between hands and head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ReadError {
    /// Nothing of that name, on a volume that is mounted. The only one that may become a proof of absence.
    #[error("{path}: not found")]
    NotFound {
        /// Below PGDATA, or the volume.
        path: String,
    },
    /// The volume is not mounted where it must be.
    #[error("{detail}")]
    NotMounted {
        /// Which volume, and what was found instead.
        detail: String,
    },
    /// Longer than the bound for its kind.
    #[error("{path}: more than {bound} bytes")]
    TooLarge {
        /// Below PGDATA.
        path: String,
        /// The bound, bytes.
        bound: usize,
    },
    /// Not the kind of file that belongs there.
    #[error("{path}: {found}")]
    WrongType {
        /// Below PGDATA.
        path: String,
        /// What it is.
        found: FileKind,
    },
    /// Leads out of the instance's volumes, lies outside the allowed roots, or belongs to a server of uid 0.
    #[error("{path}: refused: {why}")]
    Refused {
        /// Below PGDATA, or what was asked for.
        path: String,
        /// The rule.
        why: String,
    },
    /// The operating system said no.
    #[error("{path}: permission denied")]
    Permission {
        /// Below PGDATA.
        path: String,
    },
    /// Input/output error, or any other error of the operating system.
    #[error("{path}: {detail}")]
    Io {
        /// Below PGDATA.
        path: String,
        /// The system's words.
        detail: String,
    },
    /// Not answered in time.
    #[error("{detail}")]
    Timeout {
        /// What was waited for.
        detail: String,
    },
}

impl ReadError {
    /// The kind on the wire; `None` for [`ReadError::NotFound`], which is for the reader to judge.
    #[must_use]
    pub const fn unread_kind(&self) -> Option<UnreadKind> {
        Some(match self {
            Self::NotFound { .. } => return None,
            Self::NotMounted { .. } => UnreadKind::NotMounted,
            Self::TooLarge { .. } => UnreadKind::TooLarge,
            Self::WrongType { .. } => UnreadKind::WrongType,
            Self::Refused { .. } => UnreadKind::Refused,
            Self::Permission { .. } => UnreadKind::Permission,
            Self::Io { .. } => UnreadKind::Io,
            Self::Timeout { .. } => UnreadKind::Timeout,
        })
    }

    /// An error of reading an open file.
    #[must_use]
    pub fn io(path: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::errno(path, Errno::from_raw(code)),
            None => Self::Io {
                path: path.to_owned(),
                detail: error.to_string(),
            },
        }
    }

    /// An error of a system call that resolved `path` beneath a volume.
    #[must_use]
    pub fn errno(path: &str, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOENT => Self::NotFound { path },
            Errno::ENOTDIR => Self::WrongType {
                path,
                found: FileKind::NotDirectory,
            },
            Errno::ELOOP => Self::WrongType {
                path,
                found: FileKind::Link,
            },
            Errno::EXDEV => Self::Refused {
                path,
                why: "it leads out of its volume".to_owned(),
            },
            Errno::EACCES | Errno::EPERM => Self::Permission { path },
            other => Self::Io {
                path,
                detail: other.desc().to_owned(),
            },
        }
    }
}
