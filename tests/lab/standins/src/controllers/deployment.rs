//! Deployment through ReplicaSets: a new one for each template, the old ones emptied when the new one is ready.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::daemon_set::includes;
use super::pod::{self, from_template, owned_by, short_hash};
use super::world::{World, controller, create, delete};

const HASH: &str = "pod-template-hash";

/// Brings Deployments and ReplicaSets to what they ask for.
pub(super) async fn reconcile(world: &World) -> anyhow::Result<()> {
    for deployment in world.deployments.state() {
        if deployment.metadata.deletion_timestamp.is_none() {
            deploy(world, &deployment)
                .await
                .with_context(|| deployment.name_any())?;
        }
    }
    for set in world.replica_sets.state() {
        if set.metadata.deletion_timestamp.is_none() {
            replicate(world, &set).await.with_context(|| set.name_any())?;
        }
    }
    Ok(())
}

async fn deploy(world: &World, deployment: &Deployment) -> anyhow::Result<()> {
    let namespace = deployment.namespace().unwrap_or_default();
    let uid = deployment.uid().unwrap_or_default();
    let spec = deployment.spec.as_ref().context("no spec")?;
    let wanted = spec.replicas.unwrap_or(1);
    let hash = short_hash(&spec.template, 10);
    let name = format!("{}-{hash}", deployment.name_any());
    let sets: Vec<_> = world
        .replica_sets
        .state()
        .into_iter()
        .filter(|set| controller(set.as_ref()).is_some_and(|owner| owner.uid == uid))
        .collect();
    let (new, old): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.name_any() == name);
    let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let old_pods: usize = old
        .iter()
        .map(|set| world.pods_of(&set.uid().unwrap_or_default()).len())
        .sum();
    let new_ready = new
        .first()
        .and_then(|set| set.status.as_ref()?.ready_replicas)
        .unwrap_or(0);

    if let Some(set) = new.first() {
        scale(world, set, wanted).await?;
    } else if !(recreate && old_pods > 0) {
        let owner = owned_by(deployment).context("no owner reference")?;
        create(
            &world.client,
            &namespace,
            &replica_set(deployment, name, &hash, owner)?,
        )
        .await?;
    }
    if recreate || new_ready >= wanted {
        for set in &old {
            scale(world, set, 0).await?;
        }
    }

    let replicas = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    };
    let total: i32 = new.iter().chain(&old).map(|set| replicas(set)).sum();
    let available: i32 = new.iter().chain(&old).map(|set| ready(set)).sum();
    let updated: i32 = new.iter().map(|set| replicas(set)).sum();
    let now_available = available >= wanted;
    let mut status = json!({
        "observedGeneration": deployment.metadata.generation, "replicas": total, "updatedReplicas": updated,
        "readyReplicas": available, "availableReplicas": available, "unavailableReplicas": (wanted - available).max(0),
    });
    let before = serde_json::to_value(&deployment.status)?;
    let was_available = before["conditions"][0]["status"] == "True";
    if !includes(&before, &status) || was_available != now_available || before["conditions"].is_null() {
        let now = jiff::Timestamp::now();
        status["conditions"] = json!([{
            "type": "Available", "status": if now_available { "True" } else { "False" },
            "reason": if now_available { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" },
            "lastTransitionTime": format!("{now:.0}"), "lastUpdateTime": format!("{now:.0}"),
        }]);
        let api: Api<Deployment> = Api::namespaced(world.client.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&deployment.name_any(), &PatchParams::default(), &patch)
            .await?;
    }
    Ok(())
}

fn replica_set(
    deployment: &Deployment,
    name: String,
    hash: &str,
    owner: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> anyhow::Result<ReplicaSet> {
    let spec = deployment.spec.as_ref().context("no spec")?;
    let mut template = spec.template.clone();
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(HASH.into(), hash.into());
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.into(), hash.into());
    Ok(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            labels: template
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.labels.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            selector,
            template: Some(template),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    })
}

async fn scale(world: &World, set: &ReplicaSet, replicas: i32) -> kube::Result<()> {
    if set.spec.as_ref().and_then(|spec| spec.replicas) == Some(replicas) {
        return Ok(());
    }
    let api: Api<ReplicaSet> = Api::namespaced(world.client.clone(), &set.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    api.patch(&set.name_any(), &PatchParams::default(), &patch)
        .await
        .map(drop)
}

async fn replicate(world: &World, set: &ReplicaSet) -> anyhow::Result<()> {
    let namespace = set.namespace().unwrap_or_default();
    let uid = set.uid().unwrap_or_default();
    let spec = set.spec.as_ref().context("no spec")?;
    let template = spec.template.as_ref().context("no template")?;
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let pods = world.pods_of(&uid);
    let mut active: Vec<_> = pods
        .iter()
        .filter(|pod| !pod::is_terminating(pod) && !pod::is_finished(pod))
        .collect();
    let taken = |name: &str| pods.iter().any(|pod| pod.name_any() == name);
    let free = (0_u32..)
        .map(|n| format!("{}-{}", set.name_any(), short_hash(&(&uid, n), 5)))
        .filter(|name| !taken(name));
    for name in free.take(wanted.saturating_sub(active.len())) {
        let owner = owned_by(set).context("no owner reference")?;
        create(&world.client, &namespace, &from_template(template, name, owner)).await?;
    }
    // Those that serve nobody go first.
    active.sort_by_key(|pod| pod::is_ready(pod));
    for pod in active.iter().take(active.len().saturating_sub(wanted)) {
        delete(&world.client, pod.as_ref()).await?;
    }
    let ready = active.iter().filter(|pod| pod::is_ready(pod)).count();
    let status = json!({
        "observedGeneration": set.metadata.generation, "replicas": active.len(),
        "readyReplicas": ready, "availableReplicas": ready, "fullyLabeledReplicas": active.len(),
    });
    if !includes(&serde_json::to_value(&set.status)?, &status) {
        let api: Api<ReplicaSet> = Api::namespaced(world.client.clone(), &namespace);
        api.patch_status(
            &set.name_any(),
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await?;
    }
    Ok(())
}
