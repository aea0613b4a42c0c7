//! Everything of one node that its files say, under one deadline. Changes nothing.

use super::cache::{self, CacheError, GaleraCache};
use super::files::{self, ConfigFiles, DataFiles, StateTransfer};
use super::grastate::{self, GraState, GraStateError};
use super::recovered::RecoveredError;
use super::view_state::{self, ViewState, ViewStateError};
use crate::postgres::files::{Files, Missing, path};
use crate::postgres::reading::{Deadline, Reading, Unread, UnreadKind};
use crate::volume::{Listing, Space, VolumeRole};

/// What an inspection reads from.
#[derive(Clone, Copy)]
pub struct Inspection<'a> {
    /// The node's files, with a clock.
    pub files: Files<'a>,
    /// Until when. What was not read by then is unread, with that reason.
    pub deadline: &'a Deadline,
}

/// What the files of one node say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `grastate.dat`
    pub grastate: Reading<GraState>,
    /// `gvwstate.dat`
    pub view_state: Reading<ViewState>,
    /// `galera.cache`
    pub cache: Reading<GaleraCache>,
    /// `sst_in_progress` and its like.
    pub state_transfer: Reading<StateTransfer>,
    /// What the data directory holds.
    pub files: Reading<DataFiles>,
    /// Bootstrap and hold files.
    pub config: Reading<ConfigFiles>,
    /// Space of each volume.
    pub volumes: Vec<(VolumeRole, Reading<Space>)>,
    /// What dead operations left.
    pub leftovers: Reading<Vec<String>>,
}

impl Node {
    /// Nothing was read, all for the same reason.
    #[must_use]
    pub fn unread(roles: &[VolumeRole], why: &Unread) -> Self {
        Self {
            grastate: why.clone().into(),
            view_state: why.clone().into(),
            cache: why.clone().into(),
            state_transfer: why.clone().into(),
            files: why.clone().into(),
            config: why.clone().into(),
            volumes: roles
                .iter()
                .map(|role| (role.clone(), why.clone().into()))
                .collect(),
            leftovers: why.clone().into(),
        }
    }
}

impl From<GraStateError> for Unread {
    fn from(error: GraStateError) -> Self {
        let kind = match error {
            GraStateError::TooLarge(_) => UnreadKind::TooLarge,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ViewStateError> for Unread {
    fn from(error: ViewStateError) -> Self {
        let kind = match error {
            ViewStateError::TooLarge(_) => UnreadKind::TooLarge,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CacheError> for Unread {
    fn from(error: CacheError) -> Self {
        let kind = match error {
            CacheError::UnknownVersion(_) => UnreadKind::UnknownVersion,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RecoveredError> for Unread {
    fn from(error: RecoveredError) -> Self {
        let kind = match error {
            RecoveredError::None(_) | RecoveredError::Disabled => UnreadKind::ServerError,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl Inspection<'_> {
    /// Reads everything.
    #[must_use]
    pub fn node(&self) -> Node {
        let files = &self.files;
        let listing = self.in_time("data directory", || files.list(""));
        let from_listing = |what: &str| self.in_time(what, || listing.clone());
        Node {
            grastate: self.item("grastate.dat", || {
                let bytes = files.read("grastate.dat", grastate::MAX as u64)?;
                grastate::parse(&bytes).map_err(|error| Unread::from(error).into())
            }),
            view_state: self.item("gvwstate.dat", || {
                let bytes = files.read("gvwstate.dat", view_state::MAX as u64)?;
                view_state::parse(&bytes).map_err(|error| Unread::from(error).into())
            }),
            cache: self.item("galera.cache", || self.cache()),
            state_transfer: files.reading(
                "data directory",
                from_listing("state transfer").map(|listing| files::state_transfer(&listing)),
            ),
            files: files.reading(
                "data directory",
                from_listing("data files").and_then(|listing| files::data(files, &listing)),
            ),
            config: self.item("configuration volume", || files::config(files)),
            volumes: self.volumes(),
            leftovers: files.reading("volumes", self.leftovers(&listing)),
        }
    }

    fn cache(&self) -> Result<GaleraCache, Missing> {
        let name = "galera.cache";
        let file = self
            .files
            .directory
            .open(&path(name)?)
            .map_err(|error| self.files.missing(name, &error))?;
        cache::parse(&files::head(file, cache::PREAMBLE)?).map_err(|error| Unread::from(error).into())
    }

    fn leftovers(&self, listing: &Result<Listing, Missing>) -> Result<Vec<String>, Missing> {
        self.in_time("leftovers", || {
            files::leftovers(&self.files, listing.as_ref().map_err(Clone::clone)?)
        })
    }

    fn volumes(&self) -> Vec<(VolumeRole, Reading<Space>)> {
        let space = |volume: VolumeRole| {
            let space = self.item("statvfs", || {
                let space = self.files.directory.space(&volume);
                space.map_err(|error| Unread::from(&error).into())
            });
            (volume, space)
        };
        self.files.directory.volumes().into_iter().map(space).collect()
    }

    fn in_time<T>(&self, what: &str, read: impl FnOnce() -> Result<T, Missing>) -> Result<T, Missing> {
        if self.deadline.passed() {
            Err(Unread::timeout(what).into())
        } else {
            read()
        }
    }

    fn item<T>(&self, source: &str, read: impl FnOnce() -> Result<T, Missing>) -> Reading<T> {
        self.files.reading(source, self.in_time(source, read))
    }
}
