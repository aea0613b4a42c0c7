//! The lab's network: a bridge in the lab's namespace, a veth pair to each node, routes to the nodes' pods.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Address of the lab itself on the bridge; the API server listens there.
pub const LAB: Ipv4Addr = Ipv4Addr::new(10, 243, 0, 1);
/// Port of the API server inside the lab.
pub const API_PORT: u16 = 6443;
const BRIDGE: &str = "lab0";

/// Address of node `index` (from 1) on the bridge.
#[must_use]
pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 243, 0, 10 + index)
}

/// The pods of node `index`.
#[must_use]
pub fn pod_cidr(index: u8) -> String {
    format!("10.244.{index}.0/24")
}

/// The end of node `index`'s cable in the lab's namespace; taking it down partitions the node.
#[must_use]
pub fn node_link(index: u8) -> String {
    format!("node{index}")
}

/// The URL of the API server inside the lab.
#[must_use]
pub fn api_url() -> String {
    format!("https://{LAB}:{API_PORT}")
}

/// Sets up the lab's side: loopback and bridge.
pub fn prepare_lab() -> anyhow::Result<()> {
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {LAB}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))
}

/// Plugs a node in: `pid` is a process in the node's network namespace, or about to enter it.
pub fn plug_in(index: u8, pid: i32) -> anyhow::Result<()> {
    let ours = fs::read_link("/proc/self/ns/net")?;
    let theirs = format!("/proc/{pid}/ns/net");
    wait_until("the node's network namespace", || {
        fs::read_link(&theirs).is_ok_and(|ns| ns != ours)
    })?;
    // Our end first: what the node sends as soon as it has its end must not be lost.
    let (link, far) = (node_link(index), format!("far{index}"));
    ip(&format!("link add {link} type veth peer name {far}"))?;
    ip(&format!("link set {link} master {BRIDGE} up"))?;
    ip(&format!("link set {far} netns {pid} name eth0"))?;
    ip(&format!(
        "route add {} via {}",
        pod_cidr(index),
        node_address(index)
    ))
}

/// Sets up the node's side, in the node's namespaces.
pub fn prepare_node(index: u8, nodes: u8) -> anyhow::Result<()> {
    ip("link set lo up")?;
    wait_until("the node's cable", || {
        fs::read_to_string("/proc/net/dev").is_ok_and(|devices| devices.contains("eth0:"))
    })?;
    ip(&format!("addr add {}/24 dev eth0", node_address(index)))?;
    ip("link set eth0 up")?;
    wait_until("the node's carrier", || {
        ip_says("-o link show dev eth0", "LOWER_UP")
    })?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let the node forward to its pods")?;
    for other in (1..=nodes).filter(|other| *other != index) {
        ip(&format!(
            "route add {} via {}",
            pod_cidr(other),
            node_address(other)
        ))?;
    }
    Ok(())
}

/// Whether the output of `ip` contains a word.
fn ip_says(words: &str, word: &str) -> bool {
    ip_output(words).is_ok_and(|output| output.contains(word))
}

/// Runs `ip` with these words.
pub fn ip(words: &str) -> anyhow::Result<()> {
    ip_output(words).map(drop)
}

fn ip_output(words: &str) -> anyhow::Result<String> {
    let program = ["/usr/sbin/ip", "/sbin/ip", "/bin/ip"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let output = Command::new(program.context("`ip` is missing: install iproute2")?)
        .args(words.split_ascii_whitespace())
        .output()
        .context("run ip")?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > deadline {
            bail!("{what} did not appear within 10 s");
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
