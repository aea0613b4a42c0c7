//! Where a stopped MariaDB node stands, without touching it: the container's own `mariadbd --wsrep-recover` on an overlay.
//!
//! A recovery writes: it applies the redo log, makes temporary tablespaces, may resize the log. So it sees an overlay whose
//! lower layer is the data directory and whose upper layer is a directory of ours; everything else that it sees is
//! read-only, in a mount namespace of its own that ends with it. It runs as the owner of the data, without a capability,
//! without a network, with the container's programs and settings. Nothing runs while a server, or a state transfer, is in the
//! pod, and nothing counts if the data directory changed meanwhile.
//!
//! Two processes: the *recoverer*, the data's owner with the two capabilities that mounting takes, watches time and room and
//! cleans up; the server is its child, process 1 of a process namespace of its own, with which all that it started ends.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, OpenHow, ResolveFlag, fcntl, open, openat, openat2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::sys::wait::waitpid;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::HandsConfig;
use super::fork::{Fork, fork};
use super::locate::locate;
use super::mariadb::users_of_data;
use super::packet::PacketSocket;
use super::privilege::missing_for_recovery;
use super::process::{ProcessTable, Seen};
use super::recoverer::{self, Plan, Report, clean};
use super::verb::{InstanceLocator, RecoverError, RecoveryRun};
use crate::volume::{DataDirectory, LISTING_MAX, ReadError, RelativePath, Stat, VolumeRole, VolumeTree};

/// Where images have the server.
const PROGRAMS: [&str; 4] = [
    "usr/sbin/mariadbd",
    "usr/bin/mariadbd",
    "usr/libexec/mariadbd",
    "usr/sbin/mysqld",
];

/// Where images have Galera.
const PROVIDERS: [&str; 4] = [
    "usr/lib/galera/libgalera_smm.so",
    "usr/lib64/galera/libgalera_smm.so",
    "usr/lib64/galera-4/libgalera_smm.so",
    "usr/lib/libgalera_smm.so",
];

/// What a recovery reads first and a server writes always: unchanged, the data directory was at rest.
const WITNESSES: [&str; 4] = ["ibdata1", "ib_logfile0", "aria_log_control", "grastate.dat"];

/// A recovery copies every file that it writes to: no more than this.
const SCRATCH_MAX: u64 = 8 << 30;

/// Of what is free on the scratch directory's file system, no more than this part is written to, for a short time.
const SCRATCH_SHARE: u64 = 4;

/// With less to write to, do not begin.
const SCRATCH_MIN: u64 = 64 << 20;

/// Beyond its limit the recoverer gets this long to end and clean up.
const GRACE: Duration = Duration::from_secs(8);

fn step(step: &str, errno: Errno) -> RecoverError {
    RecoverError::Step {
        step: step.to_owned(),
        detail: errno.desc().to_owned(),
    }
}

/// Runs it, for at most `limit`.
pub(super) fn run(
    config: &HandsConfig,
    instance: &InstanceLocator,
    limit: Duration,
) -> Result<RecoveryRun, RecoverError> {
    if let Some(missing) = missing_for_recovery() {
        return Err(RecoverError::Refused(format!(
            "the agent was started without {missing}"
        )));
    }
    let begun = Instant::now();
    let table = ProcessTable::open(&config.proc)?;
    let mut mounts = locate(config, instance);
    let at = mounts
        .iter()
        .position(|mount| mount.role == VolumeRole::MariadbData)
        .ok_or_else(|| RecoverError::Refused("the instance has no MariaDB data volume".to_owned()))?;
    let lower = match &mounts[at].root {
        Ok(root) => root.try_clone().map_err(|error| ReadError::io(".", &error))?,
        Err(error) => return Err(error.clone().into()),
    };
    let datadir = mounts.swap_remove(at);
    let place = datadir.mount_path.to_string_lossy().into_owned();
    let tree = VolumeTree::from_mounts(vec![datadir]);

    at_rest(&table, instance, &tree)?;
    let witnesses = witnesses(&tree)?;
    let (uid, gid) = owner(lower.as_fd().as_raw_fd())?;
    let container = container(&table, instance)?;
    let run = Run::make(&config.scratch)?;
    let plan = Plan {
        uid,
        gid,
        lower,
        place,
        scratch_max: room(&run)?,
        until: begun + limit,
        container,
    };
    let report = run.carry_out(&plan, limit);
    drop(run);
    let log = report?;
    at_rest(&table, instance, &tree)?;
    if self::witnesses(&tree)? != witnesses {
        return Err(RecoverError::InUse("its files changed meanwhile".to_owned()));
    }
    Ok(RecoveryRun {
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..log
    })
}

