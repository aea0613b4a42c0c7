//! The node's pod network: bridge `cni0`, one veth pair and one address a pod.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// Name of the bridge in the node's network namespace.
pub const BRIDGE: &str = "cni0";

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// Why a text is no network for pods.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no IPv4 network with a prefix of 8 to 30 bits")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix: u8 = prefix.parse().ok().filter(|bits| (8..=30).contains(bits))?;
            let address: Ipv4Addr = address.parse().ok()?;
            Some(Self {
                network: address.to_bits() & (u32::MAX << (32 - prefix)),
                prefix,
            })
        };
        parse().ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.prefix)
    }
}

impl Cidr {
    /// The bridge's own address: the first one.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + 1)
    }

    fn hosts(self) -> u32 {
        (1 << (32 - self.prefix)) - 3
    }
}

/// Addresses of pods, given out in turn: a fresh pod does not get the address of the one that has just gone.
#[derive(Debug)]
pub struct Addresses {
    cidr: Cidr,
    state: Mutex<(u32, HashSet<Ipv4Addr>)>,
}

impl Addresses {
    /// All addresses of `cidr` but network, gateway and broadcast.
    pub fn new(cidr: Cidr) -> Self {
        Self {
            cidr,
            state: Mutex::new((0, HashSet::new())),
        }
    }

    /// An address nobody has, or `None` when all are taken.
    pub fn take(&self) -> Option<Ipv4Addr> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, taken) = &mut *state;
        for _ in 0..self.cidr.hosts() {
            let address = Ipv4Addr::from_bits(self.cidr.network + 2 + *next);
            *next = (*next + 1) % self.cidr.hosts();
            if taken.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// Gives an address back.
    pub fn put_back(&self, address: Ipv4Addr) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .remove(&address);
    }

    /// Lines for `ip -batch` in the node that make the bridge.
    pub fn bridge_batch(&self) -> String {
        format!(
            "link add {BRIDGE} type bridge\naddr add {}/{} dev {BRIDGE}\nlink set {BRIDGE} up\nlink set lo up\n",
            self.cidr.gateway(),
            self.cidr.prefix
        )
    }

    /// Lines for `ip -batch` in the node that put one end of a pair on the bridge, the other into the pod.
    pub fn pair_batch(&self, address: Ipv4Addr, sandbox: i32) -> String {
        let name = pair_name(address);
        format!(
            "link add {name} type veth peer name eth0 netns {sandbox}\nlink set {name} master {BRIDGE}\nlink set {name} up\n"
        )
    }

    /// Lines for `ip -batch` in the pod.
    pub fn pod_batch(&self, address: Ipv4Addr) -> String {
        format!(
            "link set lo up\naddr add {address}/{} dev eth0\nlink set eth0 up\nroute add default via {}\n",
            self.cidr.prefix,
            self.cidr.gateway()
        )
    }
}

/// Name of the node's end of a pod's pair.
pub fn pair_name(address: Ipv4Addr) -> String {
    format!("veth{:08x}", address.to_bits())
}

/// Runs `ip -batch` in a helper process, which waits for its own children.
pub(super) fn ip_batch(lines: &str) -> std::io::Result<()> {
    let mut command = Command::new("ip");
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_run_out() {
        let addresses = Addresses::new("10.244.1.0/29".parse().unwrap());
        let taken: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(
            taken.first().map(ToString::to_string).as_deref(),
            Some("10.244.1.2")
        );
        assert_eq!(
            taken.last().map(ToString::to_string).as_deref(),
            Some("10.244.1.6")
        );
        addresses.put_back(taken[2]);
        assert_eq!(addresses.take(), Some(taken[2]));
    }

    #[test]
    fn a_given_back_address_is_not_the_next_one() {
        let addresses = Addresses::new("10.244.1.0/24".parse().unwrap());
        let first = addresses.take().unwrap();
        addresses.put_back(first);
        assert_ne!(addresses.take(), Some(first));
    }

    #[test]
    fn names_fit_the_kernel() {
        assert!(pair_name(Ipv4Addr::BROADCAST).len() < 16);
        assert!("10.0.0.0/31".parse::<Cidr>().is_err() && "x".parse::<Cidr>().is_err());
    }
}
