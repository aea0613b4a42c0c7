//! `pg_tblspc/<oid>`: links to tablespaces, absolute in the container.

use super::files::{Files, Missing, path};
use super::reading::{Unread, UnreadKind};
use crate::volume::{FileKind, ReadError};

/// A tablespace link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it leads, as the container sees it; empty for one that lies in place (`allow_in_place_tablespaces`).
    pub target: String,
    /// That lies in a volume of this instance and exists.
    pub resolved: bool,
}

/// Reads the links and follows each.
pub fn read(files: &Files<'_>) -> Result<Vec<Tablespace>, Missing> {
    let mut tablespaces = Vec::new();
    for entry in files.list("pg_tblspc")?.entries {
        let Ok(oid) = entry.name.parse::<u32>() else {
            continue;
        };
        let link = path(&format!("pg_tblspc/{oid}"))?;
        let target = match entry.kind {
            FileKind::Link => {
                let target = files
                    .directory
                    .read_link(&link)
                    .map_err(|error| Unread::from(&error))?;
                target.to_str().map(str::to_owned).ok_or_else(|| {
                    Unread::new(UnreadKind::Corrupt, format!("{link}: its target is not UTF-8"))
                })?
            }
            _ => String::new(),
        };
        let resolved = match files.directory.list(&link, 1) {
            Ok(_) => true,
            // Leads nowhere, or nowhere that belongs to this instance. A volume that is only not mounted here says nothing.
            Err(ReadError::NotFound { .. } | ReadError::Refused { .. } | ReadError::WrongType { .. }) => {
                false
            }
            Err(error) => return Err(Unread::from(&error).into()),
        };
        tablespaces.push(Tablespace {
            oid,
            target,
            resolved,
        });
    }
    tablespaces.sort_by_key(|tablespace| tablespace.oid);
    Ok(tablespaces)
}
