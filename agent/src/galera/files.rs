//! What listings of a node's volumes say.

use super::config;
use crate::postgres::files::{Files, Missing, path};
use crate::postgres::reading::{Unread, UnreadKind};
use crate::volume::{FileKind, Listing, ReadError, RelativePath, VolumeRole};

/// Bytes of `mariadb_upgrade_info`: a version.
const UPGRADE_INFO_MAX: u64 = 256;

/// No more names than this are reported of one kind.
const NAMES_MAX: usize = 64;

/// What the data directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataFiles {
    /// Directory `mysql`.
    pub mysql_directory: bool,
    /// Bytes of `ibdata1`; 0 = none.
    pub ibdata1_bytes: u64,
    /// `ib_logfile*`
    pub redo_files: u32,
    /// `aria_log_control`
    pub aria_control: bool,
    /// Names in all, without `lost+found`.
    pub entries: u32,
    /// `GRA_*.log`
    pub failed_write_sets: u32,
    /// `gcache.page.*`
    pub cache_pages: u32,
    /// Their bytes.
    pub cache_page_bytes: u64,
    /// `mariadb_upgrade_info`, else `mysql_upgrade_info`.
    pub upgrade_version: Option<String>,
    /// Device and inode of the directory.
    pub identity: (u64, u64),
}

/// What a state transfer leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateTransfer {
    /// `sst_in_progress`
    pub in_progress: bool,
    /// `wsrep_sst.pid`, `rsync_sst.pid`
    pub pid_file: bool,
    /// `.sst`
    pub receive_directory: bool,
    /// Names of all of them.
    pub names: Vec<String>,
}

/// Bootstrap and hold files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigFiles {
    /// `1-bootstrap.cnf`
    pub bootstrap: bool,
    /// `zz-hasteward-hold.cnf`, with the operation that it names.
    pub hold: Option<Option<String>>,
    /// `0-galera.cnf`
    pub galera: bool,
}

/// What the data directory holds, by its listing.
pub fn data(files: &Files<'_>, listing: &Listing) -> Result<DataFiles, Missing> {
    let mut found = DataFiles::default();
    let mut upgrade = [false; 2];
    let decisive = |name: &&String| {
        matches!(name.as_str(), "mysql" | "ibdata1" | "aria_log_control") || name.starts_with("ib_logfile")
    };
    if let Some(name) = listing.vanished.iter().find(decisive) {
        let detail = format!("the data directory lists {name}, but it could not be found");
        return Err(Unread::new(UnreadKind::Io, detail).into());
    }
    for entry in &listing.entries {
        let plain = entry.kind == FileKind::File;
        match entry.name.as_str() {
            "lost+found" => continue,
            "mysql" => found.mysql_directory = entry.kind == FileKind::Directory,
            "ibdata1" if plain => found.ibdata1_bytes = entry.size,
            "aria_log_control" => found.aria_control = plain,
            "mariadb_upgrade_info" => upgrade[0] = plain,
            "mysql_upgrade_info" => upgrade[1] = plain,
            name if name.starts_with("ib_logfile") => found.redo_files += u32::from(plain),
            name if name.starts_with("GRA_") => found.failed_write_sets += 1,
            name if name.starts_with("gcache.page.") => {
                found.cache_pages += 1;
                found.cache_page_bytes = found.cache_page_bytes.saturating_add(entry.allocated);
            }
            _ => {}
        }
        found.entries = found.entries.saturating_add(1);
    }
    let info = match upgrade {
        [true, _] => Some("mariadb_upgrade_info"),
        [false, true] => Some("mysql_upgrade_info"),
        _ => None,
    };
    if let Some(name) = info {
        let bytes = files.read(name, UPGRADE_INFO_MAX)?;
        let version = super::text(&bytes).unwrap_or("").trim();
        found.upgrade_version = Some(version.chars().take(64).collect()).filter(|v: &String| !v.is_empty());
    }
    let root = files
        .directory
        .stat(&RelativePath::root())
        .map_err(|error| Unread::from(&error))?;
    found.identity = (root.device, root.inode);
    Ok(found)
}

/// What a state transfer left, by a listing of the data directory.
#[must_use]
pub fn state_transfer(listing: &Listing) -> StateTransfer {
    let mut found = StateTransfer::default();
    let names = listing.entries.iter().map(|entry| &entry.name);
    for name in names.chain(&listing.vanished) {
        match name.as_str() {
            "sst_in_progress" => found.in_progress = true,
            "wsrep_sst.pid" | "rsync_sst.pid" => found.pid_file = true,
            ".sst" => found.receive_directory = true,
            "rsync_sst.conf" | "stunnel.conf" | "stunnel.pid" => {}
            _ => continue,
        }
        found.names.push(name.clone());
    }
    found.names.sort();
    found
}

/// Bootstrap and hold files, by a listing of the configuration volume.
pub fn config(files: &Files<'_>) -> Result<ConfigFiles, Missing> {
    let volume = VolumeRole::GaleraConfig;
    let listing = files.list_volume(&volume)?;
    let has = |name: &str| listing.names(name);
    let hold = if has(config::HOLD) {
        match files.directory.open_on(&volume, &path(config::HOLD)?) {
            Ok(file) => Some(config::held_by(&head(file, config::MAX)?)),
            // It holds whatever it says; gone since means released since.
            Err(ReadError::NotFound { .. }) => None,
            Err(ReadError::WrongType { .. }) => Some(None),
            Err(error) => return Err(Unread::from(&error).into()),
        }
    } else {
        None
    };
    Ok(ConfigFiles {
        bootstrap: has(config::BOOTSTRAP),
        hold,
        galera: has(config::GALERA),
    })
}

/// What dead operations of ours left, each after its volume: `data directory: grastate.dat.hasteward-1`. Their order is stable.
pub fn leftovers(files: &Files<'_>, listing: &Listing) -> Result<Vec<String>, Missing> {
    let ours = |listing: &Listing, shown: &str| -> Vec<String> {
        let names = listing.entries.iter().map(|entry| &entry.name);
        names
            .filter(|name| name.contains(".hasteward-") || name.starts_with("hasteward-"))
            .map(|name| format!("{shown}: {name}"))
            .collect()
    };
    let mut found = ours(listing, "data directory");
    if files.directory.volumes().contains(&VolumeRole::GaleraConfig) {
        found.extend(ours(
            &files.list_volume(&VolumeRole::GaleraConfig)?,
            "configuration volume",
        ));
    }
    found.sort();
    found.truncate(NAMES_MAX);
    Ok(found)
}

/// The first `bound` bytes of a file.
pub(super) fn head(file: std::fs::File, bound: usize) -> Result<Vec<u8>, Missing> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.take(bound as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| Unread::from(&ReadError::io(".", &error)))?;
    Ok(bytes)
}
