//! What servers say of themselves.

use std::time::Duration;

use hasteward_agent::postgres::live::{self, Server as Live};
use hasteward_agent::postgres::reading::{Reading, UnreadKind};
use tokio::time::Instant;

use crate::server::{Programs, Server};
use crate::{NOW, known, lsn};

fn ask(server: &Server, budget: Duration) -> Reading<Live> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(server.socket()).await.unwrap();
        live::read(stream, Instant::now() + budget, &|| NOW).await
    })
}

const AMPLE: Duration = Duration::from_secs(20);

#[test]
fn primary_and_standby_of_every_version() {
    for programs in Programs::all() {
        let settings = "max_slot_wal_keep_size = 64MB\narchive_mode = on\narchive_command = 'false'";
        let mut primary = Server::init(&programs, settings);
        primary.start();
        primary.sql("SELECT pg_create_physical_replication_slot('standby_1', true)");
        primary.stop();
        let mut standby = primary.standby("standby_1");
        standby.configure("primary_slot_name = 'standby_1'\narchive_mode = off");
        primary.start();
        standby.start();
        standby.wait(|standby| standby.sql("SELECT status FROM pg_stat_wal_receiver") == "streaming");
        primary.sql("CREATE TABLE t (i int)");
        primary.sql("SELECT pg_switch_wal()");
        let flushed = primary.sql("SELECT pg_current_wal_flush_lsn()");
        standby
            .wait(|standby| standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'")) == "t");
        primary.wait(|primary| primary.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t");

        let reading = ask(&primary, AMPLE);
        let said = known(&reading);
        assert_eq!(
            said.system_id.to_string(),
            primary.sql("SELECT system_identifier FROM pg_control_system()")
        );
        assert_eq!(said.version_num / 10_000, programs.major);
        assert!(
            !said.in_recovery && said.receiver.is_none() && said.receive.is_none() && said.replay.is_none()
        );
        assert_eq!(said.timeline.unwrap().get(), 1);
        assert!(said.flush.unwrap() >= lsn(&flushed));
        assert_eq!(said.max_slot_wal_keep_bytes, Some(64 << 20));
        assert!(
            said.archive_enabled && said.archiver.failed_count > 0 && said.archiver.last_failed_at.is_some()
        );
        assert_eq!(said.archiver.last_failed_wal.len(), 24);
        assert_eq!(said.standbys.len(), 1);
        assert_eq!(said.standbys[0].application_name, "standby_1");
        assert_eq!(said.standbys[0].state, "streaming");
        assert!(said.standbys[0].flush.is_some());
        assert_eq!(said.slots.len(), 1);
        assert!(said.slots[0].active && !said.slots[0].logical);
        assert_eq!(
            (said.slots[0].name.as_str(), said.slots[0].wal_status.as_str()),
            ("standby_1", "reserved")
        );

        let reading = ask(&standby, AMPLE);
        let said = known(&reading);
        assert!(said.in_recovery && said.flush.is_none() && !said.replay_paused && !said.archive_enabled);
        assert!(said.replay.unwrap() >= lsn(&flushed) && said.receive.is_some());
        let receiver = said.receiver.as_ref().unwrap();
        assert_eq!(
            (receiver.status.as_str(), receiver.slot.as_str()),
            ("streaming", "standby_1")
        );
        assert_eq!(receiver.timeline.unwrap().get(), 1);

        standby.sql("SELECT pg_wal_replay_pause()");
        standby.wait(|standby| standby.sql("SELECT pg_is_wal_replay_paused()") == "t");
        assert!(known(&ask(&standby, AMPLE)).replay_paused);
        standby.sql("SELECT pg_wal_replay_resume()");
        primary.kill();
        standby.promote();
        let reading = ask(&standby, AMPLE);
        assert_eq!(known(&reading).timeline.unwrap().get(), 2);
    }
}

#[test]
fn a_stopped_server_is_hung_and_not_down() {
    use nix::sys::signal::Signal;
    let programs = Programs::all().remove(0);
    let mut server = Server::init(&programs, "");
    server.start();
    server.signal(Signal::SIGSTOP);
    let began = std::time::Instant::now();
    let reading = ask(&server, Duration::from_millis(300));
    server.signal(Signal::SIGCONT);
    assert!(
        matches!(&reading, Reading::Unread(unread) if unread.kind == UnreadKind::ServerHung),
        "{reading:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(known(&ask(&server, AMPLE)).version_num > 130_000);
}

#[test]
fn a_refusal_is_an_error_of_the_server() {
    let programs = Programs::all().remove(0);
    let mut server = Server::init(&programs, "");
    let rules = server.data().join("pg_hba.conf");
    std::fs::write(&rules, "local all all reject\nlocal replication all trust\n").unwrap();
    server.start();
    let reading = ask(&server, AMPLE);
    match &reading {
        Reading::Unread(unread) => {
            assert_eq!(unread.kind, UnreadKind::ServerError);
            assert!(unread.detail.contains("28000"), "{unread}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_hangs_up_or_talks_nonsense_is_unread() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xFF; 64]] {
            let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
            let peer = tokio::spawn(async move {
                let mut hello = [0; 16];
                let _ = theirs.read(&mut hello).await;
                let _ = theirs.write_all(answer).await;
            });
            let reading = live::read(ours, Instant::now() + AMPLE, &|| NOW).await;
            peer.await.unwrap();
            assert!(
                matches!(&reading, Reading::Unread(unread) if unread.kind == UnreadKind::ServerDown),
                "{reading:?}"
            );
        }
    });
}
