//! The overlay, made in a user namespace that knows one user and one group: the data's owner. What an overlay copies, makes
//! and removes it does with the rights of whoever mounted it, and it needs to override permissions for that (the kernel makes
//! its own work directory without any). In this namespace that power reaches the owner's files and no others, so the hands
//! need none over the node's.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::waitpid;
use nix::unistd::fchdir;
use serde::{Deserialize, Serialize};

use super::super::fork::{Fork, fork};
use super::super::mounting::{Context, again, attach};
use super::super::packet::PacketSocket;
use super::super::verb::RecoverError;
use super::{Plan, clean, step};

/// A mount that takes longer hangs.
const TIME: Duration = Duration::from_secs(10);

/// What the child reports, with the mount where it made one.
#[derive(Debug, Serialize, Deserialize)]
enum Made {
    Mounted,
    Failed { step: String, errno: i32 },
}

type Step = (&'static str, Errno);

/// The data directory below, a directory of ours above; mounted nowhere.
pub(super) fn make(plan: &Plan, run: BorrowedFd<'_>) -> Result<OwnedFd, RecoverError> {
    for name in [clean::UPPER, clean::WORK, clean::LOWER] {
        mkdirat(run, name, Mode::from_bits_truncate(0o700))
            .map_err(|errno| step("scratch directories", errno))?;
    }
    // An overlay takes layers of its own mount namespace only.
    let again = |directory| {
        again(directory).map_err(|errno| step("overlay: its layers (needs CAP_SYS_ADMIN)", errno))
    };
    let layers = (again(plan.lower.as_fd())?, again(run)?);
    let (ours, theirs) = PacketSocket::pair().map_err(|errno| step("socket pair", errno))?;
    // Who enters a user namespace has no right outside it any more: a process for that alone.
    let child = match fork().map_err(|error| RecoverError::Step {
        step: "overlay".to_owned(),
        detail: error.to_string(),
    })? {
        Fork::Child => {
            drop(ours);
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            let _ = match mount(plan, &layers.0, &layers.1) {
                Ok(mount) => theirs.send(&Made::Mounted, Some(mount.as_fd())),
                Err((step, errno)) => theirs.send(
                    &Made::Failed {
                        step: step.to_owned(),
                        errno: errno as i32,
                    },
                    None,
                ),
            };
            std::process::exit(0);
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let _ = ours.set_timeout(TIME);
    let made = ours.receive::<Made>();
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    match made {
        Ok((Made::Mounted, Some(mount))) => Ok(mount),
        Ok((Made::Mounted, None)) => Err(step("overlay: its descriptor", Errno::EBADF)),
        Ok((Made::Failed { step: at, errno }, _)) => Err(step(&at, Errno::from_raw(errno))),
        Err(error) => Err(RecoverError::Step {
            step: "overlay".to_owned(),
            detail: error.to_string(),
        }),
    }
}

fn mount(plan: &Plan, lower: &OwnedFd, run: &OwnedFd) -> Result<OwnedFd, Step> {
    let failed = |step: &'static str| move |errno| (step, errno);
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(failed(
        "a user namespace for the overlay (see user.max_user_namespaces)",
    ))?;
    // Its own maps belong to it only then.
    prctl::set_dumpable(true).map_err(failed("process attribute"))?;
    for (file, text) in [
        ("uid_map", format!("{0} {0} 1", plan.uid)),
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("{0} {0} 1", plan.gid)),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
            (
                "the maps of the user namespace",
                Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
            )
        })?;
    }
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(failed("a private mount namespace"))?;
    // On top of the root, where nothing is looked up but from here.
    attach(run.as_fd(), c"/").map_err(failed("overlay: the scratch directory"))?;
    fchdir(run).map_err(failed("overlay: the scratch directory"))?;
    attach(lower.as_fd(), c"lower").map_err(failed("overlay: the data directory"))?;
    let context = Context::open(c"overlay").map_err(failed("overlay file system"))?;
    for (key, value) in [
        (c"source", "hasteward"),
        (c"lowerdir", clean::LOWER),
        (c"upperdir", clean::UPPER),
        (c"workdir", clean::WORK),
    ] {
        context.set(key, value).map_err(failed("overlay options"))?;
    }
    context.flag(c"userxattr").map_err(failed("overlay options"))?;
    // Nothing of it is kept: no need to wait for the disk.
    context.flag(c"volatile").map_err(failed("overlay options"))?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    context.mount(attributes).map_err(failed(
        "mounting the overlay (--state-dir must not be on an overlay)",
    ))
}
