//! Dropping to the credentials of a container, right before its program is executed.

use std::str::FromStr;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::spec::{Command, Credentials};
use super::step::{At, StepError};

/// Takes on `credentials`, for good. The process dies with its parent from here on.
///
/// # Errors
/// The step that failed.
pub(super) fn assume(credentials: &Credentials) -> Result<(), StepError> {
    let wanted: Vec<Capability> = credentials
        .capabilities
        .iter()
        .map(|name| Capability::from_str(name))
        .collect::<Result<_, _>>()
        .at("capability name")?;
    for capability in caps::all() {
        if !wanted.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
        {
            caps::drop(None, CapSet::Bounding, capability).at("bounding set")?;
        }
    }
    caps::clear(None, CapSet::Ambient).at("ambient set")?;
    caps::clear(None, CapSet::Inheritable).at("inheritable set")?;
    let groups: Vec<Gid> = credentials.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).at("setgroups")?;
    let gid = Gid::from_raw(credentials.gid);
    setresgid(gid, gid, gid).at("setresgid")?;
    let uid = Uid::from_raw(credentials.uid);
    setresuid(uid, uid, uid).at("setresuid")?;
    if credentials.no_new_privileges {
        prctl::set_no_new_privs().at("no_new_privs")?;
    }
    // After the uid change, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).at("parent death signal")
}

/// Executes `command`; comes back only with an error.
pub(super) fn execute(command: &Command) -> StepError {
    use std::os::unix::process::CommandExt as _;
    let Some((program, arguments)) = command.argv.split_first() else {
        return StepError::new("exec", "no command");
    };
    let cause = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&command.env)
        .exec();
    StepError::new(&format!("exec {program}"), cause)
}
