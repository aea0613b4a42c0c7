//! StatefulSet: numbered pods with claims of their own; `OrderedReady` one after the other, `Parallel` all at once.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::daemon_set::includes;
use super::pod::{self, from_template, owned_by, short_hash};
use super::world::{World, create, delete};

const HASH: &str = "controller-revision-hash";

/// Brings every StatefulSet's pods and claims to what it asks for.
pub(super) async fn reconcile(world: &World) -> anyhow::Result<()> {
    for set in world.stateful_sets.state() {
        if set.metadata.deletion_timestamp.is_none() {
            one(world, &set).await.with_context(|| set.name_any())?;
        }
    }
    Ok(())
}

async fn one(world: &World, set: &StatefulSet) -> anyhow::Result<()> {
    let namespace = set.namespace().unwrap_or_default();
    let spec = set.spec.as_ref().context("no spec")?;
    let wanted = spec.replicas.unwrap_or(1);
    let start = spec
        .ordinals
        .as_ref()
        .and_then(|ordinals| ordinals.start)
        .unwrap_or(0);
    let revision = format!("{}-{}", set.name_any(), short_hash(&spec.template, 10));
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let pods = world.pods_of(&set.uid().unwrap_or_default());
    let ordinal = |pod: &Pod| {
        pod.name_any()
            .rsplit('-')
            .next()
            .and_then(|n| n.parse::<i32>().ok())
    };

    for number in start..start + wanted {
        let name = format!("{}-{number}", set.name_any());
        let existing = pods.iter().find(|pod| pod.name_any() == name);
        match existing {
            None => {
                create_claims(world, set, spec, &namespace, &name).await?;
                create(
                    &world.client,
                    &namespace,
                    &numbered_pod(set, spec, number, &revision)?,
                )
                .await?;
            }
            Some(pod) if pod::is_finished(pod) && !pod::is_terminating(pod) => {
                delete(&world.client, pod.as_ref()).await?;
            }
            Some(_) => {}
        }
        if !parallel && !existing.is_some_and(|pod| pod::is_ready(pod)) {
            break;
        }
    }

    // Too many: from the highest number down; ordered sets wait for each to be gone.
    let mut surplus: Vec<_> = pods
        .iter()
        .filter(|pod| ordinal(pod).is_none_or(|n| n >= start + wanted || n < start))
        .collect();
    surplus.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    let at_once = if parallel { surplus.len() } else { 1 };
    for pod in surplus
        .iter()
        .take(at_once)
        .filter(|pod| !pod::is_terminating(pod))
    {
        delete(&world.client, pod.as_ref()).await?;
    }
    if surplus.is_empty() {
        update(world, spec, &pods, &revision).await?;
    }
    publish(world, set, &namespace, &pods, &revision).await
}

/// A rolling update: one pod at a time from the highest number down, while all others are ready.
async fn update(
    world: &World,
    spec: &StatefulSetSpec,
    pods: &[std::sync::Arc<Pod>],
    revision: &str,
) -> anyhow::Result<()> {
    if spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let outdated = pods
        .iter()
        .rev()
        .find(|pod| pod::label(pod, HASH) != Some(revision));
    if let Some(pod) = outdated
        && pods
            .iter()
            .all(|other| other.name_any() == pod.name_any() || pod::is_ready(other))
        && !pod::is_terminating(pod)
    {
        delete(&world.client, pod.as_ref()).await?;
    }
    Ok(())
}

async fn create_claims(
    world: &World,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    namespace: &str,
    pod: &str,
) -> anyhow::Result<()> {
    for template in spec.volume_claim_templates.iter().flatten() {
        let mut claim = template.clone();
        claim.metadata.name = Some(format!("{}-{pod}", template.name_any()));
        claim.metadata.namespace = Some(namespace.to_owned());
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        create(&world.client, namespace, &claim)
            .await
            .with_context(|| format!("claim of {}", set.name_any()))?;
    }
    Ok(())
}

fn numbered_pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    number: i32,
    revision: &str,
) -> anyhow::Result<Pod> {
    let name = format!("{}-{number}", set.name_any());
    let owner = owned_by(set).context("no owner reference")?;
    let mut pod = from_template(&spec.template, name.clone(), owner);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".into(), number.to_string());
    labels.insert(HASH.into(), revision.to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain.clone_from(&spec.service_name);
    let volumes = pod_spec.volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        let volume = template.name_any();
        volumes.retain(|existing| existing.name != volume);
        volumes.push(Volume {
            name: volume.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{volume}-{name}"),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    Ok(pod)
}

async fn publish(
    world: &World,
    set: &StatefulSet,
    namespace: &str,
    pods: &[std::sync::Arc<Pod>],
    revision: &str,
) -> anyhow::Result<()> {
    let ready = pods.iter().filter(|pod| pod::is_ready(pod)).count();
    let updated = pods
        .iter()
        .filter(|pod| pod::label(pod, HASH) == Some(revision))
        .count();
    let current = if updated == pods.len() {
        Some(revision.to_owned())
    } else {
        set.status
            .as_ref()
            .and_then(|status| status.current_revision.clone())
    };
    let status = json!({
        "observedGeneration": set.metadata.generation, "replicas": pods.len(), "readyReplicas": ready,
        "availableReplicas": ready, "currentReplicas": updated, "updatedReplicas": updated,
        "currentRevision": current, "updateRevision": revision,
    });
    if !includes(&serde_json::to_value(&set.status)?, &status) {
        let api: Api<StatefulSet> = Api::namespaced(world.client.clone(), namespace);
        api.patch_status(
            &set.name_any(),
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await?;
    }
    Ok(())
}
