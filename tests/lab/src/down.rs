//! Ends a lab and proves that nothing of it is left. Works after a crash, after a half-done `up`, and twice.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::place::Place;
use crate::process::{self, ProcessIdentity};
use crate::supervise::report::Report;

/// How long the kernel may take to end all processes and to let go of mounts and loop devices.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// How long a concurrent `up` may take to notice that its supervisor is gone.
const LOCK_DEADLINE: Duration = Duration::from_secs(180);
/// Poll interval of the bounded waits.
const STEP: Duration = Duration::from_millis(20);

/// What is left of a lab.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Process ids of the lab, or still in its cgroups.
    pub processes: Vec<i32>,
    /// Mount points below the state directory, in whatever mount namespace.
    pub mounts: Vec<String>,
    /// Loop devices backed by files below the state directory.
    pub loop_devices: Vec<String>,
    /// cgroup directories.
    pub cgroups: Vec<PathBuf>,
    /// Addresses that still accept connections.
    pub listening: Vec<SocketAddr>,
    /// The state directory.
    pub state: Option<PathBuf>,
}

impl Leftovers {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Looks for everything a lab can leave. `supervisor` and `port` come from its files, read before they were removed.
    #[must_use]
    pub fn find(place: &Place, supervisor: Option<&ProcessIdentity>, port: Option<u16>) -> Self {
        let state = place.state();
        let cgroups = cgroup_directories(place);
        let mut processes: Vec<i32> = cgroups.iter().flat_map(|dir| members(dir)).collect();
        if let Some(supervisor) = supervisor.filter(|s| s.is_alive()) {
            processes.push(supervisor.pid);
            processes.extend(process::descendants(supervisor.pid));
        }
        processes.sort_unstable();
        processes.dedup();
        let listening = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            processes,
            mounts: mounts_below(&state),
            loop_devices: loop_devices_below(&state),
            cgroups,
            listening: listening
                .filter(|address| TcpStream::connect_timeout(address, Duration::from_millis(200)).is_ok())
                .into_iter()
                .collect(),
            state: state.exists().then_some(state),
        }
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut add = |what: &str, items: Vec<String>| {
            if !items.is_empty() {
                parts.push(format!("{what}: {}", items.join(", ")));
            }
        };
        add(
            "processes",
            self.processes.iter().map(ToString::to_string).collect(),
        );
        add("mounts", self.mounts.clone());
        add("loop devices", self.loop_devices.clone());
        add(
            "cgroups",
            self.cgroups.iter().map(|p| p.display().to_string()).collect(),
        );
        add(
            "listening",
            self.listening.iter().map(ToString::to_string).collect(),
        );
        add(
            "state",
            self.state.iter().map(|p| p.display().to_string()).collect(),
        );
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// Holds the lab's lock: one command at a time changes a lab.
pub struct Lock {
    #[expect(dead_code, reason = "held for its drop")]
    file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock if nobody has it.
    pub fn try_take(place: &Place) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(place.root()).with_context(|| format!("create {}", place.root().display()))?;
        let path = place.lock();
        let file = match File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        {
            Ok(file) => file,
            // The last lab's `down` has just removed the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("open the lock"),
        };
        let inode = file.metadata()?.ino();
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Its holder may have removed the file since it was opened: then this is a lock on nothing.
            Ok(_) if fs::metadata(&path).map_or(true, |now| now.ino() != inode) => Ok(None),
            Ok(file) => Ok(Some(Self { file, path })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).context("lock the lab"),
        }
    }

    /// Takes the lock, waiting a moment for one who is about to let go.
    pub fn take(place: &Place) -> anyhow::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            if let Some(lock) = Self::try_take(place)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                bail!("another `cargo lab` command is changing lab {}", place.name());
            }
            sleep(STEP);
        }
    }

    /// Removes the lock's file and, if it was the last, the directory of all labs.
    fn remove(self, place: &Place) -> anyhow::Result<()> {
        fs::remove_file(&self.path).context("remove the lock")?;
        match fs::remove_dir(place.root()) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
                ) =>
            {
                Err(error).context("remove the directory of all labs")
            }
            _ => Ok(()),
        }
    }
}

