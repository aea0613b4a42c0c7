use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use hasteward_proto::primitive::UnixMillis;
use hasteward_proto::wire::agent as wire;
use tempfile::TempDir;

use super::*;
use crate::postgres::fixture::Fixture;
use crate::volume::PlainDirectory;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A data directory made of a fixture.
fn data(fixture: &Fixture) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for name in [
        "global",
        "pg_wal",
        "pg_replslot/standby_1",
        "pg_replslot/changes.tmp",
        "pg_tblspc",
    ] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::write(root.join("global/pg_control"), &fixture.control_bytes).unwrap();
    std::fs::write(
        root.join("pg_replslot/standby_1/state"),
        &fixture.slots["standby_1"],
    )
    .unwrap();
    for (name, bytes) in &fixture.wal.0 {
        std::fs::write(root.join("pg_wal").join(name), bytes).unwrap();
    }
    directory
}

fn inspect(root: &Path, deadline: &Deadline) -> Instance {
    let directory = PlainDirectory::new(root).unwrap();
    let files = Files {
        directory: &directory,
        now: &|| NOW,
    };
    Inspection {
        files,
        pause: &|_| (),
        deadline,
    }
    .instance(WalScan::Wanted)
}

#[track_caller]
fn unread<T: std::fmt::Debug>(reading: &Reading<T>) -> UnreadKind {
    match reading {
        Reading::Unread(unread) => unread.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_directory() {
    let fixture = Fixture::load(16);
    let data = data(&fixture);
    std::fs::write(
        data.path().join("pg_wal/00000002.history"),
        "1\t0/1400000\tno recovery target specified\n",
    )
    .unwrap();
    std::fs::write(data.path().join("pg_wal/00000003.history"), "nonsense").unwrap();
    std::fs::write(data.path().join("standby.signal"), "").unwrap();
    let found = inspect(data.path(), &Deadline::never());
    assert_eq!(found.control.value(), Some(&fixture.control));
    assert_eq!(found.wal_end.value().unwrap().end, fixture.expected("flush"));
    assert_eq!(
        found.signals.value(),
        Some(&Signals {
            standby: true,
            recovery: false
        })
    );
    assert_eq!(
        found.backup_label,
        Reading::absent("the data directory lists no backup_label")
    );
    let histories = found.histories.value().unwrap();
    assert!(histories[0].history.is_ok());
    assert_eq!(
        histories[1].history.as_ref().unwrap_err().kind,
        UnreadKind::Corrupt
    );
    let slots = found.slots.value().unwrap();
    assert_eq!(slots.len(), 1, "a slot that is being created does not count");
    assert_eq!(
        slots[0].state.as_ref().unwrap().restart,
        Some(fixture.expected("slot"))
    );

    let reply = wire::InspectPostgresReply::from(found);
    let outcome = reply.wal_end.unwrap().outcome.unwrap();
    let expected: Lsn = fixture.expected("flush");
    assert!(matches!(outcome, wire::wal_end_reading::Outcome::Known(end) if end.end_lsn == expected.bytes()));
    let control = reply.control_file.unwrap();
    assert_eq!(
        control.provenance.unwrap(),
        wire::Provenance {
            source: "global/pg_control".to_owned(),
            read_at_ms: NOW.0
        }
    );
    assert!(matches!(
        reply.backup_label.unwrap().outcome,
        Some(wire::backup_label_reading::Outcome::Absent(_))
    ));
    assert_eq!(reply.volumes[0].role(), wire::VolumeRole::PgData);
}

#[test]
fn a_damaged_control_file_leaves_the_pages() {
    let fixture = Fixture::load(14);
    let data = data(&fixture);
    let control = data.path().join("global/pg_control");
    let end = |bytes: &[u8]| {
        std::fs::write(&control, bytes).unwrap();
        let found = inspect(data.path(), &Deadline::never());
        (unread(&found.control), found.wal_end)
    };
    let mut bytes = fixture.control_bytes.clone();
    bytes[24] ^= 1;
    let (kind, wal_end) = end(&bytes);
    assert_eq!(kind, UnreadKind::Corrupt);
    let wal_end = wal_end.value().unwrap();
    assert_eq!(
        (wal_end.end, wal_end.method),
        (fixture.expected("flush"), Method::Pages)
    );
    assert_eq!(end(b"").0, UnreadKind::Corrupt);
    // Of a version that is not known, nothing is concluded.
    bytes[8..12].copy_from_slice(&1902u32.to_le_bytes());
    let (kind, wal_end) = end(&bytes);
    assert_eq!(
        (kind, unread(&wal_end)),
        (UnreadKind::UnknownVersion, UnreadKind::Depends)
    );
    assert_eq!(end(&vec![0; 9000]).0, UnreadKind::TooLarge);
}

#[test]
fn hostile_files_are_unread() {
    let fixture = Fixture::load(17);
    let data = data(&fixture);
    let root = data.path();
    let replace = |name: &str| {
        let path = root.join(name);
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    replace("global/pg_control");
    replace("backup_label");
    replace("pg_wal/00000002.history");
    replace("pg_replslot/standby_1/state");
    let found = inspect(root, &Deadline::never());
    assert_eq!(unread(&found.control), UnreadKind::WrongType);
    assert_eq!(unread(&found.backup_label), UnreadKind::WrongType);
    assert_eq!(unread(&found.wal_end), UnreadKind::Depends);
    assert_eq!(
        found.histories.value().unwrap()[0]
            .history
            .as_ref()
            .unwrap_err()
            .kind,
        UnreadKind::WrongType
    );
    assert_eq!(
        found.slots.value().unwrap()[0].state.as_ref().unwrap_err().kind,
        UnreadKind::WrongType
    );

    std::fs::remove_file(root.join("global/pg_control")).unwrap();
    symlink("/etc/passwd", root.join("global/pg_control")).unwrap();
    std::fs::remove_dir_all(root.join("pg_replslot")).unwrap();
    symlink("/proc/self", root.join("pg_replslot")).unwrap();
    std::fs::write(root.join("pg_wal/00000003.history"), vec![b'\n'; 1 << 21]).unwrap();
    let found = inspect(root, &Deadline::never());
    assert!(matches!(
        unread(&found.control),
        UnreadKind::WrongType | UnreadKind::Refused
    ));
    assert!(
        matches!(unread(&found.slots), UnreadKind::WrongType | UnreadKind::Refused),
        "{:?}",
        found.slots
    );
    assert_eq!(
        found.histories.value().unwrap()[1]
            .history
            .as_ref()
            .unwrap_err()
            .kind,
        UnreadKind::TooLarge
    );
}

#[test]
fn absence_is_proven_by_the_parent() {
    let data = tempfile::tempdir().unwrap();
    let found = inspect(data.path(), &Deadline::never());
    let proof = |name: &str| format!("the data directory lists no {name}");
    assert_eq!(found.control, Reading::absent(proof("global")));
    assert_eq!(found.wal, Reading::absent(proof("pg_wal")));
    assert_eq!(found.wal_end, Reading::absent(proof("pg_wal")));
    assert_eq!(found.slots, Reading::absent(proof("pg_replslot")));
    assert_eq!(found.tablespaces, Reading::absent(proof("pg_tblspc")));
    assert_eq!(found.signals.value(), Some(&Signals::default()));
}

#[test]
fn whatever_is_not_read_in_time_is_unread() {
    let fixture = Fixture::load(13);
    let data = data(&fixture);
    let passed = Deadline::from_fn(|| true);
    let found = inspect(data.path(), &passed);
    assert_eq!(unread(&found.control), UnreadKind::Timeout);
    assert_eq!(unread(&found.signals), UnreadKind::Timeout);
    assert_eq!(unread(&found.wal), UnreadKind::Timeout);
    assert_eq!(unread(&found.wal_end), UnreadKind::Timeout);
    assert_eq!(unread(&found.slots), UnreadKind::Timeout);
    assert_eq!(unread(&found.volumes[0].1), UnreadKind::Timeout);
    // At every later point, what is known is what a full inspection knows.
    let full = inspect(data.path(), &Deadline::never());
    for allowed in 1..60 {
        let asked = AtomicU32::new(0);
        let deadline = Deadline::from_fn(move || asked.fetch_add(1, Ordering::Relaxed) >= allowed);
        let found = inspect(data.path(), &deadline);
        match &found.wal_end {
            Reading::Known(_) => assert_eq!(found.wal_end, full.wal_end),
            Reading::Unread(unread) => {
                assert!(matches!(unread.kind, UnreadKind::Timeout | UnreadKind::Depends));
            }
            Reading::Absent { proof } => panic!("{proof}"),
        }
        assert!(found.wal.value().is_none() || found.wal == full.wal);
        assert!(found.slots.value().is_none() || found.slots == full.slots);
    }
}

#[test]
#[allow(
    clippy::redundant_closure_for_method_calls,
    reason = "`Scan::end` is not general over the scan's lifetime"
)]
fn a_moving_redo_point_begins_the_scan_again() {
    let fixture = Fixture::load(15);
    let data = data(&fixture);
    // What was read first is of a checkpoint whose WAL is gone by now.
    let mut old = fixture.control.clone();
    old.redo = Lsn::new(0x10_0028).unwrap();
    old.checkpoint = Lsn::new(0x10_0060).unwrap();
    let directory = PlainDirectory::new(data.path()).unwrap();
    let files = Files {
        directory: &directory,
        now: &|| NOW,
    };
    let never = Deadline::never();
    let inspection = Inspection {
        files,
        pause: &|_| (),
        deadline: &never,
    };
    let end = inspection
        .scan(&mut old, &[], |scan| scan.end(), |found| Some(found.end))
        .unwrap();
    assert_eq!(end.end, fixture.expected("flush"));
    assert_eq!(old, fixture.control);
}
