//! The processes of one instance, from `/proc`.
//!
//! Everything is read relative to a directory descriptor of `/proc/<pid>`, which stays bound to that very process: after
//! it ended, reads fail instead of telling of another process with the same number.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use hasteward_proto::primitive::PodUid;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use super::cgroup::{Membership, membership};
use super::verb::{ContainerId, Postmaster, ProcessError, Processes};

/// No more names of tools than this are reported.
const TOOLS_MAX: usize = 64;

/// A pod of more processes than this is not judged.
const PROCESSES_MAX: usize = 8192;

/// Bytes of the command lines of one pod that are kept.
const COMMANDS_MAX: usize = 16 * 1024 * 1024;

/// Bytes of `/proc/<pid>/cgroup`.
const CGROUP_MAX: u64 = 64 * 1024;

/// How long a process may have no program and not have ended: it is on its way out, and its memory is being freed.
const ENDING_TIME: Duration = Duration::from_millis(250);

/// Programs whose command line decides something: servers, and shells that run a tool's script.
const WITH_COMMAND: [&str; 7] = ["postgres", "mariadbd", "mysqld", "sh", "bash", "dash", "busybox"];

/// Arguments with which `postgres` is no server for others.
const NOT_A_SERVER: [&[u8]; 7] = [
    b"--single",
    b"--boot",
    b"--check",
    b"--describe-config",
    b"--version",
    b"-V",
    b"-C",
];

/// `/proc`, or what stands for it.
#[derive(Debug)]
pub(super) struct ProcessTable {
    root: OwnedFd,
}

/// What was found, and the postmaster's own directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// For the head.
    pub(super) processes: Processes,
    /// `/proc/<pid>` of the postmaster.
    pub(super) directory: Option<OwnedFd>,
}

/// One process of the pod.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) pid: u32,
    parent: u32,
    exe: String,
    pub(super) stopped: bool,
    pub(super) started: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a few programs only.
    command: Vec<u8>,
    /// Its cgroup says which container it is in: the wanted one, where one is wanted.
    in_container: bool,
}

/// What looking at one process found.
enum Look {
    /// It is not of the pod, or has ended.
    Not,
    /// It is in another container of the pod.
    OtherContainer,
    /// It is one.
    Seen(Seen),
}

impl Seen {
    /// Its command line, the program first.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        self.command.split(|&b| b == 0)
    }

    pub(super) fn name(&self) -> &str {
        self.exe.rsplit('/').next().unwrap_or("")
    }

    fn is_manager(&self) -> bool {
        self.exe.ends_with("/controller/manager")
    }

    fn is_server_or_manager(&self) -> bool {
        matches!(self.name(), "postgres" | "mariadbd" | "mysqld") || self.is_manager()
    }

    /// A backend or helper whose postmaster is gone says so in its title; `--single` and the like serve nobody.
    fn serves(&self) -> bool {
        let argument = self.command.split(|&b| b == 0).nth(1).unwrap_or(b"");
        !self.command.starts_with(b"postgres: ") && !NOT_A_SERVER.contains(&argument)
    }
}

