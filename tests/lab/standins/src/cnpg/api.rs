//! Small conveniences over the API server.

use super::Cluster;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

/// One namespace through one client.
#[derive(Clone)]
pub struct Scope {
    /// The connection.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl Scope {
    /// Access to one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The time of day in the API's format, whole seconds.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Merge-patches fields of a Cluster's status; with `resource_version` only if nobody wrote meanwhile.
pub async fn patch_status(
    scope: &Scope,
    cluster: &str,
    resource_version: Option<&str>,
    status: &Value,
) -> kube::Result<Cluster> {
    let mut patch = json!({ "status": status });
    if let Some(version) = resource_version {
        patch["metadata"] = json!({ "resourceVersion": version });
    }
    scope
        .api::<Cluster>()
        .patch_status(cluster, &PatchParams::default(), &Patch::Merge(&patch))
        .await
}

/// Records an event about a Cluster. Events are hints: one that cannot be written is only logged.
pub async fn record_event(scope: &Scope, cluster: &Cluster, kind: &str, reason: &str, message: &str) {
    let at = now();
    let event: Event = match serde_json::from_value(json!({
        "metadata": {"generateName": format!("{}.", cluster.name_any()), "namespace": scope.namespace},
        "involvedObject": {
            "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": cluster.name_any(),
            "namespace": scope.namespace, "uid": cluster.uid(),
        },
        "type": kind, "reason": reason, "message": message, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": "cloudnative-pg"},
        "reportingComponent": "cloudnative-pg", "reportingInstance": "cloudnative-pg",
    })) {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!("event {reason} could not be built: {error}");
            return;
        }
    };
    if let Err(error) = scope.api::<Event>().create(&PostParams::default(), &event).await {
        tracing::warn!("event {reason} was not recorded: {error}");
    }
}
