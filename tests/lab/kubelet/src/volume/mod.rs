//! Volumes of pods: in place before a container starts, gone with the pod.

pub mod atomic;
mod attached;
pub mod layout;
pub mod ownership;
pub mod payload;
mod persistent;
pub mod sub_path;
pub mod token;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use kube::{Client, ResourceExt as _};
use nix::mount::{MsFlags, mount};
use tokio::sync::Mutex;

use crate::pod::env::{EnvError, PodFacts};
use crate::pod::plan::{MountedVolume, MountedVolumes};
use crate::runtime::children::CommandError;
use crate::runtime::{Runtime, mountinfo};
use attached::Attached;
use layout::Layout;
use payload::Builder;
use token::Tokens;

/// Kinds of objects that volumes refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// v1 ConfigMap
    ConfigMap,
    /// v1 Secret
    Secret,
    /// v1 PersistentVolumeClaim
    Claim,
    /// v1 PersistentVolume
    Volume,
}

/// Why a volume is not in place.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The API server did not give an object.
    #[error("read {kind:?} {name}: {source}")]
    Read {
        /// Of which kind.
        kind: VolumeKind,
        /// Which.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// There is no such object.
    #[error("{kind:?} {name:?} not found")]
    NotFound {
        /// Of which kind.
        kind: VolumeKind,
        /// Which.
        name: String,
    },
    /// A key is not there.
    #[error("references non-existent key {0:?}")]
    MissingKey(String),
    /// No token.
    #[error("token request: {0}")]
    Token(token::TokenError),
    /// A field of the pod.
    #[error("downward API: {0}")]
    Downward(EnvError),
    /// A claim without a volume.
    #[error("PersistentVolumeClaim {0:?} is not bound")]
    NotBound(String),
    /// A source that the lab does not know.
    #[error("volume {0:?} has no source that is supported")]
    Unsupported(String),
    /// The path of a hostPath volume is not what its type says.
    #[error("hostPath type check failed: {path} is not of type {wanted}")]
    HostPathType {
        /// Which path.
        path: PathBuf,
        /// What it should be.
        wanted: String,
    },
    /// A subPath.
    #[error("subPath {0:?} leads out of its volume")]
    SubPath(String),
    /// An image that another node of the lab has mounted.
    #[error("Multi-Attach error for volume {0:?}: it is attached to another node")]
    MultiAttach(String),
    /// File system work.
    #[error("{step} {path}: {source}")]
    File {
        /// Doing what.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// mkfs or mount.
    #[error(transparent)]
    Command(#[from] CommandError),
}

trait Doing<T> {
    fn doing(self, step: &'static str, path: &Path) -> Result<T, VolumeError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, step: &'static str, path: &Path) -> Result<T, VolumeError> {
        self.map_err(|source| VolumeError::File {
            step,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// The volumes of a node.
#[derive(Clone)]
pub struct Volumes {
    client: Client,
    /// Paths below the kubelet's root.
    pub layout: Layout,
    state: PathBuf,
    runtime: Arc<Runtime>,
    /// One pod at a time mounts or unmounts: staged volumes are shared.
    turn: Arc<Mutex<()>>,
    attached: Attached,
}

impl Volumes {
    /// Volumes below the kubelet's root of `layout`; those of the CSI driver below `state`.
    pub fn new(client: Client, layout: Layout, state: PathBuf, runtime: Arc<Runtime>) -> Self {
        Self {
            client,
            layout,
            state,
            runtime,
            turn: Arc::default(),
            attached: Attached::default(),
        }
    }

    /// Puts all volumes of `pod` in place, or brings those made of files up to date. May be repeated.
    ///
    /// # Errors
    /// See [`VolumeError`]; the first volume that fails.
    pub async fn put(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        tokens: &Tokens,
    ) -> Result<MountedVolumes, VolumeError> {
        let mut mounted = MountedVolumes::new();
        let spec = pod.spec.clone().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            mounted.insert(
                volume.name.clone(),
                self.put_one(pod, volume, facts, tokens).await?,
            );
        }
        Ok(mounted)
    }

    /// Brings the volumes made of files up to date, and only those.
    ///
    /// # Errors
    /// See [`VolumeError`]; the first volume that fails.
    pub async fn refresh(&self, pod: &Pod, facts: &PodFacts, tokens: &Tokens) -> Result<(), VolumeError> {
        let spec = pod.spec.clone().unwrap_or_default();
        for volume in spec
            .volumes
            .iter()
            .flatten()
            .filter(|volume| is_made_of_files(volume))
        {
            self.put_one(pod, volume, facts, tokens).await?;
        }
        Ok(())
    }

    async fn put_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &PodFacts,
        tokens: &Tokens,
    ) -> Result<MountedVolume, VolumeError> {
        let uid = pod.uid().unwrap_or_default();
        let group = fs_group(pod);
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        if let Some(source) = &volume.empty_dir {
            let path = self.layout.volume(&uid, "kubernetes.io/empty-dir", &volume.name);
            empty_dir(&path, source, group)?;
            return Ok(MountedVolume {
                path,
                read_only: false,
            });
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let mounted = self.persistent(pod, &claim.claim_name).await?;
            return Ok(MountedVolume {
                read_only: mounted.read_only || claim.read_only == Some(true),
                ..mounted
            });
        }
        let builder = Builder {
            client: &self.client,
            pod,
            facts,
            tokens,
        };
        let Some(payload) = builder.build(volume).await? else {
            return Err(VolumeError::Unsupported(volume.name.clone()));
        };
        let (plugin, memory) = if volume.config_map.is_some() {
            ("kubernetes.io/configmap", false)
        } else if volume.secret.is_some() {
            ("kubernetes.io/secret", true)
        } else if volume.downward_api.is_some() {
            ("kubernetes.io/downward-api", true)
        } else {
            ("kubernetes.io/projected", true)
        };
        let path = self.layout.volume(&uid, plugin, &volume.name);
        fs::create_dir_all(&path).doing("make", &path)?;
        if memory {
            tmpfs(&path, None)?;
        }
        atomic::write(&path, &payload, group).doing("write", &path)?;
        Ok(MountedVolume {
            path,
            read_only: true,
        })
    }

    /// Takes all volumes of a pod away, and its directory. Staged volumes that no pod uses any more go too.
    ///
    /// # Errors
    /// When a mount remains: then nothing is removed.
    pub async fn take_away(&self, uid: &str) -> Result<(), VolumeError> {
        let _turn = self.turn.lock().await;
        let (layout, directory, attached) =
            (self.layout.clone(), self.layout.pod(uid), self.attached.clone());
        let work = move || {
            mountinfo::unmount_below(&directory).doing("unmount", &directory)?;
            unstage(&layout, &attached)?;
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.doing("remove", &directory),
            }
        };
        self.runtime
            .blocking(move |_| work())
            .await
            .doing("unmount", self.layout.root())?
    }
}

fn is_made_of_files(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Unmounts staged volumes whose file system is mounted in no pod.
fn unstage(layout: &Layout, attached: &Attached) -> Result<(), VolumeError> {
    let plugins = layout.root().join("plugins");
    let pods = layout.pods();
    let mounts = mountinfo::read().doing("read", Path::new("/proc/self/mountinfo"))?;
    for staged in mounts
        .iter()
        .filter(|entry| mountinfo::is_below(&entry.mount_point, &plugins))
    {
        let used = mounts
            .iter()
            .any(|m| m.device == staged.device && mountinfo::is_below(&m.mount_point, &pods));
        if !used {
            mountinfo::unmount_below(&staged.mount_point).doing("unstage", &staged.mount_point)?;
            attached.detach(&staged.mount_point);
            if let Some(directory) = staged.mount_point.parent() {
                fs::remove_dir_all(directory).doing("remove", directory)?;
            }
        }
    }
    Ok(())
}

/// `spec.securityContext.fsGroup`
fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Gives a volume to the pod's `fsGroup`.
fn share(path: &Path, pod: &Pod) -> Result<(), VolumeError> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    ownership::apply(path, group, policy == Some("OnRootMismatch")).doing("fsGroup", path)
}

fn is_mounted(path: &Path) -> Result<bool, VolumeError> {
    let mounts = mountinfo::read().doing("read", Path::new("/proc/self/mountinfo"))?;
    Ok(mounts.iter().any(|entry| entry.mount_point == path))
}

fn tmpfs(path: &Path, size: Option<&str>) -> Result<(), VolumeError> {
    if is_mounted(path)? {
        return Ok(());
    }
    let size = size.map_or_else(|| "mode=755".to_owned(), |bytes| format!("mode=755,size={bytes}"));
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )
    .doing("tmpfs", path)
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), VolumeError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path).doing("make", path)?;
    if source.medium.as_deref() == Some("Memory") {
        tmpfs(path, None)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).doing("mode", path)?;
    group.map_or(Ok(()), |group| {
        ownership::apply(path, group, false).doing("fsGroup", path)
    })
}

fn host_path(source: &HostPathVolumeSource) -> Result<MountedVolume, VolumeError> {
    let path = PathBuf::from(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    match wanted {
        "DirectoryOrCreate" if !path.exists() => fs::create_dir_all(&path).doing("make", &path)?,
        "FileOrCreate" if !path.exists() => fs::write(&path, "").doing("make", &path)?,
        _ => {}
    }
    let fits = match wanted {
        "" => true,
        "Directory" | "DirectoryOrCreate" => path.is_dir(),
        "File" | "FileOrCreate" => path.is_file(),
        "Socket" => {
            use std::os::unix::fs::FileTypeExt as _;
            fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_socket())
        }
        _ => false,
    };
    if fits {
        return Ok(MountedVolume {
            path,
            read_only: false,
        });
    }
    Err(VolumeError::HostPathType {
        path,
        wanted: wanted.to_owned(),
    })
}
