//! Annotation `cnpg.io/hibernation`: pods go, claims stay.

use super::observe::Seen;
use super::status;
use crate::cnpg::{Cluster, Phase, Scope, names, now};
use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

/// Whether hibernation keeps all other work from being done, after doing its share.
pub(super) async fn reconcile(scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<bool> {
    let wanted = match cluster.annotation(names::HIBERNATION) {
        Some("on") => true,
        None | Some("off") => false,
        Some(other) => {
            note(
                scope,
                cluster,
                false,
                "WrongAnnotationValue",
                &format!("{other:?} is neither on nor off"),
            )
            .await?;
            return Ok(false);
        }
    };
    if !wanted {
        return Ok(false);
    }
    let healthy = cluster.observed().phase.as_deref() == Some(Phase::Healthy.text());
    let begun = cluster
        .observed()
        .conditions
        .iter()
        .any(|condition| condition.kind == names::HIBERNATION && condition.reason != "WaitingForHealthy");
    if !healthy && !begun {
        note(
            scope,
            cluster,
            false,
            "WaitingForHealthy",
            "Waiting for the cluster to be healthy",
        )
        .await?;
        return Ok(false);
    }
    if seen.pods.is_empty() {
        note(scope, cluster, true, "Hibernated", "Cluster has been hibernated").await?;
        return Ok(true);
    }
    if seen
        .pods
        .values()
        .any(|pod| pod.metadata.deletion_timestamp.is_some())
    {
        note(
            scope,
            cluster,
            false,
            "WaitingPodsDeletion",
            "Waiting for the pods to be deleted",
        )
        .await?;
        return Ok(true);
    }
    note(scope, cluster, false, "DeletingPods", "Deleting the pods").await?;
    let primary = cluster
        .current_primary()
        .filter(|name| seen.pods.contains_key(*name));
    if let Some(next) = primary.or(seen.pods.keys().next().map(String::as_str)) {
        scope
            .api::<Pod>()
            .delete(next, &DeleteParams::default())
            .await
            .context("deleting a pod")?;
    }
    Ok(true)
}

async fn note(
    scope: &Scope,
    cluster: &Cluster,
    done: bool,
    reason: &str,
    message: &str,
) -> anyhow::Result<()> {
    let mut status = cluster.observed();
    status.set_condition(names::HIBERNATION, done, reason, message, &now());
    status::write(scope, cluster, &status).await.map(drop)
}
