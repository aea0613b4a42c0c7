//! The mount table, and taking mounts away.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor`.
    pub device: String,
    /// Root of the mount within its file system.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Whether it has a `shared:` tag.
    pub shared: bool,
    /// File system type.
    pub fs_type: String,
    super_options: String,
}

impl MountEntry {
    /// Whether the file system has `option`.
    pub fn has_super_option(&self, option: &str) -> bool {
        self.super_options.split(',').any(|have| have == option)
    }
}

/// The table of the calling process, in the order of mounting.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Parses a table; lines that are no such are left out.
pub fn parse(table: &[u8]) -> Vec<MountEntry> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = text(fields.next()?);
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    fields.next()?;
    let mut shared = false;
    loop {
        match fields.next()? {
            b"-" => break,
            tag => shared |= tag.starts_with(b"shared:"),
        }
    }
    let fs_type = text(fields.next()?);
    let super_options = text(fields.nth(1)?);
    Some(MountEntry {
        device,
        root,
        mount_point,
        shared,
        fs_type,
        super_options,
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Undoes the kernel's octal escapes (`\040` is a space).
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        if let (b'\\', Some(byte)) = (first, code) {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Whether `path` is `below` or something below it, by its bytes: no file system is asked.
pub fn is_below(path: &Path, below: &Path) -> bool {
    path.as_os_str()
        .as_bytes()
        .starts_with(below.as_os_str().as_bytes())
        && path.starts_with(below)
}

/// Unmounts everything at and below `directory`, the latest first. A busy mount is waited for (5 s), then detached.
///
/// # Errors
/// When a mount remains.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mounts = read()?;
        let Some(last) = mounts
            .iter()
            .rev()
            .find(|entry| is_below(&entry.mount_point, directory))
        else {
            return Ok(());
        };
        let flags = if Instant::now() > deadline {
            MntFlags::MNT_DETACH
        } else {
            MntFlags::empty()
        };
        match umount2(&last.mount_point, flags | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EBUSY) if flags.is_empty() => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                return Err(io::Error::other(format!(
                    "unmount {}: {error}",
                    last.mount_point.display()
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd\n\
        50 27 7:0 /a\\040b /srv/with\\040space rw shared:3 master:1 - ext4 /dev/loop0 rw\n\
        nonsense\n";

    #[test]
    fn table_is_parsed() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 3);
        assert!(mounts[1].has_super_option("name=systemd") && mounts[1].shared && !mounts[0].shared);
        assert_eq!(mounts[2].mount_point, Path::new("/srv/with space"));
        assert_eq!(
            (mounts[2].device.as_str(), mounts[2].root.as_path()),
            ("7:0", Path::new("/a b"))
        );
    }

    #[test]
    fn a_sibling_with_the_same_beginning_is_not_below() {
        assert!(is_below(Path::new("/a/b/c"), Path::new("/a/b")));
        assert!(!is_below(Path::new("/a/bc"), Path::new("/a/b")));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
