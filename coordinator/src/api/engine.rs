//! [`TriageEngine`]: what the API asks of the engines.

use hasteward_proto::failure::Failure;
use hasteward_proto::primitive::{ClusterRef, Engine, InstanceName};
use hasteward_verdict::report::{ClusterList, TriageReport};
use tokio::time::Instant;

/// One cluster to triage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriageQuery {
    /// Which operator runs it.
    pub engine: Engine,
    /// Which cluster.
    pub cluster: ClusterRef,
    /// Only this instance's row and diagnoses; the verdict is always of the whole cluster.
    pub instance: Option<InstanceName>,
}

/// Which clusters to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterQuery {
    /// `None` = every namespace that is watched.
    pub namespace: Option<String>,
    /// `None` = every engine.
    pub engine: Option<Engine>,
}

/// Collects evidence and judges it. Changes nothing.
#[tonic::async_trait]
pub trait TriageEngine: Send + Sync + 'static {
    /// Triage of one cluster, finished by `deadline` with whatever could be read until then.
    async fn triage(&self, query: TriageQuery, deadline: Instant) -> Result<TriageReport, Failure>;
    /// Every watched cluster, a line each.
    async fn list_clusters(&self, query: ClusterQuery) -> Result<ClusterList, Failure>;
}
