//! Standbys, promotions and forks.

use hasteward_agent::postgres::control_file::ClusterState;
use hasteward_agent::postgres::reading::{Reading, UnreadKind};

use crate::server::{Programs, Server};
use crate::{commits, end, instance, known, lsn};

const SETTINGS: &str = "wal_keep_size = 200MB\nwal_log_hints = on\nbgwriter_lru_maxpages = 0";

/// A primary and its standby, both running and caught up.
fn pair(programs: &Programs) -> (Server, Server) {
    let mut primary = Server::init(programs, SETTINGS);
    primary.start();
    primary.sql("CREATE TABLE t (i int)");
    primary.stop();
    let mut standby = primary.standby("standby_1");
    primary.start();
    standby.start();
    primary.sql("INSERT INTO t VALUES (1)");
    caught_up(&primary, &mut standby);
    (primary, standby)
}

fn caught_up(primary: &Server, standby: &mut Server) {
    let flushed = primary.sql("SELECT pg_current_wal_flush_lsn()");
    standby.wait(|standby| standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'")) == "t");
}

#[test]
fn received_wal_counts_also_where_replay_is_behind() {
    for programs in Programs::all() {
        let (primary, mut standby) = pair(&programs);
        standby.sql("SELECT pg_wal_replay_pause()");
        for i in 0..50 {
            primary.sql(&format!("INSERT INTO t SELECT generate_series(1, {i})"));
        }
        let flushed = primary.sql("SELECT pg_current_wal_flush_lsn()");
        standby.wait(|standby| {
            standby.sql(&format!(
                "SELECT flushed_lsn >= '{flushed}' FROM pg_stat_wal_receiver"
            )) == "t"
        });
        standby.kill();
        let found = instance(&standby);
        let control = known(&found.control);
        assert_eq!(control.state, ClusterState::InArchiveRecovery);
        let end = known(&found.wal_end);
        assert!(
            end.end >= lsn(&flushed),
            "{}: {} < {flushed}",
            programs.major,
            end.end
        );
        assert!(
            control.min_recovery.unwrap().0 < end.end,
            "its minimum recovery point lags"
        );
        assert!(known(&found.signals).standby);
    }
}

#[test]
fn a_standby_follows_a_promotion_before_its_control_file_says_so() {
    for programs in Programs::all() {
        let mut old = Server::init(&programs, SETTINGS);
        old.start();
        old.sql("CREATE TABLE t (i int)");
        old.stop();
        let (mut new, mut follower) = (old.standby("new"), old.standby("follower"));
        old.start();
        new.start();
        follower.start();
        old.sql("INSERT INTO t VALUES (1)");
        caught_up(&old, &mut new);
        caught_up(&old, &mut follower);

        // The new primary, right after the promotion.
        new.promote();
        new.sql("INSERT INTO t VALUES (2)");
        let flushed = lsn(&new.sql("SELECT pg_current_wal_flush_lsn()"));
        let found = instance(&new);
        let history = known(&found.histories)[0].history.as_ref().unwrap().clone();
        assert_eq!((history.timeline.get(), history.switches.len()), (2, 1));
        let fork = history.switches[0].at;
        let at = known(&found.wal_end);
        assert_eq!(at.timeline.get(), 2, "{}", programs.major);
        assert!(at.end >= flushed && at.end > fork);
        assert_eq!(commits(&new, 2, fork).unwrap().count, 1);
        assert_eq!(
            commits(&new, 1, fork).unwrap().count,
            0,
            "nothing past the switch on the old timeline"
        );

        // The old primary writes on: a fork.
        follower.stop();
        old.sql("INSERT INTO t VALUES (3)");
        old.sql("INSERT INTO t VALUES (4)");
        old.kill();
        assert_eq!(end(&old).timeline.get(), 1);
        assert_eq!(commits(&old, 1, fork).unwrap().count, 2, "{}", programs.major);
        assert_eq!(commits(&old, 2, fork).unwrap_err().kind, UnreadKind::Depends);

        // The follower goes over to the new one. No buffer of it is flushed, so its control file still says timeline 1.
        follower.follow(&new, "follower");
        follower.start();
        new.sql("INSERT INTO t VALUES (5)");
        caught_up(&new, &mut follower);
        follower.kill();
        let found = instance(&follower);
        assert_eq!(known(&found.control).timeline().get(), 1, "{}", programs.major);
        let at = known(&found.wal_end);
        assert_eq!(at.timeline.get(), 2, "{}", programs.major);
        assert!(at.end > fork);
        assert_eq!(at.abandoned, None);
        assert_eq!(commits(&follower, 2, fork).unwrap().count, 2);

        // A foreign history proves nothing: the old primary got the file, and is still on timeline 1.
        let name = "pg_wal/00000002.history";
        std::fs::copy(new.data().join(name), old.data().join(name)).unwrap();
        let at = end(&old);
        assert_eq!(at.timeline.get(), 1);
        assert!(at.end > fork);
    }
}

/// It was sent past the fork by the old primary, so it cannot follow the new one, although it has fetched its history.
#[test]
fn a_standby_that_passed_the_fork_stays_on_the_old_timeline() {
    let programs = Programs::all().pop().unwrap();
    let mut old = Server::init(&programs, SETTINGS);
    old.start();
    old.sql("CREATE TABLE t (i int)");
    old.stop();
    let (mut new, mut stray) = (old.standby("new"), old.standby("stray"));
    old.start();
    new.start();
    stray.start();
    caught_up(&old, &mut new);
    new.promote();
    new.sql("INSERT INTO t VALUES (1)");
    old.sql("INSERT INTO t VALUES (2)");
    caught_up(&old, &mut stray);
    let passed = lsn(&stray.sql("SELECT pg_last_wal_replay_lsn()"));
    old.kill();
    stray.stop();
    stray.follow(&new, "stray");
    stray.start();
    stray.wait(|stray| {
        stray
            .log()
            .contains("forked off current database system timeline 1 before")
    });
    stray.kill();
    let found = instance(&stray);
    let histories = known(&found.histories);
    assert_eq!(
        histories
            .iter()
            .map(|file| file.timeline.get())
            .collect::<Vec<_>>(),
        [2]
    );
    let fork = histories[0].history.as_ref().unwrap().switches[0].at;
    let at = known(&found.wal_end);
    assert_eq!((at.timeline.get(), at.end), (1, passed));
    assert!(at.end > fork);
    assert_eq!(commits(&stray, 1, fork).unwrap().count, 1);
}

#[test]
fn a_base_backup_before_its_first_start() {
    let Some(programs) = Programs::packaged() else {
        println!("skipped: no packaged PostgreSQL with pg_basebackup");
        return;
    };
    let mut primary = Server::init(&programs, SETTINGS);
    primary.start();
    primary.sql("CREATE TABLE t (i int)");
    let mut copy = Server::init(&programs, "");
    std::fs::remove_dir_all(copy.data()).unwrap();
    let host = primary.socket().parent().unwrap().display().to_string();
    programs.run(
        "pg_basebackup",
        &[
            "-h",
            &host,
            "-U",
            "postgres",
            "-D",
            copy.data().to_str().unwrap(),
            "-c",
            "fast",
        ],
    );
    copy.follow(&primary, "copy");
    let found = instance(&copy);
    let label = known(&found.backup_label);
    assert_eq!(label.timeline.get(), 1);
    assert!(label.start <= label.checkpoint);
    assert!(known(&found.wal_end).end > label.checkpoint);
    copy.start();
    primary.sql("INSERT INTO t VALUES (1)");
    caught_up(&primary, &mut copy);
    let found = instance(&copy);
    assert!(matches!(found.backup_label, Reading::Absent { .. }));
    assert_eq!(known(&found.control).state, ClusterState::InArchiveRecovery);
    assert!(found.leftovers.value().is_some());
}

#[test]
fn lost_wal_is_no_position() {
    let programs = Programs::all().remove(0);
    let (mut primary, _standby) = pair(&programs);
    primary.kill();
    let wal = primary.data().join("pg_wal");
    for entry in std::fs::read_dir(&wal)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().len() == 24)
    {
        std::fs::remove_file(entry.path()).unwrap();
    }
    let found = instance(&primary);
    assert!(
        matches!(&found.wal_end, Reading::Unread(unread) if unread.kind == UnreadKind::Corrupt),
        "{found:?}"
    );
    std::fs::remove_dir_all(&wal).unwrap();
    let found = instance(&primary);
    let proof = Reading::absent("the data directory lists no pg_wal");
    assert_eq!(found.wal_end, proof);
    assert!(matches!(found.wal, Reading::Absent { .. }) && matches!(found.histories, Reading::Absent { .. }));
}
