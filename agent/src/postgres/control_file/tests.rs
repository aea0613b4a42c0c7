use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::postgres::fixture::{Fixture, MAJORS};

/// `bytes` with `value` at `at`.
fn put(bytes: &[u8], at: usize, value: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// `bytes` with a right CRC.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let at = crc_offset(u32_at(bytes, 8).unwrap()).unwrap();
    put(bytes, at, crc32c::crc32c(&bytes[..at]))
}

#[test]
fn files_of_all_six_versions_parse() {
    for major in MAJORS {
        let fixture = Fixture::load(major);
        let control = &fixture.control;
        let version = match major {
            13..=16 => 1300,
            17 => 1700,
            _ => 1800,
        };
        assert_eq!(control.version, version);
        assert_eq!(control.system_id, fixture.expected("system_id"));
        assert_eq!(control.state, ClusterState::InProduction);
        assert_eq!(control.segment_size.bytes(), 1 << 20);
        assert_eq!(control.wal_block_size, BlockSize::DEFAULT);
        assert!(!control.full_page_writes && !control.wal_log_hints && !control.backup_end_required);
        assert_eq!(control.min_recovery, None);
        assert_eq!(control.timeline(), TimelineId::FIRST);
        assert!(control.redo <= control.checkpoint);
        assert_eq!(control.floor(), control.checkpoint);
        // initdb turns checksums on by default since 18.
        assert_eq!(control.data_checksum_version, u32::from(major == 18));
        assert!(control.updated_at.0 > 1_700_000_000_000 && control.checkpoint_at.0 > 1_700_000_000_000);
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    for major in [13, 17, 18] {
        let good = Fixture::load(major).control_bytes;
        for at in 0..crc_offset(u32_at(&good, 8).unwrap()).unwrap() + 4 {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(ControlFile::parse(&bytes).is_err(), "byte {at} of {major}");
        }
    }
}

#[test]
fn versions_and_byte_orders() {
    let good = Fixture::load(15).control_bytes;
    let version = |version| ControlFile::parse(&put(&good, 8, version));
    assert_eq!(
        version(1902),
        Err(ControlFileError::UnknownVersion { version: 1902 })
    );
    assert_eq!(
        version(1201),
        Err(ControlFileError::UnknownVersion { version: 1201 })
    );
    let swapped = 1300u32.swap_bytes();
    assert_eq!(
        version(swapped),
        Err(ControlFileError::WrongByteOrder { version: swapped })
    );
    assert_eq!(version(0), Err(ControlFileError::Garbage { version: 0 }));
    assert_eq!(
        version(u32::MAX),
        Err(ControlFileError::Garbage { version: u32::MAX })
    );
    assert_eq!(
        ControlFile::parse(&[]),
        Err(ControlFileError::TooShort { length: 0 })
    );
    assert_eq!(
        ControlFile::parse(&good[..291]),
        Err(ControlFileError::TooShort { length: 291 })
    );
    assert!(matches!(
        ControlFile::parse(&[0; FILE_SIZE]),
        Err(ControlFileError::Garbage { .. })
    ));
}

#[test]
fn impossible_values_under_a_right_crc() {
    let good = Fixture::load(16).control_bytes;
    for (at, value, field) in [
        (16, 7, "state"),
        (32, 0, "checkPoint"),
        (48, 0, "checkPointCopy.ThisTimeLineID"),
        (168, 2, "backupEndRequired"),
        (204, 4, "maxAlign"),
        (208, 1, "floatFormat"),
        (224, 8191, "xlog_blcksz"),
        (228, 0, "xlog_seg_size"),
    ] {
        let mut bytes = put(&good, at, value);
        if at == 32 {
            bytes = put(&bytes, 36, 0);
        }
        match ControlFile::parse(&sealed(&bytes)) {
            Err(ControlFileError::Impossible { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    // A minimum recovery point without a timeline.
    assert!(ControlFile::parse(&sealed(&put(&good, 136, 1))).is_err());
    let recovering = put(&put(&good, 136, 0x0200_0000), 144, 3);
    let recovering = ControlFile::parse(&sealed(&recovering)).unwrap();
    assert_eq!(recovering.timeline().get(), 3);
}

#[test]
fn torn_reads_are_read_again() {
    let good = Fixture::load(18).control_bytes;
    let torn = |n: u8| {
        let mut bytes = good.clone();
        bytes[24] = bytes[24].wrapping_add(n);
        bytes
    };
    let (reads, pauses) = (Cell::new(0u8), Cell::new(0u32));
    let run = |valid_from: u8, distinct: bool| {
        reads.set(0);
        pauses.set(0);
        ControlFile::read(
            || {
                reads.set(reads.get() + 1);
                let nth = reads.get();
                Ok::<_, ()>(if nth >= valid_from {
                    good.clone()
                } else {
                    torn(if distinct { nth } else { 1 })
                })
            },
            |pause| {
                assert_eq!(pause, PAUSE);
                pauses.set(pauses.get() + 1);
            },
        )
    };
    assert!(run(1, true).is_ok());
    assert_eq!((reads.get(), pauses.get()), (1, 0));
    assert!(run(4, true).is_ok());
    assert_eq!((reads.get(), pauses.get()), (4, 3));
    assert!(run(10, true).is_ok());
    assert!(matches!(
        run(11, true),
        Err(ControlReadError::Torn(ControlFileError::Checksum { .. }))
    ));
    assert_eq!((reads.get(), pauses.get()), (10, 9));
    // Twice the same is no torn read.
    assert!(matches!(
        run(9, false),
        Err(ControlReadError::Invalid(ControlFileError::Checksum { .. }))
    ));
    assert_eq!(reads.get(), 2);
    let failing = ControlFile::read(|| Err::<Vec<u8>, _>("no"), |_| ());
    assert!(matches!(failing, Err(ControlReadError::Read("no"))));
}

proptest! {
    #[test]
    fn any_bytes_are_a_control_file_or_an_error(bytes: Vec<u8>) {
        let _ = ControlFile::parse(&bytes);
    }

    #[test]
    fn any_fields_under_a_right_crc_are_a_control_file_or_an_error(
        mut bytes in proptest::collection::vec(any::<u8>(), 296),
        version in proptest::sample::select(vec![1300u32, 1700, 1800]),
    ) {
        bytes = put(&bytes, 8, version);
        bytes = put(&bytes, 204, 8);
        bytes[208..216].copy_from_slice(&1_234_567.0f64.to_le_bytes());
        let _ = ControlFile::parse(&sealed(&bytes));
    }
}
