//! What the agent reads of Galera nodes, against real clusters in the states that matter.
//! Needs root and the packages mariadb-server, galera-4, mariadb-backup, rsync, lsof and socat.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

mod node;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use hasteward_agent::galera::live::ComponentStatus;
use hasteward_agent::galera::view_state::{View, ViewState};
use hasteward_agent::postgres::reading::{Reading, UnreadKind};
use hasteward_proto::primitive::History;
use nix::sys::signal::Signal;
use node::{Node, PATIENCE, cluster};

#[track_caller]
fn known<T: Debug>(reading: &Reading<T>) -> &T {
    reading.value().unwrap_or_else(|| panic!("{reading:?}"))
}

#[track_caller]
fn view(node: &Node) -> View {
    match known(&node.files().view_state) {
        ViewState::View(view) => view.clone(),
        ViewState::Empty => panic!("an empty view"),
    }
}

/// Five rows, acknowledged.
fn write(node: &Node) {
    node.sql(
        "CREATE DATABASE IF NOT EXISTS d; CREATE TABLE IF NOT EXISTS d.t (i INT PRIMARY KEY AUTO_INCREMENT)",
    );
    for _ in 0..5 {
        node.sql("INSERT INTO d.t VALUES ()");
    }
}

#[test]
fn a_pair_loses_its_quorum_and_its_name() {
    let [mut a, mut b] = cluster("rsync");
    a.start(&["--wsrep-new-cluster"]);
    a.synced();
    write(&a);
    b.start(&[]);
    b.synced();
    let first = a.wait("two members", |server| server.cluster_size == 2);
    let second = b.synced();
    assert!(
        first
            .cluster_history
            .unwrap()
            .same(second.cluster_history.unwrap())
    );
    assert_eq!(first.cluster_conf_id, second.cluster_conf_id);
    assert_eq!(first.last_committed, second.last_committed);
    assert_ne!(first.local_index, second.local_index);
    let (mine, other) = (view(&a), view(&b));
    assert_eq!((mine.representative, mine.seq), (other.representative, other.seq));
    assert_eq!((Some(mine.me), Some(other.me)), (first.member, second.member));
    assert_eq!(mine.members.len(), 2);
    for node in [&a, &b] {
        let state = known(&node.files().grastate).clone();
        assert!(!state.safe_to_bootstrap && state.seqno.is_none());
        assert_eq!(state.history, first.cluster_history);
    }

    // One is killed: the other goes on without quorum, and still answers.
    b.kill();
    let alone = a.wait("without quorum", |server| {
        server.cluster_status == ComponentStatus::NonPrimary
    });
    assert!(!alone.ready && alone.connected && alone.cluster_conf_id.is_none());
    assert_eq!(alone.last_committed, first.last_committed);

    // It hangs: said within the time that was given.
    a.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let hung = a.ask(Duration::from_millis(700));
    assert!(
        matches!(&hung, Reading::Unread(why) if why.kind == UnreadKind::ServerHung),
        "{hung:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
    a.signal(Signal::SIGCONT);

    // Both are killed and started plainly: a primary component without a name, green in every other respect.
    a.kill();
    let down = a.ask(Duration::from_secs(2));
    assert!(
        matches!(&down, Reading::Unread(why) if why.kind == UnreadKind::ServerDown),
        "{down:?}"
    );
    a.start(&[]);
    b.start(&[]);
    let nameless = a.wait("the nameless cluster", |server| {
        server.cluster_status == ComponentStatus::Primary && server.local_state_comment == "Synced"
    });
    assert_eq!(nameless.cluster_history, Some(History::Nil), "{nameless:?}");
    assert!(nameless.ready && nameless.connected);
    b.synced();
    write(&b);

    // Its crash leaves nil with a number, which is no position of any history.
    for node in [&mut a, &mut b] {
        node.kill();
    }
    let left = a.recover();
    assert_eq!(left.history, History::Nil);
    assert!(left.seqno.is_some(), "{left:?}");
    assert!(!known(&a.files().grastate).has_position());
}

#[test]
fn a_clean_stop_and_a_crash_agree_on_the_position() {
    let [mut a] = cluster("rsync");
    a.start(&["--wsrep-new-cluster"]);
    a.synced();
    write(&a);
    let at = a.synced().last_committed;
    a.kill();
    assert!(!known(&a.files().grastate).has_position());
    assert!(!known(&a.files().cache).synced);
    let recovered = a.recover();
    assert_eq!(recovered.seqno, at);

    a.start(&["--wsrep-new-cluster"]);
    a.synced();
    a.stop();
    let files = a.files();
    let state = known(&files.grastate).clone();
    assert!(state.has_position() && state.safe_to_bootstrap);
    assert!(
        matches!(files.view_state, Reading::Absent { .. }),
        "{:?}",
        files.view_state
    );
    assert_eq!(
        known(&files.cache).range.map(|(_, max)| max),
        state.seqno,
        "the cache ends where the node stands"
    );
    assert_eq!(a.recover().seqno, state.seqno);
}

#[test]
fn a_transfer_that_fails_leaves_a_directory_that_is_known_to_be_empty() {
    // The donor's credentials are wrong: mariadb-backup fails there, after the joiner emptied its directory.
    let [mut a, mut b] = cluster("mariabackup");
    a.start(&["--wsrep-new-cluster"]);
    a.synced();
    write(&a);
    b.start(&[]);
    let until = Instant::now() + PATIENCE;
    let mut began = false;
    while !b.ended() {
        began |= b
            .files()
            .state_transfer
            .value()
            .is_some_and(|transfer| transfer.in_progress && !transfer.names.is_empty());
        assert!(Instant::now() < until, "{}", b.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began, "the transfer was seen while it ran");
    b.kill();
    let files = b.files();
    let data = known(&files.files);
    assert!(!data.mysql_directory && data.ibdata1_bytes == 0, "{data:?}");
    let state = known(&files.grastate);
    // Nil, or a file that the abort left without a byte.
    assert!(state.empty || state.history == Some(History::Nil), "{state:?}");
    assert_eq!(state.seqno, None);
    println!("{state:?} {data:?}");
    // The donor has everything still.
    assert!(known(&a.files().files).mysql_directory);
    a.synced();
}
