//! DaemonSet: one pod on every node that the template tolerates.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::pod::{self, from_template, owned_by, short_hash};
use super::scheduler;
use super::world::{World, create, delete};

const HASH: &str = "controller-revision-hash";

/// Taints that every pod of a DaemonSet tolerates.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Brings every DaemonSet's pods to what it asks for. Pods are made with `creator`, whose user name admission may look at.
pub(super) async fn reconcile(world: &World, creator: &Client) -> anyhow::Result<()> {
    for set in world.daemon_sets.state() {
        if set.metadata.deletion_timestamp.is_none() {
            one(world, creator, &set).await.with_context(|| set.name_any())?;
        }
    }
    Ok(())
}

async fn one(world: &World, creator: &Client, set: &DaemonSet) -> anyhow::Result<()> {
    let namespace = set.namespace().unwrap_or_default();
    let uid = set.uid().unwrap_or_default();
    let spec = set.spec.as_ref().context("no spec")?;
    let revision = short_hash(&spec.template, 10);
    let pods = world.pods_of(&uid);
    let (mut desired, mut current, mut ready, mut updated) = (0, 0, 0, 0);
    // A rolling update takes one pod at a time, and only while all others are ready.
    let mut may_replace = pods.iter().all(|pod| pod::is_ready(pod));
    let mut wanted_nodes = Vec::new();
    for node in world.nodes.state() {
        let name = node.name_any();
        let pod = daemon_pod(set, &node, &revision)?;
        if !scheduler::may_run(&pod, &node) {
            continue;
        }
        desired += 1;
        wanted_nodes.push(name.clone());
        let here: Vec<_> = pods
            .iter()
            .filter(|pod| target(pod) == Some(name.as_str()))
            .collect();
        if here.is_empty() {
            create(creator, &namespace, &pod)
                .await
                .with_context(|| format!("pod for {name}"))?;
        }
        for existing in here {
            current += 1;
            ready += i32::from(pod::is_ready(existing));
            if pod::label(existing, HASH) == Some(revision.as_str()) {
                updated += 1;
                if pod::is_finished(existing) && !pod::is_terminating(existing) {
                    delete(&world.client, existing.as_ref()).await?;
                }
            } else if (may_replace || !pod::is_ready(existing)) && !pod::is_terminating(existing) {
                may_replace = false;
                delete(&world.client, existing.as_ref()).await?;
            }
        }
    }
    for pod in &pods {
        let unwanted = target(pod).is_none_or(|node| !wanted_nodes.iter().any(|wanted| wanted == node));
        if unwanted && !pod::is_terminating(pod) {
            delete(&world.client, pod.as_ref()).await?;
        }
    }
    let status = json!({
        "observedGeneration": set.metadata.generation, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
        "numberReady": ready, "numberAvailable": ready, "numberUnavailable": desired - ready,
        "updatedNumberScheduled": updated, "numberMisscheduled": 0,
    });
    let before = serde_json::to_value(&set.status)?;
    if !includes(&before, &status) {
        let api: Api<DaemonSet> = Api::namespaced(world.client.clone(), &namespace);
        api.patch_status(
            &set.name_any(),
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await?;
    }
    Ok(())
}

/// Whether `object` has every field of `part`. A zero that was left out when it was written is there.
pub(super) fn includes(object: &serde_json::Value, part: &serde_json::Value) -> bool {
    let Some(part) = part.as_object() else {
        return object == part;
    };
    part.iter().all(|(key, value)| match object.get(key) {
        Some(found) => found == value,
        None => value.is_null() || *value == json!(0),
    })
}

/// The pod for one node. It is not bound here: the scheduler does that, by the affinity to the node's name.
fn daemon_pod(set: &DaemonSet, node: &Node, revision: &str) -> anyhow::Result<Pod> {
    let template = &set.spec.as_ref().context("no spec")?.template;
    let suffix = short_hash(&(set.uid(), node.name_any(), revision), 5);
    let owner = owned_by(set).context("no owner reference")?;
    let mut pod = from_template(template, format!("{}-{suffix}", set.name_any()), owner);
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(HASH.into(), revision.into());
    let spec = pod.spec.get_or_insert_default();
    let by_name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.name_any()]),
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let required = affinity
        .node_affinity
        .get_or_insert_with(NodeAffinity::default)
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm::default()],
        });
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![by_name.clone()]);
    }
    spec.tolerations
        .get_or_insert_default()
        .extend(TOLERATED.iter().map(|(key, effect)| Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        }));
    Ok(pod)
}

/// The node that a DaemonSet's pod is meant for, bound or not.
fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?
        .node_selector_terms;
    let field = terms.first()?.match_fields.as_ref()?.first()?;
    field.values.as_ref()?.first().map(String::as_str)
}
