//! Which nodes should have an agent: those with a pod of our DaemonSet.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, pin_mut};
use hasteward_proto::primitive::NodeName;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::admission::AdmissionPolicy;
use super::kube_reviewer::facts;
use super::registry::Fleet;

/// The node of an agent's pod; `None` for any other pod.
fn node_of(pod: &Pod, policy: &AdmissionPolicy) -> Option<NodeName> {
    let facts = facts(pod);
    let owner = facts.controller?;
    let ours = owner.kind == "DaemonSet" && owner.name == policy.daemon_set;
    if ours && !facts.terminating {
        NodeName::new(&facts.node?).ok()
    } else {
        None
    }
}

/// Keeps the fleet's expectation up to date until `shutdown`. Errors of the API server are logged and retried with back-off; what
/// was known stays.
pub async fn follow_agent_pods(
    client: Client,
    policy: AdmissionPolicy,
    fleet: Fleet,
    shutdown: CancellationToken,
) {
    let pods = Api::<Pod>::namespaced(client, &policy.namespace);
    let events = watch_objects(pods, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut known: BTreeMap<String, NodeName> = BTreeMap::new();
    let mut incoming: BTreeMap<String, NodeName> = BTreeMap::new();
    while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        match event {
            Ok(Event::Init) => {
                incoming.clear();
                continue;
            }
            Ok(Event::InitApply(pod)) => {
                incoming.extend(node_of(&pod, &policy).map(|node| (name(&pod), node)));
                continue;
            }
            Ok(Event::InitDone) => known = std::mem::take(&mut incoming),
            Ok(Event::Apply(pod)) => match node_of(&pod, &policy) {
                Some(node) => drop(known.insert(name(&pod), node)),
                None => drop(known.remove(&name(&pod))),
            },
            Ok(Event::Delete(pod)) => drop(known.remove(&name(&pod))),
            Err(error) => {
                warn!(%error, "cannot watch the agents' pods");
                continue;
            }
        }
        fleet.set_expected(known.values().cloned().collect::<BTreeSet<_>>());
    }
}
