//! Where kubelet puts things below its root.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The CSI driver of the lab.
pub const DRIVER: &str = "lab.hasteward";

/// Paths below the kubelet's root.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below `root` (kubelet's `--root-dir`).
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All pods.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// One pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A volume of `plugin` (`kubernetes.io/csi`); `name` is the PV's, or the volume's own where there is no PV.
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid)
            .join("volumes")
            .join(plugin.replace('/', "~"))
            .join(name)
    }

    /// A subPath's own bind mount.
    pub fn sub_path(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid)
            .join("volume-subpaths")
            .join(volume)
            .join(container)
            .join(index.to_string())
    }

    /// Where a container's termination message goes.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid)
            .join("containers")
            .join(container)
            .join(format!("{attempt:08x}"))
    }

    /// Where a volume of the lab's CSI driver is staged on the node.
    pub fn staging(&self, handle: &str) -> PathBuf {
        let hash = Sha256::digest(handle.as_bytes());
        let hex = crate::hex(&hash);
        self.root
            .join("plugins/kubernetes.io/csi")
            .join(DRIVER)
            .join(hex)
            .join("globalmount")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubelet_does() {
        let layout = Layout::new("/var/lib/kubelet".into());
        assert_eq!(
            layout.volume("u", "kubernetes.io/csi", "pvc-1").join("mount"),
            Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1/mount")
        );
        assert_eq!(
            layout.sub_path("u", "v", "c", 3),
            Path::new("/var/lib/kubelet/pods/u/volume-subpaths/v/c/3")
        );
        assert_eq!(
            layout.staging("abc"),
            Path::new("/var/lib/kubelet/plugins/kubernetes.io/csi/lab.hasteward")
                .join("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/globalmount")
        );
    }
}
