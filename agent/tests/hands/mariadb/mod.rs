//! A real MariaDB Galera node in a container: running, hung, killed, stopped, held, gone.

mod container;

use std::fs;

use container::{Container, PATIENCE, Service, fingerprint};
use hasteward_agent::galera::recovered;
use hasteward_proto::primitive::Seqno;
use hasteward_proto::wire::agent as wire;
use hasteward_proto::wire::agent::PositionRecovery as When;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::{Cgroup, Stage, until};

const PASSWORD: &str = "root's own";

/// A fresh data directory, and root's password.
const INSTALL: &str = "set -e
mariadb-install-db --no-defaults --force --skip-name-resolve --datadir=/var/lib/mysql --auth-root-authentication-method=normal --skip-test-db
echo \"ALTER USER root@localhost IDENTIFIED BY 'root''s own';\" > /tmp/init.sql";
const SERVE: &str = "mariadbd --init-file=/tmp/init.sql --wsrep-new-cluster";

/// The known value of an item, or a panic that shows why not.
macro_rules! known {
    ($reading:expr, $module:ident) => {
        match $reading.clone().unwrap().outcome.unwrap() {
            wire::$module::Outcome::Known(known) => known,
            other => panic!("{other:?}"),
        }
    };
}

/// Why an item is unread.
macro_rules! unread {
    ($reading:expr, $module:ident) => {
        match $reading.clone().unwrap().outcome.unwrap() {
            wire::$module::Outcome::Unread(unread) => (unread.kind(), unread.detail),
            other => panic!("{other:?}"),
        }
    };
}

fn synced(service: &Service, container: &Container<'_>) -> wire::GaleraServer {
    until(PATIENCE, "the server is synced", || {
        if let Some(code) = container.ended() {
            panic!("the server ended with {code}: {}", container.output());
        }
        match service.look().server?.outcome? {
            wire::galera_server_reading::Outcome::Known(server) => {
                (server.local_state_comment == "Synced").then_some(server)
            }
            _ => None,
        }
    })
}

fn server_pid(reply: &wire::InspectGaleraReply) -> Pid {
    let processes = known!(reply.processes, galera_processes_reading);
    Pid::from_raw(processes.server.unwrap().pid.cast_signed())
}

fn stopped(service: &Service, container: &Container<'_>) {
    until(PATIENCE, "the server has ended", || container.ended());
    let processes = known!(service.look().processes, galera_processes_reading);
    assert!(processes.server.is_none() && processes.tools.is_empty() && processes.count >= 1);
}

/// Where the recovery says that the node stands.
fn recovered(service: &Service, when: When) -> (String, Option<u64>) {
    let reply = service.recover(when);
    let position = known!(reply.recovered, recovered_position_reading);
    assert!(position.server_version.contains("MariaDB"), "{position:?}");
    println!(
        "recovered in {} ms, {} KiB of scratch",
        position.elapsed_ms,
        position.scratch_bytes / 1024
    );
    (position.history.unwrap().uuid, position.seqno)
}

fn nothing_left(stage: &Stage) {
    let scratch = stage.at("scratch");
    let found = std::process::Command::new("find")
        .arg(&scratch)
        .args(["-mindepth", "1", "-ls"])
        .output()
        .unwrap();
    assert!(
        found.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&found.stdout)
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("upperdir=/proc/self/fd"), "{mounts}");
}

