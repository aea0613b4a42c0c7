//! The files of one database instance, opened safely (law L8).
//!
//! Readers ask a [`DataDirectory`]; they never see a host path. Two implementations: [`VolumeTree`] resolves with
//! `openat2(2)` in this process (the privileged hands, and tests under the name [`PlainDirectory`]), and the head's
//! client of the hands, which receives descriptors.

mod error;
mod listing;
mod path;
mod superblock;
mod tree;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

pub use error::ReadError;
pub use listing::{Entry, FileKind, Listing, Space, Stat};
pub use path::{RelativePath, RelativePathError};
use serde::{Deserialize, Serialize};
pub(crate) use tree::directory_beneath;
pub use tree::{Mount, VolumeTree};

/// A [`VolumeTree`] over directories given by path, as tests and fixtures use it.
pub type PlainDirectory = VolumeTree;

/// No listing is longer than this, whatever its reader asks for.
pub const LISTING_MAX: usize = 200_000;

/// The names of a listing are no longer than this together, in bytes of JSON.
pub const NAMES_MAX: usize = 8 * 1024 * 1024;

/// Which of an instance's volumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeRole {
    /// Holds PGDATA in its directory `pgdata` (CNPG mounts it at `/var/lib/postgresql/data`).
    PgData,
    /// Holds the write-ahead log in its directory `pg_wal` (CNPG: `/var/lib/postgresql/wal`).
    PgWal,
    /// Holds one tablespace in its directory `data` (CNPG: `/var/lib/postgresql/tablespaces/<name>`); CNPG's name of it.
    Tablespace(String),
    /// CNPG's emptyDir `scratch-data`, which holds the server's socket (`/controller`, `/run`).
    Scratch,
    /// Is MariaDB's data directory, after the subPath (mariadb-operator mounts it at `/var/lib/mysql`).
    MariadbData,
    /// Holds mariadb-operator's Galera configuration (`/etc/mysql/mariadb.conf.d`), after the subPath.
    GaleraConfig,
}

impl VolumeRole {
    /// Whether only a MariaDB instance has such a volume.
    #[must_use]
    pub const fn is_mariadb(&self) -> bool {
        matches!(self, Self::MariadbData | Self::GaleraConfig)
    }
}

/// A directory tree of one database instance, opened safely.
///
/// Paths are below PGDATA (of MariaDB: the data directory). A final symbolic link is never followed; a link on the way is followed only inside its volume,
/// except `pg_wal` and `pg_tblspc/<oid>`, whose targets are absolute in the container: those lead to the instance's volume
/// that is mounted at the longest prefix of the target, and nowhere else.
pub trait DataDirectory: Send + Sync {
    /// Opens a plain file for reading. Anything else (FIFO, device, socket, directory, link) is [`ReadError::WrongType`]
    /// and is not opened at all. Never blocks on the file's type; reading stays the caller's to bound.
    fn open(&self, path: &RelativePath) -> Result<File, ReadError>;

    /// The same below the root of a volume, PGDATA's siblings; no link on the way leads out of that volume.
    fn open_on(&self, volume: &VolumeRole, path: &RelativePath) -> Result<File, ReadError>;

    /// What a directory holds, in no order: at most `limit` entries (and never more than [`LISTING_MAX`], nor names
    /// longer than [`NAMES_MAX`] together), saying so where there are more. Follows `pg_wal` and `pg_tblspc/<oid>` when they are the path itself.
    fn list(&self, path: &RelativePath, limit: usize) -> Result<Listing, ReadError>;

    /// What the root of a volume holds, PGDATA's siblings: as [`list`](Self::list).
    fn list_volume(&self, volume: &VolumeRole, limit: usize) -> Result<Listing, ReadError>;

    /// The target of a symbolic link as it is written, a path in the container. Not a link: [`ReadError::WrongType`].
    fn read_link(&self, path: &RelativePath) -> Result<PathBuf, ReadError>;

    /// The thing itself; of a link the link.
    fn stat(&self, path: &RelativePath) -> Result<Stat, ReadError>;

    /// Room on one of the instance's volumes, `statvfs(3)`.
    fn space(&self, volume: &VolumeRole) -> Result<Space, ReadError>;

    /// The instance's volumes, mounted or not, as the API server describes them.
    fn volumes(&self) -> Vec<VolumeRole>;

    /// Whether there is anything of that name. Only [`ReadError::NotFound`] counts as *no*.
    fn exists(&self, path: &RelativePath) -> Result<bool, ReadError> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(ReadError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A whole small file. Longer than `bound` bytes: [`ReadError::TooLarge`], and no more than that is read.
    fn read(&self, path: &RelativePath, bound: usize) -> Result<Vec<u8>, ReadError> {
        let file = self.open(path)?;
        let mut bytes = Vec::new();
        let most = u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| ReadError::io(path.as_str(), &error))?;
        if bytes.len() > bound {
            return Err(ReadError::TooLarge {
                path: path.to_string(),
                bound,
            });
        }
        Ok(bytes)
    }
}
