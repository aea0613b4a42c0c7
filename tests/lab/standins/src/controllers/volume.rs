//! Volumes: claims find or get a volume, released volumes are deleted or kept, and nothing is removed while it is used.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::pod;
use super::world::World;

/// Put on a claim by the scheduler: the node on which its first consumer will run.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// Provisioner of CSI volumes.
const CSI: &str = "lab.hasteward";
/// Provisioner of local volumes.
const LOCAL: &str = "lab.hasteward/local";
/// Provisioner of hostPath volumes.
const HOST_PATH: &str = "lab.hasteward/hostpath";

/// Brings claims and volumes together, and apart.
pub(super) async fn reconcile(world: &World, state: &Path) -> anyhow::Result<()> {
    for claim in world.claims.state() {
        let name = claim.name_any();
        if claim.metadata.deletion_timestamp.is_some() {
            unprotect(world, &claim)
                .await
                .with_context(|| format!("claim {name}"))?;
        } else {
            serve(world, state, &claim)
                .await
                .with_context(|| format!("claim {name}"))?;
        }
    }
    for volume in world.volumes.state() {
        settle(world, state, &volume)
            .await
            .with_context(|| format!("volume {}", volume.name_any()))?;
    }
    Ok(())
}

/// Whether claim and volume know each other.
pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn class_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.storage_class_name.as_deref()
}

fn class(world: &World, claim: &PersistentVolumeClaim) -> Option<std::sync::Arc<StorageClass>> {
    let name = class_name(claim)?;
    world
        .classes
        .state()
        .into_iter()
        .find(|class| class.name_any() == name)
}

/// `volumeBindingMode` of a claim's class.
pub(super) fn binding_mode(world: &World, claim: &PersistentVolumeClaim) -> Option<String> {
    class(world, claim)?.volume_binding_mode.clone()
}

fn claims(world: &World, namespace: &str) -> Api<PersistentVolumeClaim> {
    Api::namespaced(world.client.clone(), namespace)
}

fn volumes(world: &World) -> Api<PersistentVolume> {
    Api::all(world.client.clone())
}

async fn patch_claim(world: &World, claim: &PersistentVolumeClaim, patch: Value) -> kube::Result<()> {
    let api = claims(world, &claim.namespace().unwrap_or_default());
    api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}

/// A claim that lives: protection, class, volume.
async fn serve(world: &World, state: &Path, claim: &PersistentVolumeClaim) -> anyhow::Result<()> {
    if !claim
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == CLAIM_PROTECTION)
    {
        let mut finalizers = claim.finalizers().to_vec();
        finalizers.push(CLAIM_PROTECTION.into());
        patch_claim(world, claim, json!({ "metadata": { "finalizers": finalizers } })).await?;
    }
    if is_bound(claim) {
        return Ok(());
    }
    if class_name(claim).is_none() {
        let default = world.classes.state().into_iter().find(|class| {
            class
                .annotations()
                .get(DEFAULT_CLASS)
                .is_some_and(|value| value == "true")
        });
        if let Some(default) = default {
            patch_claim(
                world,
                claim,
                json!({ "spec": { "storageClassName": default.name_any() } }),
            )
            .await?;
        }
        return Ok(());
    }
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    let all = world.volumes.state();
    let volume = match &named {
        Some(name) => all.iter().find(|volume| volume.name_any() == *name),
        None => all.iter().find(|volume| suits(volume, claim)),
    };
    match volume {
        Some(volume) => bind(world, claim, volume).await,
        None if named.is_some() => Ok(()),
        None => provision(world, state, claim).await,
    }
}

/// Whether a claim without a volume may take this one: made for it, or free and fitting.
fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = &volume.spec else { return false };
    if volume.metadata.deletion_timestamp.is_some() || spec.storage_class_name.as_deref() != class_name(claim)
    {
        return false;
    }
    let free_for_it = match &spec.claim_ref {
        None => phase(volume) == "Available",
        Some(reference) => {
            reference.name.as_deref() == claim.metadata.name.as_deref()
                && reference.namespace == claim.metadata.namespace
                && reference
                    .uid
                    .as_ref()
                    .is_none_or(|uid| claim.metadata.uid.as_ref() == Some(uid))
        }
    };
    let modes = claim
        .spec
        .as_ref()
        .and_then(|s| s.access_modes.clone())
        .unwrap_or_default();
    let offered = spec.access_modes.clone().unwrap_or_default();
    let size = spec
        .capacity
        .as_ref()
        .and_then(|capacity| bytes(&capacity.get("storage")?.0));
    free_for_it
        && modes.iter().all(|mode| offered.contains(mode))
        && size.unwrap_or(0) >= requested(claim).unwrap_or(0)
}

fn phase(volume: &PersistentVolume) -> &str {
    volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

fn requested_text(claim: &PersistentVolumeClaim) -> Option<&str> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    resources
        .requests
        .as_ref()?
        .get("storage")
        .map(|quantity| quantity.0.as_str())
}

fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    bytes(requested_text(claim)?)
}

fn claim_reference(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name_any(),
        "namespace": claim.namespace(), "uid": claim.uid(),
    })
}

async fn bind(world: &World, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> anyhow::Result<()> {
    let name = volume.name_any();
    let spec = volume.spec.as_ref().context("volume without spec")?;
    let everything = PatchParams::default();
    // The volume first: it can be given away only once.
    if spec
        .claim_ref
        .as_ref()
        .and_then(|reference| reference.uid.clone())
        != claim.uid()
    {
        let patch = json!({
            "metadata": { "resourceVersion": volume.resource_version() }, "spec": { "claimRef": claim_reference(claim) },
        });
        volumes(world)
            .patch(&name, &everything, &Patch::Merge(patch))
            .await
            .context("reserve the volume")?;
    }
    if phase(volume) != "Bound" {
        let patch = Patch::Merge(json!({ "status": { "phase": "Bound" } }));
        volumes(world).patch_status(&name, &everything, &patch).await?;
    }
    let patch = json!({
        "metadata": { "annotations": { BIND_COMPLETED: "yes" } }, "spec": { "volumeName": name },
    });
    patch_claim(world, claim, patch).await?;
    let status = json!({ "status": { "phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity } });
    let api = claims(world, &claim.namespace().unwrap_or_default());
    api.patch_status(&claim.name_any(), &everything, &Patch::Merge(status))
        .await?;
    Ok(())
}

/// Makes a volume for a claim, if its class says how and, where that matters, the scheduler has said where.
async fn provision(world: &World, state: &Path, claim: &PersistentVolumeClaim) -> anyhow::Result<()> {
    let Some(class) = class(world, claim) else {
        return Ok(());
    };
    let node = claim.annotations().get(SELECTED_NODE).cloned();
    if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") && node.is_none() {
        return Ok(());
    }
    let uid = claim.uid().context("claim without uid")?;
    let name = format!("pvc-{uid}");
    let own_path = |kind: &str| state.join("node").join(kind).join(&name);
    let source = match class.provisioner.as_str() {
        CSI => {
            let mut attributes = json!({ "storage.kubernetes.io/csiProvisionerIdentity": CSI });
            if class
                .parameters
                .as_ref()
                .and_then(|p| p.get("sized"))
                .is_some_and(|sized| sized == "true")
            {
                let size = requested(claim).context("the claim asks for no size that can be understood")?;
                attributes["sizeBytes"] = json!(size.to_string());
            }
            json!({ "csi": { "driver": CSI, "volumeHandle": name, "fsType": "ext4", "volumeAttributes": attributes } })
        }
        LOCAL => json!({ "local": { "path": own_path("local") } }),
        HOST_PATH => json!({ "hostPath": { "path": own_path("hostpath"), "type": "DirectoryOrCreate" } }),
        _ => return Ok(()),
    };
    let mut spec = json!({
        "capacity": { "storage": requested_text(claim).unwrap_or("1Gi") },
        "accessModes": claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()),
        "persistentVolumeReclaimPolicy": class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into()),
        "storageClassName": class.name_any(), "volumeMode": "Filesystem", "claimRef": claim_reference(claim),
    });
    if class.provisioner != CSI {
        let node = node.context("no node was chosen")?;
        let kind = if class.provisioner == LOCAL {
            "local"
        } else {
            "hostpath"
        };
        let directory = state.join("nodes").join(&node).join(kind).join(&name);
        // As provisioners of local directories do it: whichever user the pod has must be able to write.
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        spec["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] } ] }] } });
    }
    spec.as_object_mut()
        .context("not an object")?
        .extend(source.as_object().cloned().unwrap_or_default());
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": { PROVISIONED_BY: class.provisioner },
                      "finalizers": [VOLUME_PROTECTION] },
        "spec": spec,
    }))?;
    match volumes(world).create(&PostParams::default(), &volume).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop).context("create the volume"),
    }
}

/// A claim being deleted goes as soon as no pod uses it.
async fn unprotect(world: &World, claim: &PersistentVolumeClaim) -> anyhow::Result<()> {
    let finalizers: Vec<&String> = claim
        .finalizers()
        .iter()
        .filter(|f| *f != CLAIM_PROTECTION)
        .collect();
    if finalizers.len() == claim.finalizers().len() || is_used(world, claim).await? {
        return Ok(());
    }
    match patch_claim(world, claim, json!({ "metadata": { "finalizers": finalizers } })).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

/// Asked of the API server, not of the cache: a pod that has just appeared must count.
async fn is_used(world: &World, claim: &PersistentVolumeClaim) -> anyhow::Result<bool> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &claim.namespace().unwrap_or_default());
    let name = claim.name_any();
    Ok(pods
        .list(&kube::api::ListParams::default())
        .await?
        .items
        .iter()
        .any(|pod| {
            let volumes = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.volumes.as_deref())
                .unwrap_or_default();
            let uses = volumes
                .iter()
                .filter_map(|v| v.persistent_volume_claim.as_ref())
                .any(|c| c.claim_name == name);
            uses && !pod::is_finished(pod)
        }))
}