impl ProcessTable {
    /// The table mounted at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, ProcessError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root }),
            Err(errno) => Err(ProcessError::List(errno.desc().to_owned())),
        }
    }

    /// The processes of `pod`, of `container` where that is given.
    pub(super) fn of_instance(
        &self,
        pod: &PodUid,
        container: Option<&ContainerId>,
    ) -> Result<Found, ProcessError> {
        self.judge(&self.seen(pod, container)?, pod, container)
    }

    /// Every process of `pod`, of `container` where that is given.
    pub(super) fn seen(
        &self,
        pod: &PodUid,
        container: Option<&ContainerId>,
    ) -> Result<Vec<Seen>, ProcessError> {
        let mut seen: Vec<Seen> = Vec::new();
        let mut others = Vec::new();
        let mut commands = 0;
        for pid in self.pids()? {
            match self.look(pid, pod, container)? {
                Look::Not => continue,
                Look::OtherContainer => others.push(pid),
                Look::Seen(process) => {
                    commands += process.command.len();
                    seen.push(process);
                }
            }
            if seen.len() + others.len() > PROCESSES_MAX || commands > COMMANDS_MAX {
                return Err(ProcessError::TooMany);
            }
        }
        if container.is_some() && !seen.iter().any(|process| process.in_container) {
            self.no_server_among(&others, pod)?;
        }
        Ok(seen)
    }

    /// A container of which nothing runs may be the wrong one: its id is what the API server knew, and kubelet may have
    /// started another since. So a server in another container of the pod is no proof that none runs.
    fn no_server_among(&self, others: &[u32], pod: &PodUid) -> Result<(), ProcessError> {
        for pid in others {
            match self.look(*pid, pod, None)? {
                Look::Seen(process) if process.is_server_or_manager() => {
                    return Err(ProcessError::OtherContainer { pid: *pid });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `/proc/<pid>` of a process that was seen, if it is still that very process.
    pub(super) fn confirm(
        &self,
        chosen: &Seen,
        pod: &PodUid,
        container: Option<&ContainerId>,
    ) -> Result<OwnedFd, ProcessError> {
        // Between the listing and here it may have ended, and its number may belong to another process.
        let gone = |detail: &str| ProcessError::Look {
            pid: chosen.pid,
            detail: detail.to_owned(),
        };
        let directory = self.directory(chosen.pid).map_err(|errno| gone(errno.desc()))?;
        match Self::look_in(chosen.pid, directory.as_fd(), pod, container)? {
            Look::Seen(again) if again.started == chosen.started && again.uid == chosen.uid => Ok(directory),
            _ => Err(gone("ended while it was looked at")),
        }
    }

    /// Whether a postmaster that was found running is still that process, and not stopped since.
    #[must_use]
    pub(super) fn still_runs(found: &Found) -> bool {
        let (Some(directory), Some(Postmaster { stopped: false, .. })) =
            (&found.directory, found.processes.postmaster)
        else {
            return false;
        };
        text(directory.as_fd(), "stat", 4096).is_ok_and(|stat| {
            stat_fields(&stat).is_some_and(|(state, ..)| !matches!(state, "Z" | "X" | "T" | "t"))
        })
    }

    fn judge(
        &self,
        seen: &[Seen],
        pod: &PodUid,
        container: Option<&ContainerId>,
    ) -> Result<Found, ProcessError> {
        let servers: HashSet<u32> = seen
            .iter()
            .filter(|p| p.name() == "postgres")
            .map(|p| p.pid)
            .collect();
        let parents: HashSet<u32> = seen
            .iter()
            .filter(|p| servers.contains(&p.pid))
            .map(|p| p.parent)
            .collect();
        let leads = |p: &&Seen| servers.contains(&p.pid) && !servers.contains(&p.parent);
        let candidates: Vec<&Seen> = seen.iter().filter(leads).filter(|p| p.serves()).collect();
        let chosen = candidates
            .iter()
            .filter(|p| p.uid != 0)
            // One with children is the postmaster for certain; of several the oldest holds the directory.
            .min_by_key(|p| (!parents.contains(&p.pid), p.started));
        if let (None, Some(root)) = (chosen, candidates.first()) {
            return Err(ProcessError::Root { pid: root.pid });
        }
        let mut tools: Vec<String> = seen
            .iter()
            .filter(|p| p.name().starts_with("pg_") || p.name() == "initdb" || leads(p))
            .filter(|p| chosen.is_none_or(|chosen| chosen.pid != p.pid))
            .map(|p| p.name().chars().take(64).collect())
            .collect();
        tools.sort();
        tools.truncate(TOOLS_MAX);
        let manager = seen.iter().any(Seen::is_manager);
        let mut found = Found {
            processes: Processes {
                manager,
                postmaster: None,
                tools,
            },
            directory: None,
        };
        let Some(chosen) = chosen else { return Ok(found) };

        let directory = self.confirm(chosen, pod, container)?;
        found.processes.postmaster = Some(Postmaster {
            pid: chosen.pid,
            uid: chosen.uid,
            gid: chosen.gid,
            started_at_ms: self.started_at_ms(chosen.started)?,
            stopped: chosen.stopped,
        });
        found.directory = Some(directory);
        Ok(found)
    }

    fn pids(&self) -> Result<Vec<u32>, ProcessError> {
        let fail = |errno: Errno| ProcessError::List(errno.desc().to_owned());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.root, ".", flags, Mode::empty()).map_err(fail)?;
        let mut pids = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(fail)?;
            pids.extend(
                entry
                    .file_name()
                    .to_str()
                    .ok()
                    .and_then(|name| name.parse::<u32>().ok()),
            );
        }
        Ok(pids)
    }

    fn directory(&self, pid: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.root, pid.to_string().as_str(), flags, Mode::empty())
    }

    /// The process, if it is one of the pod's and still runs.
    fn look(&self, pid: u32, pod: &PodUid, container: Option<&ContainerId>) -> Result<Look, ProcessError> {
        match self.directory(pid) {
            Ok(directory) => Self::look_in(pid, directory.as_fd(), pod, container),
            Err(errno) if ended(errno) => Ok(Look::Not),
            Err(errno) => Err(ProcessError::Look {
                pid,
                detail: errno.desc().to_owned(),
            }),
        }
    }

    fn look_in(
        pid: u32,
        directory: BorrowedFd<'_>,
        pod: &PodUid,
        container: Option<&ContainerId>,
    ) -> Result<Look, ProcessError> {
        let outcome = (|| {
            let cgroup = cgroup(directory)?;
            let in_container = match (membership(&cgroup, pod), container) {
                (Membership::Elsewhere | Membership::Monitor, _) => return Ok(Look::Not),
                (Membership::Member(Some(of)), Some(wanted)) if of != *wanted => {
                    return Ok(Look::OtherContainer);
                }
                (Membership::Member(of), _) => of.is_some(),
            };
            let stat = text(directory, "stat", 4096)?;
            let Some((state, parent, started)) = stat_fields(&stat) else {
                return Err(Errno::EBADMSG);
            };
            if has_ended(state, directory)? {
                return Ok(Look::Not);
            }
            let status = text(directory, "status", 16 * 1024)?;
            let (Some(uid), Some(gid)) = (effective(&status, "Uid:"), effective(&status, "Gid:")) else {
                return Err(Errno::EBADMSG);
            };
            let Some(exe) = program(directory)? else {
                return Ok(Look::Not);
            };
            let name = exe.rsplit('/').next().unwrap_or("");
            let command = if WITH_COMMAND.contains(&name) {
                bytes(directory, "cmdline", 32 * 1024)?
            } else {
                Vec::new()
            };
            let stopped = matches!(state, "T" | "t");
            Ok(Look::Seen(Seen {
                pid,
                parent,
                exe,
                stopped,
                started,
                uid,
                gid,
                command,
                in_container,
            }))
        })();
        match outcome {
            Ok(look) => Ok(look),
            Err(errno) if ended(errno) => Ok(Look::Not),
            Err(Errno::EBUSY) => Err(ProcessError::Look {
                pid,
                detail: "it runs no program that can be seen, and has not ended".to_owned(),
            }),
            Err(errno) => Err(ProcessError::Look {
                pid,
                detail: errno.desc().to_owned(),
            }),
        }
    }

    pub(super) fn started_at_ms(&self, ticks: u64) -> Result<i64, ProcessError> {
        let fail = |detail: &str| ProcessError::BootTime(detail.to_owned());
        let stat = text(self.root.as_fd(), "stat", 4 * 1024 * 1024).map_err(|errno| fail(errno.desc()))?;
        let boot = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
        let boot = boot.ok_or_else(|| fail("no btime"))?;
        let rate = sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .filter(|rate| *rate > 0);
        let rate = rate.ok_or_else(|| fail("no clock rate"))?;
        let since = i64::try_from(ticks).unwrap_or(i64::MAX).saturating_mul(1000) / rate;
        Ok(boot.saturating_mul(1000).saturating_add(since))
    }
}

