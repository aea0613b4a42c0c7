//! Volumes made of files that change together: `..data` is a link to the generation in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its mode, before the group's share is added.
    pub mode: u32,
    /// Its owner, if it is not root.
    pub owner: Option<u32>,
}

/// Files by relative path.
pub type Payload = BTreeMap<PathBuf, Entry>;

/// Brings `directory` to `payload`, with group `group` if given; true when something changed.
///
/// # Errors
/// What the file system says, or a path that leads out of the directory.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for path in payload.keys() {
        if path.as_os_str().is_empty()
            || path
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("bad path {}", path.display()),
            ));
        }
    }
    let data = directory.join("..data");
    let current = fs::read_link(&data).ok();
    if current
        .as_ref()
        .is_some_and(|name| is_same(&directory.join(name), payload))
    {
        return Ok(false);
    }
    let now = jiff::Timestamp::now();
    let name = format!(
        "..{}.{:09}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    );
    let generation = directory.join(&name);
    fs::create_dir_all(&generation)?;
    mode_and_group(&generation, 0o755, group)?;
    for (path, entry) in payload {
        let file = generation.join(path);
        for parent in path
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(generation.join(parent))?;
            mode_and_group(&generation.join(parent), 0o755, group)?;
        }
        fs::write(&file, &entry.content)?;
        if let Some(owner) = entry.owner {
            chown(&file, Some(owner), None)?;
        }
        let shared = if group.is_some() { 0o440 } else { 0 };
        mode_and_group(&file, entry.mode | shared, group)?;
    }
    let temporary = directory.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&name, &temporary)?;
    fs::rename(&temporary, &data)?;
    link_top(directory, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

fn mode_and_group(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    let setgid = if group.is_some() && path.is_dir() {
        0o2000
    } else {
        0
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | setgid))
}

/// The visible names: links through `..data`.
fn link_top(directory: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<PathBuf> = payload
        .keys()
        .filter_map(|path| path.components().next())
        .map(|first| first.as_os_str().into())
        .collect();
    for name in &wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_same(generation: &Path, payload: &Payload) -> bool {
    let mut files = 0;
    let mut todo = vec![generation.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            } else {
                files += 1;
            }
        }
    }
    files == payload.len()
        && payload
            .iter()
            .all(|(path, entry)| fs::read(generation.join(path)).is_ok_and(|have| have == entry.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let entry = |text: &str| Entry {
            content: text.into(),
            mode: 0o644,
            owner: None,
        };
        files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), entry(text)))
            .collect()
    }

    #[test]
    fn changes_are_seen_through_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(
            fs::read_link(dir.path().join("a")).unwrap(),
            Path::new("..data/a")
        );
        assert_eq!(fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(write(dir.path(), &payload(&[("a", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        // The link, ..data and one generation.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_empty_payload_is_a_generation_too() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &Payload::new(), None).unwrap());
        assert!(!write(dir.path(), &Payload::new(), None).unwrap());
    }

    #[test]
    fn no_path_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", ""] {
            assert!(
                write(dir.path(), &payload(&[(path, "")]), None).is_err(),
                "{path}"
            );
        }
    }
}