#[allow(clippy::too_many_lines, reason = "one life of one node, told in order")]
pub(crate) fn life() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let mut container = Container::new(&stage);
    let service = Service::new(container.target(), stage.hands());

    // An empty volume: everything is proven absent, and no container runs that could read a position.
    let empty = service.recover(When::Always);
    assert!(matches!(
        empty.grastate.clone().unwrap().outcome.unwrap(),
        wire::gra_state_reading::Outcome::Absent(_)
    ));
    assert!(matches!(
        empty.recovered.clone().unwrap().outcome.unwrap(),
        wire::recovered_position_reading::Outcome::Absent(_)
    ));
    assert_eq!(known!(empty.files, mariadb_files_reading).entries, 0);
    assert_eq!(
        unread!(empty.server, galera_server_reading).0,
        wire::UnreadKind::ServerDown
    );

    container.begin(&cgroup, Some(PASSWORD));
    container.tell(INSTALL);
    until(PATIENCE, "installed", || container.ended());
    assert_eq!(container.ended().unwrap(), "0\n", "{}", container.output());
    container.tell(SERVE);
    let server = synced(&service, &container);
    assert_eq!(server.cluster_status(), wire::ComponentStatus::Primary);
    assert_eq!(server.cluster_history, server.local_history);
    let uuid = server.cluster_history.clone().unwrap().uuid;
    assert!(server.ready && server.wsrep_on && !server.read_only && server.cluster_size == 1);
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (i INT PRIMARY KEY) ENGINE=InnoDB",
    ] {
        assert!(container.sql(PASSWORD, sql).status().unwrap().success());
    }
    for row in 0..5 {
        let insert = format!("INSERT INTO d.t VALUES ({row})");
        assert!(container.sql(PASSWORD, &insert).status().unwrap().success());
    }

    // Running: its files say that it runs, and nothing recovers beside it.
    let running = service.recover(When::Always);
    let at = known!(running.server, galera_server_reading)
        .last_committed
        .unwrap();
    let saved = known!(running.grastate, gra_state_reading);
    assert_eq!((saved.seqno, saved.history.unwrap().uuid), (None, uuid.clone()));
    assert!(saved.safe_to_bootstrap);
    let view = known!(running.view_state, view_state_reading);
    assert_eq!(view.my_uuid, server.gcomm_uuid);
    assert_eq!(view.members.len(), 1);
    assert_eq!(
        unread!(running.recovered, recovered_position_reading).0,
        wire::UnreadKind::NotNeeded
    );
    let files = known!(running.files, mariadb_files_reading);
    assert!(files.mysql_directory && files.ibdata1_bytes > 0 && files.redo_files == 1 && files.aria_control);
    assert!(known!(running.config, galera_config_reading).galera);
    assert_eq!(running.volumes.len(), 2);
    let process = known!(running.processes, galera_processes_reading)
        .server
        .unwrap();
    assert!((process.uid, process.gid) == (999, 999) && process.new_cluster);

    // Hung: it accepts and never answers.
    kill(server_pid(&running), Signal::SIGSTOP).unwrap();
    let hung = service.recover(When::Always);
    assert_eq!(
        unread!(hung.server, galera_server_reading).0,
        wire::UnreadKind::ServerHung
    );
    assert_eq!(
        unread!(hung.recovered, recovered_position_reading).0,
        wire::UnreadKind::ServerHung
    );
    kill(server_pid(&running), Signal::SIGCONT).unwrap();

    // Killed: the position comes from an overlay, is the oracle's, and no byte changes.
    kill(server_pid(&running), Signal::SIGKILL).unwrap();
    stopped(&service, &container);
    let oracle = recovered::parse(container.oracle().as_bytes()).unwrap();
    let before = (fingerprint(&container.disk), fingerprint(&container.config));
    let unchanged = |container: &Container<'_>, before: &(_, _)| {
        let after = (fingerprint(&container.disk), fingerprint(&container.config));
        assert_eq!(after, *before);
        nothing_left(&stage);
    };
    // What a recovery left whose every process was killed goes with the next one.
    let old_run = stage.at("scratch/run-1");
    fs::create_dir_all(old_run.join("upper/d")).unwrap();
    fs::write(old_run.join("upper/d/ibdata1"), "x").unwrap();
    fs::set_permissions(&old_run, std::os::unix::fs::PermissionsExt::from_mode(0o1733)).unwrap();
    for name in ["upper", "upper/d", "upper/d/ibdata1"] {
        std::os::unix::fs::chown(old_run.join(name), Some(999), Some(999)).unwrap();
    }
    let position = recovered(&service, When::IfNeeded);
    assert_eq!(position, (uuid.clone(), Some(at)));
    assert_eq!(oracle.history.to_string(), uuid);
    assert_eq!(oracle.seqno.map(Seqno::get), position.1);
    unchanged(&container, &before);

    // Held, and told to bootstrap: the recovery does neither.
    fs::write(
        container.config.join("zz-hasteward-hold.cnf"),
        "[mariadbd]\nwsrep_provider=/hasteward/held-by-repair-1\n",
    )
    .unwrap();
    fs::write(
        container.config.join("1-bootstrap.cnf"),
        "[galera]\nwsrep_new_cluster=\"ON\"\n",
    )
    .unwrap();
    let held = service.look();
    let config = known!(held.config, galera_config_reading);
    assert!(config.bootstrap && config.hold && config.held_by == "repair-1");
    let before = (before.0, fingerprint(&container.config));
    assert_eq!(recovered(&service, When::Always), position);
    unchanged(&container, &before);

    // A DDL writes nil, and so does a failed transfer: what InnoDB has counts.
    let nil = "# GALERA saved state\nversion: 2.1\nuuid:    00000000-0000-0000-0000-000000000000\nseqno:   -1\nsafe_to_bootstrap: 0\n";
    let real = fs::read(container.disk.join("grastate.dat")).unwrap();
    fs::write(container.disk.join("grastate.dat"), nil).unwrap();
    let reply = service.recover(When::IfNeeded);
    let saved = known!(reply.grastate, gra_state_reading);
    assert_eq!(saved.history.unwrap().kind(), wire::HistoryKind::Nil);
    let found = known!(reply.recovered, recovered_position_reading);
    assert_eq!((found.history.unwrap().uuid, found.seqno), position);
    fs::write(container.disk.join("grastate.dat"), real).unwrap();

    // Released, started, stopped cleanly: grastate.dat has it, and the recovery agrees.
    for name in ["zz-hasteward-hold.cnf", "1-bootstrap.cnf"] {
        fs::remove_file(container.config.join(name)).unwrap();
    }
    container.tell(SERVE);
    let again = synced(&service, &container);
    let last = again.last_committed;
    kill(server_pid(&service.look()), Signal::SIGTERM).unwrap();
    stopped(&service, &container);
    let clean = service.recover(When::IfNeeded);
    let saved = known!(clean.grastate, gra_state_reading);
    assert!(saved.seqno.is_some() && saved.seqno == last, "{saved:?} {last:?}");
    assert!(known!(clean.cache, galera_cache_reading).synced);
    assert_eq!(
        unread!(clean.recovered, recovered_position_reading).0,
        wire::UnreadKind::NotNeeded
    );
    let before = (fingerprint(&container.disk), fingerprint(&container.config));
    assert_eq!(
        recovered(&service, When::Always),
        (saved.history.unwrap().uuid, saved.seqno)
    );
    unchanged(&container, &before);

    // The container is gone, and with it the program.
    container.running = None;
    cgroup.end_all();
    let gone = service.recover(When::Always);
    let (kind, detail) = unread!(gone.recovered, recovered_position_reading);
    assert_eq!(kind, wire::UnreadKind::NoProgram, "{detail}");
    assert_eq!(known!(gone.processes, galera_processes_reading).count, 0);
    unchanged(&container, &before);
}