/// What a process's files say once it has ended.
fn ended(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESRCH)
}

/// Which cgroups a process is in. Version 1 shows a first thread that ended in the root cgroup, while the process goes on
/// where its other threads are.
fn cgroup(directory: BorrowedFd<'_>) -> Result<String, Errno> {
    let first = text(directory, "cgroup", CGROUP_MAX)?;
    let is_root = |cgroup: &str| cgroup.lines().all(|line| line.ends_with(":/"));
    if !is_root(&first) {
        return Ok(first);
    }
    let stat = text(directory, "stat", 4096)?;
    let (state, ..) = stat_fields(&stat).ok_or(Errno::EBADMSG)?;
    if !matches!(state, "Z" | "X") || has_ended(state, directory)? {
        return Ok(first);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for thread in Dir::openat(directory, "task", flags, Mode::empty())?.iter() {
        let thread = thread?;
        let Some(name) = thread
            .file_name()
            .to_str()
            .ok()
            .filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        match text(directory, &format!("task/{name}/cgroup"), CGROUP_MAX) {
            Ok(cgroup) if !is_root(&cgroup) => return Ok(cgroup),
            Ok(_) => {}
            Err(errno) if ended(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(first)
}

/// Whether a process in this state has ended. The state is its first thread's, which may end before the others; the process
/// then goes on, server and all.
fn has_ended(state: &str, directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    if !matches!(state, "Z" | "X") {
        return Ok(false);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut threads = match Dir::openat(directory, "task", flags, Mode::empty()) {
        Ok(threads) => threads,
        Err(errno) if ended(errno) => return Ok(true),
        Err(errno) => return Err(errno),
    };
    let mut count = 0;
    for thread in threads.iter() {
        let name = thread?;
        count += usize::from(!name.file_name().to_bytes().starts_with(b"."));
    }
    Ok(count <= 1)
}

/// The program that a process runs; `None`: it has ended. One whose first thread ended has none to show, though it goes on:
/// that is an error, as is one that takes long to end.
fn program(directory: BorrowedFd<'_>) -> Result<Option<String>, Errno> {
    let deadline = Instant::now() + ENDING_TIME;
    loop {
        match readlinkat(directory, "exe") {
            Ok(exe) => {
                let exe = exe.to_string_lossy().into_owned();
                return Ok(Some(exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned()));
            }
            Err(errno) if ended(errno) => {}
            Err(errno) => return Err(errno),
        }
        let stat = match text(directory, "stat", 4096) {
            Ok(stat) => stat,
            Err(errno) if ended(errno) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let state = stat_fields(&stat).ok_or(Errno::EBADMSG)?.0;
        if has_ended(state, directory)? {
            return Ok(None);
        }
        if matches!(state, "Z" | "X") || Instant::now() > deadline {
            // No file of /proc says so by itself.
            return Err(Errno::EBUSY);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first `bound` bytes of a file in `/proc/<pid>`.
pub(super) fn bytes(directory: BorrowedFd<'_>, name: &str, bound: u64) -> Result<Vec<u8>, Errno> {
    let file = openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    match File::from(file).take(bound).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

fn text(directory: BorrowedFd<'_>, name: &str, bound: u64) -> Result<String, Errno> {
    bytes(directory, name, bound).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The state of the process whose directory this is; `None`: it is gone.
pub(super) fn text_fields(directory: BorrowedFd<'_>) -> Option<char> {
    let stat = text(directory, "stat", 4096).ok()?;
    stat_fields(&stat).and_then(|(state, ..)| state.chars().next())
}

/// State, parent and start (clock ticks since boot: fields 3, 4 and 22) from `/proc/<pid>/stat`. The name, field 2, may
/// hold anything, so fields are counted from its closing parenthesis.
fn stat_fields(stat: &str) -> Option<(&str, u32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((state, parent, started))
}

/// The effective id: the second of the four numbers.
fn effective(status: &str, key: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_counted_from_the_last_parenthesis() {
        let stat = "7 (a ) R 1 (x) S 5 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
        assert_eq!(stat_fields(stat), Some(("S", 5, 4242)));
        assert_eq!(stat_fields("7 (a"), None);
        assert_eq!(effective("Name:\tx\nUid:\t0\t26\t26\t26\n", "Uid:"), Some(26));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".*") {
            stat_fields(&text);
            effective(&text, "Uid:");
        }
    }
}
