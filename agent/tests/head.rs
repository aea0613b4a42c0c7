//! The agent as it is started: what head and hands hold, and how they end. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

struct Agent {
    child: Child,
    hands: i32,
    directory: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// Starts one whose coordinator is at `port` of this machine, where nobody needs to answer.
    fn start(port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, "not used").unwrap();
            path
        };
        let child = Command::new(env!("CARGO_BIN_EXE_hasteward-agent"))
            .env_clear()
            .args(["--node", "n1", "--coordinator", &format!("127.0.0.1:{port}")])
            .arg("--ca")
            .arg(file("ca"))
            .arg("--token-file")
            .arg(file("token"))
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut agent = Self {
            child,
            hands: 0,
            directory,
        };
        let head = agent.head();
        agent.hands = until(
            "the hands are there, and the head has given up its privileges",
            || {
                let children = fs::read_to_string(format!("/proc/{head}/task/{head}/children")).ok()?;
                let hands = children.split_whitespace().next()?.parse().ok()?;
                let ready = status(head, "Seccomp:").is_some()
                    && status(head, "Threads:")? != "1"
                    && status(hands, "NoNewPrivs:")? == "1";
                ready.then_some(hands)
            },
        );
        agent
    }

    fn head(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

fn status(pid: i32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Gone, or only waiting to be collected.
fn ended(pid: i32) -> bool {
    status(pid, "State:").is_none_or(|state| state.starts_with('Z'))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port of this machine on which nobody listens for as long as the listener lives.
fn silent_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn the_head_holds_no_privilege_and_listens_on_nothing() {
    let (_listener, port) = silent_port();
    let agent = Agent::start(port);
    let head = agent.head();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(head, set).unwrap(), "0000000000000000", "{set}");
    }
    assert_eq!(status(head, "Uid:").unwrap(), "65532 65532 65532 65532");
    assert_eq!(status(head, "Gid:").unwrap(), "65532 65532 65532 65532");
    assert_eq!(status(head, "Groups:").unwrap(), "");
    assert_eq!(status(head, "NoNewPrivs:").unwrap(), "1");
    // The same for each of its threads.
    for task in fs::read_dir(format!("/proc/{head}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(
            text.contains("CapEff:\t0000000000000000\n")
                && text.contains("Uid:\t65532\t65532\t65532\t65532\n")
        );
    }
    // Not dumpable: its memory belongs to root, also for other processes of its user.
    assert_eq!(fs::metadata(format!("/proc/{head}/mem")).unwrap().uid(), 0);

    assert_eq!(status(agent.hands, "Threads:").unwrap(), "1");
    let network = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    assert_ne!(network(agent.hands), network(head));

    let sockets: Vec<String> = fs::read_dir(format!("/proc/{head}/fd"))
        .unwrap()
        .filter_map(|entry| {
            fs::read_link(entry.unwrap().path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")
                .map(str::to_owned)
        })
        .map(|inode| inode.trim_end_matches(']').to_owned())
        .collect();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{head}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Field 3 is the state, 0A = LISTEN; field 9 the inode.
            assert!(
                !(fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9])),
                "{line}"
            );
        }
    }
    let state = agent.directory.path().join("state/head");
    let found = fs::metadata(state).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o777), (65532, 0o770));
}

#[test]
fn killing_the_head_ends_the_hands() {
    let (_listener, port) = silent_port();
    let mut agent = Agent::start(port);
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    until("the hands end", || ended(agent.hands).then_some(()));
}

#[test]
fn killing_the_hands_ends_the_head() {
    let (_listener, port) = silent_port();
    let mut agent = Agent::start(port);
    kill(Pid::from_raw(agent.hands), Signal::SIGKILL).unwrap();
    let code = until("the head ends", || agent.child.try_wait().unwrap());
    assert_eq!(code.code(), Some(1));
}

#[test]
fn sigterm_ends_both_in_good_order() {
    let (_listener, port) = silent_port();
    let mut agent = Agent::start(port);
    kill(Pid::from_raw(agent.head()), Signal::SIGTERM).unwrap();
    let code = until("the head ends", || agent.child.try_wait().unwrap());
    assert_eq!(code.code(), Some(0));
    until("the hands end", || ended(agent.hands).then_some(()));
    // The hands alone do not end by it: the head decides.
    let agent = Agent::start(port);
    kill(Pid::from_raw(agent.hands), Signal::SIGTERM).unwrap();
    kill(Pid::from_raw(agent.head()), Signal::SIGCONT).unwrap();
    assert!(!ended(agent.hands));
}

#[test]
fn memory_at_rest() {
    let (_listener, port) = silent_port();
    let agent = Agent::start(port);
    let rss = |pid: i32| {
        let text = status(pid, "VmRSS:").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (head, hands) = (rss(agent.head()), rss(agent.hands));
    println!("resident: head {head} KiB, hands {hands} KiB");
    // The bar of 20 MiB is for the release build (`cargo lab bench idle`); this one only catches the absurd.
    assert!(head + hands < 80 * 1024, "head {head} KiB, hands {hands} KiB");
}

#[test]
fn without_the_nodes_processes_it_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .env_clear()
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            env!("CARGO_BIN_EXE_hasteward-agent"),
        ])
        .args([
            "--node=n1",
            "--coordinator=127.0.0.1:1",
            "--ca=/none",
            "--token-file=/none",
            "--state-dir",
        ])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hostPID"));
}

#[test]
fn a_wrong_command_line_is_said_and_starts_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_hasteward-agent"))
        .env_clear()
        .arg("--node=n1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let help = Command::new(env!("CARGO_BIN_EXE_hasteward-agent"))
        .env_clear()
        .arg("--help")
        .output()
        .unwrap();
    assert!(help.status.success());
    for option in ["--coordinator", "--allowed-volume-root", "--token-file"] {
        assert!(String::from_utf8_lossy(&help.stdout).contains(option));
    }
}
