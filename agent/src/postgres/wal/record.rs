//! The header of a WAL record (PostgreSQL `access/xlogrecord.h`), and commit records (`access/xact.h`).

use hasteward_proto::primitive::UnixMillis;

use crate::postgres::bytes::{i64_at, u32_at, u64_at};

/// Bytes of a record header (`SizeOfXLogRecord`).
pub const HEADER: usize = 24;

/// Bytes of the header that its CRC covers: all before `xl_crc`.
pub const CHECKED_HEADER: usize = 20;

/// Bytes after the header in which a commit record's time is found: origin (3), top-level xid (5), long data header (5)
/// and the time (8).
pub const PREFIX: usize = 32;

/// `XLogRecordMaxSize` (16 and later); earlier versions stay below the 1 GiB of `MaxAllocSize`.
const MAX_LENGTH: u32 = 1024 * 1024 * 1024;

/// `RM_XLOG_ID`
const RMGR_XLOG: u8 = 0;
/// `RM_XACT_ID`
const RMGR_XACT: u8 = 1;
/// `RM_MAX_BUILTIN_ID`: `RM_LOGICALMSG_ID` in 13 to 18.
const RMGR_LAST: u8 = 21;
/// `RM_MIN_CUSTOM_ID` (15 and later)
const RMGR_CUSTOM: u8 = 128;
/// `XLOG_SWITCH`
const XLOG_SWITCH: u8 = 0x40;
/// `XLOG_OVERWRITE_CONTRECORD`
const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;
/// `XLOG_CHECKPOINT_SHUTDOWN`
const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
/// `XLOG_CHECKPOINT_ONLINE`
const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
/// `XLOG_XACT_OPMASK`
const XACT_OPERATION: u8 = 0x70;
/// `XLOG_XACT_COMMIT`
const XACT_COMMIT: u8 = 0x00;
/// `XLOG_XACT_COMMIT_PREPARED`
const XACT_COMMIT_PREPARED: u8 = 0x30;
/// Microseconds from the Unix epoch to 2000-01-01, PostgreSQL's epoch.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A record header (`XLogRecord`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// `xl_tot_len`: bytes of the whole record with this header.
    pub length: u32,
    /// `xl_prev`: where the record before starts.
    pub previous: u64,
    /// `xl_info`
    pub info: u8,
    /// `xl_rmid`
    pub rmgr: u8,
    /// `xl_crc`
    pub crc: u32,
}

/// Why bytes are no record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The length is zero: nothing was written here.
    #[error("nothing was written here")]
    Zero,
    /// The length is shorter than a header, or longer than any record.
    #[error("length {0}")]
    Length(u32),
    /// `xl_rmid` is unknown.
    #[error("resource manager {0}")]
    ResourceManager(u8),
}

/// What a record is, as far as the scan cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Commit, or commit of a prepared transaction.
    Commit,
    /// The rest of the segment is unused.
    Switch,
    /// Takes the place of a record that was given up.
    OverwriteContrecord,
    /// Online or shutdown checkpoint.
    Checkpoint,
    /// Anything else.
    Other,
}

impl RecordHeader {
    /// Checks a length (`xl_tot_len`), which alone is sure to be on the record's first page.
    pub const fn check_length(length: u32) -> Result<(), HeaderFault> {
        match length {
            0 => Err(HeaderFault::Zero),
            1..24 => Err(HeaderFault::Length(length)),
            _ if length > MAX_LENGTH => Err(HeaderFault::Length(length)),
            _ => Ok(()),
        }
    }