/// No process of the pod, and none anywhere that locks the tablespace, uses the data directory.
fn at_rest(table: &ProcessTable, instance: &InstanceLocator, tree: &VolumeTree) -> Result<(), RecoverError> {
    let seen = table.seen(&instance.pod, None)?;
    if let Some(user) = users_of_data(&seen).first() {
        return Err(RecoverError::InUse(format!("{user} runs in the pod")));
    }
    let file = match tree.open(&fixed("ibdata1")?) {
        Ok(file) => file,
        Err(ReadError::NotFound { .. }) => {
            let listing = tree.list(&RelativePath::root(), LISTING_MAX)?;
            let absent = !listing.truncated && !listing.names("ibdata1");
            return Err(if absent {
                RecoverError::NoData("the data directory lists no ibdata1".to_owned())
            } else {
                RecoverError::InUse("ibdata1 appears and disappears".to_owned())
            });
        }
        Err(error) => return Err(error.into()),
    };
    let mut lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(|errno| step("the lock on ibdata1", errno))?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        Ok(())
    } else {
        Err(RecoverError::InUse(
            "a server holds the lock on ibdata1".to_owned(),
        ))
    }
}

fn fixed(name: &str) -> Result<RelativePath, RecoverError> {
    RelativePath::new(name).map_err(|error| RecoverError::Refused(error.to_string()))
}

fn witnesses(tree: &VolumeTree) -> Result<Vec<Option<Stat>>, RecoverError> {
    WITNESSES
        .iter()
        .map(|name| match tree.stat(&fixed(name)?) {
            Ok(found) => Ok(Some(found)),
            Err(ReadError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        })
        .collect()
}

/// User and group of the data: of `ibdata1`, because the volume's root may belong to root.
fn owner(lower: i32) -> Result<(u32, u32), RecoverError> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(format!("/proc/self/fd/{lower}/ibdata1"))
        .map_err(|error| ReadError::io("ibdata1", &error))?;
    if !found.is_file() || found.uid() == 0 || found.gid() == 0 {
        return Err(RecoverError::Refused(format!(
            "ibdata1 belongs to uid {} gid {}, which a database never has",
            found.uid(),
            found.gid()
        )));
    }
    Ok((found.uid(), found.gid()))
}

/// A running container of the pod that has the server's program, with everything of it that the recoverer cannot open.
fn container(table: &ProcessTable, instance: &InstanceLocator) -> Result<recoverer::Container, RecoverError> {
    let mut seen = table.seen(&instance.pod, instance.container.as_ref())?;
    seen.sort_by_key(|process| process.started);
    for process in &seen {
        if let Some(container) = enter_by(table, instance, process)? {
            return Ok(container);
        }
    }
    Err(RecoverError::NoProgram(if seen.is_empty() {
        "no container of the pod runs, so there is no mariadbd to read the position with".to_owned()
    } else {
        "no running container of the pod has mariadbd and Galera".to_owned()
    }))
}

fn enter_by(
    table: &ProcessTable,
    instance: &InstanceLocator,
    process: &Seen,
) -> Result<Option<recoverer::Container>, RecoverError> {
    let Ok(directory) = table.confirm(process, &instance.pod, instance.container.as_ref()) else {
        return Ok(None);
    };
    let handle = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let Ok(root) = openat(&directory, "root", handle | OFlag::O_DIRECTORY, Mode::empty()) else {
        return Ok(None);
    };
    let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let has = |path: &&&str| openat2(&root, **path, OpenHow::new().flags(handle).resolve(inside)).is_ok();
    let (Some(program), Some(provider)) = (PROGRAMS.iter().find(has), PROVIDERS.iter().find(has)) else {
        return Ok(None);
    };
    let namespace = |name: &str| {
        openat(
            &directory,
            format!("ns/{name}").as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| step("the container's namespaces", errno))
    };
    Ok(Some(recoverer::Container {
        mounts: namespace("mnt")?,
        processes: namespace("pid")?,
        root,
        program: format!("/{program}"),
        provider: format!("/{provider}"),
    }))
}

