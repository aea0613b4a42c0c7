//! Collects the evidence of one cluster: caches, then every agent at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hasteward_proto::primitive::{ClusterRef, InstanceName, NodeName};
use hasteward_proto::wire::agent::{CountCommitsRequest, InspectPostgresRequest};
use hasteward_verdict::cnpg::Question;
use hasteward_verdict::evidence::cnpg::{
    AgentPresence, Claim, ClusterResource, CnpgEvidence, CommitsPast, DiskEvidence, InstanceEvidence, Node,
    Pod,
};
use hasteward_verdict::evidence::{Evidence, UnreadReason};

use tokio::time::Instant;

use super::{CnpgEngine, kubernetes, reading, target};
use crate::kubernetes::CacheState;

/// What an agent keeps of the limit for the way back.
const MARGIN: Duration = Duration::from_millis(500);
/// How long the API server may take to confirm the custom resource.
const CONFIRM: Duration = Duration::from_secs(1);

/// Who is primary, at the end of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roles {
    /// As at its beginning.
    Stand,
    /// It changed in between.
    Moved,
    /// The API server does not say.
    Unconfirmed,
}

impl CnpgEngine {
    /// Everything known of `cluster`, by `deadline`.
    pub(super) async fn collect(&self, cluster: &ClusterRef, deadline: Instant) -> CnpgEvidence {
        let (resource, instances) = self.confirmed(cluster).await;
        let names = instances.unwrap_or_default();
        let instances = names
            .iter()
            .map(|name| self.instance(cluster, resource.value(), name, deadline));
        let mut instances = join_all(instances).await;
        instances.sort_by(|a, b| (a.name.ordinal(), &a.name).cmp(&(b.name.ordinal(), &b.name)));
        let evidence = CnpgEvidence {
            cluster: cluster.clone(),
            collected_at: self.clock.now(),
            resource,
            instances,
            roles_moved: false,
        };
        self.memory.note(&evidence);
        evidence
    }

    /// The custom resource as the API server has it now; why not, where it does not say.
    async fn fetch(&self, cluster: &ClusterRef) -> Result<Option<crate::kubernetes::Cluster>, String> {
        let api: kube::Api<crate::kubernetes::Cluster> =
            kube::Api::namespaced(self.client.clone(), &cluster.namespace);
        match tokio::time::timeout(CONFIRM, api.get_opt(&cluster.name)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", CONFIRM.as_millis())),
        }
    }

    /// Whether the roles are still those under which `evidence` was read.
    pub(super) async fn roles(&self, evidence: &CnpgEvidence) -> Roles {
        let Some(before) = evidence.resource.value() else {
            return Roles::Unconfirmed;
        };
        let Ok(Some(object)) = self.fetch(&evidence.cluster).await else {
            return Roles::Unconfirmed;
        };
        let now = kubernetes::resource(&object);
        let same = (&now.uid, &now.current_primary, &now.target_primary, now.timeline)
            == (
                &before.uid,
                &before.current_primary,
                &before.target_primary,
                before.timeline,
            );
        if same { Roles::Stand } else { Roles::Moved }
    }

    /// The custom resource, confirmed by the API server where it answers, and the names of its instances.
    async fn confirmed(
        &self,
        cluster: &ClusterRef,
    ) -> (Evidence<ClusterResource>, Option<BTreeSet<InstanceName>>) {
        let fresh = self.fetch(cluster).await;
        let confirmed_at = self.clock.now();
        let (object, source, read_at) = match fresh {
            Ok(Some(object)) => (Arc::new(object), "API server".to_owned(), confirmed_at),
            Ok(None) => {
                return (
                    Evidence::absent("the API server answered that it does not exist"),
                    None,
                );
            }
            Err(why) => {
                let state = self.caches.clusters.state();
                match self.caches.clusters.get(&cluster.namespace, &cluster.name) {
                    Some(object) => (
                        object,
                        format!("cache; the API server did not confirm it: {why}"),
                        state.confirmed_at,
                    ),
                    None => return (Evidence::unread(UnreadReason::Api, why), None),
                }
            }
        };
        let resource = kubernetes::resource(&object);
        let mut names: BTreeSet<InstanceName> = resource.instance_names.iter().cloned().collect();
        let here = |meta: &kube::api::ObjectMeta| {
            let in_namespace = meta.namespace.as_deref() == Some(&cluster.namespace);
            in_namespace
                .then(|| kubernetes::instance_of(meta, &resource.uid))
                .flatten()
        };
        names.extend(
            self.caches
                .pods
                .list(|p| here(&p.metadata).is_some())
                .iter()
                .filter_map(|p| here(&p.metadata)),
        );
        names.extend(
            self.caches
                .claims
                .list(|c| here(&c.metadata).is_some())
                .iter()
                .filter_map(|c| here(&c.metadata)),
        );
        (Evidence::known(resource, source, read_at), Some(names))
    }

