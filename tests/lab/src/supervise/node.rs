//! A node: its namespaces, and the process 1 in them.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sched::unshare;
use nix::unistd::sethostname;

use super::children::Children;
use super::network;
use super::{NAMESPACES, itself, program};
use crate::options::{UpOptions, Which};
use crate::place::Place;

/// Enters the node's namespaces, starts the node's process 1 and waits for it.
pub fn enter(which: &Which, index: u8) -> anyhow::Result<ExitCode> {
    unshare(NAMESPACES).context("make the node's namespaces")?;
    let status = itself(which)?
        .arg("node-init")
        .arg(index.to_string())
        .stdin(Stdio::null())
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The node's process 1: mounts, network, then the kubelet. When the kubelet ends, the node ends with all its containers.
pub fn init(which: &Which, index: u8) -> anyhow::Result<ExitCode> {
    let place = which.place()?;
    let options: UpOptions = serde_json::from_slice(&fs::read(place.options())?)?;
    let name = format!("n{index}");
    sethostname(&name)?;
    private_proc()?;
    // As systemd leaves a real node: mounts of the kubelet reach containers that ask for HostToContainer.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )?;
    let own = place.own_node();
    mount(
        Some(&place.node(&name)),
        &own,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("bind the node's directory")?;
    network::prepare_node(index, options.nodes)?;

    let mut children = Children::default();
    children.spawn("kubelet", &mut kubelet(&place, &options, index)?)?;
    loop {
        children.collect();
        if let Some(how) = children.ended("kubelet") {
            eprintln!("the kubelet of {name} is gone ({how}): the node ends");
            return Ok(ExitCode::FAILURE);
        }
        sleep(Duration::from_millis(200));
    }
}

fn kubelet(place: &Place, options: &UpOptions, index: u8) -> anyhow::Result<Command> {
    let name = format!("n{index}");
    let mut command = Command::new(program("hasteward-lab-kubelet")?);
    command
        .arg("--node")
        .arg(&name)
        .arg("--kubeconfig")
        .arg(place.client_kubeconfig(&name))
        .arg("--root")
        .arg(place.own_node().join("kubelet"))
        .arg("--node-ip")
        .arg(network::node_address(index).to_string())
        .arg("--pod-cidr")
        .arg(network::pod_cidr(index))
        .arg("--api-server")
        .arg(network::api_url())
        .arg("--images")
        .arg(place.images())
        .arg("--cgroup-prefix")
        .arg(format!("{}/{name}", place.cgroup()))
        .arg("--cgroup-driver")
        .arg(options.cgroup_driver.to_string())
        .arg("--runtime")
        .arg(options.runtime.to_string())
        .arg("--state")
        .arg(place.state())
        .arg("--backoff-base-ms")
        .arg(options.backoff_base_ms.to_string())
        .stdin(Stdio::null());
    Ok(command)
}

/// Cuts mount propagation to the outside and mounts the `/proc` of this pid namespace.
pub(super) fn private_proc() -> anyhow::Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cut mount propagation")?;
    mount(
        Some("proc"),
        Path::new("/proc"),
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mount /proc")
}
