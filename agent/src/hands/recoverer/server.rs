//! The server process: enters the container, sees it read-only with the overlay in the data directory's place, becomes
//! nobody special, and is `mariadbd`.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, execve};

use super::super::mounting::{all_read_only, attach};
use super::super::privilege::become_nothing_more;
use super::Plan;

/// Memory of the agent's, not of the database's: as little as InnoDB works with.
const BUFFER_POOL: &str = "64M";

/// Never returns: a server, or a line in `log` and exit code 127.
pub(super) fn exec(plan: &Plan, overlay: &OwnedFd, log: &OwnedFd) -> ! {
    let mut shown = log.try_clone().map(std::fs::File::from).ok();
    let Err((step, errno)) = become_server(plan, overlay, log);
    if let Some(log) = &mut shown {
        let _ = writeln!(log, "[ERROR] hasteward: {step}: {}", errno.desc());
    }
    std::process::exit(127)
}

type Step = (&'static str, Errno);

fn become_server(plan: &Plan, overlay: &OwnedFd, log: &OwnedFd) -> Result<Infallible, Step> {
    let at = |step: &'static str| move |errno| (step, errno);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(at("death signal"))?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(at("/dev/null"))?;
    dup2_stdin(&null).map_err(at("standard input"))?;
    dup2_stdout(log).map_err(at("standard output"))?;
    dup2_stderr(log).map_err(at("standard error"))?;

    setns(&plan.container.mounts, CloneFlags::CLONE_NEWNS).map_err(at("the container's mount namespace"))?;
    let (wanted, here) = (
        fstat(&plan.container.root).map_err(at("the container's root"))?,
        stat("/").map_err(at("the container's root"))?,
    );
    if (wanted.st_dev, wanted.st_ino) != (here.st_dev, here.st_ino) {
        return Err((
            "the container's root is not that of its mount namespace",
            Errno::EXDEV,
        ));
    }
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(own).map_err(at("namespaces of its own"))?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(at("a private mount namespace"))?;
    all_read_only().map_err(at("a read-only mount namespace"))?;
    let place =
        CString::new(plan.place.as_str()).map_err(|_| ("the data directory's place", Errno::EINVAL))?;
    attach(overlay.as_fd(), &place).map_err(at("the overlay in the data directory's place"))?;
    std::env::set_current_dir("/").map_err(|_| ("the container's root", Errno::ENOENT))?;

    become_nothing_more().map_err(at("giving up capabilities"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(at("no core dump"))?;
    setrlimit(Resource::RLIMIT_FSIZE, plan.scratch_max, plan.scratch_max)
        .map_err(at("a bound of its files"))?;
    let (program, arguments, environment) = command(plan).ok_or(("its command line", Errno::EINVAL))?;
    // Every descriptor but these three closes by itself.
    execve(&program, &arguments, &environment).map_err(at("mariadbd"))
}

/// The container's own settings count, but for what would reach out of the overlay.
fn command(plan: &Plan) -> Option<(CString, Vec<CString>, Vec<CString>)> {
    let place = plan.place.trim_end_matches('/');
    let provider = &plan.container.provider;
    let arguments = [
        plan.container.program.clone(),
        "--wsrep-recover".to_owned(),
        format!("--datadir={place}"),
        "--wsrep-on=ON".to_owned(),
        // Also in the place of a hold's.
        format!("--wsrep-provider={provider}"),
        "--wsrep-cluster-address=gcomm://".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--skip-networking".to_owned(),
        format!("--socket={place}/hasteward.sock"),
        format!("--pid-file={place}/hasteward.pid"),
        format!("--tmpdir={place}"),
        "--skip-log-error".to_owned(),
        "--general-log=0".to_owned(),
        "--slow-query-log=0".to_owned(),
        format!("--innodb-buffer-pool-size={BUFFER_POOL}"),
        "--innodb-buffer-pool-load-at-startup=OFF".to_owned(),
        "--innodb-buffer-pool-dump-at-shutdown=OFF".to_owned(),
        "--performance-schema=OFF".to_owned(),
        "--loose-feedback=OFF".to_owned(),
    ];
    let environment = [
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL=C",
        "HOME=/nonexistent",
    ];
    let strings = |all: &[String]| -> Option<Vec<CString>> {
        all.iter().map(|text| CString::new(text.as_str()).ok()).collect()
    };
    Some((
        CString::new(plan.container.program.as_str()).ok()?,
        strings(&arguments)?,
        strings(&environment.map(str::to_owned))?,
    ))
}