    async fn instance(
        &self,
        cluster: &ClusterRef,
        resource: Option<&ClusterResource>,
        name: &InstanceName,
        deadline: Instant,
    ) -> InstanceEvidence {
        let uid = resource.map_or("", |r| r.uid.as_str());
        let object = self.caches.pods.get(&cluster.namespace, name.as_str());
        // A pod of that name that belongs to something else is not this instance's.
        let object = object.filter(|p| kubernetes::instance_of(&p.metadata, uid).as_ref() == Some(name));
        let pods = self.caches.pods.state();
        let pod = match object.as_deref().map(kubernetes::pod) {
            Some(Some(pod)) => Evidence::known(pod, "API server", pods.confirmed_at),
            Some(None) => Evidence::unread(
                UnreadReason::Api,
                "the API server gave a pod without a usable UID",
            ),
            None => missing(&pods, &format!("no pod {name} is owned by the cluster")),
        };
        let claims = self.claims(cluster, uid, name);
        let node = self.node(pod.value(), claims.value());
        let asked = match (object.as_deref(), node.value()) {
            (Some(pod), Some(node)) => Some((target::target(cluster, pod, &self.caches), node.name.clone())),
            _ => None,
        };
        let (disk, server) = if let Some((target, node)) = asked {
            self.inspect(target, &node, false, deadline).await
        } else {
            let detail = format!("{name} has no pod on a node");
            (
                DiskEvidence::unread(UnreadReason::NoPod, &detail),
                Evidence::unread(UnreadReason::NoPod, detail),
            )
        };
        let seen = self.memory.of(cluster, name);
        let mut instance = InstanceEvidence {
            name: name.clone(),
            pod,
            claims,
            node,
            disk,
            server,
            commits_past: Vec::new(),
            remembered: seen.streaming,
            last_written: seen.written,
            standing_since: None,
        };
        instance.standing_since = seen.standing_since(super::memory::position(&instance));
        instance
    }

    fn claims(&self, cluster: &ClusterRef, uid: &str, name: &InstanceName) -> Evidence<Vec<Claim>> {
        let state = self.caches.claims.state();
        let wanted = |c: &crate::kubernetes::PersistentVolumeClaim| {
            c.metadata.namespace.as_deref() == Some(&cluster.namespace)
                && kubernetes::instance_of(&c.metadata, uid).as_ref() == Some(name)
        };
        let claims: Vec<Claim> = self
            .caches
            .claims
            .list(wanted)
            .iter()
            .map(|c| kubernetes::claim(c))
            .collect();
        if claims.is_empty() {
            return missing(&state, &format!("no PVC of {name} is owned by the cluster"));
        }
        Evidence::known(claims, "API server", state.confirmed_at)
    }

    /// The node that the pod is bound to, or that its data volume is tied to.
    fn node(&self, pod: Option<&Pod>, claims: Option<&Vec<Claim>>) -> Evidence<Node> {
        let state = self.caches.nodes.state();
        let tied = || {
            let volumes = claims.into_iter().flatten().filter_map(|c| c.volume.as_deref());
            volumes
                .filter_map(|v| self.caches.volumes.get("", v))
                .find_map(|pv| NodeName::new(pv.only_node()?).ok())
        };
        let Some(name) = pod.and_then(|p| p.node.clone()).or_else(tied) else {
            return Evidence::absent("bound to no node");
        };
        let Some(object) = self.caches.nodes.get("", name.as_str()) else {
            return missing(&state, &format!("there is no node {name}"));
        };
        let ready = crate::kubernetes::is_true(&object.status.conditions, "Ready");
        let agent = match self.agents.presence(&name) {
            AgentPresence::None if self.has_agent_pod(&name) => AgentPresence::Unreachable,
            presence => presence,
        };
        Evidence::known(Node { name, ready, agent }, "API server", state.confirmed_at)
    }

    fn has_agent_pod(&self, node: &NodeName) -> bool {
        !self
            .caches
            .agent_pods
            .list(|p| p.spec.node_name.as_deref() == Some(node.as_str()))
            .is_empty()
    }

