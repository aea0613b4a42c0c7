//! `exec`: a single-threaded process that runs one program inside a running container.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir};

use super::monitor::{join_namespaces, stdin_from_null};
use super::spec::ExecSpec;
use super::step::{At, StepError};
use super::{fork, identity};

/// Runs the program of the [`ExecSpec`] on the first line of `socket`; gives its exit code.
///
/// # Errors
/// The step that failed before the program ran.
pub fn run(socket: UnixStream) -> Result<i32, StepError> {
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).at("spec")?;
    let spec: ExecSpec = serde_json::from_str(&line).at("spec")?;
    // Out of sight after the next step; the program alone shall be in there, not this process.
    let procs = fs::OpenOptions::new()
        .write(true)
        .open(spec.cgroup.join("cgroup.procs"))
        .at("cgroup")?;
    join_namespaces(spec.pid, &["net", "ipc", "uts", "pid", "mnt"])?;
    match fork::fork_single_threaded().at("fork")? {
        ForkResult::Child => {
            let error = become_program(&spec, procs);
            eprintln!("{error}");
            std::process::exit(126);
        }
        ForkResult::Parent { child } => match waitpid(child, None).at("wait")? {
            WaitStatus::Exited(_, code) => Ok(code),
            WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
            _ => Ok(255),
        },
    }
}

fn become_program(spec: &ExecSpec, mut procs: fs::File) -> StepError {
    let prepared = procs
        .write_all(b"0")
        .at("join cgroup")
        .and_then(|()| stdin_from_null())
        .and_then(|()| chdir(&spec.command.cwd).at("working directory"))
        .and_then(|()| identity::assume(&spec.credentials));
    match prepared {
        Ok(()) => identity::execute(&spec.command),
        Err(error) => error,
    }
}
