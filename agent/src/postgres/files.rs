//! [`Files`]: reads through a [`DataDirectory`], and proves absence.

use hasteward_proto::primitive::UnixMillis;

use super::reading::{Reading, Unread, UnreadKind};
use super::wal::source::{SegmentFile, SegmentSource};
use crate::volume::{DataDirectory, LISTING_MAX, Listing, ReadError, RelativePath, VolumeRole};

/// An instance's files with a clock.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// The files.
    pub directory: &'a dyn DataDirectory,
    /// The clock that stamps readings.
    pub now: &'a (dyn Fn() -> UnixMillis + Sync),
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Proven not to exist.
    Absent(String),
    /// Not read.
    Unread(Unread),
}

impl From<Unread> for Missing {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

impl<T> From<Missing> for Reading<T> {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Absent(proof) => Self::Absent { proof },
            Missing::Unread(unread) => Self::Unread(unread),
        }
    }
}

impl From<&ReadError> for Unread {
    fn from(error: &ReadError) -> Self {
        let kind = match error {
            // Not proven: somebody else looked, or it was there a moment ago.
            ReadError::NotFound { .. } | ReadError::Io { .. } => UnreadKind::Io,
            ReadError::NotMounted { .. } => UnreadKind::NotMounted,
            ReadError::TooLarge { .. } => UnreadKind::TooLarge,
            ReadError::WrongType { .. } => UnreadKind::WrongType,
            ReadError::Refused { .. } => UnreadKind::Refused,
            ReadError::Permission { .. } => UnreadKind::Permission,
            ReadError::Timeout { .. } => UnreadKind::Timeout,
        };
        Self::new(kind, error.to_string())
    }
}

/// A path that is fixed in this crate, or made of checked names.
pub(crate) fn path(text: &str) -> Result<RelativePath, Unread> {
    RelativePath::new(text).map_err(|error| Unread::new(UnreadKind::Refused, error.to_string()))
}

impl Files<'_> {
    /// A whole small file.
    pub fn read(&self, name: &str, bound: u64) -> Result<Vec<u8>, Missing> {
        let path = path(name)?;
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        self.directory
            .read(&path, bound)
            .map_err(|error| self.missing(name, &error))
    }

    /// What a directory holds, all of it.
    pub fn list(&self, name: &str) -> Result<Listing, Missing> {
        let path = if name.is_empty() {
            RelativePath::root()
        } else {
            path(name)?
        };
        let listing = self
            .directory
            .list(&path, LISTING_MAX)
            .map_err(|error| self.missing(name, &error))?;
        whole(listing, name)
    }

    /// What the root of a volume holds, all of it.
    pub fn list_volume(&self, volume: &VolumeRole) -> Result<Listing, Missing> {
        let listing = self.directory.list_volume(volume, LISTING_MAX);
        whole(listing.map_err(|error| Unread::from(&error))?, "volume")
    }

    /// A reading made of `value`, from `source`, now.
    pub fn reading<T>(&self, source: &str, value: Result<T, Missing>) -> Reading<T> {
        match value {
            Ok(value) => Reading::known(value, source, (self.now)()),
            Err(missing) => missing.into(),
        }
    }

    /// Tells *not found* from *not there*: only a whole listing of the parent that lacks the name proves absence.
    pub fn missing(&self, name: &str, error: &ReadError) -> Missing {
        match error {
            ReadError::NotFound { .. } => self.prove_absent(name),
            other => Missing::Unread(Unread::from(other)),
        }
    }

    fn prove_absent(&self, name: &str) -> Missing {
        let (parent, last) = match name.rsplit_once('/') {
            Some((parent, last)) => (parent, last),
            None => ("", name),
        };
        let (listing, shown) = if name.is_empty() {
            (
                self.directory.list_volume(&VolumeRole::PgData, LISTING_MAX),
                "the data volume",
            )
        } else if parent.is_empty() {
            (
                self.directory.list(&RelativePath::root(), LISTING_MAX),
                "the data directory",
            )
        } else {
            match path(parent) {
                Ok(path) => (self.directory.list(&path, LISTING_MAX), parent),
                Err(unread) => return unread.into(),
            }
        };
        let last = if name.is_empty() { "pgdata" } else { last };
        match listing {
            Ok(listing) if listing.truncated => {
                Unread::new(UnreadKind::TooLarge, format!("{shown}: too many entries")).into()
            }
            Ok(listing) if listing.names(last) => Unread::new(
                UnreadKind::Io,
                format!("{shown} lists {last}, but it could not be found"),
            )
            .into(),
            Ok(_) => Missing::Absent(format!("{shown} lists no {last}")),
            Err(ReadError::NotFound { .. }) if !name.is_empty() => self.prove_absent(parent),
            Err(error) => Unread::from(&error).into(),
        }
    }
}

fn whole(listing: Listing, name: &str) -> Result<Listing, Missing> {
    if listing.truncated {
        return Err(Unread::new(
            UnreadKind::TooLarge,
            format!("{name}: too many entries, or too slow"),
        )
        .into());
    }
    Ok(listing)
}

impl SegmentSource for Files<'_> {
    fn open(&self, name: &str) -> Result<Option<Box<dyn SegmentFile>>, Unread> {
        match self.directory.open(&path(&format!("pg_wal/{name}"))?) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(ReadError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Unread::from(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::PathBuf;

    use super::*;
    use crate::volume::{Space, Stat};

    /// A directory that lists names under which nothing is found, as one with a damaged inode does.
    struct Damaged;

    impl DataDirectory for Damaged {
        fn open(&self, path: &RelativePath) -> Result<File, ReadError> {
            Err(not_found(path.as_str()))
        }

        fn open_on(&self, _: &VolumeRole, path: &RelativePath) -> Result<File, ReadError> {
            Err(not_found(path.as_str()))
        }

        fn list(&self, _: &RelativePath, _: usize) -> Result<Listing, ReadError> {
            Ok(Listing {
                vanished: vec!["standby.signal".to_owned()],
                ..Listing::default()
            })
        }

        fn list_volume(&self, _: &VolumeRole, limit: usize) -> Result<Listing, ReadError> {
            self.list(&RelativePath::root(), limit)
        }

        fn read_link(&self, path: &RelativePath) -> Result<PathBuf, ReadError> {
            Err(not_found(path.as_str()))
        }

        fn stat(&self, path: &RelativePath) -> Result<Stat, ReadError> {
            Err(not_found(path.as_str()))
        }

        fn space(&self, _: &VolumeRole) -> Result<Space, ReadError> {
            Err(not_found("."))
        }

        fn volumes(&self) -> Vec<VolumeRole> {
            vec![VolumeRole::PgData]
        }
    }

    fn not_found(path: &str) -> ReadError {
        ReadError::NotFound {
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_name_that_is_listed_is_not_proven_absent() {
        let files = Files {
            directory: &Damaged,
            now: &|| UnixMillis(0),
        };
        let listed = files.read("standby.signal", 16);
        assert!(
            matches!(&listed, Err(Missing::Unread(unread)) if unread.kind == UnreadKind::Io),
            "{listed:?}"
        );
        assert!(matches!(
            files.read("recovery.signal", 16),
            Err(Missing::Absent(_))
        ));
        let signals = super::super::signals::read(&files).unwrap();
        assert!(signals.standby && !signals.recovery);
    }
}
