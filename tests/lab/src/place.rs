//! Where a lab lives on this machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::process::ProcessIdentity;

/// Below this directory every lab has its own. `HASTEWARD_LAB_ROOT` overrides it.
///
/// Not `/run`: that is a small tmpfs on many machines, and databases live here.
pub const DEFAULT_ROOT: &str = "/var/lib/hasteward-lab";

/// The name of a lab: a DNS label of at most 20 characters, because it becomes part of directory, cgroup and host names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LabName(String);

/// Why a string is no lab name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no lab name: 1 to 20 of a-z, 0-9 and '-', starting and ending with a letter or digit")]
pub struct BadName(String);

impl FromStr for LabName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let bad = text.is_empty()
            || text.len() > 20
            || !text.chars().all(inner)
            || text.starts_with('-')
            || text.ends_with('-');
        if bad {
            Err(BadName(text.to_owned()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LabName {
    /// A name nobody else uses: for tests, which run side by side.
    #[must_use]
    pub fn unique(prefix: &str) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let prefix: String = prefix.chars().take(11).collect();
        Self(format!("{prefix}-{}", &id[..8]))
    }
}

/// The directories and files of one lab.
#[derive(Debug, Clone)]
pub struct Place {
    name: LabName,
    root: PathBuf,
}

impl Place {
    /// The place of the lab `name` below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, name: LabName) -> Self {
        Self {
            name,
            root: root.into(),
        }
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The directory of all labs.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lab's state directory; everything the lab writes is below it.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join(&self.name.0)
    }

    /// Held with `flock` while a command changes the lab. Outside the state directory, so that it survives `down`.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join(format!(".{}.lock", self.name))
    }

    /// Process id, start time and boot id of the supervisor.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.state().join("supervisor.pid")
    }

    /// The admin kubeconfig for use on the host.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// What the lab was asked to be ([`crate::options::UpOptions`]).
    #[must_use]
    pub fn options(&self) -> PathBuf {
        self.state().join("lab.json")
    }

    /// What the supervisor says about its processes ([`crate::supervise::report::Report`]).
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.state().join("processes.json")
    }

    /// Data directory of the API server (its PKI is in `pki/` below).
    #[must_use]
    pub fn api_data(&self) -> PathBuf {
        self.state().join("apiserver")
    }

    /// The API server's audit log, one JSON object a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.log().join("audit.jsonl")
    }

    /// One log file a process.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state().join("log")
    }

    /// Kubeconfigs of the lab's own processes.
    #[must_use]
    pub fn client_kubeconfig(&self, user: &str) -> PathBuf {
        self.state().join("clients").join(user)
    }

    /// A file system of the lab's own, as a sparse file: how full the machine's is must not show in a triage.
    #[must_use]
    pub fn disk_image(&self) -> PathBuf {
        self.state().join("disk.img")
    }

    /// Where it is mounted in the lab's mount namespace.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.state().join("disk")
    }

    /// Data of the CSI volumes, one directory or image each. To be seen in the lab's mount namespace only.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }

    /// The nodes' directories. To be seen in the lab's mount namespace only.
    #[must_use]
    pub fn nodes(&self) -> PathBuf {
        self.state().join("nodes")
    }

    /// The images the kubelets know.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state().join("images.json")
    }

    /// Files that ask the kubelets for a fault.
    #[must_use]
    pub fn faults(&self) -> PathBuf {
        self.state().join("faults")
    }

    /// The directory of one node, in the lab's mount namespace.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    /// A path of the lab's mount namespace as the host can open it while the lab runs.
    ///
    /// # Errors
    /// There is no running supervisor.
    pub fn from_host(&self, path: &Path) -> std::io::Result<PathBuf> {
        let supervisor = ProcessIdentity::read(&self.pid_file()).filter(ProcessIdentity::is_alive);
        let pid = supervisor
            .ok_or_else(|| std::io::Error::other("the lab does not run"))?
            .pid;
        let below = path.strip_prefix("/").map_err(std::io::Error::other)?;
        Ok(PathBuf::from(format!("/proc/{pid}/root")).join(below))
    }

    /// Where each node finds its own directory ([`Place::node`]) in its mount namespace: the same path on every node, so that
    /// one pod template can name it.
    #[must_use]
    pub fn own_node(&self) -> PathBuf {
        self.state().join("node")
    }

    /// The lab's cgroup directory, relative to each hierarchy's root.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("hasteward-lab-{}", self.name)
    }

    /// The socket whose end tells the supervisor that the owner of a test lab is gone.
    #[must_use]
    pub fn lifeline(&self) -> PathBuf {
        self.state().join("lifeline")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", "..", "a/b", "A", "-a", "a-", "a.b", "abcdefghijklmnopqrstu"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
        assert!("lab-2".parse::<LabName>().is_ok());
    }

    #[test]
    fn unique_names_are_valid_names() {
        let name = LabName::unique("a-long-prefix-indeed");
        assert!(name.to_string().parse::<LabName>().is_ok(), "{name}");
    }
}
