//! The supervisor: process 1 of the lab's own namespaces.
//!
//! Namespaces are entered by single-threaded re-executions of this binary (`unshare`, then an ordinary spawn whose child is
//! process 1 of the new pid namespace): nothing forks inside a running async runtime.

pub mod children;
mod disk;
pub mod init;
pub mod network;
pub mod node;
pub mod report;

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::sched::{CloneFlags, unshare};

use crate::options::Which;
use crate::place::Place;

/// The namespaces that the lab, and again each node, has of its own.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS);

/// Starts the supervisor in its namespaces and returns; it lives on by itself.
///
/// The listening socket for the host is made here, still in the host's network namespace, and travels as standard input.
pub fn start(which: &Which, lifeline: bool) -> anyhow::Result<()> {
    let place = which.place()?;
    close_inherited_on_exec()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on 127.0.0.1 for the API server")?;
    let port = listener.local_addr()?.port();
    let log = log_file(&place, "supervisor")?;
    unshare(NAMESPACES).context("make the lab's namespaces (needs root)")?;
    let mut command = itself(which)?;
    command.arg("init").arg("--port").arg(port.to_string());
    if lifeline {
        command.arg("--lifeline");
    }
    command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("start the supervisor")?;
    Ok(())
}

/// A command that runs this binary again for the same lab.
fn itself(which: &Which) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--name")
        .arg(which.name.to_string())
        .arg("--root")
        .arg(std::path::absolute(&which.root)?);
    Ok(command)
}

/// The log of one process, appended to.
fn log_file(place: &Place, process: &str) -> io::Result<File> {
    fs::create_dir_all(place.log())?;
    File::options()
        .create(true)
        .append(true)
        .open(place.log().join(format!("{process}.log")))
}

/// The path of a program of this workspace: beside this one (or beside `deps/`, where test binaries are).
pub fn program(name: &str) -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let directory = exe
        .ancestors()
        .skip(1)
        .find(|dir| dir.file_name().is_some_and(|n| n != "deps"));
    let path = directory.unwrap_or(&exe).join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is missing: build the workspace first", path.display()),
        ))
    }
}

/// Makes every descriptor but the standard three close on exec: a lab that outlives its caller must not hold the caller's pipes.
fn close_inherited_on_exec() -> io::Result<()> {
    #[allow(
        unsafe_code,
        reason = "close_range has no safe wrapper in nix; it takes no pointers and only sets flags"
    )]
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
