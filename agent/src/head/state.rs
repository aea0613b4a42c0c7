//! The head's directory on the node, made while this process is still root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use nix::unistd::{Gid, getegid, setegid};

use crate::hands::HEAD_ID;

/// Makes `<state_dir>/scratch`, for the hands only, and `<state_dir>/head`, which the head's group may write.
///
/// Root without `CAP_CHOWN` cannot give a directory away; a directory made with the head's group belongs to it.
pub fn prepare(state_dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(state_dir).with_context(|| format!("--state-dir {}", state_dir.display()))?;
    let scratch = state_dir.join("scratch");
    match fs::create_dir(&scratch) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("{}", scratch.display()))?,
    }
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("{}", scratch.display()))?;
    let directory = state_dir.join("head");
    let group = getegid();
    setegid(Gid::from_raw(HEAD_ID)).context("the head's group (needs CAP_SETGID)")?;
    let made = match fs::create_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    let writable = made.and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)));
    setegid(group).context("back to the group before")?;
    writable.with_context(|| format!("{}", directory.display()))?;
    let found = fs::symlink_metadata(&directory).with_context(|| format!("{}", directory.display()))?;
    anyhow::ensure!(
        found.is_dir() && found.gid() == HEAD_ID,
        "{}: is no directory of group {HEAD_ID}",
        directory.display()
    );
    Ok(())
}
