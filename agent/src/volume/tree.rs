//! [`VolumeTree`]: an instance's volumes, resolved with `openat2(2)` in this process.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::superblock::is_read_only;
use super::{
    DataDirectory, Entry, FileKind, LISTING_MAX, Listing, NAMES_MAX, ReadError, RelativePath, Space, Stat,
    VolumeRole,
};

/// A listing that takes longer ends there and says that it is truncated.
const LISTING_TIME: Duration = Duration::from_secs(2);

/// Beneath, never through `/proc/<pid>/fd/*` and its kin, and never into another mount.
const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS)
    .union(ResolveFlag::RESOLVE_NO_XDEV);

/// A volume of the instance.
#[derive(Debug)]
pub struct Mount {
    /// Which.
    pub role: VolumeRole,
    /// Where the container sees it.
    pub mount_path: PathBuf,
    /// Its root directory (after the subPath), or why there is none.
    pub root: Result<OwnedFd, ReadError>,
}

/// An instance's volumes.
#[derive(Debug)]
pub struct VolumeTree {
    mounts: Vec<Mount>,
    data: Result<OwnedFd, ReadError>,
}

impl VolumeTree {
    /// A tree over `mounts`, with PGDATA in the directory `pgdata` of the data volume, or MariaDB's data volume as it is.
    #[must_use]
    pub fn from_mounts(mounts: Vec<Mount>) -> Self {
        let is_data = |mount: &&Mount| matches!(mount.role, VolumeRole::PgData | VolumeRole::MariadbData);
        let data = match mounts.iter().find(is_data) {
            Some(Mount {
                role: VolumeRole::MariadbData,
                root: Ok(root),
                ..
            }) => root.try_clone().map_err(|error| ReadError::io(".", &error)),
            None => Err(ReadError::NotMounted {
                detail: "the instance has no data volume".to_owned(),
            }),
            Some(Mount { root: Err(error), .. }) => Err(error.clone()),
            Some(Mount { root: Ok(root), .. }) => directory_beneath(root.as_fd(), "pgdata"),
        };
        Self { mounts, data }
    }

    /// A tree whose PGDATA is `pgdata` itself, with no further volume: for tests and fixtures.
    pub fn new(pgdata: &Path) -> Result<Self, ReadError> {
        let root = trusted_directory(pgdata)?;
        let again = root.try_clone().map_err(|error| ReadError::io(".", &error))?;
        let mount_path = PathBuf::from("/var/lib/postgresql/data");
        Ok(Self {
            mounts: vec![Mount {
                role: VolumeRole::PgData,
                mount_path,
                root: Ok(root),
            }],
            data: Ok(again),
        })
    }

    /// The same with one more volume, the directory `root`, which the container sees at `mount_path`.
    pub fn with_volume(
        mut self,
        role: VolumeRole,
        mount_path: &Path,
        root: &Path,
    ) -> Result<Self, ReadError> {
        let root = Ok(trusted_directory(root)?);
        self.mounts.push(Mount {
            role,
            mount_path: mount_path.to_owned(),
            root,
        });
        Ok(self)
    }

    fn mount(&self, volume: &VolumeRole) -> Result<BorrowedFd<'_>, ReadError> {
        let found = self.mounts.iter().find(|mount| mount.role == *volume);
        let mount = found.ok_or_else(|| ReadError::NotMounted {
            detail: format!("the instance has no volume {volume:?}"),
        })?;
        mount.root.as_ref().map(AsFd::as_fd).map_err(Clone::clone)
    }

    fn data(&self) -> Result<BorrowedFd<'_>, ReadError> {
        self.data.as_ref().map(AsFd::as_fd).map_err(Clone::clone)
    }

    /// Where `path` is to be resolved: PGDATA and the path itself, or, below a link that is absolute in the container,
    /// the volume it leads to and what remains. `entered`: the link itself counts as a directory on the way.
    fn place(&self, path: &RelativePath, entered: bool) -> Result<(BorrowedFd<'_>, RelativePath), ReadError> {
        let data = self.data()?;
        let plain = || Ok((data, path.clone()));
        let Some((link, rest)) = split_at_link(path.as_str()) else {
            return plain();
        };
        if rest.is_empty() && !entered {
            return plain();
        }
        let handle = openat2(data, link, beneath(OFlag::O_PATH | OFlag::O_NOFOLLOW))
            .map_err(|e| ReadError::errno(link, e))?;
        if kind(&fstat(&handle).map_err(|e| ReadError::errno(link, e))?) != FileKind::Link {
            return plain();
        }
        let target = link_target(&handle, link)?;
        let Some(target) = target.to_str().filter(|target| target.starts_with('/')) else {
            return plain();
        };
        let (root, below) = self.in_container(target)?;
        let below = match (below.is_empty(), rest.is_empty()) {
            (true, _) => rest.to_owned(),
            (false, true) => below.to_owned(),
            (false, false) => format!("{below}/{rest}"),
        };
        let below = RelativePath::try_from(below).map_err(|_| ReadError::Refused {
            path: path.to_string(),
            why: format!("{link} leads to {target:?}"),
        })?;
        Ok((root, below))
    }

    /// The volume that the container sees at the longest prefix of the absolute path `target`, and what remains.
    fn in_container<'t>(&self, target: &'t str) -> Result<(BorrowedFd<'_>, &'t str), ReadError> {
        let below = |mount: &Mount| {
            let rest = target.strip_prefix(mount.mount_path.to_str()?.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/'))
        };
        let best = self
            .mounts
            .iter()
            .filter_map(|mount| Some((mount, below(mount)?)))
            .min_by_key(|(_, rest)| rest.len());
        let (mount, rest) = best.ok_or_else(|| ReadError::Refused {
            path: target.chars().take(200).collect(),
            why: "a link leads there, and no volume of the instance is mounted there".to_owned(),
        })?;
        Ok((mount.root.as_ref().map_err(Clone::clone)?.as_fd(), rest))
    }
}

