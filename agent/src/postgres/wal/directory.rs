//! `pg_wal` as a directory: its size, its backlog and its oldest segment.

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::pages::Genuine;
use super::segment::SegmentName;
use crate::postgres::files::{Files, Missing, path};
use crate::postgres::reading::{Deadline, Unread};
use crate::volume::{FileKind, Listing, ReadError};

/// What `pg_wal` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalDirectory {
    /// Bytes on disk (`st_blocks`) of everything in it.
    pub bytes: u64,
    /// Segment files, recycled ones too.
    pub segments: u32,
    /// `archive_status/*.ready`: segments that wait for the archiver.
    pub ready: u32,
    /// Start of the oldest segment whose content is what its name says, with the timeline in its name.
    pub oldest: Option<(Lsn, TimelineId)>,
    /// `pg_wal` is a link to the WAL volume.
    pub on_wal_volume: bool,
}

/// Names of the segments in a listing, oldest position first.
#[must_use]
pub fn segments(listing: &Listing) -> Vec<SegmentName> {
    let files = listing
        .entries
        .iter()
        .filter(|entry| entry.kind == FileKind::File);
    let mut names: Vec<_> = files
        .filter_map(|entry| SegmentName::parse(&entry.name))
        .collect();
    names.sort_by_key(SegmentName::by_position);
    names
}

/// Measures `pg_wal`, of which `listing` is the listing.
pub fn read(files: &Files<'_>, listing: &Listing, deadline: &Deadline) -> Result<WalDirectory, Missing> {
    let mut bytes: u64 = listing.entries.iter().map(|entry| entry.allocated).sum();
    let mut ready = 0;
    for name in ["archive_status", "summaries"] {
        if !listing.entries.iter().any(|entry| entry.name == name) {
            continue;
        }
        let below = files.list(&format!("pg_wal/{name}"))?;
        bytes += below.entries.iter().map(|entry| entry.allocated).sum::<u64>();
        if name == "archive_status" {
            let waiting = below.entries.iter().filter(|entry| is_ready(&entry.name));
            ready = u32::try_from(waiting.count()).unwrap_or(u32::MAX);
        }
    }
    let names = segments(listing);
    let mut oldest = None;
    for name in &names {
        if deadline.passed() {
            return Err(Unread::timeout("oldest WAL segment").into());
        }
        if let Some(genuine) = Genuine::check(files, *name)? {
            oldest = genuine.start().map(|start| (start, name.timeline()));
            break;
        }
    }
    let on_wal_volume = match files.directory.read_link(&path("pg_wal")?) {
        Ok(_) => true,
        Err(ReadError::WrongType { .. }) => false,
        Err(error) => return Err(Unread::from(&error).into()),
    };
    let segments = u32::try_from(names.len()).unwrap_or(u32::MAX);
    Ok(WalDirectory {
        bytes,
        segments,
        ready,
        oldest,
        on_wal_volume,
    })
}

fn is_ready(name: &str) -> bool {
    name.strip_suffix(".ready").is_some_and(|file| !file.is_empty())
}