pub(crate) fn refusals() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let mut container = Container::new(&stage);
    let service = Service::new(container.target(), stage.hands());
    // Root's password in the environment is an old one.
    container.begin(&cgroup, Some("stale"));
    container.tell(INSTALL);
    until(PATIENCE, "installed", || container.ended());
    container.tell(SERVE);
    until(PATIENCE, "the server answers", || {
        let reply = service.ask(When::Unspecified, 0, PASSWORD);
        matches!(
            reply.server?.outcome?,
            wire::galera_server_reading::Outcome::Known(_)
        )
        .then_some(())
    });
    let (kind, detail) = unread!(service.look().server, galera_server_reading);
    assert_eq!(kind, wire::UnreadKind::ServerError);
    assert!(
        detail.contains("1 tried") && !detail.contains("stale"),
        "{detail}"
    );

    kill(server_pid(&service.look()), Signal::SIGKILL).unwrap();
    stopped(&service, &container);
    let why = |reply: &wire::InspectGaleraReply| unread!(reply.recovered, recovered_position_reading);
    let before = fingerprint(&container.disk);

    // Too little time: said so, and nothing is left.
    let (kind, detail) = why(&service.ask(When::Always, 1_000, ""));
    assert_eq!(kind, wire::UnreadKind::Timeout, "{detail}");

    // A state transfer runs in the pod.
    fs::copy("/bin/sleep", container.root.join("tmp/rsync")).unwrap();
    container.tell("exec /tmp/rsync 1000");
    until(PATIENCE, "a transfer runs", || {
        let processes = known!(service.look().processes, galera_processes_reading);
        (processes.tools == ["rsync"]).then_some(())
    });
    let (kind, detail) = why(&service.recover(When::Always));
    assert_eq!(kind, wire::UnreadKind::Refused, "{detail}");
    container.running = None;
    cgroup.end_all();
    container.begin(&cgroup, None);

    // Another container's server has the directory open.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(container.disk.join("ibdata1"))
        .unwrap();
    fcntl(&file, FcntlArg::F_SETLK(&whole_file())).unwrap();
    let (kind, detail) = why(&service.recover(When::Always));
    assert_eq!(kind, wire::UnreadKind::Refused, "{detail}");
    assert!(detail.contains("lock"), "{detail}");
    drop(file);

    // Root's data is no database's.
    std::os::unix::fs::chown(container.disk.join("ibdata1"), Some(0), Some(0)).unwrap();
    let (kind, detail) = why(&service.recover(When::Always));
    assert_eq!(kind, wire::UnreadKind::Refused, "{detail}");
    std::os::unix::fs::chown(container.disk.join("ibdata1"), Some(999), Some(999)).unwrap();

    // A redo log that is no redo log: the server says so, and what it wrote is gone.
    let redo = container.disk.join("ib_logfile0");
    let good = fs::read(&redo).unwrap();
    fs::write(&redo, vec![0xa5; good.len()]).unwrap();
    let (kind, detail) = why(&service.recover(When::Always));
    assert_eq!(kind, wire::UnreadKind::ServerError, "{detail}");
    assert!(detail.contains("[ERROR]"), "{detail}");
    fs::write(&redo, good).unwrap();
    nothing_left(&stage);
    let contents = |all: &std::collections::BTreeMap<std::path::PathBuf, String>| -> Vec<String> {
        all.values()
            .map(|line| line.rsplit(' ').nth(2).unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(contents(&fingerprint(&container.disk)), contents(&before));
}

/// What an image calls `mariadbd` may be anything: what it starts ends with it, and its files are bounded.
pub(crate) fn hostile() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let mut container = Container::new(&stage);
    let survivor = format!("7777{}", std::process::id());
    let script = format!(
        "#!/bin/sh\n(setsid /bin/sleep {survivor} <&- >&- 2>&- &)\n\
         head -c 100000000000 /dev/zero > /var/lib/mysql/large\necho \"large: $?\"\nulimit -f\nexit 3\n"
    );
    let program = stage.at("hostile");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    stage.cover(&program, &container.root.join("usr/sbin/mariadbd"));
    let tablespace = container.disk.join("ibdata1");
    fs::write(&tablespace, "x").unwrap();
    std::os::unix::fs::chown(&tablespace, Some(999), Some(999)).unwrap();
    stage.memory_of(&stage.at("scratch"), "size=1g");
    let service = Service::new(container.target(), stage.hands());
    container.begin(&cgroup, None);
    container.tell("true");
    until(PATIENCE, "the container runs", || container.ended());

    let reply = service.recover(When::Always);
    let (kind, detail) = unread!(reply.recovered, recovered_position_reading);
    assert_eq!(kind, wire::UnreadKind::ServerError, "{detail}");
    // A quarter of what is free, in blocks of 512 bytes.
    assert!(detail.ends_with(": 524288"), "{detail}");
    let left: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|command| {
            command
                .split(|&b| b == 0)
                .any(|argument| argument == survivor.as_bytes())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    nothing_left(&stage);
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK.try_into().unwrap(),
        l_whence: libc::SEEK_SET.try_into().unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