impl DataDirectory for VolumeTree {
    fn open(&self, path: &RelativePath) -> Result<File, ReadError> {
        let (root, below) = self.place(path, false)?;
        open_file(root, &below, path.as_str())
    }

    fn open_on(&self, volume: &VolumeRole, path: &RelativePath) -> Result<File, ReadError> {
        open_file(self.mount(volume)?, path, path.as_str())
    }

    fn list(&self, path: &RelativePath, limit: usize) -> Result<Listing, ReadError> {
        let (root, below) = self.place(path, true)?;
        list(root, &below, limit, path.as_str())
    }

    fn list_volume(&self, volume: &VolumeRole, limit: usize) -> Result<Listing, ReadError> {
        list(self.mount(volume)?, &RelativePath::root(), limit, ".")
    }

    fn read_link(&self, path: &RelativePath) -> Result<PathBuf, ReadError> {
        let (root, below) = self.place(path, false)?;
        let fail = |errno| ReadError::errno(path.as_str(), errno);
        let handle =
            openat2(root, below.as_path(), beneath(OFlag::O_PATH | OFlag::O_NOFOLLOW)).map_err(fail)?;
        match kind(&fstat(&handle).map_err(fail)?) {
            FileKind::Link => link_target(&handle, path.as_str()),
            found => Err(ReadError::WrongType {
                path: path.to_string(),
                found,
            }),
        }
    }

    fn stat(&self, path: &RelativePath) -> Result<Stat, ReadError> {
        let (root, below) = self.place(path, false)?;
        let fail = |errno| ReadError::errno(path.as_str(), errno);
        let handle =
            openat2(root, below.as_path(), beneath(OFlag::O_PATH | OFlag::O_NOFOLLOW)).map_err(fail)?;
        let found = fstat(&handle).map_err(fail)?;
        Ok(Stat {
            kind: kind(&found),
            size: unsigned(found.st_size),
            allocated: unsigned(found.st_blocks).saturating_mul(512),
            device: found.st_dev,
            inode: found.st_ino,
            uid: found.st_uid,
            modified_at_ms: found
                .st_mtime
                .saturating_mul(1000)
                .saturating_add(found.st_mtime_nsec / 1_000_000),
        })
    }

    fn space(&self, volume: &VolumeRole) -> Result<Space, ReadError> {
        let mount = self.mount(volume)?;
        let fail = |errno| ReadError::errno(".", errno);
        let found = fstatvfs(mount).map_err(fail)?;
        // Said only where it is the file system's own state: our mount of it may be read-only by design.
        let read_only = found.flags().contains(FsFlags::ST_RDONLY) && {
            let of_proc = |path: String| {
                std::fs::read(&path).map_err(|error| ReadError::Io {
                    path,
                    detail: error.to_string(),
                })
            };
            let fdinfo = of_proc(format!("/proc/self/fdinfo/{}", mount.as_raw_fd()))?;
            let mountinfo = of_proc("/proc/self/mountinfo".to_owned())?;
            is_read_only(
                &String::from_utf8_lossy(&fdinfo),
                &String::from_utf8_lossy(&mountinfo),
            )
            .ok_or_else(|| ReadError::Io {
                path: ".".to_owned(),
                detail: "read-only, and its mount is not listed: file system or only mount?".to_owned(),
            })?
        };
        Ok(Space {
            total_bytes: found.blocks().saturating_mul(found.fragment_size()),
            free_bytes: found.blocks_available().saturating_mul(found.fragment_size()),
            total_inodes: found.files(),
            free_inodes: found.files_available(),
            read_only,
        })
    }

