//! `pause`: the process that owns a pod's net, ipc and uts namespaces.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::sethostname;

use super::monitor::{join_cgroup, report};
use super::spec::SandboxSpec;
use super::step::{At, StepError};

/// Runs a sandbox: first line a [`SandboxSpec`], answered by `null` or an error text; then one JSON string with
/// lines for `ip -batch`, answered likewise; then it waits for the end of its input.
///
/// # Errors
/// When the socket to the kubelet is unusable.
pub fn run(socket: &UnixStream) -> anyhow::Result<()> {
    prctl::set_name(c"pause")?;
    let mut input = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let spec: SandboxSpec = serde_json::from_str(&line)?;
    let answer = |result: Result<(), StepError>| report(socket, &result.err().map(|error| error.to_string()));
    answer(isolate(&spec))?;
    line.clear();
    input.read_line(&mut line)?;
    let batch: String = serde_json::from_str(&line)?;
    answer(configure(&batch))?;
    // Ends with the kubelet, or when the pod goes.
    let _ = input.read_to_end(&mut Vec::new());
    Ok(())
}

fn isolate(spec: &SandboxSpec) -> Result<(), StepError> {
    join_cgroup(&spec.cgroup)?;
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, !spec.host_network);
    flags.set(CloneFlags::CLONE_NEWIPC, !spec.host_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.hostname.is_some());
    unshare(flags).at("unshare")?;
    spec.hostname
        .as_ref()
        .map_or(Ok(()), |name| sethostname(name).at("sethostname"))
}

fn configure(batch: &str) -> Result<(), StepError> {
    if batch.is_empty() {
        return Ok(());
    }
    // As containerd does: a pod may bind low ports without a capability.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").at("unprivileged ports")?;
    super::network::ip_batch(batch).at("ip -batch")
}
