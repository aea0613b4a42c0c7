//! Real MariaDB Galera nodes, each in its own directory, as nobody, group communication on loopback ports of this run, and
//! gone when dropped.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hasteward_agent::galera::inspect::{Inspection, Node as Files};
use hasteward_agent::galera::live::{self, Passwords, Server};
use hasteward_agent::galera::recovered::{self, Recovered};
use hasteward_agent::postgres::reading::{Deadline, Reading};
use hasteward_agent::volume::{Mount, VolumeRole, VolumeTree};
use hasteward_proto::primitive::UnixMillis;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tempfile::TempDir;

/// MariaDB refuses to run as root.
const NOBODY: u32 = 65534;
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// When the tests' readings were made.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Ports that were free a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    std::array::from_fn(|at| listeners[at].local_addr().unwrap().port())
}

pub(crate) struct Node {
    directory: TempDir,
    child: Option<Child>,
}

/// Nodes `0` to `N - 1`, none started, the first with a data directory.
pub(crate) fn cluster<const N: usize>(sst: &str) -> [Node; N] {
    let gcomm: [u16; N] = ports();
    let all: Vec<_> = gcomm.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let nodes: [Node; N] = std::array::from_fn(|at| Node::new(at, gcomm[at], &all.join(","), sst));
    let data = nodes[0].data();
    let installed = nodes[0]
        .command("mariadb-install-db")
        .args(["--no-defaults", "--skip-name-resolve", "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .arg(format!("--datadir={}", data.display()))
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    nodes
}

impl Node {
    fn new(at: usize, gcomm: u16, all: &str, sst: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("hw-galera-")
            .tempdir_in("/tmp")
            .unwrap();
        let [ist, transfer] = ports();
        let path = directory.path().display();
        fs::write(
            directory.path().join("my.cnf"),
            format!(
                "[mariadbd]
datadir={path}/data
tmpdir={path}/tmp
socket={path}/s
pid-file={path}/pid
skip-networking
binlog_format=ROW
innodb_buffer_pool_size=16M
innodb_log_file_size=8M
innodb_autoinc_lock_mode=2
wsrep_on=ON
wsrep_provider=/usr/lib/galera/libgalera_smm.so
wsrep_cluster_name=t
wsrep_cluster_address=gcomm://{all}
wsrep_node_name=n{at}
wsrep_node_address=127.0.0.1:{gcomm}
wsrep_provider_options=\"gmcast.listen_addr=tcp://127.0.0.1:{gcomm};ist.recv_addr=127.0.0.1:{ist};gcache.size=1M\"
wsrep_sst_method={sst}
wsrep_sst_receive_address=127.0.0.1:{transfer}
wsrep_sst_auth=nobody:wrong
"
            ),
        )
        .unwrap();
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        for name in ["data", "tmp"] {
            let made = directory.path().join(name);
            fs::create_dir(&made).unwrap();
            chown(&made, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self {
            directory,
            child: None,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir(self.directory.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let defaults = format!("--defaults-file={}/my.cnf", self.directory.path().display());
        let mut command = self.command("mariadbd");
        let output = fs::File::create(self.directory.path().join("log")).unwrap();
        command.stderr(output);
        // Its own process group, with which its transfer scripts end too.
        command.arg(defaults).args(arguments).process_group(0);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id().cast_signed();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// SIGKILL to the server and whatever it started.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(-child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
        }
    }

    /// SIGTERM, to the end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
    }

    fn runs(&self) -> bool {
        let pid = self.child.as_ref().map_or(0, Child::id);
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child
            .as_mut()
            .is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until the server's own words satisfy `done`.
    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Server) -> bool) -> Server {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Reading::Known(known) = self.ask(Duration::from_secs(5))
                && done(&known.value)
            {
                return known.value;
            }
            assert!(Instant::now() < until && self.runs(), "{what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn synced(&self) -> Server {
        self.wait("synced", |server| server.local_state_comment == "Synced")
    }

    /// What the agent makes of the server.
    pub(crate) fn ask(&self, within: Duration) -> Reading<Server> {
        let path = self.directory.path().join("s");
        let socket: OwnedFd = match open(&path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(socket) => socket,
            Err(errno) => {
                return Reading::unread(
                    hasteward_agent::postgres::reading::UnreadKind::ServerDown,
                    errno.desc(),
                );
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let deadline = Instant::now() + within;
        runtime.block_on(live::read(
            socket,
            &Passwords::default(),
            deadline.into(),
            &|| NOW,
        ))
    }

    /// What the agent makes of the files.
    pub(crate) fn files(&self) -> Files {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&self.data(), flags, Mode::empty()).unwrap();
        let tree = VolumeTree::from_mounts(vec![Mount {
            role: VolumeRole::MariadbData,
            mount_path: PathBuf::from("/var/lib/mysql"),
            root: Ok(root),
        }]);
        let now = || NOW;
        let deadline = Deadline::never();
        let files = hasteward_agent::postgres::files::Files {
            directory: &tree,
            now: &now,
        };
        Inspection {
            files,
            deadline: &deadline,
        }
        .node()
    }

    /// What `mariadbd --wsrep-recover` says, in place: only of a node whose data is not needed any more.
    pub(crate) fn recover(&self) -> Recovered {
        let log = self.directory.path().join("recover.log");
        let status = self
            .command("mariadbd")
            .arg(format!(
                "--defaults-file={}/my.cnf",
                self.directory.path().display()
            ))
            .arg("--wsrep-recover")
            .arg(format!("--log-error={}", log.display()))
            .status()
            .unwrap();
        let text = fs::read(&log).unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&text));
        recovered::parse(&text).unwrap()
    }

    pub(crate) fn sql(&self, sql: &str) {
        let done = Command::new("mariadb")
            .args(["--no-defaults", "-u", "root", "-e", sql, "-S"])
            .arg(self.directory.path().join("s"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{sql}: {done:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
