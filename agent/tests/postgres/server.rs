//! Real PostgreSQL servers, each in its own directory, on its own Unix socket only, and gone when dropped.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// PostgreSQL refuses to run as root; so tests that do run it as nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs of one version.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    bin: PathBuf,
    pub(crate) major: u32,
}

impl Programs {
    /// Every version that is here: fetched ones (`agent/tests/fixtures/fetch-postgres.sh`), and the newest packaged one.
    pub(crate) fn all() -> Vec<Self> {
        let fetched = std::env::var_os("HASTEWARD_TEST_POSTGRES").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/postgres"),
            PathBuf::from,
        );
        let mut all: Vec<Self> = (13..=18)
            .map(|major| Self {
                bin: fetched.join(major.to_string()).join("bin"),
                major,
            })
            .filter(|programs| programs.bin.join("postgres").is_file())
            .collect();
        if let Some(packaged) = Self::packaged() {
            all.retain(|programs| programs.major != packaged.major);
            all.push(packaged);
        }
        all.sort_by_key(|programs| programs.major);
        assert!(
            !all.is_empty(),
            "no PostgreSQL: install one, or run agent/tests/fixtures/fetch-postgres.sh"
        );
        for major in 13..=18 {
            if !all.iter().any(|programs| programs.major == major) {
                println!("skipped: PostgreSQL {major} is not here (agent/tests/fixtures/fetch-postgres.sh)");
            }
        }
        all
    }

    /// The newest of Debian's packages, which also has `pg_waldump`, `pg_controldata` and `pg_basebackup`.
    pub(crate) fn packaged() -> Option<Self> {
        let majors = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let major = majors
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .max()?;
        Some(Self {
            bin: PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
            major,
        })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs a program to its end; its output.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// One data directory, with or without a server.
pub(crate) struct Server {
    pub(crate) programs: Programs,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    /// A fresh cluster, not started.
    pub(crate) fn init(programs: &Programs, settings: &str) -> Self {
        let server = Self::empty(programs);
        let data = server.data();
        let text = data.to_str().unwrap();
        programs.run(
            "initdb",
            &[
                "-D",
                text,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--locale=C",
                "-N",
                "--wal-segsize=1",
            ],
        );
        server.configure(settings);
        server
    }

    fn empty(programs: &Programs) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("hw-pg-")
            .tempdir_in("/tmp")
            .unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self {
            programs: programs.clone(),
            directory,
            child: None,
        }
    }

    /// A standby of this server: a copy of the data directory, which must not be in use.
    pub(crate) fn standby(&self, name: &str) -> Self {
        assert!(self.child.is_none(), "a cold copy");
        let standby = Self::empty(&self.programs);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.data())
            .arg(standby.directory.path())
            .status()
            .unwrap();
        assert!(copied.success());
        standby.follow(self, name);
        standby
    }

    /// Makes it follow `primary` from its next start on.
    pub(crate) fn follow(&self, primary: &Self, name: &str) {
        self.write("standby.signal", "");
        let host = primary.directory.path().display();
        self.configure(&format!(
            "primary_conninfo = 'host={host} user=postgres application_name={name}'\nrecovery_target_timeline = 'latest'"
        ));
    }

    /// Adds settings; they count from the next start on.
    pub(crate) fn configure(&self, settings: &str) {
        let path = self.data().join("postgresql.conf");
        let before = std::fs::read_to_string(&path).unwrap();
        let socket = self.directory.path().display();
        let always = format!(
            "listen_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\nautovacuum = off\nlogging_collector = off"
        );
        std::fs::write(&path, format!("{before}\n{always}\n{settings}\n")).unwrap();
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, content).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A new directory of the server's user beside its data.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.directory.path().join("log")) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start(&mut self) {
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let log = File::create(self.directory.path().join("log")).unwrap();
        let mut command = self.programs.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Its own process group, so that nobody's Ctrl-C and no kill of ours meets anything else.
        self.child = Some(command.process_group(0).spawn().unwrap());
        self.wait(|server| server.log().contains("ready to accept"));
    }

    /// Waits until `done`.
    pub(crate) fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < until, "out of patience\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends `signal` to the postmaster.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = self.child.as_ref().unwrap().id();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    /// A clean, fast shutdown.
    pub(crate) fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGINT);
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
    }

    /// SIGKILL to the postmaster and everything it started.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = child.kill();
        let _ = child.wait();
        // Its children end on their own as soon as they notice; their working directory shows them.
        let until = Instant::now() + PATIENCE;
        while processes_in(&self.data()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One query's only value.
    pub(crate) fn sql(&self, query: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::connect(self.socket()).await.unwrap();
            let mut config = tokio_postgres::Config::new();
            let (client, connection) = config
                .user("postgres")
                .dbname("postgres")
                .connect_raw(stream, tokio_postgres::NoTls)
                .await
                .unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()));
            let driver = tokio::spawn(connection);
            let answer = client
                .simple_query(query)
                .await
                .unwrap_or_else(|error| panic!("{query}: {error:?}"));
            driver.abort();
            answer
                .iter()
                .find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default()
        })
    }

    /// Promotes and waits until it writes.
    pub(crate) fn promote(&mut self) {
        assert_eq!(self.sql("SELECT pg_promote(true, 60)"), "t");
        self.wait(|server| server.sql("SELECT pg_is_in_recovery()") == "f");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn processes_in(data: &Path) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|directory| directory == data)
    })
}
