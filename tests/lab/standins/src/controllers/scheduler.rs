//! Scheduler: filters, a few scores, then a Binding.
//!
//! Knows node names and labels, required node affinity, taints, (anti-)affinity between pods by host name, and claims: a pod
//! waits for its volumes, and goes where they are.

use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{
    Binding, Node, NodeSelector, NodeSelectorRequirement, ObjectReference, PersistentVolume,
    PersistentVolumeClaim, Pod, PodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::pod;
use super::volume::{SELECTED_NODE, binding_mode, is_bound};
use super::world::World;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Binds every pod that can be bound, and says why of every other.
pub(super) async fn reconcile(world: &World) -> anyhow::Result<()> {
    // Pods bound in this round count at once: the cache does not know them yet.
    let mut bound: Vec<(Arc<Pod>, String)> = world
        .pods
        .state()
        .into_iter()
        .filter_map(|pod| {
            pod.spec
                .as_ref()?
                .node_name
                .clone()
                .map(|node| (Arc::clone(&pod), node))
        })
        .filter(|(pod, _)| !pod::is_finished(pod))
        .collect();
    let mut waiting: Vec<Arc<Pod>> = world.pods.state();
    waiting.retain(|pod| {
        pod.spec
            .as_ref()
            .is_some_and(|s| s.node_name.is_none() && s.scheduling_gates.as_ref().is_none_or(Vec::is_empty))
            && !pod::is_terminating(pod)
            && !pod::is_finished(pod)
    });
    waiting.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    for pod in waiting {
        match place(world, &pod, &bound).await.with_context(|| pod.name_any())? {
            Placement::Bound(node) => bound.push((pod, node)),
            Placement::VolumesComing => {}
            Placement::Nowhere(reason) => unschedulable(world, &pod, &reason).await?,
        }
    }
    Ok(())
}

enum Placement {
    Bound(String),
    /// A node is chosen, its volumes are being made.
    VolumesComing,
    Nowhere(String),
}

async fn place(world: &World, pod: &Pod, bound: &[(Arc<Pod>, String)]) -> anyhow::Result<Placement> {
    let claims = match claims(world, pod) {
        Ok(claims) => claims,
        Err(reason) => return Ok(Placement::Nowhere(reason)),
    };
    let mut unbound = Vec::new();
    let mut volumes: Vec<Arc<PersistentVolume>> = Vec::new();
    for claim in &claims {
        if is_bound(claim) {
            let name = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.clone())
                .unwrap_or_default();
            match world
                .volumes
                .state()
                .into_iter()
                .find(|volume| volume.name_any() == name)
            {
                Some(volume) => volumes.push(volume),
                None => {
                    return Ok(Placement::Nowhere(format!(
                        "persistentvolume \"{name}\" not found"
                    )));
                }
            }
        } else if binding_mode(world, claim).as_deref() == Some("WaitForFirstConsumer") {
            unbound.push(claim);
        } else {
            return Ok(Placement::Nowhere(
                "pod has unbound immediate PersistentVolumeClaims".into(),
            ));
        }
    }
    let chosen = unbound
        .iter()
        .find_map(|claim| claim.annotations().get(SELECTED_NODE).cloned());

    let nodes = world.nodes.state();
    let mut candidates: Vec<&Arc<Node>> = nodes
        .iter()
        .filter(|node| is_ready(node) && may_run(pod, node))
        .filter(|node| volumes.iter().all(|volume| volume_allows(volume, node)))
        .filter(|node| chosen.as_ref().is_none_or(|name| *name == node.name_any()))
        .filter(|node| required_between_pods(pod, &node.name_any(), bound))
        .collect();
    candidates.sort_by_key(|node| {
        let name = node.name_any();
        let pods = bound.iter().filter(|(_, on)| *on == name).count();
        (avoided(pod, &name, bound), pods, name)
    });
    let Some(node) = candidates.first() else {
        let why = format!(
            "0/{} nodes are available: none matches affinity, taints and volumes.",
            nodes.len()
        );
        return Ok(Placement::Nowhere(why));
    };
    let node = node.name_any();
    if !unbound.is_empty() {
        for claim in unbound
            .into_iter()
            .filter(|claim| !claim.annotations().contains_key(SELECTED_NODE))
        {
            let namespace = claim.namespace().unwrap_or_default();
            let api: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), &namespace);
            let patch = Patch::Merge(json!({ "metadata": { "annotations": { SELECTED_NODE: node } } }));
            api.patch(&claim.name_any(), &PatchParams::default(), &patch)
                .await?;
        }
        return Ok(Placement::VolumesComing);
    }
    bind(world, pod, &node).await?;
    Ok(Placement::Bound(node))
}

async fn bind(world: &World, pod: &Pod, node: &str) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(world.client.clone(), &pod.namespace().unwrap_or_default());
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let bound: Result<serde_json::Value, _> = api
        .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
        .await;
    match bound {
        // Bound already (the cache was behind), or gone.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
        other => other.map(drop).with_context(|| format!("bind to {node}")),
    }
}

