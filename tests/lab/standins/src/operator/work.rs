//! Work on claims and pods: one instance at a time.

use super::observe::{Seen, is_active, is_bootstrapped};
use super::pod::{self, Origin};
use super::{Args, resources, status};
use crate::cnpg::{Cluster, Fences, Phase, Scope, names, now, record_event};
use anyhow::Context;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;

/// Marks claims whose bootstrap is over as `ready`.
pub(super) async fn finish_bootstraps(scope: &Scope, seen: &Seen) -> anyhow::Result<()> {
    for instance in &seen.claims.initializing_instances {
        if seen.pods.get(instance).is_some_and(is_bootstrapped) {
            let patch = json!({"metadata": {"annotations": {names::PVC_STATUS: "ready"}}});
            scope
                .api::<PersistentVolumeClaim>()
                .patch(instance, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .with_context(|| format!("marking claim {instance} as ready"))?;
        }
    }
    Ok(())
}

/// The role label of an instance.
fn role_of(cluster: &Cluster, instance: &str) -> &'static str {
    let current = cluster.current_primary();
    let failing = cluster.observed().phase.as_deref() == Some(Phase::FailingOver.text())
        && current != cluster.target_primary();
    match (current.or(cluster.target_primary()) == Some(instance), failing) {
        (true, true) => "unhealthy",
        (true, false) => "primary",
        (false, _) => "replica",
    }
}

/// Sets the role labels of pods and claims: the only thing that moves `-rw`.
pub(super) async fn label_roles(scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<()> {
    let labels =
        |role: &str| json!({"metadata": {"labels": {names::INSTANCE_ROLE: role, names::ROLE: role}}});
    for (name, pod) in &seen.pods {
        let role = role_of(cluster, name);
        if is_active(pod)
            && pod
                .labels()
                .get(names::INSTANCE_ROLE)
                .is_none_or(|had| had != role)
        {
            patch::<Pod>(scope, name, &labels(role)).await?;
        }
    }
    for (name, claim) in &seen.claim_objects {
        let Some(instance) = claim.labels().get(names::INSTANCE_NAME) else {
            continue;
        };
        let role = role_of(cluster, instance);
        let role = if role == "unhealthy" { "replica" } else { role };
        if claim
            .labels()
            .get(names::INSTANCE_ROLE)
            .is_none_or(|had| had != role)
        {
            patch::<PersistentVolumeClaim>(scope, name, &labels(role)).await?;
        }
    }
    Ok(())
}

async fn patch<K>(scope: &Scope, name: &str, patch: &serde_json::Value) -> anyhow::Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    match scope
        .api::<K>()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("labelling {name}")),
    }
}

/// Deletes volumes and pods annotated as unrecoverable; never those of the current or target primary.
pub(super) async fn drop_unrecoverable(
    scope: &Scope,
    cluster: &Cluster,
    seen: &Seen,
) -> anyhow::Result<bool> {
    for (name, pod) in &seen.pods {
        if pod
            .annotations()
            .get(names::UNRECOVERABLE)
            .is_none_or(|value| value != "true")
            || [cluster.current_primary(), cluster.target_primary()].contains(&Some(name.as_str()))
            || pod.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        let message = format!("Deleting unrecoverable instance {name}");
        record_event(scope, cluster, "Normal", "DeleteUnrecoverableInstance", &message).await;
        remove_instance(scope, seen, name).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Deletes the claims and the pod of an instance.
async fn remove_instance(scope: &Scope, seen: &Seen, instance: &str) -> anyhow::Result<()> {
    for (name, claim) in &seen.claim_objects {
        if claim
            .labels()
            .get(names::INSTANCE_NAME)
            .is_some_and(|had| had == instance)
            && claim.metadata.deletion_timestamp.is_none()
        {
            delete::<PersistentVolumeClaim>(scope, name).await?;
        }
    }
    if seen.pods.contains_key(instance) {
        delete::<Pod>(scope, instance).await?;
    }
    Ok(())
}

async fn delete<K>(scope: &Scope, name: &str) -> anyhow::Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    match scope.api::<K>().delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("deleting {name}")),
    }
}

/// The lowest serial nobody has.
fn free_serial(cluster: &str, taken: &BTreeSet<String>) -> u32 {
    let taken: BTreeSet<u32> = taken
        .iter()
        .filter_map(|name| names::serial_of(cluster, name))
        .collect();
    (1..u32::MAX)
        .find(|serial| !taken.contains(serial))
        .unwrap_or(u32::MAX)
}

/// Serials in use: those of pods and of claims, also of those on their way out.
fn taken(seen: &Seen) -> BTreeSet<String> {
    let claims = seen
        .claim_objects
        .values()
        .filter_map(|claim| claim.labels().get(names::INSTANCE_NAME).cloned());
    seen.pods.keys().cloned().chain(claims).collect()
}

