//! Against `pg_controldata`, `pg_waldump`, and what recovery does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hasteward_agent::postgres::control_file::ClusterState;
use hasteward_agent::postgres::inspect::WalScan;
use hasteward_agent::postgres::reading::{Reading, UnreadKind};
use hasteward_agent::postgres::signals::Signals;
use hasteward_agent::postgres::tablespaces::Tablespace;
use hasteward_agent::postgres::wal::scan::Method;
use hasteward_agent::postgres::wal::segment::{SegmentName, SegmentSize};
use hasteward_agent::volume::{PlainDirectory, VolumeRole};
use hasteward_proto::primitive::TimelineId;

use crate::server::{Programs, Server};
use crate::{commits, end, inspect_directory, instance, known, lsn};

const SETTINGS: &str = "wal_level = logical\nmax_prepared_transactions = 2\nwal_log_hints = on";

/// Writes WAL of every shape: small and large records, full pages, a segment switch, prepared transactions, aborts.
fn work(server: &Server) {
    server.sql("CREATE TABLE IF NOT EXISTS t (i int, filler text)");
    for _ in 0..5 {
        server.sql("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 500) AS i");
    }
    server.sql("SELECT pg_switch_wal()");
    server.sql("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'one'");
    server.sql("COMMIT PREPARED 'one'");
    server.sql("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'two'");
    server.sql("ROLLBACK PREPARED 'two'");
    server.sql("BEGIN; INSERT INTO t VALUES (2); ROLLBACK");
    server.sql("SELECT pg_logical_emit_message(false, 'hw', repeat('y', 3000000))");
    server.sql("INSERT INTO t VALUES (3)");
}

#[test]
fn recovery_after_a_crash_ends_where_the_scan_does() {
    for programs in Programs::all() {
        let mut server = Server::init(&programs, SETTINGS);
        server.start();
        server.sql("CHECKPOINT");
        let fork = lsn(&server.sql("SELECT pg_current_wal_insert_lsn()"));
        work(&server);
        let flushed = lsn(&server.sql("SELECT pg_current_wal_flush_lsn()"));
        server.kill();

        let found = instance(&server);
        let control = known(&found.control);
        assert_eq!(control.state, ClusterState::InProduction);
        let end = known(&found.wal_end).clone();
        assert!(end.end >= flushed, "{} < {flushed}", end.end);
        assert!(end.end > control.checkpoint);
        // CREATE TABLE, five INSERTs, COMMIT PREPARED, INSERT.
        assert_eq!(commits(&server, 1, fork).unwrap().count, 8, "{}", programs.major);

        let without = {
            std::fs::rename(
                server.data().join("global/pg_control"),
                server.data().join("pg_control.kept"),
            )
            .unwrap();
            let found = instance(&server);
            std::fs::rename(
                server.data().join("pg_control.kept"),
                server.data().join("global/pg_control"),
            )
            .unwrap();
            assert_eq!(found.control, Reading::absent("global lists no pg_control"));
            known(&found.wal_end).clone()
        };
        assert_eq!(
            (without.end, without.method, without.system_id),
            (end.end, Method::Pages, control.system_id)
        );

        server.start();
        let log = server.log();
        let done = log
            .split("redo done at ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        assert_eq!(
            end.last_record,
            Some(lsn(done.unwrap())),
            "{}: {log}",
            programs.major
        );
        server.stop();
    }
}

