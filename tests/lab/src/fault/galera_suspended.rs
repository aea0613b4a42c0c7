//! The operator does nothing for the cluster.

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};

pub(super) const FAULT: Fault = Fault {
    name: "galera-suspended",
    about: "suspend the MariaDB resource: nothing breaks, and nobody would mend it",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    cluster.suspend().await?;
    let size = u32::try_from(cluster.nodes().len())?;
    for node in cluster.nodes() {
        cluster
            .says(node, "Synced", |s| s.is_synced() && s.size == size)
            .await?;
    }
    Ok(format!("the resource is suspended; all {size} nodes are Synced"))
}
