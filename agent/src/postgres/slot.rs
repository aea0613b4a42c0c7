//! `pg_replslot/<name>/state` (PostgreSQL `replication/slot.c`, `ReplicationSlotOnDisk`): which slot keeps WAL, without a
//! running server.

use hasteward_proto::primitive::Lsn;

use super::bytes::{u32_at, u64_at};

/// Bound on a state file; 184 or 200 bytes are written.
pub const MAX_BYTES: u64 = 4096;

/// `SLOT_MAGIC`
const MAGIC: u32 = 0x0105_1CA1;

/// Before `slotdata`: magic, checksum, version, length.
const HEADER: usize = 16;

/// The parts of a slot's state that decide something; its CRC was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// `slotdata.name`.
    pub name: String,
    /// `restart_lsn`: oldest WAL that the slot keeps; `None` = reserves nothing.
    pub restart: Option<Lsn>,
    /// It belongs to a database.
    pub logical: bool,
    /// `RS_PERSISTENT`; ephemeral and temporary slots are removed at the next start.
    pub persistent: bool,
}

/// Why bytes are no slot state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Shorter than it says, or than the fields in use.
    #[error("slot state has {length} bytes, too few")]
    TooShort {
        /// Bytes that were there.
        length: usize,
    },
    /// Not `SLOT_MAGIC`.
    #[error("slot state has magic {magic:08X}")]
    Magic {
        /// As read.
        magic: u32,
    },
    /// A version that this release does not know.
    #[error("slot state has version {version}; known are 2, 3 and 5")]
    UnknownVersion {
        /// As read.
        version: u32,
    },
    /// CRC-32C does not match.
    #[error("slot state has CRC {stored:08X}, its content {computed:08X}")]
    Checksum {
        /// In the file.
        stored: u32,
        /// Of the content.
        computed: u32,
    },
    /// A field has a value that PostgreSQL does not write.
    #[error("slot state has an impossible {field}")]
    Impossible {
        /// Name in `slot.h`.
        field: &'static str,
    },
}

impl SlotState {
    /// Parses the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, SlotError> {
        let short = || SlotError::TooShort { length: bytes.len() };
        let u32_of = |at| u32_at(bytes, at).ok_or_else(short);
        let magic = u32_of(0)?;
        if magic != MAGIC {
            return Err(SlotError::Magic { magic });
        }
        let version = u32_of(8)?;
        if !matches!(version, 2 | 3 | 5) {
            return Err(SlotError::UnknownVersion { version });
        }
        let length = u32_of(12)? as usize;
        if !(88..=1024).contains(&length) {
            return Err(SlotError::Impossible { field: "length" });
        }
        let checked = bytes.get(8..HEADER + length).ok_or_else(short)?;
        let (stored, computed) = (u32_of(4)?, crc32c::crc32c(checked));
        if stored != computed {
            return Err(SlotError::Checksum { stored, computed });
        }
        let name = bytes.get(HEADER..HEADER + 64).ok_or_else(short)?;
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        // ReplicationSlotValidateName
        let plain = !name.is_empty()
            && name
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
        if !plain {
            return Err(SlotError::Impossible { field: "name" });
        }
        Ok(Self {
            name: name.iter().copied().map(char::from).collect(),
            restart: Lsn::new(u64_at(bytes, 96).ok_or_else(short)?),
            logical: u32_of(80)? != 0,
            persistent: u32_of(84)? == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; 200];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&184u32.to_le_bytes());
        bytes[16..20].copy_from_slice(b"s_1\0");
        bytes[96..104].copy_from_slice(&0x0300_0028u64.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn versions_outside_the_known_ones_are_named() {
        for version in [2, 3, 5] {
            let state = SlotState::parse(&made(version)).unwrap();
            assert_eq!(
                (state.name.as_str(), state.logical, state.persistent),
                ("s_1", false, true)
            );
            assert_eq!(state.restart.unwrap().to_string(), "0/3000028");
        }
        assert_eq!(
            SlotState::parse(&made(6)),
            Err(SlotError::UnknownVersion { version: 6 })
        );
    }

    #[test]
    fn slots_of_all_six_versions() {
        for major in crate::postgres::fixture::MAJORS {
            let fixture = crate::postgres::fixture::Fixture::load(major);
            let standby = SlotState::parse(&fixture.slots["standby_1"]).unwrap();
            assert_eq!(
                (standby.name.as_str(), standby.logical, standby.persistent),
                ("standby_1", false, true)
            );
            assert_eq!(standby.restart, Some(fixture.expected("slot")), "{major}");
            let changes = SlotState::parse(&fixture.slots["changes"]).unwrap();
            assert!(changes.logical && changes.restart >= standby.restart);
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = made(5);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(SlotState::parse(&bytes).is_err(), "byte {at}");
        }
        assert!(SlotState::parse(&good[..150]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_slot_or_an_error(bytes: Vec<u8>) {
            let _ = SlotState::parse(&bytes);
        }

        #[test]
        fn any_length_is_bounded(length: u32) {
            let mut bytes = made(5);
            bytes[12..16].copy_from_slice(&length.to_le_bytes());
            let _ = SlotState::parse(&bytes);
        }
    }
}