#[test]
fn pg_waldump_sees_the_same_end_and_the_same_commits() {
    let Some(programs) = Programs::packaged() else {
        println!("skipped: no packaged PostgreSQL with pg_waldump");
        return;
    };
    let mut server = Server::init(&programs, SETTINGS);
    server.start();
    server.sql("CHECKPOINT");
    work(&server);
    server.kill();

    let end = end(&server);
    let wal = server.data().join("pg_wal");
    let dump = programs
        .command("pg_waldump")
        .arg("-p")
        .arg(&wal)
        .args(["-s", &end.from.to_string()])
        .output()
        .unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    let last = dump.lines().last().unwrap();
    let start = last
        .split("lsn: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .unwrap();
    assert_eq!(end.last_record, Some(lsn(start)), "{last}");
    let commit_lines = dump
        .lines()
        .filter(|line| line.contains("rmgr: Transaction") && line.contains("desc: COMMIT"));
    let count = commit_lines.count() as u64;
    let counted = commits(&server, 1, end.from).unwrap();
    assert!(count >= 8);
    assert_eq!(counted.count, count);
    assert_eq!(counted.end, Some(end.end));
    // The times, too: pg_waldump prints them as the commits' only time stamps.
    let times: Vec<_> = dump
        .lines()
        .filter(|line| line.contains("desc: COMMIT"))
        .collect();
    let (first, last) = counted.span.unwrap();
    for (line, at) in [(times[0], first), (times[times.len() - 1], last)] {
        let seconds = at.0.rem_euclid(60_000);
        let shown = format!(":{:02}.{:03}", seconds / 1000, seconds % 1000);
        assert!(line.contains(&shown), "{line} has no {shown}");
    }
}

#[test]
fn pg_controldata_says_the_same() {
    let Some(programs) = Programs::packaged() else {
        println!("skipped: no packaged PostgreSQL with pg_controldata");
        return;
    };
    let mut server = Server::init(&programs, SETTINGS);
    server.start();
    work(&server);
    server.stop();
    let text = programs.run("pg_controldata", &[server.data().to_str().unwrap()]);
    let said: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let found = instance(&server);
    let control = known(&found.control);
    assert_eq!(control.state, ClusterState::ShutDown);
    assert_eq!(said["Database cluster state"], "shut down");
    for (key, value) in [
        ("pg_control version number", control.version.to_string()),
        ("Catalog version number", control.catalog_version.to_string()),
        ("Database system identifier", control.system_id.to_string()),
        ("Latest checkpoint location", control.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", control.redo.to_string()),
        (
            "Latest checkpoint's TimeLineID",
            control.checkpoint_timeline.to_string(),
        ),
        (
            "Latest checkpoint's PrevTimeLineID",
            control.previous_timeline.to_string(),
        ),
        ("Bytes per WAL segment", control.segment_size.bytes().to_string()),
        ("WAL block size", control.wal_block_size.bytes().to_string()),
        (
            "wal_log_hints setting",
            if control.wal_log_hints { "on" } else { "off" }.to_owned(),
        ),
        (
            "Data page checksum version",
            control.data_checksum_version.to_string(),
        ),
        ("Minimum recovery ending location", "0/0".to_owned()),
        ("End-of-backup record required", "no".to_owned()),
    ] {
        assert_eq!(said[key], value, "{key}");
    }
    // A clean shutdown ends with its checkpoint.
    assert_eq!(known(&found.wal_end).last_record, Some(control.checkpoint));
}

#[test]
fn the_end_is_the_flushed_position_of_every_version() {
    for programs in Programs::all() {
        let mut server = Server::init(&programs, SETTINGS);
        server.start();
        server.sql("SELECT pg_create_physical_replication_slot('standby_1', true)");
        server.sql("CREATE TABLE t (i int)");
        server.sql("CHECKPOINT");
        // Nothing but a commit may write between the two readings of the position.
        server.sql("SELECT pg_switch_wal()");
        let switched = lsn(&server.sql("SELECT pg_current_wal_flush_lsn()"));
        let found = instance(&server);
        let end = known(&found.wal_end);
        assert!(
            end.end >= switched,
            "{}: {} < {switched}",
            programs.major,
            end.end
        );
        let flushed = lsn(&server.sql("SELECT pg_current_wal_insert_lsn()"));
        assert!(end.end <= flushed, "{}: {} > {flushed}", programs.major, end.end);

        let slots = known(&found.slots);
        let restart = lsn(&server.sql("SELECT restart_lsn FROM pg_replication_slots"));
        assert_eq!(slots.len(), 1);
        let state = slots[0].state.as_ref().unwrap();
        assert_eq!(
            (slots[0].name.as_str(), state.restart),
            ("standby_1", Some(restart))
        );

        let wal = known(&found.wal);
        let count = server.sql("SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'");
        assert_eq!(wal.segments.to_string(), count);
        assert!(wal.bytes >= u64::from(wal.segments) << 20);
        let (oldest, timeline) = wal.oldest.unwrap();
        let name = server.sql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'");
        let size = known(&found.control).segment_size;
        let expected = SegmentName::parse(&name).unwrap();
        assert_eq!(
            (Some(oldest), timeline),
            (expected.start(size), expected.timeline())
        );
        assert!(!wal.on_wal_volume);
        assert_eq!(found.signals.value(), Some(&Signals::default()));
        assert_eq!(
            found.backup_label,
            Reading::absent("the data directory lists no backup_label")
        );
        assert_eq!(known(&found.histories).len(), 0);
        assert_eq!(known(&found.tablespaces).len(), 0);
        server.stop();
    }
}

#[test]
fn archiving_that_fails_piles_up_ready_files() {
    let programs = Programs::all().pop().unwrap();
    let settings = format!("{SETTINGS}\narchive_mode = on\narchive_command = 'false'");
    let mut server = Server::init(&programs, &settings);
    server.start();
    for _ in 0..3 {
        server.sql("SELECT pg_logical_emit_message(false, 'hw', 'z')");
        server.sql("SELECT pg_switch_wal()");
    }
    server.kill();
    assert!(known(&instance(&server).wal).ready >= 3);
}

/// A record over two segments, of which the second is lost: the server that starts next gives the record up, says so in its
/// WAL (`XLOG_OVERWRITE_CONTRECORD`) and goes on; a scan from before must come out at the same end.
#[test]
fn a_given_up_record_is_passed_over() {
    for programs in Programs::all() {
        let mut server = Server::init(&programs, "wal_keep_size = 200MB");
        server.start();
        server.sql("CREATE TABLE t (i int)");
        server.sql("SELECT pg_switch_wal()");
        server.sql("CHECKPOINT");
        let fork = lsn(&server.sql("SELECT pg_current_wal_insert_lsn()"));
        server.sql("INSERT INTO t VALUES (1)");
        server.sql("SELECT pg_logical_emit_message(false, 'hw', repeat('y', 1500000))");
        server.sql("INSERT INTO t VALUES (2)");
        server.kill();
        let whole = end(&server).end;
        assert_eq!(commits(&server, 1, fork).unwrap().count, 2);
        // All but the first of the segments that the record lies in.
        for segment in (fork.segment(1 << 20) + 1)..=whole.segment(1 << 20) {
            let name =
                SegmentName::new(TimelineId::FIRST, segment, SegmentSize::new(1 << 20).unwrap()).unwrap();
            std::fs::remove_file(server.data().join("pg_wal").join(name.to_string())).unwrap();
        }
        let cut = end(&server);
        assert!(cut.end < whole);
        assert_eq!(commits(&server, 1, fork).unwrap().count, 1);

        server.start();
        let start = server.log();
        server.sql("INSERT INTO t VALUES (3)");
        let flushed = lsn(&server.sql("SELECT pg_current_wal_flush_lsn()"));
        server.kill();
        let after = end(&server);
        assert!(after.end >= flushed, "{}: {start}", programs.major);
        assert!(after.from > fork, "a new redo point");
        let counted = commits(&server, 1, fork).unwrap();
        assert_eq!(
            (counted.count, counted.end),
            (2, Some(after.end)),
            "{}: {start}",
            programs.major
        );
    }
}

#[test]
fn tablespaces_and_leftovers() {
    let programs = Programs::all().pop().unwrap();
    let mut server = Server::init(&programs, "");
    server.start();
    let outside = server.outside("space");
    server.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        outside.display()
    ));
    let oid: u32 = server
        .sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")
        .parse()
        .unwrap();
    server.stop();
    let role = VolumeRole::Tablespace("space".to_owned());
    let alone = PlainDirectory::new(&server.data()).unwrap();
    let with = PlainDirectory::new(&server.data())
        .unwrap()
        .with_volume(role.clone(), &outside, &outside)
        .unwrap();
    std::fs::create_dir(outside.join("data.incoming-7")).unwrap();
    std::fs::write(server.data().join("global/pg_control.old"), "").unwrap();
    for (directory, resolved) in [(alone, false), (with, true)] {
        let found = inspect_directory(&directory, |inspection| inspection.instance(WalScan::NotNeeded));
        let tablespaces = known(&found.tablespaces);
        let expected = Tablespace {
            oid,
            target: outside.to_str().unwrap().to_owned(),
            resolved,
        };
        assert_eq!(*tablespaces, [expected]);
        let mut leftovers = vec!["data directory: global/pg_control.old".to_owned()];
        if resolved {
            leftovers.push("volume of tablespace space: data.incoming-7".to_owned());
        }
        assert_eq!(*known(&found.leftovers), leftovers);
        assert!(
            found
                .volumes
                .iter()
                .all(|(_, space)| known(space).total_bytes > 0)
        );
        assert_eq!(found.volumes.iter().any(|(found, _)| *found == role), resolved);
        assert!(matches!(found.wal_end, Reading::Unread(ref unread) if unread.kind == UnreadKind::NotNeeded));
    }
}

