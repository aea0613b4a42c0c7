//! What the tests stand on: a kubelet root, mounts in a mount namespace of our own, cgroups, a stand-in for a server.

use std::cell::RefCell;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use hasteward_agent::hands::{
    ContainerId, ContainerPath, Hands, HandsConfig, InstanceLocator, Session, VolumeLocator, VolumeName,
    VolumeSource, split,
};
use hasteward_agent::volume::{RelativePath, VolumeRole};
use hasteward_proto::primitive::PodUid;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A container id as containerd makes them.
pub(crate) const CONTAINER: &str = "4f0c6e2d9b8a7f6e5d4c3b2a190817263544f0c6e2d9b8a7f6e5d4c3b2a19081";

/// What is mounted from here on vanishes with this process.
pub(crate) fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("tests of the hands need root");
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
}

pub(crate) fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

/// A node: its kubelet root, a directory allowed for hostPath volumes, and one that is not.
pub(crate) struct Stage {
    mounts: RefCell<Vec<PathBuf>>,
    pub(crate) directory: TempDir,
    pub(crate) pod: PodUid,
    pub(crate) proc: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["kubelet", "allowed", "elsewhere", "scratch"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let pod = format!(
            "{:08x}-0000-4000-8000-{:012x}",
            std::process::id(),
            since.as_nanos() & 0xffff_ffff_ffff
        );
        Self {
            mounts: RefCell::default(),
            directory,
            pod: PodUid::new(&pod).unwrap(),
            proc: PathBuf::from("/proc"),
        }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Mounts `from` at `to` too.
    pub(crate) fn bind(&self, from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        self.mounts.borrow_mut().push(to.to_owned());
    }

    /// The same, and nothing there can be written or removed through `to`.
    pub(crate) fn bind_read_only(&self, from: &Path, to: &Path) {
        self.bind(from, to);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, to, None::<&str>, flags, None::<&str>).unwrap();
    }

    /// Puts the file `from` in the place of the file `to`.
    pub(crate) fn cover(&self, from: &Path, to: &Path) {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        self.mounts.borrow_mut().push(to.to_owned());
    }

    /// A file system in memory, with as many inodes as it takes.
    pub(crate) fn memory(&self, to: &Path) {
        self.memory_of(to, "size=64m,nr_inodes=0");
    }

    /// The same, with these options.
    pub(crate) fn memory_of(&self, to: &Path, options: &str) {
        fs::create_dir_all(to).unwrap();
        mount(Some("tmpfs"), to, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        self.mounts.borrow_mut().push(to.to_owned());
    }

    /// Where kubelet has this pod's volume.
    pub(crate) fn volume(&self, below: &str) -> PathBuf {
        self.at(&format!("kubelet/pods/{}/volumes/{below}", self.pod))
    }

    pub(crate) fn hands(&self) -> Hands {
        let config = HandsConfig {
            kubelet_root: self.at("kubelet"),
            proc: self.proc.clone(),
            allowed_volume_roots: vec![self.at("allowed")],
            scratch: self.at("scratch"),
        };
        // A runtime of the test before may still be ending.
        until(Duration::from_secs(10), "one thread", || {
            (fs::read_dir("/proc/self/task").unwrap().count() == 1).then_some(())
        });
        split(&config).unwrap()
    }

    pub(crate) fn locator(&self, volumes: Vec<VolumeLocator>) -> InstanceLocator {
        InstanceLocator {
            pod: self.pod.clone(),
            container: None,
            volumes,
        }
    }

    pub(crate) fn session(&self, hands: &Hands, volumes: Vec<VolumeLocator>) -> Session {
        hands
            .session(&self.locator(volumes), Duration::from_secs(20))
            .unwrap()
    }
}

impl Drop for Stage {
    /// The directory is removed only when nothing is mounted in it any more: what is mounted there is not ours.
    fn drop(&mut self) {
        for mounted in self.mounts.take().iter().rev() {
            if umount2(mounted, MntFlags::MNT_DETACH).is_err() {
                self.directory.disable_cleanup(true);
            }
        }
    }
}

pub(crate) fn volume(role: VolumeRole, name: &str, source: VolumeSource, mount_path: &str) -> VolumeLocator {
    VolumeLocator {
        role,
        name: VolumeName::new(name).unwrap(),
        source,
        mount_path: ContainerPath::new(mount_path).unwrap(),
        sub_path: RelativePath::root(),
    }
}

pub(crate) fn data_volume(name: &str, source: VolumeSource) -> VolumeLocator {
    volume(VolumeRole::PgData, name, source, "/var/lib/postgresql/data")
}

/// PGDATA in `directory` as on a volume.
pub(crate) fn fill(directory: &Path) {
    fs::create_dir_all(directory.join("pgdata/global")).unwrap();
    fs::write(directory.join("pgdata/PG_VERSION"), "15\n").unwrap();
}

/// A cgroup of this pod, named as containerd does with the systemd driver; removed when dropped.
pub(crate) struct Cgroup {
    root: PathBuf,
    pub(crate) leaf: PathBuf,
}

impl Cgroup {
    pub(crate) fn new(stage: &Stage) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |kind: &str, option: &str| {
            let line = mountinfo.lines().find(|line| {
                let (_, tail) = line.split_once(" - ").unwrap();
                tail.starts_with(&format!("{kind} ")) && tail.contains(option)
            })?;
            line.split(' ').nth(4).map(PathBuf::from)
        };
        let mounted = of("cgroup2", "")
            .or_else(|| of("cgroup", "name=systemd"))
            .expect("no cgroup hierarchy is mounted");
        let root = mounted.join(format!("hasteward-test-{}", stage.pod));
        let slice = format!(
            "kubepods-burstable-pod{}.slice",
            stage.pod.as_str().replace('-', "_")
        );
        let leaf = root
            .join("kubepods.slice/kubepods-burstable.slice")
            .join(slice)
            .join(format!("cri-containerd-{CONTAINER}.scope"));
        fs::create_dir_all(&leaf).unwrap();
        Self { root, leaf }
    }

    /// A command that enters the cgroup first.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let enter = r#"echo $$ > "$0"/cgroup.procs && exec "$@""#;
        command.args(["-c", enter]).arg(&self.leaf).arg(program);
        command
    }

    fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.leaf.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Cgroup {
    /// Ends every process in it.
    pub(crate) fn end_all(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            for pid in self.processes() {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.end_all();
        let mut directory = self.leaf.clone();
        while directory.starts_with(&self.root) {
            let _ = fs::remove_dir(&directory);
            directory.pop();
        }
    }
}

/// A process that is ended and collected whatever happens to the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `look` gives something, for at most `within`.
pub(crate) fn until<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn container_id() -> ContainerId {
    ContainerId::new(CONTAINER).unwrap()
}

/// This test binary, called `postgres`: listens on `arguments[0]` without ever accepting, or just waits.
pub(crate) fn stub_server(arguments: &[String]) -> ExitCode {
    let listener = arguments.first().map(|place| {
        let listener = UnixListener::bind(place).unwrap();
        fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        listener
    });
    if let Some(listener) = &listener {
        assert!(listener.as_raw_fd() > 2);
    }
    loop {
        std::thread::park();
    }
}

/// The newest PostgreSQL that is installed.
pub(crate) fn postgres_binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("the package postgresql is not installed");
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max();
    PathBuf::from(format!(
        "/usr/lib/postgresql/{}/bin",
        newest.expect("no version of PostgreSQL")
    ))
}
