//! All nodes were killed and started again, with their views: they form a component that knows no history and looks healthy.

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};
use crate::galera::{NIL, Status};

pub(super) const FAULT: Fault = Fault {
    name: "galera-nil-uuid",
    about: "kill all Galera nodes and start them plainly: a green cluster without a history; the operator is suspended",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    cluster.suspend().await?;
    for node in cluster.nodes() {
        cluster.crash(node)?;
    }
    for node in cluster.nodes() {
        cluster.backing_off(node).await?;
    }
    cluster.tell("all were killed; now they start with the views they remember");
    for node in cluster.nodes() {
        cluster.release(node)?;
    }
    let size = u32::try_from(cluster.nodes().len())?;
    for node in cluster.nodes() {
        let green = |s: &Status| s.is_synced() && s.size == size && s.uuid == NIL;
        cluster.says(node, "green without a history", green).await?;
    }
    Ok(format!(
        "all {size} nodes are Primary and Synced in a component with UUID {NIL}"
    ))
}