/// Ends the lab, whatever state it is in, and waits until the kernel has let go of everything.
///
/// # Errors
/// Says what is left if something is.
pub fn down(place: &Place) -> anyhow::Result<()> {
    let deadline = Instant::now() + LOCK_DEADLINE;
    let lock = loop {
        // An `up` that is under way holds the lock; without its supervisor it gives up.
        if let Some(supervisor) = ProcessIdentity::read(&place.pid_file()) {
            supervisor.kill().context("kill the supervisor")?;
        }
        if let Some(lock) = Lock::try_take(place)? {
            break lock;
        }
        if Instant::now() > deadline {
            bail!(
                "another `cargo lab` command holds the lock of lab {}",
                place.name()
            );
        }
        sleep(STEP);
    };
    clean(place)?;
    lock.remove(place)
}

/// As [`down`], for a caller that holds the lock.
pub fn clean(place: &Place) -> anyhow::Result<()> {
    let supervisor = ProcessIdentity::read(&place.pid_file());
    let alive = supervisor.as_ref().is_some_and(ProcessIdentity::is_alive);
    // A port of a lab that died earlier may be somebody else's by now.
    let port = Report::read(place).map(|report| report.port).filter(|_| alive);
    if let Some(supervisor) = &supervisor {
        supervisor.kill().context("kill the supervisor")?;
    }
    let deadline = Instant::now() + END_DEADLINE;
    loop {
        let mut left = Leftovers::find(place, supervisor.as_ref(), port);
        if left.processes.is_empty() && left.mounts.is_empty() && left.loop_devices.is_empty() {
            remove_cgroups(place)?;
            remove_state(place)?;
            left = Leftovers::find(place, supervisor.as_ref(), port);
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "lab {} is not gone after {} s; left: {left}",
                place.name(),
                END_DEADLINE.as_secs()
            );
        }
        sleep(STEP);
    }
}

/// Removes the lab's (empty) cgroups in every hierarchy.
pub fn remove_cgroups(place: &Place) -> io::Result<()> {
    for top in cgroup_directories(place) {
        let mut directories = vec![top];
        let mut next = 0;
        while next < directories.len() {
            let children = fs::read_dir(&directories[next])?;
            directories.extend(children.flatten().filter(|e| e.path().is_dir()).map(|e| e.path()));
            next += 1;
        }
        for directory in directories.iter().rev() {
            // Dying members keep a cgroup busy for a moment; the caller looks again.
            if let Err(error) = fs::remove_dir(directory)
                && !matches!(
                    error.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound
                )
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn remove_state(place: &Place) -> anyhow::Result<()> {
    match fs::remove_dir_all(place.state()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", place.state().display())),
    }
}

/// The lab's directory in each cgroup hierarchy that has one.
fn cgroup_directories(place: &Place) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        tail.starts_with("cgroup").then(|| head.split(' ').nth(4))?
    });
    let mut found: Vec<PathBuf> = hierarchies
        .map(|mount| Path::new(mount).join(place.cgroup()))
        .filter(|dir| dir.is_dir())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn members(cgroup: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut directories = vec![cgroup.to_owned()];
    while let Some(directory) = directories.pop() {
        let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
        if let Ok(children) = fs::read_dir(&directory) {
            directories.extend(children.flatten().filter(|e| e.path().is_dir()).map(|e| e.path()));
        }
    }
    found
}

fn mounts_below(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for pid in process::all() {
        let Ok(mounts) = fs::read_to_string(format!("/proc/{pid}/mountinfo")) else {
            continue;
        };
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        found.extend(
            points
                .filter(|point| Path::new(point).starts_with(state))
                .map(str::to_owned),
        );
    }
    found.sort();
    found.dedup();
    found
}

fn loop_devices_below(state: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    devices
        .flatten()
        .filter(|device| {
            fs::read_to_string(device.path().join("loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim_end()).starts_with(state))
        })
        .map(|device| device.file_name().to_string_lossy().into_owned())
        .collect()
}
