//! What a recovery writes: counted, and removed.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Upper layer of the overlay.
pub(in crate::hands) const UPPER: &str = "upper";
/// Its work directory.
pub(in crate::hands) const WORK: &str = "work";

/// Where the data directory is while the overlay is made.
pub(in crate::hands) const LOWER: &str = "lower";

/// Directories below each other that are counted; nothing of a database is deeper.
const DEPTH: usize = 8;

fn path(run: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", run.as_raw_fd()))
}

/// Whether anything is left.
pub(in crate::hands) fn left(run: BorrowedFd<'_>) -> bool {
    [UPPER, WORK, LOWER]
        .iter()
        .any(|name| fs::symlink_metadata(path(run, name)).is_ok())
}

/// Who made what is left.
pub(in crate::hands) fn owner(run: BorrowedFd<'_>) -> Option<fs::Metadata> {
    [UPPER, WORK]
        .iter()
        .find_map(|name| fs::symlink_metadata(path(run, name)).ok())
        .filter(fs::Metadata::is_dir)
}

/// Removes all of it, as its owner.
pub(in crate::hands) fn all(run: BorrowedFd<'_>) {
    // Always empty: the data directory is mounted there in another namespace, if at all.
    let _ = fs::remove_dir(path(run, LOWER));
    for name in [UPPER, WORK] {
        let root = path(run, name);
        // The kernel makes these without any permission.
        for closed in ["work", "work/incompat", "work/incompat/volatile"] {
            let _ = fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0o700));
        }
        if let Err(error) = fs::remove_dir_all(&root)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "scratch is not cleaned");
        }
    }
}

/// Bytes on disk, counted until there are more than `enough`, or until then.
pub(in crate::hands) fn used(run: BorrowedFd<'_>, enough: u64, until: Instant) -> u64 {
    let mut bytes = 0;
    count(&path(run, UPPER), DEPTH, (enough, until), &mut bytes);
    bytes
}

fn count(directory: &Path, depth: usize, (enough, until): (u64, Instant), bytes: &mut u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(found) = entry.metadata() else { continue };
        *bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
        if *bytes > enough || Instant::now() > until {
            return;
        }
        if found.is_dir() && depth > 0 {
            count(&entry.path(), depth - 1, (enough, until), bytes);
        }
    }
}