/// How much may be written to scratch.
fn room(run: &Run) -> Result<u64, RecoverError> {
    let found = fstatvfs(&*run.directory).map_err(|errno| step("room for scratch", errno))?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    let most = (free / SCRATCH_SHARE).min(SCRATCH_MAX);
    if most < SCRATCH_MIN {
        return Err(RecoverError::NoRoom(format!(
            "the agent's state directory has no room for a recovery: {free} bytes are free"
        )));
    }
    Ok(most)
}

/// A directory below scratch for one recovery, locked while it is ours.
struct Run {
    scratch: OwnedFd,
    name: String,
    directory: Flock<OwnedFd>,
}

impl Run {
    fn make(scratch: &Path) -> Result<Self, RecoverError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let scratch =
            open(scratch, flags, Mode::empty()).map_err(|errno| step("scratch directory", errno))?;
        sweep(&scratch);
        let name = format!("run-{}", std::process::id());
        // Root's, and anybody's to make two directories in; nobody but root can come here by a path.
        mkdirat(&scratch, name.as_str(), Mode::from_bits_truncate(0o700))
            .map_err(|errno| step("scratch directory", errno))?;
        let directory = openat(&scratch, name.as_str(), flags, Mode::empty())
            .map_err(|errno| step("scratch directory", errno))?;
        nix::sys::stat::fchmod(&directory, Mode::from_bits_truncate(0o1733))
            .map_err(|errno| step("scratch directory", errno))?;
        let directory = Flock::lock(directory, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| step("scratch directory", errno))?;
        Ok(Self {
            scratch,
            name,
            directory,
        })
    }

    fn carry_out(&self, plan: &Plan, limit: Duration) -> Result<RecoveryRun, RecoverError> {
        let (ours, theirs) = PacketSocket::pair().map_err(|errno| step("socket pair", errno))?;
        let child = match fork().map_err(|error| RecoverError::Step {
            step: "recoverer".to_owned(),
            detail: error.to_string(),
        })? {
            Fork::Child => {
                drop(ours);
                nix::unistd::alarm::set(u32::try_from((limit + GRACE).as_secs()).unwrap_or(600));
                let report = recoverer::run(plan, self.directory.as_fd());
                let _ = theirs.send(&report, None);
                std::process::exit(0);
            }
            Fork::Parent(child) => child,
        };
        drop(theirs);
        let _ = ours.set_timeout(limit + GRACE);
        let report = ours.receive::<Report>();
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        clean_as(plan.uid, plan.gid, &self.directory);
        match report {
            Ok((report, _)) => report,
            Err(error) => Err(RecoverError::Step {
                step: "recoverer".to_owned(),
                detail: error.to_string(),
            }),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = unlinkat(&self.scratch, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Removes what a recoverer that was killed could not: as the same user, which alone may.
fn clean_as(uid: u32, gid: u32, directory: &OwnedFd) {
    if !clean::left(directory.as_fd()) {
        return;
    }
    match fork() {
        Ok(Fork::Child) => {
            nix::unistd::alarm::set(60);
            let done = super::privilege::become_user(uid, gid).is_ok();
            if done {
                clean::all(directory.as_fd());
            }
            std::process::exit(0);
        }
        Ok(Fork::Parent(child)) => {
            let _ = waitpid(child, None);
        }
        Err(error) => tracing::warn!(%error, "scratch is not cleaned"),
    }
}

/// Removes what recoveries left whose every process was killed: their lock is free.
fn sweep(scratch: &OwnedFd) {
    use std::os::unix::fs::MetadataExt;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}", scratch.as_raw_fd())) else {
        return;
    };
    for entry in entries.flatten().take(256) {
        let name = entry.file_name();
        let Ok(directory) = openat(scratch, name.as_os_str(), flags, Mode::empty()) else {
            continue;
        };
        let Ok(directory) = Flock::lock(directory, FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        let owner = clean::owner(directory.as_fd()).map(|found| (found.uid(), found.gid()));
        if let Some((uid, gid)) = owner.filter(|(uid, _)| *uid != 0) {
            clean_as(uid, gid, &directory);
        }
        let _ = unlinkat(scratch, name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}
