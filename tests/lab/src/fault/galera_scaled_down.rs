//! No pod is left, only the volumes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::galera_cluster::{Cluster, RESTART_DEADLINE};
use super::{Fault, Outcome, Scene};
use crate::cnpg::NAMESPACE;
use crate::galera;
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "galera-scaled-down",
    about: "suspend the MariaDB resource and scale its StatefulSet to 0: no pod, the volumes stay",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    // Not suspended, the operator writes the number back.
    cluster.suspend().await?;
    let sets: Api<StatefulSet> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let patch = json!({ "spec": { "replicas": 0 } });
    sets.patch(galera::CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(scene.client.clone(), NAMESPACE);
    for node in cluster.nodes() {
        until(format!("{} gone", node.name), RESTART_DEADLINE, async || {
            Ok(match pods.get_opt(&node.name).await? {
                None => Look::Done(()),
                Some(_) => Look::not_yet("it is there"),
            })
        })
        .await?;
        claims.get(&format!("storage-{}", node.name)).await?;
    }
    Ok(format!(
        "no pod is left of {}; {} volumes are",
        galera::CLUSTER,
        cluster.nodes().len()
    ))
}
