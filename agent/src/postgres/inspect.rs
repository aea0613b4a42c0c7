//! Everything of one instance that its files say, under one deadline. Changes nothing.

use std::time::Duration;

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::backup_label::{self, BackupLabel};
use super::control_file::{self, ControlFile, ControlFileError, ControlReadError};
use super::files::{Files, Missing};
use super::history::{self, HistoryError, TimelineHistory};
use super::leftovers;
use super::reading::{Deadline, Reading, Unread, UnreadKind};
use super::signals::{self, Signals};
use super::slot::{self, SlotError, SlotState};
use super::tablespaces::{self, Tablespace};
use super::wal::directory::{self, WalDirectory};
use super::wal::pages;
use super::wal::scan::{Commits, Method, Scan, WalEnd};
use crate::volume::{FileKind, Listing, Space, VolumeRole};

/// Bound on the number of history files and of slots: far above any real cluster.
const MAX_FILES: usize = 10_000;

/// How often a scan is begun again because a running server moved its redo point.
const RESCANS: u32 = 20;

/// What an inspection reads from.
#[derive(Clone, Copy)]
pub struct Inspection<'a> {
    /// The instance's files, with a clock.
    pub files: Files<'a>,
    /// Waits between two reads of a file that a server writes in place.
    pub pause: &'a (dyn Fn(Duration) + Sync),
    /// Until when. What was not read by then is unread, with that reason.
    pub deadline: &'a Deadline,
}

/// Whether to look for the end of valid WAL, which may read gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalScan {
    /// Look.
    Wanted,
    /// The server answered, and knows better.
    NotNeeded,
}

/// What the files of one instance say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `global/pg_control`.
    pub control: Reading<ControlFile>,
    /// `standby.signal`, `recovery.signal`.
    pub signals: Reading<Signals>,
    /// `backup_label`.
    pub backup_label: Reading<BackupLabel>,
    /// Every `*.history` in `pg_wal`, by timeline.
    pub histories: Reading<Vec<HistoryFile>>,
    /// End of valid WAL.
    pub wal_end: Reading<WalEnd>,
    /// Size and backlog of `pg_wal`.
    pub wal: Reading<WalDirectory>,
    /// `pg_replslot`.
    pub slots: Reading<Vec<Slot>>,
    /// `pg_tblspc`.
    pub tablespaces: Reading<Vec<Tablespace>>,
    /// Space of each volume.
    pub volumes: Vec<(VolumeRole, Reading<Space>)>,
    /// What lies beside the data.
    pub leftovers: Reading<Vec<String>>,
}

/// One history file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// The timeline in its name.
    pub timeline: TimelineId,
    /// Its content, or why it is unread.
    pub history: Result<TimelineHistory, Unread>,
}

/// One directory of `pg_replslot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The directory's name.
    pub name: String,
    /// Its state file, or why it is unread.
    pub state: Result<SlotState, Unread>,
}

