//! `global/pg_control` (PostgreSQL `catalog/pg_control.h`), versions 13 to 18.

use std::time::Duration;

use hasteward_proto::primitive::{Lsn, SystemId, TimelineId, UnixMillis};

use super::bytes::{i64_at, u32_at, u64_at};
use super::wal::segment::{BlockSize, SegmentSize};

/// Bytes of the file (`PG_CONTROL_FILE_SIZE`).
pub const FILE_SIZE: usize = 8192;

/// How often a torn read is tried again.
pub const ATTEMPTS: u32 = 10;

/// Pause between two tries.
pub const PAUSE: Duration = Duration::from_millis(10);

/// The parts of the control file that decide something; its CRC was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// `system_identifier`.
    pub system_id: SystemId,
    /// `pg_control_version`: 1300 (13 to 16), 1700, 1800.
    pub version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// `state`.
    pub state: ClusterState,
    /// `time`: last update.
    pub updated_at: UnixMillis,
    /// `checkPoint`: where the latest checkpoint record starts.
    pub checkpoint: Lsn,
    /// `checkPointCopy.redo`: where recovery starts.
    pub redo: Lsn,
    /// `checkPointCopy.ThisTimeLineID`.
    pub checkpoint_timeline: TimelineId,
    /// `checkPointCopy.PrevTimeLineID`.
    pub previous_timeline: TimelineId,
    /// `checkPointCopy.time`.
    pub checkpoint_at: UnixMillis,
    /// `minRecoveryPoint` with `minRecoveryPointTLI`. Lags behind replay until buffers are flushed.
    pub min_recovery: Option<(Lsn, TimelineId)>,
    /// `backupStartPoint`: set while a base backup is being recovered.
    pub backup_start: Option<Lsn>,
    /// `backupEndPoint`.
    pub backup_end: Option<Lsn>,
    /// `backupEndRequired`.
    pub backup_end_required: bool,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `checkPointCopy.fullPageWrites`.
    pub full_page_writes: bool,
    /// `data_checksum_version`; 0 = off.
    pub data_checksum_version: u32,
    /// `xlog_seg_size`.
    pub segment_size: SegmentSize,
    /// `xlog_blcksz`.
    pub wal_block_size: BlockSize,
}

