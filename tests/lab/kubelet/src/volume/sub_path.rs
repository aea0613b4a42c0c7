//! `subPath` of a volume mount: resolved within the volume, then a bind mount of its own.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{Doing as _, VolumeError, is_mounted};

/// Mounts `sub_path` of the volume at `volume` onto `target` and gives `target`. A missing directory is made.
///
/// # Errors
/// When the path leads out of the volume, or the file system refuses.
pub fn put(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, VolumeError> {
    let source = resolve(volume, sub_path)?;
    if is_mounted(target)? {
        return Ok(target.to_owned());
    }
    if source.is_dir() {
        fs::create_dir_all(target).doing("make", target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).doing("make", parent)?;
        }
        fs::File::create(target).doing("make", target)?;
    }
    let none: Option<&str> = None;
    mount(
        Some(&source),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .doing("bind", target)?;
    Ok(target.to_owned())
}

fn resolve(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    let out = || VolumeError::SubPath(sub_path.to_owned());
    let relative = Path::new(sub_path);
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(out());
    }
    let root = fs::canonicalize(volume).doing("resolve", volume)?;
    let mode = fs::metadata(&root).doing("mode", &root)?.permissions();
    // Part by part: what a link leads to is looked at before anything is made in it.
    let mut at = root.clone();
    for part in relative.components() {
        let next = at.join(part);
        at = match fs::canonicalize(&next) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&next).is_err() => {
                fs::create_dir(&next).doing("make", &next)?;
                // As kubelet does; the group comes from the volume's setgid bit.
                fs::set_permissions(&next, mode.clone()).doing("mode", &next)?;
                next
            }
            Err(source) => {
                return Err(VolumeError::File {
                    step: "resolve",
                    path: next,
                    source,
                });
            }
        };
        if !at.starts_with(&root) {
            return Err(out());
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink(dir.path(), volume.join("out")).unwrap();
        std::os::unix::fs::symlink("in", volume.join("link")).unwrap();
        fs::create_dir(volume.join("in")).unwrap();
        let root = fs::canonicalize(&volume).unwrap();
        assert_eq!(resolve(&volume, "a/b").unwrap(), root.join("a/b"));
        assert_eq!(resolve(&volume, "link/c").unwrap(), root.join("in/c"));
        for bad in ["..", "/etc", "a/../../x", "out", "out/v"] {
            assert!(
                matches!(resolve(&volume, bad), Err(VolumeError::SubPath(_))),
                "{bad}"
            );
        }
    }
}