/// A server that writes, checkpoints and recycles its WAL under the scan: every end found is one that it had meanwhile.
#[test]
fn scans_beside_a_busy_server_never_run_backwards() {
    let programs = Programs::all().pop().unwrap();
    let mut server = Server::init(
        &programs,
        "max_wal_size = 4MB\nmin_wal_size = 2MB\nfull_page_writes = off",
    );
    server.start();
    server.sql("CREATE TABLE t (i int, filler text)");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            // Bounded, so that a failure beside it ends the test.
            while !done.load(Ordering::Relaxed) && rounds < 300 {
                server.sql("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 2000) AS i");
                server.sql("CHECKPOINT");
                rounds += 1;
            }
            rounds
        });
        let mut before = lsn("0/1");
        for _ in 0..100 {
            let flushed = lsn(&server.sql("SELECT pg_current_wal_flush_lsn()"));
            // Full pages are flushed before the record that goes on past them is finished.
            let whole = flushed.bytes()
                - if flushed.bytes().is_multiple_of(8192) {
                    2 * 8192
                } else {
                    0
                };
            let found = instance(&server);
            let wal_end = known(&found.wal_end);
            let end = wal_end.end;
            let inserted = lsn(&server.sql("SELECT pg_current_wal_insert_lsn()"));
            assert!(
                before <= end && whole <= end.bytes() && end <= inserted,
                "{before}, {flushed} <= {end} <= {inserted}: {wal_end:?} {:?}",
                found.control
            );
            before = end;
        }
        done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 10);
    });
}
