//! What a lab is asked to be.

use std::fmt;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::place::{LabName, Place};

/// How cgroups are named, as `--cgroup-driver` of a kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// `kubepods.slice/kubepods-burstable.slice/…`
    Systemd,
    /// `kubepods/burstable/pod…`
    Cgroupfs,
}

/// Whose container ids and cgroup scopes the kubelets imitate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// `containerd://…`, `cri-containerd-….scope`
    Containerd,
    /// `cri-o://…`, `crio-….scope`
    Crio,
}

/// What the database volumes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// A CSI volume: a directory.
    Csi,
    /// A CSI volume of exactly the size asked for (ext4 on a loop device): it can fill up.
    CsiSmall,
    /// A local PV, bound to the node its pod runs on.
    Local,
    /// A hostPath PV, bound to the node its pod runs on.
    Hostpath,
}

impl Storage {
    /// The StorageClass of this kind.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Csi => "lab-csi",
            Self::CsiSmall => "lab-csi-small",
            Self::Local => "lab-local",
            Self::Hostpath => "lab-hostpath",
        }
    }
}

macro_rules! display_as_flag_value {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
display_as_flag_value!(CgroupDriver, Runtime, Storage, Sst);

/// How a Galera node copies all data to another (`spec.galera.sst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sst {
    /// Quick; the donor takes no writes meanwhile.
    Rsync,
    /// The operator's default; at least ten seconds.
    Mariabackup,
}

/// Which lab, on every command.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Name of the lab; several run side by side
    #[arg(long, global = true, default_value = "lab", value_name = "NAME")]
    pub name: LabName,
    /// Directory of all labs
    #[arg(long, global = true, env = "HASTEWARD_LAB_ROOT", default_value = crate::place::DEFAULT_ROOT, hide_env_values = true, value_name = "DIR")]
    pub root: std::path::PathBuf,
}

impl Which {
    /// The place of that lab. The directory of all labs is made absolute: the lab's processes have other working directories.
    pub fn place(&self) -> std::io::Result<Place> {
        Ok(Place::new(std::path::absolute(&self.root)?, self.name.clone()))
    }
}

/// What `up` builds.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct UpOptions {
    /// Instances of a CloudNativePG cluster `pg` in namespace `db`; 0 for none
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub pg: u8,
    /// Give each PostgreSQL instance a second volume for its WAL
    #[arg(long)]
    pub wal_volume: bool,
    /// Nodes of a MariaDB Galera cluster `maria` in namespace `db`; 0 for none
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    #[serde(default)]
    pub galera: u8,
    /// How Galera nodes copy all data
    #[arg(long, default_value_t = Sst::Rsync)]
    #[serde(default = "rsync")]
    pub sst: Sst,
    /// Nodes of the lab
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// How the kubelets name cgroups
    #[arg(long, default_value_t = CgroupDriver::Systemd)]
    pub cgroup_driver: CgroupDriver,
    /// Whose containers the kubelets imitate
    #[arg(long, default_value_t = Runtime::Containerd)]
    pub runtime: Runtime,
    /// What the database volumes are
    #[arg(long, default_value_t = Storage::Csi)]
    pub storage: Storage,
    /// Do not install hasteward itself
    #[arg(long)]
    pub bare: bool,
    /// First step of the kubelets' restart back-off in milliseconds (Kubernetes has 10,000; it doubles up to 5 min)
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub backoff_base_ms: u32,
    /// Stay, and end the lab with this command (also when it is killed)
    #[arg(long)]
    pub attached: bool,
}

/// Of labs that were brought up before there was a choice.
fn rsync() -> Sst {
    Sst::Rsync
}

impl Default for UpOptions {
    fn default() -> Self {
        Self::NOTHING
    }
}

impl UpOptions {
    /// Three nodes and hasteward, no database.
    pub const NOTHING: Self = Self {
        pg: 0,
        wal_volume: false,
        galera: 0,
        sst: Sst::Rsync,
        nodes: 3,
        cgroup_driver: CgroupDriver::Systemd,
        runtime: Runtime::Containerd,
        storage: Storage::Csi,
        bare: false,
        backoff_base_ms: 10_000,
        attached: false,
    };

    /// The names of the nodes: `n1`, `n2`, …
    pub fn node_names(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.nodes).map(|index| format!("n{index}"))
    }
}
