//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::runtime::cgroup::{Driver, Flavour};
use crate::runtime::network::Cidr;

/// The lab's kubelet and container runtime of one node. Needs root, in the node's own pid, mount, net and uts namespaces.
#[derive(Clone, Debug, Parser)]
#[command(name = "hasteward-lab-kubelet", version)]
pub struct Options {
    /// Name of the node.
    #[arg(long)]
    pub node: String,
    /// Credentials for the API server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// kubelet's root directory.
    #[arg(long)]
    pub root: PathBuf,
    /// The node's address; the kubelet's HTTP server listens there.
    #[arg(long)]
    pub node_ip: Ipv4Addr,
    /// Port of the HTTP server.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Addresses of this node's pods.
    #[arg(long)]
    pub pod_cidr: Cidr,
    /// The API server as pods reach it.
    #[arg(long)]
    pub api_server: http::Uri,
    /// The list of images.
    #[arg(long)]
    pub images: PathBuf,
    /// Directory below the root of the cgroup file system.
    #[arg(long)]
    pub cgroup_prefix: String,
    /// How cgroups are named.
    #[arg(long, value_enum, default_value = "systemd")]
    pub cgroup_driver: Driver,
    /// Whose names containers get.
    #[arg(long, value_enum, default_value = "containerd")]
    pub runtime: Flavour,
    /// Volumes of the CSI driver, logs and faults; nodes may share it.
    #[arg(long)]
    pub state: PathBuf,
    /// First delay of a restart; the longest is 30 times as long.
    #[arg(long, default_value_t = 10_000)]
    pub backoff_base_ms: u64,
}

impl Options {
    /// First delay of a restart.
    pub fn backoff_base(&self) -> Duration {
        Duration::from_millis(self.backoff_base_ms)
    }

    /// Host and port of the API server, for the environment of pods.
    pub fn api_address(&self) -> (String, u16) {
        let host = self.api_server.host().unwrap_or("127.0.0.1").to_owned();
        (host, self.api_server.port_u16().unwrap_or(443))
    }

    /// Its address, for the hosts file; `None` when it is given by a name.
    pub fn api_ip(&self) -> Option<IpAddr> {
        self.api_address().0.parse().ok()
    }

    /// The hosts file of pods of `namespace` on this node.
    pub fn hosts(&self, namespace: &str) -> PathBuf {
        self.own().join("hosts").join(namespace)
    }

    /// What is this node's alone: `state` may be shared by all nodes of a lab.
    pub fn own(&self) -> PathBuf {
        self.root.join("lab")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_of_the_lab() {
        let line = "x --node n1 --kubeconfig F --root /r --node-ip 10.243.0.11 --pod-cidr 10.244.1.0/24 \
            --api-server https://10.243.0.1:6443 --images i.json --cgroup-prefix p --cgroup-driver cgroupfs --runtime crio \
            --state /s --backoff-base-ms 100";
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(options.api_address(), ("10.243.0.1".to_owned(), 6443));
        assert_eq!(
            (options.cgroup_driver, options.runtime),
            (Driver::Cgroupfs, Flavour::Crio)
        );
        assert_eq!(options.backoff_base().as_millis(), 100);
    }
}
