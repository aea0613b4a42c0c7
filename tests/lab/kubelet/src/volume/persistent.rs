//! Persistent volumes: the lab's CSI driver, local and hostPath.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod,
};
use kube::{Api, ResourceExt as _};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::attached::Attached;
use super::layout::{DRIVER, Layout};
use super::{Doing as _, VolumeError, VolumeKind, Volumes, host_path, is_mounted, share};
use crate::pod::plan::MountedVolume;
use crate::runtime::children::Children;

impl Volumes {
    /// Mounts the volume of a claim, if it is bound.
    pub(super) async fn persistent(&self, pod: &Pod, claim: &str) -> Result<MountedVolume, VolumeError> {
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = bound_volume(claims.get_opt(claim).await, claim)?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let read = |source| VolumeError::Read {
            kind: VolumeKind::Volume,
            name: name.clone(),
            source,
        };
        let volume = volumes
            .get_opt(&name)
            .await
            .map_err(read)?
            .ok_or_else(|| VolumeError::NotFound {
                kind: VolumeKind::Volume,
                name: name.clone(),
            })?;
        let spec = volume.spec.unwrap_or_default();
        let uid = pod.uid().unwrap_or_default();
        let _turn = self.turn.lock().await;
        let (layout, state, pod) = (self.layout.clone(), self.state.clone(), pod.clone());
        let attached = self.attached.clone();
        let work = move |children: &Children| {
            if let Some(source) = &spec.host_path {
                let source = HostPathVolumeSource {
                    path: source.path.clone(),
                    type_: source.type_.clone(),
                };
                return host_path(&source);
            }
            if let Some(source) = &spec.local {
                let path = layout.volume(&uid, "kubernetes.io/local-volume", &name);
                bind(Path::new(&source.path), &path)?;
                share(&path, &pod)?;
                return Ok(MountedVolume {
                    path,
                    read_only: false,
                });
            }
            let Some(source) = spec.csi.as_ref().filter(|source| source.driver == DRIVER) else {
                return Err(VolumeError::Unsupported(name));
            };
            let directory = layout.volume(&uid, "kubernetes.io/csi", &name);
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default();
            let data = json!({
                "specVolID": name, "volumeHandle": source.volume_handle, "driverName": source.driver, "nodeName": node,
                "attachmentID": format!("csi-{name}"), "volumeLifecycleMode": "Persistent", "seLinuxMountContext": "",
            });
            fs::create_dir_all(&directory).doing("make", &directory)?;
            let file = directory.join("vol_data.json");
            fs::write(&file, data.to_string()).doing("write", &file)?;
            let from = provide(children, &layout, &state, &attached, source)?;
            let path = directory.join("mount");
            bind(&from, &path)?;
            share(&path, &pod)?;
            Ok(MountedVolume {
                path,
                read_only: source.read_only == Some(true),
            })
        };
        self.runtime
            .blocking(work)
            .await
            .doing("mount", self.layout.root())?
    }
}

fn bound_volume(
    answer: Result<Option<PersistentVolumeClaim>, kube::Error>,
    claim: &str,
) -> Result<String, VolumeError> {
    let kind = VolumeKind::Claim;
    let found = answer
        .map_err(|source| VolumeError::Read {
            kind,
            name: claim.to_owned(),
            source,
        })?
        .ok_or_else(|| VolumeError::NotFound {
            kind,
            name: claim.to_owned(),
        })?;
    let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let name = found
        .spec
        .and_then(|spec| spec.volume_name)
        .filter(|name| !name.is_empty());
    name.filter(|_| bound)
        .ok_or_else(|| VolumeError::NotBound(claim.to_owned()))
}

fn bind(from: &Path, to: &Path) -> Result<(), VolumeError> {
    fs::create_dir_all(to).doing("make", to)?;
    if is_mounted(to)? {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).doing("bind", to)
}

/// The directory of a CSI volume on this node: plain, or an ext4 image that is staged once for all pods.
fn provide(
    children: &Children,
    layout: &Layout,
    state: &Path,
    attached: &Attached,
    source: &CSIPersistentVolumeSource,
) -> Result<PathBuf, VolumeError> {
    let handle = &source.volume_handle;
    if handle.is_empty() || handle.contains('/') || handle.starts_with('.') {
        return Err(VolumeError::Unsupported(handle.clone()));
    }
    let attribute = source
        .volume_attributes
        .as_ref()
        .and_then(|attributes| attributes.get("sizeBytes"));
    let directory = state.join("volumes").join(handle);
    let Some(size) = attribute else {
        fs::create_dir_all(&directory).doing("make", &directory)?;
        return Ok(directory);
    };
    let bytes: u64 = size
        .parse()
        .map_err(|_| VolumeError::Unsupported(format!("{handle}: sizeBytes {size}")))?;
    let image = directory.with_file_name(format!("{handle}.img"));
    let staged = layout.staging(handle);
    fs::create_dir_all(&staged).doing("make", &staged)?;
    if is_mounted(&staged)? {
        return Ok(staged);
    }
    if !image.exists() {
        fs::create_dir_all(state.join("volumes")).doing("make", state)?;
        // Under its name only when it holds a file system.
        let fresh = directory.with_file_name(format!("{handle}.img.new"));
        fs::File::create(&fresh)
            .and_then(|file| file.set_len(bytes))
            .doing("make", &fresh)?;
        children.run(
            "mkfs.ext4",
            &["-q", "-m", "0", "-F", &fresh.to_string_lossy()],
            "",
        )?;
        fs::rename(&fresh, &image).doing("name", &image)?;
    }
    attached.attach(&image, &staged, handle)?;
    let data = json!({"driverName": DRIVER, "volumeHandle": handle});
    let file = staged.with_file_name("vol_data.json");
    fs::write(&file, data.to_string()).doing("write", &file)?;
    children.run(
        "mount",
        &["-o", "loop", &image.to_string_lossy(), &staged.to_string_lossy()],
        "",
    )?;
    // mkfs makes it, databases do not want it.
    let _ = fs::remove_dir(staged.join("lost+found"));
    Ok(staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_when_it_is_bound() {
        let claim = |value| serde_json::from_value::<PersistentVolumeClaim>(value).unwrap();
        let pending =
            claim(json!({"metadata": {}, "spec": {"volumeName": "pv"}, "status": {"phase": "Pending"}}));
        assert!(
            matches!(bound_volume(Ok(Some(pending)), "c"), Err(VolumeError::NotBound(name)) if name == "c")
        );
        let bound =
            claim(json!({"metadata": {}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
        assert_eq!(bound_volume(Ok(Some(bound)), "c").unwrap(), "pv");
        assert!(matches!(
            bound_volume(Ok(None), "c"),
            Err(VolumeError::NotFound { .. })
        ));
    }
}