/// A volume's own life: protected, released when its claim is gone, deleted or kept.
async fn settle(world: &World, state: &Path, volume: &PersistentVolume) -> anyhow::Result<()> {
    let name = volume.name_any();
    let spec = volume.spec.as_ref().context("volume without spec")?;
    let deleting = volume.metadata.deletion_timestamp.is_some();
    let Some(reference) = &spec.claim_ref else {
        if phase(volume) != "Available" && !deleting {
            set_phase(world, &name, "Available").await?;
        }
        return if deleting {
            release_protection(world, volume).await
        } else {
            Ok(())
        };
    };
    // A reference without uid waits for a claim of that name.
    let Some(uid) = &reference.uid else { return Ok(()) };
    let known = world
        .claims
        .state()
        .iter()
        .any(|claim| claim.metadata.uid.as_ref() == Some(uid));
    if known {
        return Ok(());
    }
    // The cache may be behind: nothing is released on its word alone.
    let api = claims(world, reference.namespace.as_deref().unwrap_or_default());
    let live = api.get_opt(reference.name.as_deref().unwrap_or_default()).await?;
    if live.is_some_and(|claim| claim.metadata.uid.as_ref() == Some(uid)) {
        return Ok(());
    }
    let provisioned = volume.annotations().contains_key(PROVISIONED_BY);
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") && provisioned {
        if !deleting {
            volumes(world).delete(&name, &DeleteParams::default()).await?;
        }
        erase(state, &name)?;
        return release_protection(world, volume).await;
    }
    if phase(volume) != "Released" {
        set_phase(world, &name, "Released").await?;
    }
    if deleting {
        release_protection(world, volume).await
    } else {
        Ok(())
    }
}

async fn set_phase(world: &World, volume: &str, phase: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({ "status": { "phase": phase } }));
    volumes(world)
        .patch_status(volume, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn release_protection(world: &World, volume: &PersistentVolume) -> anyhow::Result<()> {
    let finalizers: Vec<&String> = volume
        .finalizers()
        .iter()
        .filter(|f| *f != VOLUME_PROTECTION)
        .collect();
    if finalizers.len() == volume.finalizers().len() {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    match volumes(world)
        .patch(&volume.name_any(), &PatchParams::default(), &patch)
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Removes a provisioned volume's data, of whatever kind it is.
fn erase(state: &Path, volume: &str) -> anyhow::Result<()> {
    let mut data = vec![state.join("volumes").join(volume)];
    for node in fs::read_dir(state.join("nodes")).into_iter().flatten().flatten() {
        data.extend(["local", "hostpath"].map(|kind| node.path().join(kind).join(volume)));
    }
    for directory in data {
        gone(fs::remove_dir_all(&directory)).with_context(|| directory.display().to_string())?;
    }
    let image = state.join("volumes").join(format!("{volume}.img"));
    gone(fs::remove_file(&image)).with_context(|| image.display().to_string())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A quantity in bytes: plain digits, or digits with a binary or decimal suffix.
fn bytes(quantity: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let (suffix, factor) = UNITS.iter().find(|(suffix, _)| quantity.ends_with(suffix))?;
    let digits = quantity.strip_suffix(suffix)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let found = ["1Gi", "512Mi", "5", "2k", "x", "-1", "1.5Gi"].map(bytes);
        assert_eq!(
            found,
            [
                Some(1 << 30),
                Some(512 << 20),
                Some(5),
                Some(2000),
                None,
                None,
                None
            ]
        );
    }

    #[test]
    fn a_volume_made_for_another_claim_suits_nobody_else() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": { "name": "a", "namespace": "db", "uid": "1" },
            "spec": { "storageClassName": "s", "accessModes": ["ReadWriteOnce"],
                      "resources": { "requests": { "storage": "1Gi" } } } }))
        .unwrap();
        let volume = |reference: Value, size: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": { "name": "v" },
                "spec": { "storageClassName": "s", "accessModes": ["ReadWriteOnce"], "capacity": { "storage": size },
                          "claimRef": reference },
                "status": { "phase": "Available" } }))
            .unwrap()
        };
        assert!(suits(&volume(Value::Null, "1Gi"), &claim));
        assert!(!suits(&volume(Value::Null, "1Mi"), &claim));
        assert!(suits(
            &volume(json!({ "name": "a", "namespace": "db" }), "1Gi"),
            &claim
        ));
        assert!(!suits(
            &volume(json!({ "name": "a", "namespace": "db", "uid": "2" }), "1Gi"),
            &claim
        ));
        assert!(!suits(
            &volume(json!({ "name": "b", "namespace": "db" }), "1Gi"),
            &claim
        ));
    }
}