    fn volumes(&self) -> Vec<VolumeRole> {
        self.mounts.iter().map(|mount| mount.role.clone()).collect()
    }
}

/// Where a link that is absolute in the container may stand on the way: the link, and what follows it.
fn split_at_link(path: &str) -> Option<(&str, &str)> {
    let components = match path.split('/').next()? {
        "pg_wal" => 1,
        "pg_tblspc" => 2,
        _ => return None,
    };
    let end = path.match_indices('/').map(|(at, _)| at).nth(components - 1);
    match end {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => (path.split('/').count() == components).then_some((path, "")),
    }
}

fn beneath(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(BENEATH)
}

/// A directory below a volume, as a handle.
pub(crate) fn directory_beneath(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, ReadError> {
    openat2(
        root,
        path,
        beneath(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW),
    )
    .map_err(|errno| ReadError::errno(path, errno))
}

/// A directory whose path comes from this process's own configuration.
fn trusted_directory(path: &Path) -> Result<OwnedFd, ReadError> {
    open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| ReadError::errno(&path.to_string_lossy(), errno))
}

fn link_target(link: &OwnedFd, path: &str) -> Result<PathBuf, ReadError> {
    let target = readlinkat(link, "").map_err(|errno| ReadError::errno(path, errno))?;
    match target.into_string() {
        Ok(text) => Ok(PathBuf::from(text)),
        Err(_) => Err(ReadError::Refused {
            path: path.to_owned(),
            why: "its target is not UTF-8".to_owned(),
        }),
    }
}

fn open_file(root: BorrowedFd<'_>, below: &RelativePath, shown: &str) -> Result<File, ReadError> {
    let fail = |errno| ReadError::errno(shown, errno);
    // First a handle, which has no side effect on devices and does not wait for the writer of a FIFO.
    let handle = openat2(root, below.as_path(), beneath(OFlag::O_PATH | OFlag::O_NOFOLLOW)).map_err(fail)?;
    match kind(&fstat(&handle).map_err(fail)?) {
        FileKind::File => {}
        found => {
            return Err(ReadError::WrongType {
                path: shown.to_owned(),
                found,
            });
        }
    }
    // The very inode that was looked at: by its handle, not by its name.
    let itself = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let descriptor = open(itself.as_str(), flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOENT => ReadError::Io {
            path: shown.to_owned(),
            detail: "/proc is not mounted".to_owned(),
        },
        other => fail(other),
    })?;
    Ok(File::from(descriptor))
}

fn list(root: BorrowedFd<'_>, below: &RelativePath, limit: usize, path: &str) -> Result<Listing, ReadError> {
    let fail = |errno| ReadError::errno(path, errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let directory = openat2(root, below.as_path(), beneath(flags)).map_err(fail)?;
    let names = directory
        .try_clone()
        .map_err(|error| ReadError::io(path, &error))?;
    let mut names = Dir::from_fd(names).map_err(fail)?;
    let limit = limit.min(LISTING_MAX);
    let deadline = Instant::now() + LISTING_TIME;
    let mut listing = Listing::default();
    let mut unused = NAMES_MAX;
    for (seen, name) in names.iter().enumerate() {
        let name = name.map_err(fail)?;
        let name = name.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let count = listing.entries.len() + listing.vanished.len();
        if count >= limit || (seen % 256 == 255 && Instant::now() > deadline) {
            listing.truncated = true;
            break;
        }
        let Ok(text) = name.to_str() else {
            listing.unnameable += 1;
            continue;
        };
        let Some(left) = unused.checked_sub(encoded_length(text)) else {
            listing.truncated = true;
            break;
        };
        unused = left;
        match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => listing.entries.push(Entry {
                name: text.to_owned(),
                kind: kind(&found),
                size: unsigned(found.st_size),
                allocated: unsigned(found.st_blocks).saturating_mul(512),
            }),
            // Gone between the two calls: the server recycles WAL all the time.
            Err(Errno::ENOENT) => listing.vanished.push(text.to_owned()),
            Err(errno) => return Err(fail(errno)),
        }
    }
    Ok(listing)
}

/// Bytes of a name in JSON.
fn encoded_length(name: &str) -> usize {
    name.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

fn kind(found: &FileStat) -> FileKind {
    match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Link,
        SFlag::S_IFIFO => FileKind::Fifo,
        SFlag::S_IFSOCK => FileKind::Socket,
        _ => FileKind::Device,
    }
}

/// Sizes and block counts are never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
