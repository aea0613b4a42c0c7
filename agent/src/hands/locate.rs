//! Where an instance's volumes are on this node: derived from the pod's UID and the PersistentVolume, never told.
//!
//! Layout below the kubelet's root: kubernetes `pkg/kubelet/config/defaults.go` and the volume plugins. The directories down
//! to a volume belong to kubelet; what lies in the volume belongs to the database.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::HandsConfig;
use super::verb::{InstanceLocator, VolumeLocator, VolumeSource};
use crate::volume::{Mount, ReadError, RelativePath};

/// The volumes of one instance; each is there, or has the reason why not.
#[must_use]
pub(super) fn locate(config: &HandsConfig, instance: &InstanceLocator) -> Vec<Mount> {
    let mount = |volume: &VolumeLocator| Mount {
        role: volume.role.clone(),
        mount_path: PathBuf::from(volume.mount_path.as_str()),
        root: root(config, instance, volume).and_then(|root| below(root, volume)),
    };
    instance.volumes.iter().map(mount).collect()
}

fn root(
    config: &HandsConfig,
    instance: &InstanceLocator,
    volume: &VolumeLocator,
) -> Result<OwnedFd, ReadError> {
    let name = volume.name.as_str();
    let pod = |plugin: &str, directory: &str, must_be_mounted: bool| {
        let parent = match directory.rsplit_once('/') {
            Some((parent, _)) => format!("pods/{}/volumes/{plugin}/{parent}", instance.pod),
            None => format!("pods/{}/volumes/{plugin}", instance.pod),
        };
        let last = directory.rsplit('/').next().unwrap_or(directory);
        pod_volume(&config.kubelet_root, &parent, last, must_be_mounted)
    };
    match &volume.source {
        VolumeSource::Csi => pod("kubernetes.io~csi", &format!("{name}/mount"), true),
        VolumeSource::Nfs => pod("kubernetes.io~nfs", name, true),
        VolumeSource::EmptyDir => pod("kubernetes.io~empty-dir", name, false),
        VolumeSource::Local(path) => match pod("kubernetes.io~local-volume", name, true) {
            Err(ReadError::NotMounted { .. }) => filled(host_path(config, path.as_str())?, path.as_str()),
            other => other,
        },
        VolumeSource::HostPath(path) => filled(host_path(config, path.as_str())?, path.as_str()),
    }
}

/// `last` in `parent` below the kubelet's root; no link on the way, and a mount point where it must be one: on the bare
/// directory that is left after an unmount, everything would seem absent.
fn pod_volume(
    kubelet_root: &Path,
    parent: &str,
    last: &str,
    must_be_mounted: bool,
) -> Result<OwnedFd, ReadError> {
    let what = || kubelet_root.join(parent).join(last).display().to_string();
    let missing = |errno: Errno| match errno {
        Errno::ENOENT => ReadError::NotMounted {
            detail: format!("{}: not there", what()),
        },
        other => ReadError::errno(&what(), other),
    };
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let strict = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let root = open(kubelet_root, directory, Mode::empty()).map_err(missing)?;
    let parent = openat2(&root, parent, OpenHow::new().flags(directory).resolve(strict)).map_err(missing)?;
    if must_be_mounted {
        // The kernel itself says whether a mount begins there, bind mounts included.
        let same = OpenHow::new()
            .flags(directory)
            .resolve(strict | ResolveFlag::RESOLVE_NO_XDEV);
        match openat2(&parent, last, same) {
            Err(Errno::EXDEV) => {}
            Ok(_) => {
                return Err(ReadError::NotMounted {
                    detail: format!("{}: nothing is mounted there", what()),
                });
            }
            Err(errno) => return Err(missing(errno)),
        }
    }
    openat2(&parent, last, OpenHow::new().flags(directory).resolve(strict)).map_err(missing)
}

/// A path of the host, strictly below one of the allowed roots after every link is resolved.
fn host_path(config: &HandsConfig, path: &str) -> Result<OwnedFd, ReadError> {
    let refused = |why: &str| ReadError::Refused {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let below = |root: &Path| {
        let rest = Path::new(path).strip_prefix(root).ok()?.to_str()?;
        RelativePath::new(rest).ok()
    };
    for allowed in &config.allowed_volume_roots {
        let real = std::fs::canonicalize(allowed).unwrap_or_else(|_| allowed.clone());
        let Some(rest) = below(allowed).or_else(|| below(&real)) else {
            continue;
        };
        let root = open(&real, directory, Mode::empty()).map_err(|errno| ReadError::NotMounted {
            detail: format!("allowed root {}: {}", allowed.display(), errno.desc()),
        })?;
        let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        return openat2(
            &root,
            rest.as_path(),
            OpenHow::new().flags(directory).resolve(within),
        )
        .map_err(|errno| match errno {
            Errno::ENOENT => ReadError::NotMounted {
                detail: format!("{path}: not there"),
            },
            Errno::EXDEV | Errno::ELOOP => refused("it leads out of the allowed volume root"),
            other => ReadError::errno(path, other),
        });
    }
    Err(refused("it is not below an --allowed-volume-root of this agent"))
}

/// That directory, which holds something: nothing tells an empty one from the mount point of a disk that is not mounted, on
/// which everything would seem absent.
fn filled(root: OwnedFd, path: &str) -> Result<OwnedFd, ReadError> {
    let fail = |errno| match ReadError::errno(path, errno) {
        ReadError::NotFound { path } => ReadError::NotMounted {
            detail: format!("{path}: not there any more"),
        },
        other => other,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for entry in Dir::openat(&root, ".", flags, Mode::empty())
        .map_err(fail)?
        .iter()
    {
        if !matches!(entry.map_err(fail)?.file_name().to_bytes(), b"." | b"..") {
            return Ok(root);
        }
    }
    Err(ReadError::NotMounted {
        detail: format!("{path}: empty: may be a bare mount point"),
    })
}

/// The subPath, which the container sees in the volume's place.
fn below(root: OwnedFd, volume: &VolumeLocator) -> Result<OwnedFd, ReadError> {
    if volume.sub_path.is_root() {
        return Ok(root);
    }
    crate::volume::directory_beneath(root.as_fd(), volume.sub_path.as_str()).map_err(|error| match error {
        ReadError::NotFound { path } => ReadError::NotMounted {
            detail: format!("subPath {path}: not there"),
        },
        other => other,
    })
}
