//! What a dead operation, an interrupted rewind or an earlier restore left beside the data.

use super::files::{Files, Missing};
use super::reading::Unread;
use crate::volume::{ReadError, VolumeRole};

/// Names of leftovers, each after its volume: `data volume: pgdata.incoming-1`. Their order is stable.
///
/// Siblings of the directory in use that share its name: `pgdata.incoming-<op>` (ours), `pgdata_<time>` (CloudNativePG
/// renames what it finds), the same for `pg_wal` and tablespaces; and `global/pg_control.old`, which an upgrade by links
/// leaves to keep the old cluster from starting (pg_upgrade).
pub fn read(files: &Files<'_>) -> Result<Vec<String>, Missing> {
    let mut found = Vec::new();
    for volume in files.directory.volumes() {
        let (shown, used) = match &volume {
            VolumeRole::PgData => ("data volume".to_owned(), "pgdata"),
            VolumeRole::PgWal => ("WAL volume".to_owned(), "pg_wal"),
            VolumeRole::Tablespace(name) => (format!("volume of tablespace {name}"), "data"),
            VolumeRole::Scratch | VolumeRole::MariadbData | VolumeRole::GaleraConfig => continue,
        };
        let siblings = files.list_volume(&volume)?.entries.into_iter().filter(|entry| {
            entry
                .name
                .strip_prefix(used)
                .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('_'))
        });
        found.extend(siblings.map(|entry| format!("{shown}: {}", entry.name)));
    }
    match files
        .directory
        .list(&super::files::path("global")?, crate::volume::LISTING_MAX)
    {
        Ok(listing) if listing.names("pg_control.old") => {
            found.push("data directory: global/pg_control.old".to_owned());
        }
        Ok(_) | Err(ReadError::NotFound { .. }) => {}
        Err(error) => return Err(Unread::from(&error).into()),
    }
    found.sort();
    Ok(found)
}
