//! Engines: how evidence about a cluster is collected, and (later) how plans are carried out.

pub mod agents;
pub mod cnpg;
mod fleet_agents;

use std::sync::Arc;

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{Engine, InstanceName};
use hasteward_verdict::report::{ClusterList, TriageReport};
use tokio::time::Instant;

pub use self::fleet_agents::FleetAgents;
use crate::api::{ClusterQuery, TriageEngine, TriageQuery};
use crate::http::Metrics;

/// Every engine of this release.
pub struct Engines {
    cnpg: cnpg::CnpgEngine,
    metrics: Arc<Metrics>,
}

impl Engines {
    /// The engines, with where to count their verdicts.
    pub fn new(cnpg: cnpg::CnpgEngine, metrics: Arc<Metrics>) -> Self {
        Self { cnpg, metrics }
    }
}

#[tonic::async_trait]
impl TriageEngine for Engines {
    async fn triage(&self, query: TriageQuery, deadline: Instant) -> Result<TriageReport, Failure> {
        let begun = Instant::now();
        let limit = deadline.saturating_duration_since(begun);
        let report = match query.engine {
            Engine::Cnpg => self.cnpg.triage(&query.cluster, limit).await?,
            Engine::Galera => return Err(not_served(query.engine)),
        };
        self.metrics
            .triage_done(query.engine, report.verdict.kind, begun.elapsed());
        match query.instance {
            Some(instance) => only(report, &instance),
            None => Ok(report),
        }
    }

    async fn list_clusters(&self, query: ClusterQuery) -> Result<ClusterList, Failure> {
        match query.engine {
            Some(Engine::Galera) => Err(not_served(Engine::Galera)),
            Some(Engine::Cnpg) | None => Ok(ClusterList {
                clusters: self.cnpg.list(query.namespace.as_deref()),
            }),
        }
    }
}

fn not_served(engine: Engine) -> Failure {
    Failure::new(
        "engine-not-served",
        FailureKind::Input,
        format!("engine: `{engine}` is not served by this release; allowed: cnpg"),
    )
}

/// The report with one instance's row and diagnoses; those of the whole cluster stay.
fn only(mut report: TriageReport, instance: &InstanceName) -> Result<TriageReport, Failure> {
    let names: Vec<_> = report.instances.iter().map(|i| i.instance.to_string()).collect();
    report.instances.retain(|i| &i.instance == instance);
    if report.instances.is_empty() {
        return Err(Failure::new(
            "instance-not-found",
            FailureKind::NotFound,
            format!("instance: {} has no instance {instance}", report.cluster),
        )
        .hint(format!("its instances: {}", names.join(", "))));
    }
    report
        .diagnoses
        .retain(|d| d.target.as_ref().is_none_or(|target| target == instance));
    Ok(report)
}
