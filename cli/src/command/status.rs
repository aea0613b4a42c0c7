//! `hasteward get status`

use hasteward_proto::failure::Failure;
use hasteward_proto::primitive::Engine;
use hasteward_proto::wire::people::{self, ListClustersRequest};
use hasteward_verdict::report::ClusterList;

use super::unreadable;
use crate::args::Global;
use crate::connect;
use crate::output::{Data, Outcome};

pub(super) async fn run(global: &Global) -> Result<Outcome, Failure> {
    let engine = match global.engine.map(Engine::from) {
        Some(Engine::Cnpg) => people::Engine::Cnpg,
        Some(Engine::Galera) => people::Engine::Galera,
        None => people::Engine::Unspecified,
    };
    let mut steward = connect::steward(global).await?;
    let request = ListClustersRequest {
        namespace: global.namespace.clone().unwrap_or_default(),
        engine: engine.into(),
    };
    let reply = steward.list_clusters(request).await?;
    let mut list: ClusterList =
        serde_json::from_slice(&reply.list_json).map_err(|e| unreadable("list", &e))?;
    if let Some(cluster) = &global.cluster {
        list.clusters.retain(|row| &row.cluster.name == cluster);
    }
    Ok(Outcome::done(Data::Status(list)))
}
