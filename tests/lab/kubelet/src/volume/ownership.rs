//! `fsGroup`: the group of a volume's files, as kubelet sets it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const DIRECTORY: u32 = 0o2110;

/// Gives `root` and all below it to `group`, readable and writable, directories setgid.
/// With `only_on_mismatch` nothing is done when `root` itself is as it should be (`OnRootMismatch`).
///
/// # Errors
/// What the file system says.
pub fn apply(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let meta = fs::metadata(root)?;
    let wanted = READ_WRITE | DIRECTORY;
    if only_on_mismatch && meta.gid() == group && meta.mode() & wanted == wanted {
        return Ok(());
    }
    apply_to(root, group)
}

/// Never follows a link: the volume's content is not trusted.
fn apply_to(path: &Path, group: u32) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    lchown(path, None, Some(group))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let share = if meta.is_dir() {
        READ_WRITE | DIRECTORY
    } else {
        READ_WRITE
    };
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 | share))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            apply_to(&entry?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_setgid_and_links_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let (sub, file) = (dir.path().join("d"), dir.path().join("d/f"));
        fs::create_dir(&sub).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let group = fs::metadata(dir.path()).unwrap().gid();
        let before = fs::metadata(outside.path()).unwrap().mode();
        apply(dir.path(), group, false).unwrap();
        assert_eq!(fs::metadata(&sub).unwrap().mode() & 0o2770, 0o2770);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o660);
        assert_eq!(fs::metadata(outside.path()).unwrap().mode(), before);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        apply(dir.path(), group, true).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    }
}
