//! What directories hold, and how much room there is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
    /// Not a directory, where one must be on the way.
    NotDirectory,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a plain file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::NotDirectory => "not a directory",
        })
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    #[serde(rename = "n")]
    pub name: String,
    /// Its kind; links are not followed.
    #[serde(rename = "k")]
    pub kind: FileKind,
    /// Length in bytes (`st_size`).
    #[serde(rename = "s")]
    pub size: u64,
    /// Bytes on disk (`st_blocks` × 512).
    #[serde(rename = "b")]
    pub allocated: u64,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The entries, in no order.
    pub entries: Vec<Entry>,
    /// There are more, or there may be: a limit or the time was reached.
    pub truncated: bool,
    /// Names that are not UTF-8 and so are not among the entries.
    pub unnameable: u64,
    /// Names that the directory gave and under which nothing was found a moment later: deleted meanwhile, or a directory
    /// that is damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<String>,
}

impl Listing {
    /// Whether the directory gave this name. Only *no*, of a listing that is not truncated, proves absence.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name) || self.vanished.iter().any(|other| other == name)
    }
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Its kind.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// The file system (`st_dev`).
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// The owner.
    pub uid: u32,
    /// Last modification, milliseconds since 1970.
    pub modified_at_ms: i64,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Size, bytes.
    pub total_bytes: u64,
    /// Free for a process without privileges, bytes (`f_bavail`).
    pub free_bytes: u64,
    /// Inodes; 0 where the file system does not count them.
    pub total_inodes: u64,
    /// Free for a process without privileges (`f_favail`).
    pub free_inodes: u64,
    /// The file system itself is read-only, not only our mount of it.
    pub read_only: bool,
}