impl From<ControlFileError> for Unread {
    fn from(error: ControlFileError) -> Self {
        let kind = match error {
            ControlFileError::UnknownVersion { .. } | ControlFileError::WrongByteOrder { .. } => {
                UnreadKind::UnknownVersion
            }
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<HistoryError> for Unread {
    fn from(error: HistoryError) -> Self {
        let kind = match error {
            HistoryError::TooLarge { .. } => UnreadKind::TooLarge,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<SlotError> for Unread {
    fn from(error: SlotError) -> Self {
        let kind = match error {
            SlotError::UnknownVersion { .. } => UnreadKind::UnknownVersion,
            _ => UnreadKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl Inspection<'_> {
    /// Reads everything; cheap items first, so that a slow scan costs only itself.
    #[must_use]
    pub fn instance(&self, scan: WalScan) -> Instance {
        let files = &self.files;
        let control = self.timed("pg_control", || {
            files.reading("global/pg_control", self.control())
        });
        let listing = self.in_time("pg_wal", || files.list("pg_wal"));
        let histories = self.timed("timeline histories", || {
            let histories = listing.clone().and_then(|listing| self.histories(&listing));
            files.reading("pg_wal/*.history", histories)
        });
        let mut instance = Instance {
            control,
            signals: self.timed("signal files", || {
                files.reading("standby.signal, recovery.signal", signals::read(files))
            }),
            backup_label: self.timed("backup_label", || {
                files.reading("backup_label", self.backup_label())
            }),
            histories,
            wal_end: Reading::unread(UnreadKind::NotNeeded, "the server answers"),
            wal: self.timed("pg_wal", || {
                let wal = listing
                    .clone()
                    .and_then(|listing| directory::read(files, &listing, self.deadline));
                files.reading("pg_wal", wal)
            }),
            slots: self.timed("slots", || files.reading("pg_replslot", self.slots())),
            tablespaces: self.timed("tablespaces", || {
                files.reading("pg_tblspc", tablespaces::read(files))
            }),
            volumes: self.volumes(),
            leftovers: self.timed("leftovers", || files.reading("volumes", leftovers::read(files))),
        };
        if scan == WalScan::Wanted {
            let end = self.wal_end(&mut instance.control, &instance.histories, listing);
            instance.wal_end = match end {
                Ok(end) => {
                    let source = source_of(&end);
                    Reading::known(end, source, (files.now)())
                }
                Err(missing) => missing.into(),
            };
        }
        instance
    }

    /// Counts the commits of `timeline` that start at or after `past`.
    pub fn commits(&self, timeline: TimelineId, past: Lsn) -> Result<Commits, Unread> {
        let unread = |what: &str, missing: Missing| match missing {
            Missing::Unread(unread) => unread,
            Missing::Absent(proof) => Unread::new(UnreadKind::Depends, format!("{what}: {proof}")),
        };
        let listing = self
            .files
            .list("pg_wal")
            .map_err(|missing| unread("pg_wal", missing))?;
        let histories = self
            .histories(&listing)
            .map_err(|missing| unread("timeline histories", missing))?;
        let mut control = self.control().map_err(|missing| unread("pg_control", missing))?;
        self.scan(
            &mut control,
            &histories,
            |scan| scan.commits(timeline, past),
            |found| found.end,
        )
    }

    fn in_time<T>(&self, what: &str, read: impl FnOnce() -> Result<T, Missing>) -> Result<T, Missing> {
        if self.deadline.passed() {
            Err(Unread::timeout(what).into())
        } else {
            read()
        }
    }

    fn timed<T>(&self, what: &str, read: impl FnOnce() -> Reading<T>) -> Reading<T> {
        if self.deadline.passed() {
            Reading::Unread(Unread::timeout(what))
        } else {
            read()
        }
    }

    /// `global/pg_control`, read again while a server writes it.
    pub fn control(&self) -> Result<ControlFile, Missing> {
        let bound = control_file::FILE_SIZE as u64;
        ControlFile::read(|| self.files.read("global/pg_control", bound), self.pause).map_err(|error| {
            match error {
                ControlReadError::Read(missing) => missing,
                ControlReadError::Invalid(error) => Missing::Unread(error.into()),
                ControlReadError::Torn(error) => {
                    let detail = format!(
                        "pg_control changed under each of {} reads: {error}",
                        control_file::ATTEMPTS
                    );
                    Missing::Unread(Unread::new(UnreadKind::Io, detail))
                }
            }
        })
    }

    fn backup_label(&self) -> Result<BackupLabel, Missing> {
        let bytes = self.files.read("backup_label", backup_label::MAX_BYTES)?;
        BackupLabel::parse(&bytes)
            .map_err(|error| Missing::Unread(Unread::new(UnreadKind::Corrupt, error.to_string())))
    }

    fn histories(&self, listing: &Listing) -> Result<Vec<HistoryFile>, Missing> {
        let names = listing.entries.iter().map(|entry| entry.name.as_str());
        let mut timelines: Vec<_> = names.filter_map(TimelineHistory::timeline_of_name).collect();
        timelines.sort_unstable();
        bounded(timelines.len(), "history files")?;
        let read = |timeline: TimelineId| {
            if self.deadline.passed() {
                return Err(Unread::timeout("timeline histories").into());
            }
            let name = format!("pg_wal/{}", timeline.history_file_name());
            let history = match self.files.read(&name, history::MAX_BYTES) {
                Ok(bytes) => TimelineHistory::parse(timeline, &bytes).map_err(Unread::from),
                Err(Missing::Unread(unread)) => Err(unread),
                // Removed since the listing.
                Err(Missing::Absent(_)) => return Ok(None),
            };
            Ok(Some(HistoryFile { timeline, history }))
        };
        timelines
            .into_iter()
            .filter_map(|timeline| read(timeline).transpose())
            .collect()
    }

    fn slots(&self) -> Result<Vec<Slot>, Missing> {
        let mut names: Vec<_> = self.files.list("pg_replslot")?.entries.into_iter().collect();
        // `<name>.tmp` is a slot being created or dropped; slot names have no dot.
        names.retain(|entry| entry.kind == FileKind::Directory && !entry.name.contains('.'));
        names.sort_by(|a, b| a.name.cmp(&b.name));
        bounded(names.len(), "slots")?;
        let read = |name: String| {
            if self.deadline.passed() {
                return Err(Unread::timeout("slots").into());
            }
            let state = match self
                .files
                .read(&format!("pg_replslot/{name}/state"), slot::MAX_BYTES)
            {
                Ok(bytes) => SlotState::parse(&bytes).map_err(Unread::from),
                Err(Missing::Unread(unread)) => Err(unread),
                Err(Missing::Absent(proof)) => Err(Unread::new(UnreadKind::Corrupt, proof)),
            };
            Ok(Slot { name, state })
        };
        names.into_iter().map(|entry| read(entry.name)).collect()
    }

    fn volumes(&self) -> Vec<(VolumeRole, Reading<Space>)> {
        let roles = self
            .files
            .directory
            .volumes()
            .into_iter()
            .filter(|role| *role != VolumeRole::Scratch);
        roles
            .map(|role| {
                let space = self.timed("space of a volume", || match self.files.directory.space(&role) {
                    Ok(space) => Reading::known(space, "statvfs", (self.files.now)()),
                    Err(error) => Reading::Unread(Unread::from(&error)),
                });
                (role, space)
            })
            .collect()
    }

    #[allow(
        clippy::redundant_closure_for_method_calls,
        reason = "`Scan::end` is not general over the scan's lifetime"
    )]
    fn wal_end(
        &self,
        control: &mut Reading<ControlFile>,
        histories: &Reading<Vec<HistoryFile>>,
        listing: Result<Listing, Missing>,
    ) -> Result<WalEnd, Missing> {
        // No directory, no end; its absence is proven where the listing's was.
        let listing = listing?;
        match control {
            Reading::Known(known) => {
                let Some(histories) = histories.value() else {
                    return Err(Unread::new(UnreadKind::Depends, "timeline histories are unread").into());
                };
                Ok(self.scan(
                    &mut known.value,
                    histories,
                    |scan| scan.end(),
                    |found| Some(found.end),
                )?)
            }
            Reading::Absent { .. } => Ok(self.end_by_pages(&listing)?),
            Reading::Unread(unread) if matches!(unread.kind, UnreadKind::Corrupt | UnreadKind::Io) => {
                Ok(self.end_by_pages(&listing)?)
            }
            Reading::Unread(unread) => Err(Unread::new(
                UnreadKind::Depends,
                format!("pg_control is unread: {}", unread.detail),
            )
            .into()),
        }
    }

    fn end_by_pages(&self, listing: &Listing) -> Result<WalEnd, Unread> {
        pages::end(&self.files, &directory::segments(listing), self.deadline)
    }

    /// Scans from the control file's redo point.
    ///
    /// A running server moves that point and then recycles the WAL before it, also the part that a scan is just about to
    /// read: the log then seems to end there. So the control file is read again after each scan; where it has a checkpoint
    /// that the scan did not reach, the scan begins again from the new redo point.
    fn scan<T>(
        &self,
        control: &mut ControlFile,
        histories: &[HistoryFile],
        run: impl Fn(&Scan<'_>) -> Result<T, Unread>,
        end: impl Fn(&T) -> Option<Lsn>,
    ) -> Result<T, Unread> {
        let parsed: Vec<_> = histories
            .iter()
            .filter_map(|file| file.history.clone().ok())
            .collect();
        for _ in 0..RESCANS {
            let timeline = control.timeline();
            if let Some(file) = histories.iter().find(|file| file.timeline == timeline)
                && let Err(unread) = &file.history
            {
                let detail = format!("the history of timeline {timeline} is unread: {}", unread.detail);
                return Err(Unread::new(UnreadKind::Depends, detail));
            }
            let scan = Scan {
                source: &self.files,
                control,
                histories: &parsed,
                deadline: self.deadline,
            };
            let outcome = run(&scan);
            if let Err(unread) = &outcome
                && unread.kind != UnreadKind::Corrupt
            {
                return outcome;
            }
            let newer = self.control().map_err(|missing| match missing {
                Missing::Unread(unread) => unread,
                Missing::Absent(proof) => Unread::new(UnreadKind::Depends, proof),
            })?;
            let moved = newer != *control;
            let reached = outcome
                .as_ref()
                .is_ok_and(|found| end(found).is_some_and(|end| end >= newer.checkpoint));
            if reached || !moved {
                return outcome;
            }
            *control = newer;
        }
        Err(Unread::timeout(
            "WAL scan beside a server that keeps moving its redo point",
        ))
    }
}

/// What a known end rests on, for people.
fn source_of(end: &WalEnd) -> String {
    let how = match (end.method, end.last_record) {
        (Method::Records, _) => "records from the redo point",
        (Method::Pages, Some(_)) => "records of the newest genuine segments, without pg_control",
        (Method::Pages, None) => "page headers of the newest genuine segment, without pg_control",
    };
    let after = match end.abandoned {
        Some((timeline, at)) => {
            format!("; also valid records of timeline {timeline} up to {at}, past the switch")
        }
        None => String::new(),
    };
    format!("pg_wal: {how}; ends: {}{after}", end.stopped)
}

fn bounded(count: usize, what: &str) -> Result<(), Missing> {
    if count > MAX_FILES {
        return Err(Unread::new(UnreadKind::TooLarge, format!("{count} {what}")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