    /// Parses a header.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, HeaderFault> {
        let length = u32_at(bytes, 0).unwrap_or_default();
        Self::check_length(length)?;
        let rmgr = bytes[17];
        if rmgr > RMGR_LAST && rmgr < RMGR_CUSTOM {
            return Err(HeaderFault::ResourceManager(rmgr));
        }
        Ok(Self {
            length,
            previous: u64_at(bytes, 8).unwrap_or_default(),
            info: bytes[16],
            rmgr,
            crc: u32_at(bytes, CHECKED_HEADER).unwrap_or_default(),
        })
    }

    /// What the record is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        // The low half of xl_info belongs to the WAL machinery (XLR_INFO_MASK).
        let operation = self.info & 0xF0;
        match self.rmgr {
            RMGR_XLOG => match operation {
                XLOG_SWITCH => Kind::Switch,
                XLOG_OVERWRITE_CONTRECORD => Kind::OverwriteContrecord,
                XLOG_CHECKPOINT_SHUTDOWN | XLOG_CHECKPOINT_ONLINE => Kind::Checkpoint,
                _ => Kind::Other,
            },
            RMGR_XACT => match operation & XACT_OPERATION {
                XACT_COMMIT | XACT_COMMIT_PREPARED => Kind::Commit,
                _ => Kind::Other,
            },
            _ => Kind::Other,
        }
    }
}

/// The start of a record's main data within its first bytes after the header; `None` where block references or a longer
/// header come first. Commit, switch and overwrite records have none.
fn main_data(prefix: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    // At most an origin and a top-level xid precede the data.
    for _ in 0..3 {
        at += match prefix.get(at)? {
            253 => 3,                           // XLR_BLOCK_ID_ORIGIN
            252 => 5,                           // XLR_BLOCK_ID_TOPLEVEL_XID
            255 => return prefix.get(at + 2..), // XLR_BLOCK_ID_DATA_SHORT
            254 => return prefix.get(at + 5..), // XLR_BLOCK_ID_DATA_LONG
            _ => return None,
        };
    }
    None
}

/// When a commit record was made (`xl_xact_commit.xact_time`), from the record's first [`PREFIX`] bytes after the header.
#[must_use]
pub fn commit_time(prefix: &[u8]) -> Option<UnixMillis> {
    let micros = i64_at(main_data(prefix)?, 0)?.checked_add(EPOCH_MICROS)?;
    Some(UnixMillis(micros.div_euclid(1000)))
}

/// Which record an overwrite record replaces (`xl_overwrite_contrecord.overwritten_lsn`).
#[must_use]
pub fn overwritten(prefix: &[u8]) -> Option<u64> {
    u64_at(main_data(prefix)?, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds() {
        let of = |rmgr, info| {
            RecordHeader {
                length: 24,
                previous: 0,
                info,
                rmgr,
                crc: 0,
            }
            .kind()
        };
        assert_eq!(of(1, 0x00), Kind::Commit);
        assert_eq!(of(1, 0x80), Kind::Commit);
        assert_eq!(of(1, 0xB0), Kind::Commit);
        assert_eq!(of(1, 0x20), Kind::Other);
        assert_eq!(of(0, 0x40), Kind::Switch);
        assert_eq!(of(0, 0xD0), Kind::OverwriteContrecord);
        assert_eq!(of(0, 0x10), Kind::Checkpoint);
        assert_eq!(of(10, 0x00), Kind::Other);
    }

    #[test]
    fn commit_times() {
        let time = 810_000_000_123_456_i64.to_le_bytes();
        let expected = Some(UnixMillis(946_684_800_000 + 810_000_000_123));
        assert_eq!(commit_time(&[&[255, 8][..], &time].concat()), expected);
        assert_eq!(
            commit_time(&[&[253, 1, 0, 254, 8, 0, 0, 0][..], &time].concat()),
            expected
        );
        assert_eq!(
            commit_time(&[&[253, 1, 0, 252, 1, 2, 3, 4, 255, 8][..], &time].concat()),
            expected
        );
        assert_eq!(commit_time(&[&[0, 8][..], &time].concat()), None);
        assert_eq!(commit_time(&[255, 8, 1]), None);
        assert_eq!(commit_time(&[]), None);
        assert_eq!(commit_time(&[253; 40]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_a_fault(bytes: [u8; HEADER], prefix: Vec<u8>) {
            let _ = RecordHeader::parse(&bytes).map(|header| header.kind());
            let _ = (commit_time(&prefix), overwritten(&prefix));
        }
    }
}