async fn unschedulable(world: &World, pod: &Pod, reason: &str) -> anyhow::Result<()> {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let known = conditions
        .iter()
        .any(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(reason));
    if known {
        return Ok(());
    }
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason,
        "lastTransitionTime": format!("{:.0}", jiff::Timestamp::now()),
    });
    let api: Api<Pod> = Api::namespaced(world.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    match api
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The claims of a pod's volumes, or why it must wait.
fn claims(world: &World, pod: &Pod) -> Result<Vec<Arc<PersistentVolumeClaim>>, String> {
    let namespace = pod.namespace();
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let all = world.claims.state();
    let named = volumes
        .iter()
        .filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name));
    named
        .map(|name| {
            let claim = all
                .iter()
                .find(|claim| claim.name_any() == *name && claim.namespace() == namespace);
            let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            Ok(Arc::clone(claim))
        })
        .collect()
}

/// Whether node selector, required node affinity and taints let a pod run on a node.
pub(super) fn may_run(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let taints = pod::taints(node);
    selected
        && required.is_none_or(|selector| matches_node(selector, node))
        && taints.iter().all(|taint| pod::tolerates(pod, taint))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn volume_allows(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.required.as_ref())
        .is_none_or(|selector| matches_node(selector, node))
}

/// Terms are alternatives, the requirements of a term all hold; an empty term matches nothing.
fn matches_node(selector: &NodeSelector, node: &Node) -> bool {
    let label = |key: &str| node.labels().get(key).cloned();
    let field = |key: &str| (key == "metadata.name").then(|| node.name_any());
    selector.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        !(expressions.is_empty() && fields.is_empty())
            && expressions
                .iter()
                .all(|requirement| holds(requirement, label(&requirement.key)))
            && fields
                .iter()
                .all(|requirement| holds(requirement, field(&requirement.key)))
    })
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether required affinity and anti-affinity between pods allow the node. Only the host name is a topology here.
fn required_between_pods(pod: &Pod, node: &str, bound: &[(Arc<Pod>, String)]) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let apart = apart
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    let together = affinity.and_then(|a| a.pod_affinity.as_ref());
    let together = together
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    apart.iter().all(|term| matching(pod, term, node, bound) == 0)
        && together.iter().all(|term| matching(pod, term, node, bound) > 0)
}

/// How much preferred anti-affinity speaks against a node.
fn avoided(pod: &Pod, node: &str, bound: &[(Arc<Pod>, String)]) -> i64 {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    preferred
        .unwrap_or_default()
        .iter()
        .map(|weighted| {
            let count =
                i64::try_from(matching(pod, &weighted.pod_affinity_term, node, bound)).unwrap_or(i64::MAX);
            i64::from(weighted.weight).saturating_mul(count)
        })
        .sum()
}

fn matching(pod: &Pod, term: &PodAffinityTerm, node: &str, bound: &[(Arc<Pod>, String)]) -> usize {
    if term.topology_key != HOSTNAME {
        return 0;
    }
    let own = pod.namespace().unwrap_or_default();
    let namespaces = term
        .namespaces
        .clone()
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| vec![own]);
    bound
        .iter()
        .filter(|(_, on)| on == node)
        .filter(|(other, _)| namespaces.contains(&other.namespace().unwrap_or_default()))
        .filter(|(other, _)| {
            term.label_selector
                .as_ref()
                .is_some_and(|selector| selects(selector, other))
        })
        .count()
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.labels();
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let requirement = NodeSelectorRequirement {
                key: expression.key.clone(),
                operator: expression.operator.clone(),
                values: expression.values.clone(),
            };
            holds(&requirement, labels.get(&expression.key).cloned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeSelectorTerm, PodSpec};

    fn node(name: &str, labels: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.metadata.labels = Some(labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        node
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values),
        }
    }

    #[test]
    fn an_empty_term_matches_no_node() {
        let selector = NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm::default()],
        };
        assert!(!matches_node(&selector, &node("n1", &[])));
    }

    #[test]
    fn labels_and_names_select_nodes() {
        let term = NodeSelectorTerm {
            match_expressions: Some(vec![
                requirement("disk", "In", &["ssd"]),
                requirement("old", "DoesNotExist", &[]),
            ]),
            match_fields: Some(vec![requirement("metadata.name", "In", &["n1"])]),
        };
        let selector = NodeSelector {
            node_selector_terms: vec![term],
        };
        assert!(matches_node(&selector, &node("n1", &[("disk", "ssd")])));
        assert!(!matches_node(&selector, &node("n2", &[("disk", "ssd")])));
        assert!(!matches_node(
            &selector,
            &node("n1", &[("disk", "ssd"), ("old", "yes")])
        ));
    }

    #[test]
    fn a_cordoned_node_takes_no_pod() {
        let mut cordoned = node("n1", &[]);
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        let pod = Pod {
            spec: Some(PodSpec::default()),
            ..Pod::default()
        };
        assert!(!may_run(&pod, &cordoned));
        assert!(may_run(&pod, &node("n1", &[])));
    }
}