    async fn inspect(
        &self,
        target: hasteward_proto::wire::agent::Target,
        node: &NodeName,
        always_scan_wal: bool,
        deadline: Instant,
    ) -> (DiskEvidence, Evidence<hasteward_verdict::evidence::cnpg::Server>) {
        let (limit, budget_ms) = within(deadline);
        let request = InspectPostgresRequest {
            target: Some(target),
            always_scan_wal,
            budget_ms,
        };
        match self.agents.inspect_postgres(node, request, limit).await {
            Ok(reply) => reading::reply(reply),
            Err(error) => {
                let detail = error.to_string();
                (
                    DiskEvidence::unread(error.reason(), &detail),
                    Evidence::unread(error.reason(), detail),
                )
            }
        }
    }

    /// Inspects these again, with the scan for the end of WAL that a running server made unnecessary at first.
    pub(super) async fn scan(&self, evidence: &mut CnpgEvidence, names: &[InstanceName], deadline: Instant) {
        let cluster = evidence.cluster.clone();
        let again = evidence
            .instances
            .iter()
            .filter(|i| names.contains(&i.name))
            .map(|instance| async {
                let pod = self.caches.pods.get(&cluster.namespace, instance.name.as_str())?;
                let node = instance.node.value()?;
                let target = target::target(&cluster, &pod, &self.caches);
                let (disk, server) = self.inspect(target, &node.name, true, deadline).await;
                Some((instance.name.clone(), disk, server))
            });
        let again = join_all(again).await;
        for (name, disk, server) in again.into_iter().flatten() {
            if let Some(instance) = evidence.instances.iter_mut().find(|i| i.name == name) {
                instance.disk = disk;
                instance.server = server;
            }
        }
        evidence.collected_at = self.clock.now();
    }

    /// Asks the agents what the pure core wants to know, and puts the answers into `evidence`.
    pub(super) async fn answer(
        &self,
        evidence: &mut CnpgEvidence,
        questions: &[Question],
        deadline: Instant,
    ) {
        let cluster = evidence.cluster.clone();
        let answers = join_all(
            questions
                .iter()
                .map(|question| self.count(&cluster, evidence, question, deadline)),
        )
        .await;
        for (question, commits) in questions.iter().zip(answers) {
            if let Some(instance) = evidence
                .instances
                .iter_mut()
                .find(|i| i.name == question.instance)
            {
                instance.commits_past.push(CommitsPast {
                    timeline: question.timeline,
                    past: question.past,
                    commits,
                });
            }
        }
        evidence.collected_at = self.clock.now();
    }

    async fn count(
        &self,
        cluster: &ClusterRef,
        evidence: &CnpgEvidence,
        question: &Question,
        deadline: Instant,
    ) -> Evidence<hasteward_verdict::evidence::cnpg::Commits> {
        let node = evidence
            .instances
            .iter()
            .find(|i| i.name == question.instance)
            .and_then(|i| i.node.value());
        let pod = self
            .caches
            .pods
            .get(&cluster.namespace, question.instance.as_str());
        let (Some(node), Some(pod)) = (node, pod) else {
            return Evidence::unread(
                UnreadReason::NoPod,
                format!("{} has no pod on a node", question.instance),
            );
        };
        let (limit, budget_ms) = within(deadline);
        let request = CountCommitsRequest {
            target: Some(target::target(cluster, &pod, &self.caches)),
            timeline: question.timeline.get(),
            past_lsn: question.past.bytes(),
            budget_ms,
        };
        match self.agents.count_commits(&node.name, request, limit).await {
            Ok(reply) => reading::commits(reply, self.clock.now()),
            Err(error) => Evidence::unread(error.reason(), error.to_string()),
        }
    }
}

/// What is left until `deadline`: for the call, and for the agent, which must leave time for the way back.
fn within(deadline: Instant) -> (Duration, u32) {
    let limit = deadline.saturating_duration_since(Instant::now());
    // Zero would mean the agent's own default.
    let budget = u32::try_from(limit.saturating_sub(MARGIN).as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    (limit, budget)
}

/// A complete list that lacks something proves its absence; an incomplete or interrupted one proves nothing.
fn missing<T>(state: &CacheState, proof: &str) -> Evidence<T> {
    match &state.interrupted {
        None if state.synced => Evidence::absent(proof),
        None => Evidence::unread(UnreadReason::Api, "the first list is not complete"),
        Some(why) => Evidence::unread(UnreadReason::Api, why.clone()),
    }
}
