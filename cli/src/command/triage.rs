//! `hasteward triage`

use hasteward_proto::failure::Failure;
use hasteward_proto::wire::people::TriageRequest;
use hasteward_verdict::report::TriageReport;

use super::{missing, required_engine, unreadable};
use crate::args::Global;
use crate::connect;
use crate::output::{Data, Outcome};

pub(super) async fn run(global: &Global) -> Result<Outcome, Failure> {
    let engine = required_engine(global)?;
    let cluster = global
        .cluster
        .clone()
        .ok_or_else(|| missing("--cluster", "-c NAME"))?;
    let namespace = global
        .namespace
        .clone()
        .ok_or_else(|| missing("--namespace", "-n NAMESPACE"))?;
    let instance = global
        .instance
        .as_ref()
        .map(|i| i.name(&cluster))
        .unwrap_or_default();
    let deadline_ms = u32::try_from(global.timeout.as_millis()).unwrap_or(u32::MAX);
    let mut steward = connect::steward(global).await?;
    let request = TriageRequest {
        engine: engine.into(),
        namespace,
        cluster,
        instance,
        deadline_ms,
    };
    let reply = steward.triage(request).await?;
    let report: TriageReport =
        serde_json::from_slice(&reply.report_json).map_err(|e| unreadable("report", &e))?;
    let exit_code = report.exit_code();
    Ok(Outcome {
        data: Data::Triage(Box::new(report)),
        warnings: Vec::new(),
        exit_code,
    })
}