/// Creates, reattaches and removes instances, then settles the phase.
pub(super) async fn reconcile(
    args: &Args,
    scope: &Scope,
    cluster: &Cluster,
    seen: &Seen,
) -> anyhow::Result<()> {
    if drop_unrecoverable(scope, cluster, seen).await? {
        return Ok(());
    }
    if let Some(instance) = seen.claims.dangling_instances.first() {
        return reattach(args, scope, cluster, seen, instance).await;
    }
    if seen.claims.instances.is_empty() {
        return create_first(args, scope, cluster, seen).await;
    }
    if !seen.claims.initializing_instances.is_empty() {
        return Ok(());
    }
    let have = u32::try_from(seen.claims.instances.len()).unwrap_or(u32::MAX);
    if have < cluster.spec.instances {
        return create_replica(args, scope, cluster, seen).await;
    }
    if have > cluster.spec.instances {
        return remove_surplus(scope, cluster, seen).await;
    }
    let ready = u32::try_from(seen.ready()).unwrap_or(u32::MAX);
    if ready == cluster.spec.instances && seen.all_report() {
        status::phase(scope, cluster, Phase::Healthy, "").await?;
    } else {
        let reason = "Some instances are not yet active. Please wait.";
        status::phase(scope, cluster, Phase::WaitingForInstances, reason).await?;
    }
    Ok(())
}

/// Creates the pod of an instance whose claims are there. While somebody is fenced the counts differ, and nothing
/// is reattached.
async fn reattach(
    args: &Args,
    scope: &Scope,
    cluster: &Cluster,
    seen: &Seen,
    instance: &str,
) -> anyhow::Result<()> {
    if seen.ready_or_masked() != seen.ready() {
        tracing::info!(
            instance,
            fenced = Fences::of(cluster).any(),
            "not reattached: {} instances report, {} are Ready",
            seen.ready_or_masked(),
            seen.ready()
        );
        return Ok(());
    }
    let serial = names::serial_of(&cluster.name_any(), instance).context("a claim of no instance")?;
    let initializing = seen
        .claim_objects
        .get(instance)
        .and_then(|claim| claim.annotations().get(names::PVC_STATUS))
        .is_some_and(|status| status == "initializing");
    let origin = match (initializing, cluster.current_primary()) {
        (false, _) => Origin::Existing,
        (true, None) => Origin::Init,
        (true, Some(_)) => Origin::Join,
    };
    tracing::info!(instance, "creating a pod to reattach a claim");
    resources::ensure::<Pod>(scope, pod::build(args, cluster, serial, origin)?).await?;
    if cluster.observed().phase.as_deref() == Some(Phase::Healthy.text()) {
        status::phase(scope, cluster, Phase::WaitingForInstances, "").await?;
    }
    Ok(())
}

async fn create_first(args: &Args, scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<()> {
    if cluster.current_primary().is_some() {
        let reason =
            "refusing to create the primary instance: the cluster was initialised and all claims are gone";
        status::phase(scope, cluster, Phase::Unrecoverable, reason).await?;
        return Ok(());
    }
    let serial = free_serial(&cluster.name_any(), &taken(seen));
    let instance = names::instance(&cluster.name_any(), serial);
    let mut after = cluster.observed();
    after.target_primary = Some(instance.clone());
    after.target_primary_timestamp = Some(now());
    status::enter(
        &mut after,
        Phase::SettingUpPrimary,
        &format!("Creating primary instance {instance}"),
    );
    let cluster = status::write(scope, cluster, &after).await?;
    record_event(
        scope,
        &cluster,
        "Normal",
        "CreatingInstance",
        &format!("Primary instance (initdb): {instance}"),
    )
    .await;
    resources::ensure_claims(scope, &cluster, serial).await?;
    resources::ensure::<Pod>(scope, pod::build(args, &cluster, serial, Origin::Init)?)
        .await
        .map(drop)
}

async fn create_replica(args: &Args, scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<()> {
    let all_there = seen.candidates.len() == seen.claims.instances.len();
    if cluster.current_primary().is_none() || !all_there || !seen.all_report() {
        return Ok(());
    }
    let serial = free_serial(&cluster.name_any(), &taken(seen));
    let instance = names::instance(&cluster.name_any(), serial);
    let reason = format!("Creating replica {instance}");
    let cluster = status::phase(scope, cluster, Phase::CreatingReplica, &reason).await?;
    record_event(scope, &cluster, "Normal", "CreatingInstance", &reason).await;
    resources::ensure_claims(scope, &cluster, serial).await?;
    resources::ensure::<Pod>(scope, pod::build(args, &cluster, serial, Origin::Join)?)
        .await
        .map(drop)
}

/// Removes the newest instance that is no primary.
async fn remove_surplus(scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<()> {
    let leads = [cluster.current_primary(), cluster.target_primary()];
    let surplus = seen
        .claims
        .instances
        .iter()
        .filter(|name| !leads.contains(&Some(name.as_str())))
        .max_by_key(|name| names::serial_of(&cluster.name_any(), name));
    let Some(instance) = surplus else { return Ok(()) };
    record_event(
        scope,
        cluster,
        "Normal",
        "ScaleDown",
        &format!("Scaling down: removing instance {instance}"),
    )
    .await;
    remove_instance(scope, seen, instance).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_serial_is_reused() {
        let taken = BTreeSet::from(["c-1".to_owned(), "c-3".to_owned(), "other-2".to_owned()]);
        assert_eq!(free_serial("c", &taken), 2);
        assert_eq!(free_serial("c", &BTreeSet::new()), 1);
    }
}
