//! cgroup directories, named as containerd and CRI-O name them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::mountinfo::MountEntry;

/// The kubelet's `cgroupDriver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    /// Slices and scopes.
    Systemd,
    /// Plain directories.
    Cgroupfs,
}

/// Whose names containers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// `cri-containerd-<id>.scope`
    Containerd,
    /// `crio-<id>.scope`, and conmon in a scope of its own
    Crio,
}

impl Flavour {
    /// The scheme of `status.containerStatuses[].containerID`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
        }
    }
}

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    /// Limits equal requests, for all containers.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None.
    BestEffort,
}

impl Qos {
    fn directory(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// Names of cgroup directories, relative to the prefix.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// See [`Driver`].
    pub driver: Driver,
    /// See [`Flavour`].
    pub flavour: Flavour,
}

impl Names {
    /// Directory of a pod.
    pub fn pod(self, qos: Qos, uid: &str) -> PathBuf {
        match self.driver {
            Driver::Cgroupfs => {
                let mut path = PathBuf::from("kubepods");
                path.extend(qos.directory());
                path.join(format!("pod{uid}"))
            }
            Driver::Systemd => {
                let uid = uid.replace('-', "_");
                let path = PathBuf::from("kubepods.slice");
                match qos.directory() {
                    None => path.join(format!("kubepods-pod{uid}.slice")),
                    Some(class) => path
                        .join(format!("kubepods-{class}.slice"))
                        .join(format!("kubepods-{class}-pod{uid}.slice")),
                }
            }
        }
    }

    /// Name of a container's directory below that of its pod.
    pub fn container(self, id: &str) -> String {
        match (self.driver, self.flavour) {
            (Driver::Systemd, Flavour::Containerd) => format!("cri-containerd-{id}.scope"),
            (Driver::Systemd, Flavour::Crio) => format!("crio-{id}.scope"),
            (Driver::Cgroupfs, Flavour::Containerd) => id.to_owned(),
            (Driver::Cgroupfs, Flavour::Crio) => format!("crio-{id}"),
        }
    }

    /// Name of the directory of a container's monitor, where the runtime has one.
    pub fn monitor(self, id: &str) -> Option<String> {
        match (self.driver, self.flavour) {
            (_, Flavour::Containerd) => None,
            (Driver::Systemd, Flavour::Crio) => Some(format!("crio-conmon-{id}.scope")),
            (Driver::Cgroupfs, Flavour::Crio) => Some(format!("crio-conmon-{id}")),
        }
    }
}

/// Why there is no place for cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The mount table could not be read.
    #[error("read /proc/self/mountinfo: {0}")]
    MountTable(io::Error),
    /// No usable hierarchy.
    #[error("no writable cgroup file system (wanted: v1 name=systemd, or v2); tried: {0}")]
    NotWritable(String),
    /// A directory.
    #[error("cgroup directory {path}: {source}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Processes that do not end.
    #[error("processes {pids:?} in {path} survive SIGKILL")]
    Unkillable {
        /// Where.
        path: PathBuf,
        /// Which.
        pids: Vec<i32>,
    },
}

/// The kubelet's part of the cgroup file system.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
    /// Naming.
    pub names: Names,
}

impl Cgroups {
    /// Finds a writable hierarchy in `mounts` and makes `prefix` there. The hierarchy that systemd uses comes first.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(mounts: &[MountEntry], prefix: &str, names: Names) -> Result<Self, CgroupError> {
        let systemd = mounts
            .iter()
            .filter(|m| m.fs_type == "cgroup" && m.has_super_option("name=systemd"));
        let unified = mounts.iter().filter(|m| m.fs_type == "cgroup2");
        let mut tried = Vec::new();
        for mount in systemd.chain(unified) {
            let root = mount.mount_point.join(prefix.trim_matches('/'));
            // A hierarchy that something else is mounted over has no such file.
            let made =
                fs::metadata(mount.mount_point.join("cgroup.procs")).and_then(|_| fs::create_dir_all(&root));
            match made {
                Ok(()) => return Ok(Self { root, names }),
                Err(error) => tried.push(format!("{}: {error}", root.display())),
            }
        }
        Err(CgroupError::NotWritable(if tried.is_empty() {
            "none mounted".to_owned()
        } else {
            tried.join("; ")
        }))
    }

    /// The directory of this node.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of a pod.
    pub fn pod(&self, qos: Qos, uid: &str) -> PathBuf {
        self.root.join(self.names.pod(qos, uid))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<(), CgroupError> {
        fs::create_dir_all(path).map_err(|source| CgroupError::Directory {
            path: path.to_owned(),
            source,
        })
    }

    /// Kills every process below `path` and removes all its directories. Blocking; bounded by 10 s.
    ///
    /// # Errors
    /// When processes survive, or directories cannot be removed.
    pub fn destroy(path: &Path) -> Result<(), CgroupError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let pids = processes_below(path);
            if pids.is_empty() {
                match remove_tree(path) {
                    // A process may have been forked in between, or a dying one not be gone altogether.
                    Err(error) if Instant::now() > deadline => {
                        return Err(CgroupError::Directory {
                            path: path.to_owned(),
                            source: error,
                        });
                    }
                    Err(_) => {}
                    Ok(()) => return Ok(()),
                }
            }
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                return Err(CgroupError::Unkillable {
                    path: path.to_owned(),
                    pids,
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Pids in a cgroup directory and all below it.
pub fn processes_below(path: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect();
    for child in directories(path) {
        pids.extend(processes_below(&child));
    }
    pids
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in directories(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-0000-4000-8000-00000000abcd";

    fn path(driver: Driver, flavour: Flavour, qos: Qos) -> String {
        let names = Names { driver, flavour };
        names
            .pod(qos, UID)
            .join(names.container("f00d"))
            .display()
            .to_string()
    }

    #[test]
    fn systemd_names() {
        assert_eq!(
            path(Driver::Systemd, Flavour::Containerd, Qos::Burstable),
            "kubepods.slice/kubepods-burstable.slice/\
             kubepods-burstable-pod0a1b2c3d_0000_4000_8000_00000000abcd.slice/cri-containerd-f00d.scope"
        );
        assert_eq!(
            path(Driver::Systemd, Flavour::Crio, Qos::Guaranteed),
            "kubepods.slice/kubepods-pod0a1b2c3d_0000_4000_8000_00000000abcd.slice/crio-f00d.scope"
        );
    }

    #[test]
    fn cgroupfs_names() {
        assert_eq!(
            path(Driver::Cgroupfs, Flavour::Containerd, Qos::BestEffort),
            format!("kubepods/besteffort/pod{UID}/f00d")
        );
        assert_eq!(
            path(Driver::Cgroupfs, Flavour::Crio, Qos::Guaranteed),
            format!("kubepods/pod{UID}/crio-f00d")
        );
    }

    #[test]
    fn only_crio_has_a_scope_for_its_monitor() {
        let names = |flavour| Names {
            driver: Driver::Systemd,
            flavour,
        };
        assert_eq!(names(Flavour::Containerd).monitor("f00d"), None);
        assert_eq!(
            names(Flavour::Crio).monitor("f00d").as_deref(),
            Some("crio-conmon-f00d.scope")
        );
    }

    #[test]
    fn without_a_hierarchy_the_message_says_what_was_wanted() {
        let names = Names {
            driver: Driver::Systemd,
            flavour: Flavour::Crio,
        };
        let error = Cgroups::find(&[], "x", names).unwrap_err().to_string();
        assert!(
            error.contains("name=systemd") && error.contains("none mounted"),
            "{error}"
        );
    }
}
