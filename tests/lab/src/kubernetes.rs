//! The lab's API server as a client sees it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};

use crate::wait::{Look, until};

/// Field manager of what the lab applies.
const FIELD_MANAGER: &str = "hasteward-lab";

/// A client from a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("make a Kubernetes client")
}

/// Server-side applies one object, whatever its kind.
pub async fn apply(client: &Client, object: serde_json::Value) -> anyhow::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object).context("not a Kubernetes object")?;
    let types = object
        .types
        .clone()
        .context("an object without apiVersion and kind")?;
    let name = object.name_any();
    let what = format!("{} {name}", types.kind);
    let gvk = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &gvk)
        .await
        .with_context(|| format!("discover {what}"))?;
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (kube::discovery::Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (kube::discovery::Scope::Namespaced, Some(ns)) => {
            Api::namespaced_with(client.clone(), &ns, &resource)
        }
        (kube::discovery::Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .with_context(|| format!("apply {what}"))
}

/// Applies objects in an order that works: namespaces and definitions first, and definitions established before what they define.
pub async fn apply_all(client: &Client, objects: Vec<serde_json::Value>) -> anyhow::Result<()> {
    let kind = |object: &serde_json::Value| object["kind"].as_str().unwrap_or_default().to_owned();
    let rank = |object: &serde_json::Value| match kind(object).as_str() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "StorageClass" => 2,
        "DaemonSet" | "Deployment" => 4,
        _ => 3,
    };
    let mut objects = objects;
    objects.sort_by_key(rank);
    let definitions: Vec<String> = objects
        .iter()
        .filter(|object| kind(object) == "CustomResourceDefinition")
        .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    let (first, rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| rank(object) < 2);
    for object in first {
        apply(client, object).await?;
    }
    for name in definitions {
        established(client, &name, Duration::from_secs(20)).await?;
    }
    for object in rest {
        apply(client, object).await?;
    }
    Ok(())
}

/// Waits until a CustomResourceDefinition is served.
pub async fn established(client: &Client, name: &str, within: Duration) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    until(format!("definition {name}"), within, async || {
        let conditions = definitions
            .get(name)
            .await?
            .status
            .and_then(|s| s.conditions)
            .unwrap_or_default();
        let done = conditions
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True");
        Ok(if done {
            Look::Done(())
        } else {
            Look::not_yet("not established")
        })
    })
    .await?;
    Ok(())
}

/// Waits until these nodes are Ready.
pub async fn nodes_ready(client: &Client, names: &[String], within: Duration) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    until("nodes Ready", within, async || {
        let list = nodes.list(&kube::api::ListParams::default()).await?;
        let ready: Vec<String> = list
            .items
            .iter()
            .filter(|node| is_ready(node))
            .map(kube::ResourceExt::name_any)
            .collect();
        let missing: Vec<&str> = names
            .iter()
            .filter(|n| !ready.contains(n))
            .map(String::as_str)
            .collect();
        Ok(if missing.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(format!("not Ready: {}", missing.join(", ")))
        })
    })
    .await?;
    Ok(())
}

/// Whether a node's Ready condition is True.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