/// `DBState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// `DB_STARTUP`
    StartingUp,
    /// `DB_SHUTDOWNED`
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`
    InProduction,
}

/// Why bytes are no control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Shorter than the fields in use.
    #[error("pg_control has {length} bytes, too few")]
    TooShort {
        /// Bytes that were there.
        length: usize,
    },
    /// Written on a machine of the other byte order.
    #[error("pg_control has the byte order of another architecture (version reads as {version})")]
    WrongByteOrder {
        /// `pg_control_version` as read.
        version: u32,
    },
    /// A plausible version that this release does not know.
    #[error("pg_control has version {version}; known are 1300, 1700 and 1800")]
    UnknownVersion {
        /// `pg_control_version`.
        version: u32,
    },
    /// No plausible version: garbage, or zeros.
    #[error("pg_control is garbage: its version reads as {version}")]
    Garbage {
        /// `pg_control_version` as read.
        version: u32,
    },
    /// CRC-32C does not match: damaged, or read while it was written.
    #[error("pg_control has CRC {stored:08X}, its content {computed:08X}")]
    Checksum {
        /// In the file.
        stored: u32,
        /// Of the content.
        computed: u32,
    },
    /// A field has a value that PostgreSQL does not write.
    #[error("pg_control has an impossible {field}: {value}")]
    Impossible {
        /// Name in `pg_control.h`.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Why a control file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ControlReadError<E> {
    /// Reading the bytes failed.
    #[error(transparent)]
    Read(E),
    /// Two equal reads were both invalid.
    #[error(transparent)]
    Invalid(ControlFileError),
    /// Every try read other bytes, none of them valid.
    #[error("pg_control changed under each of {ATTEMPTS} reads; the last one: {0}")]
    Torn(ControlFileError),
}

/// Where the CRC is, for a known version.
fn crc_offset(version: u32) -> Option<usize> {
    match version {
        1300 | 1700 => Some(288),
        1800 => Some(292),
        _ => None,
    }
}

impl ControlFile {
    /// Parses the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = ControlFileError::TooShort { length: bytes.len() };
        let u32_of = |at| u32_at(bytes, at).ok_or_else(|| short.clone());
        let u64_of = |at| u64_at(bytes, at).ok_or_else(|| short.clone());
        let seconds = |at| {
            i64_at(bytes, at)
                .map(|s| UnixMillis(s.saturating_mul(1000)))
                .ok_or_else(|| short.clone())
        };
        let flag = |at: usize, field| match bytes.get(at) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(&value) => Err(ControlFileError::Impossible {
                field,
                value: value.into(),
            }),
            None => Err(short.clone()),
        };
        let impossible = |field, value| ControlFileError::Impossible { field, value };

        let version = u32_of(8)?;
        let Some(crc_at) = crc_offset(version) else {
            return Err(match version {
                // PostgreSQL's own test, and a known version seen backwards.
                v if crc_offset(v.swap_bytes()).is_some() || (v % 65536 == 0 && v != 0) => {
                    ControlFileError::WrongByteOrder { version }
                }
                // 7.1 wrote 71; the scheme is the major version times 100 since 10.
                70..=99_999 => ControlFileError::UnknownVersion { version },
                _ => ControlFileError::Garbage { version },
            });
        };
        let (stored, content) = (u32_of(crc_at)?, bytes.get(..crc_at).ok_or_else(|| short.clone())?);
        let computed = crc32c::crc32c(content);
        if stored != computed {
            return Err(ControlFileError::Checksum { stored, computed });
        }

        if u32_of(204)? != 8 {
            return Err(impossible("maxAlign", u32_of(204)?.into()));
        }
        if u64_of(208)? != 1_234_567.0_f64.to_bits() {
            return Err(impossible("floatFormat", u64_of(208)?));
        }
        let lsn = |at| Ok::<_, ControlFileError>(Lsn::new(u64_of(at)?));
        let set_lsn = |at, field| lsn(at)?.ok_or(impossible(field, 0));
        let timeline = |at, field| TimelineId::new(u32_of(at)?).ok_or(impossible(field, 0));
        let min_recovery = match lsn(136)? {
            None => None,
            Some(at) => Some((at, timeline(144, "minRecoveryPointTLI")?)),
        };
        Ok(Self {
            system_id: SystemId::new(u64_of(0)?).ok_or(impossible("system_identifier", 0))?,
            version,
            catalog_version: u32_of(12)?,
            state: ClusterState::from_raw(u32_of(16)?).ok_or(impossible("state", u32_of(16)?.into()))?,
            updated_at: seconds(24)?,
            checkpoint: set_lsn(32, "checkPoint")?,
            redo: set_lsn(40, "checkPointCopy.redo")?,
            checkpoint_timeline: timeline(48, "checkPointCopy.ThisTimeLineID")?,
            previous_timeline: timeline(52, "checkPointCopy.PrevTimeLineID")?,
            checkpoint_at: seconds(104)?,
            min_recovery,
            backup_start: lsn(152)?,
            backup_end: lsn(160)?,
            backup_end_required: flag(168, "backupEndRequired")?,
            wal_log_hints: flag(176, "wal_log_hints")?,
            full_page_writes: flag(56, "checkPointCopy.fullPageWrites")?,
            data_checksum_version: u32_of(252)?,
            segment_size: SegmentSize::new(u32_of(228)?)
                .ok_or(impossible("xlog_seg_size", u32_of(228)?.into()))?,
            wal_block_size: BlockSize::new(u32_of(224)?)
                .ok_or(impossible("xlog_blcksz", u32_of(224)?.into()))?,
        })
    }

    /// Reads through torn reads: the server rewrites the file in place, and a read may see half of each (PostgreSQL's
    /// own front ends retry the same way). Invalid bytes are believed only when two reads in a row agree on them.
    pub fn read<E>(
        mut read: impl FnMut() -> Result<Vec<u8>, E>,
        mut pause: impl FnMut(Duration),
    ) -> Result<Self, ControlReadError<E>> {
        let mut bytes = read().map_err(ControlReadError::Read)?;
        for _ in 1..ATTEMPTS {
            let Err(error) = Self::parse(&bytes) else { break };
            pause(PAUSE);
            let again = read().map_err(ControlReadError::Read)?;
            if again == bytes {
                return Err(ControlReadError::Invalid(error));
            }
            bytes = again;
        }
        Self::parse(&bytes).map_err(ControlReadError::Torn)
    }

    /// The newest timeline that this instance is known to have followed: a standby's control file names it in
    /// `minRecoveryPointTLI` before the first checkpoint on it.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        let replayed = self
            .min_recovery
            .map_or(self.checkpoint_timeline, |(_, timeline)| timeline);
        self.checkpoint_timeline.max(replayed)
    }

    /// The position that this file alone proves: the later of checkpoint and minimum recovery point.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        self.min_recovery
            .map_or(self.checkpoint, |(lsn, _)| lsn.max(self.checkpoint))
    }
}

impl ClusterState {
    fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }

    /// The server followed another one's WAL when this was written, so it may have gone on to a newer timeline.
    #[must_use]
    pub const fn is_following(self) -> bool {
        matches!(self, Self::InArchiveRecovery | Self::ShutDownInRecovery)
    }
}

#[cfg(test)]
mod tests;
