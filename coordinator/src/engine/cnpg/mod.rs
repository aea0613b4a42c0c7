//! The CloudNativePG engine: evidence from the caches and from every agent at once, then the pure verdict.

mod collect;
mod kubernetes;
mod memory;
mod reading;
mod sampler;
mod target;

use std::sync::Arc;
use std::time::Duration;

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{ClusterRef, Engine};
use hasteward_verdict::evidence::cnpg::CnpgEvidence;
use hasteward_verdict::report::{ClusterRow, TriageReport};
use tokio::time::Instant;

use self::collect::Roles;
use self::memory::Memory;
use super::agents::Agents;
use crate::clock::Clock;
use crate::kubernetes::Caches;

/// How often the answers to questions may lead to further questions.
const MAX_ROUNDS: usize = 4;

/// Triage of CNPG clusters. Cheap to clone.
#[derive(Clone)]
pub struct CnpgEngine {
    caches: Caches,
    client: kube::Client,
    agents: Arc<dyn Agents>,
    clock: Arc<dyn Clock>,
    memory: Arc<Memory>,
}

impl CnpgEngine {
    /// An engine over the caches of one API server and the agents of one fleet.
    pub fn new(caches: Caches, client: kube::Client, agents: Arc<dyn Agents>, clock: Arc<dyn Clock>) -> Self {
        Self {
            caches,
            client,
            agents,
            clock,
            memory: Arc::default(),
        }
    }

    /// Evidence, verdict, actions and diagnoses of one cluster, within `limit`. Changes nothing.
    pub async fn triage(&self, cluster: &ClusterRef, limit: Duration) -> Result<TriageReport, Failure> {
        self.known(cluster)?;
        let deadline = Instant::now() + limit;
        let mut evidence = self.gather(cluster, deadline).await;
        let mut roles = self.roles(&evidence).await;
        if roles == Roles::Moved {
            // A switchover in between mixes two states of the cluster: one more look usually sees only one.
            evidence = self.gather(cluster, deadline).await;
            roles = self.roles(&evidence).await;
        }
        evidence.roles_moved = roles != Roles::Stand;
        Ok(hasteward_verdict::cnpg::assess(&evidence))
    }

    /// Everything known, and everything that the pure core still wants to know; a healthy cluster leaves no question.
    async fn gather(&self, cluster: &ClusterRef, deadline: Instant) -> CnpgEvidence {
        let mut evidence = self.collect(cluster, deadline).await;
        let unscanned = hasteward_verdict::cnpg::unscanned(&evidence);
        if !unscanned.is_empty() {
            self.scan(&mut evidence, &unscanned, deadline).await;
        }
        for _ in 0..MAX_ROUNDS {
            let questions = hasteward_verdict::cnpg::questions(&evidence);
            if questions.is_empty() {
                break;
            }
            self.answer(&mut evidence, &questions, deadline).await;
        }
        evidence
    }

    /// A line for every cluster of `namespace` (`None` = all).
    pub fn list(&self, namespace: Option<&str>) -> Vec<ClusterRow> {
        let seen_at = self.caches.clusters.state().confirmed_at;
        let wanted = |c: &crate::kubernetes::Cluster| {
            namespace.is_none_or(|n| c.metadata.namespace.as_deref() == Some(n))
        };
        let clusters = self.caches.clusters.list(wanted);
        clusters
            .iter()
            .filter_map(|c| kubernetes::row(c, seen_at))
            .collect()
    }

    /// Waits until every cache is complete.
    pub async fn synced(&self) {
        self.caches.synced().await;
    }

    /// Notes which instances stream, for as long as the process lives; see [`sampler`].
    pub async fn sample(&self, every: Duration) {
        sampler::run(self, every).await;
    }

    fn known(&self, cluster: &ClusterRef) -> Result<(), Failure> {
        let state = self.caches.clusters.state();
        if self
            .caches
            .clusters
            .get(&cluster.namespace, &cluster.name)
            .is_some()
        {
            return Ok(());
        }
        if !state.synced {
            let why = state
                .interrupted
                .unwrap_or_else(|| "the first list is not complete".to_owned());
            return Err(Failure::new("api-server-unread", FailureKind::Unreachable, format!("clusters could not be listed yet: {why}"))
                .retryable()
                .hint("check that the coordinator reaches the API server: kubectl logs -n hasteward-system deployment/hasteward-coordinator"));
        }
        if state.not_served {
            return Err(Failure::new(
                "operator-not-installed",
                FailureKind::NotFound,
                "this API server has no clusters.postgresql.cnpg.io: CloudNativePG is not installed",
            ));
        }
        let names: Vec<_> = self
            .list(None)
            .into_iter()
            .map(|row| row.cluster.to_string())
            .collect();
        let hint = match names.as_slice() {
            [] => "there is no CNPG cluster at all".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        Err(Failure::new(
            "cluster-not-found",
            FailureKind::NotFound,
            format!("there is no {} cluster {cluster}", Engine::Cnpg),
        )
        .hint(hint))
    }
}
