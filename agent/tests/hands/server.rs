//! Connecting to a server's socket as its own user, in containers of their own namespaces.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use hasteward_agent::hands::{ConnectError, ProcessError, VolumeSource};
use hasteward_agent::volume::DataDirectory;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::postgres::{container, start};
use crate::stage::{Cgroup, Running, Stage, data_volume, path, until};

/// The server's answer to a start-up packet as `postgres`: the first byte and what follows.
fn greet(mut stream: UnixStream) -> (u8, Vec<u8>) {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
        .write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(body).unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut rest).unwrap();
    (head[0], rest)
}

pub(crate) fn peer() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let root = container(&stage);
    let hands = stage.hands();
    let session = || stage.session(&hands, vec![data_volume("pvc-1", VolumeSource::Csi)]);
    assert_eq!(session().connect().err(), Some(ConnectError::NoServer));

    let server = start(&cgroup, &root);
    let connection = until(Duration::from_secs(60), "PostgreSQL accepts", || {
        let (kind, rest) = greet(session().connect().ok()?);
        // Until recovery is done it answers `the database system is starting up`.
        (kind == b'R').then_some(rest)
    });
    assert_eq!(
        connection, [0; 4],
        "AuthenticationOk: the server took us for its own user"
    );

    let processes = session().processes().unwrap();
    assert!(processes.manager);
    let postmaster = processes.postmaster.unwrap();
    assert_eq!((postmaster.uid, postmaster.gid), (26, 26));
    // root is nobody to it.
    let (kind, text) = greet(UnixStream::connect(root.join("controller/run/.s.PGSQL.5432")).unwrap());
    assert!(kind == b'E' && String::from_utf8_lossy(&text).contains("Peer authentication failed"));
    // Its files, while it runs.
    assert!(session().read(&path("global/pg_control"), 8192).unwrap().len() == 8192);
    assert!(session().list(&path("pg_wal"), 100).unwrap().entries.len() >= 2);

    // A stopped server is known as such, at once; and a session that knew it before does not trust its memory.
    let known = session();
    assert!(known.connect().is_ok());
    let pid = Pid::from_raw(postmaster.pid.cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    until(Duration::from_secs(5), "it is stopped", || {
        session().processes().ok()?.postmaster?.stopped.then_some(())
    });
    let begun = Instant::now();
    assert!(matches!(known.connect(), Err(ConnectError::Hung { .. })));
    assert!(begun.elapsed() < Duration::from_secs(1));
    kill(pid, Signal::SIGCONT).unwrap();
    until(Duration::from_secs(5), "it goes on", || known.connect().ok());

    // Killed, its backends and socket may outlive it for a moment; then there is no server.
    kill(pid, Signal::SIGKILL).unwrap();
    until(Duration::from_secs(10), "it is gone", || {
        matches!(known.connect(), Err(ConnectError::NoServer)).then_some(())
    });
    drop(server);
}

/// The stand-in for a server, called `postgres`, in a container, as `user`.
fn stub(stage: &Stage, cgroup: &Cgroup, user: &str) -> Running {
    let root = container(stage);
    fs::copy(std::env::current_exe().unwrap(), root.join("controller/postgres")).unwrap();
    let mut command = cgroup.command("chroot");
    command.arg(format!("--userspec={user}")).arg(&root);
    command
        .args(["/controller/postgres", "/controller/run/.s.PGSQL.5432"])
        .stdin(Stdio::null());
    let running = Running(command.spawn().unwrap());
    until(Duration::from_secs(10), "it listens", || {
        fs::metadata(root.join("controller/run/.s.PGSQL.5432"))
            .ok()
            .filter(|m| m.permissions().mode() & 0o777 == 0o777)
    });
    running
}

pub(crate) fn root() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let server = stub(&stage, &cgroup, "0:0");
    let hands = stage.hands();
    let session = stage.session(&hands, Vec::new());
    let refused = ProcessError::Root { pid: server.0.id() };
    assert_eq!(session.processes(), Err(refused.clone()));
    assert_eq!(session.connect().err(), Some(ConnectError::Processes(refused)));
}

pub(crate) fn hung() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let server = stub(&stage, &cgroup, "26:26");
    let hands = stage.hands();
    let session = stage.session(&hands, Vec::new());
    let mut waiting = Vec::new();
    let error = until(Duration::from_secs(10), "the backlog is full", || {
        match session.connect() {
            Ok(connection) => {
                waiting.push(connection);
                None
            }
            Err(error) => Some(error),
        }
    });
    let begun = Instant::now();
    assert!(matches!(error, ConnectError::Hung { .. }), "{error:?}");
    assert!(matches!(session.connect(), Err(ConnectError::Hung { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2));

    // What is not this server's socket is not connected to.
    let place = stage.at("rootfs/controller/run/.s.PGSQL.5432");
    fs::remove_file(&place).unwrap();
    assert!(matches!(
        session.connect(),
        Err(ConnectError::NotListening { .. })
    ));
    std::os::unix::fs::symlink("/etc/passwd", &place).unwrap();
    assert!(matches!(session.connect(), Err(ConnectError::Refused(_))));
    fs::remove_file(&place).unwrap();
    fs::write(&place, "").unwrap();
    assert!(matches!(session.connect(), Err(ConnectError::Refused(_))));
    fs::remove_file(&place).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&place).unwrap();
    fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(
        matches!(session.connect(), Err(ConnectError::Refused(_))),
        "root listens in the server's place"
    );
    drop(listener);
    assert!(matches!(
        session.connect(),
        Err(ConnectError::NotListening { .. })
    ));
    drop(server);
}
