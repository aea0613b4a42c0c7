//! Node lifecycle: a node whose Lease is too old is unknown, and its pods are not Ready.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::pod;
use super::world::World;

/// Namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";
/// What the controller puts on a node that it has not heard of.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Judges every node by its Lease.
pub(super) async fn reconcile(world: &World, timeout: SignedDuration, now: Timestamp) -> anyhow::Result<()> {
    let leases = world.leases.state();
    for node in world.nodes.state() {
        let name = node.name_any();
        let lease = leases
            .iter()
            .find(|l| l.name_any() == name && l.namespace().as_deref() == Some(LEASES));
        let silent = silent_since(lease.map(AsRef::as_ref), &node)
            .is_none_or(|since| now.duration_since(since) > timeout);
        if silent {
            lose(world, &node, now)
                .await
                .with_context(|| format!("node {name} unknown"))?;
        } else if ready_status(&node) == Some("True") && is_tainted(&node) {
            taint(world, &node, false)
                .await
                .with_context(|| format!("node {name} back"))?;
        }
    }
    Ok(())
}

/// When the node was last heard of: its Lease, or its creation while it has none.
fn silent_since(lease: Option<&Lease>, node: &Node) -> Option<Timestamp> {
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
    renewed.or_else(|| node.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn ready_status(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .map(|c| c.status.as_str())
}

fn is_tainted(node: &Node) -> bool {
    pod::taints(node).iter().any(|taint| taint.key == UNREACHABLE)
}

async fn lose(world: &World, node: &Node, now: Timestamp) -> anyhow::Result<()> {
    let name = node.name_any();
    if ready_status(node) != Some("Unknown") {
        tracing::info!("node {name} is silent: Ready becomes Unknown");
        let condition = json!({
            "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": format!("{now:.0}"),
        });
        let api: Api<Node> = Api::all(world.client.clone());
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        api.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    if !is_tainted(node) {
        taint(world, node, true).await?;
    }
    for pod in world.pods.state() {
        let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name.as_str());
        if here && has_ready_true(&pod) {
            let condition = json!({
                "type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": format!("{now:.0}"),
            });
            let api: Api<Pod> = Api::namespaced(world.client.clone(), &pod.namespace().unwrap_or_default());
            let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
            api.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await?;
        }
    }
    Ok(())
}

fn has_ready_true(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn taint(world: &World, node: &Node, on: bool) -> anyhow::Result<()> {
    let mut taints: Vec<Value> = Vec::new();
    for taint in node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
    {
        if taint.key != UNREACHABLE {
            taints.push(serde_json::to_value(taint)?);
        }
    }
    if on {
        taints.extend(
            ["NoSchedule", "NoExecute"].map(|effect| json!({ "key": UNREACHABLE, "effect": effect })),
        );
    }
    let api: Api<Node> = Api::all(world.client.clone());
    api.patch(
        &node.name_any(),
        &PatchParams::default(),
        &Patch::Merge(json!({ "spec": { "taints": taints } })),
    )
    .await?;
    Ok(())
}
