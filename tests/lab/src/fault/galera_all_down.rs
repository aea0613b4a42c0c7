//! Every node was killed and none finds a primary component any more: the operator is suspended, somebody must bootstrap.

use anyhow::ensure;

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};
use crate::galera::DATA;

pub(super) const FAULT: Fault = Fault {
    name: "galera-all-down",
    about: "kill every Galera node and lose their views: none can start without a bootstrap; the operator is suspended",
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
        // With its view a node would wait for its peers and form a component without a history.
        node.beside(&format!("rm -f {DATA}/gvwstate.dat")).await?;
    }
    cluster
        .tell("all were killed; now they start as the kubelet starts them, and look for a primary component");
    let mut proofs = Vec::new();
    for node in cluster.nodes() {
        cluster.release(node)?;
        // A new pod has no back-off; what is on its volumes stays.
        cluster.renew(node).await?;
    }
    for node in cluster.nodes() {
        let code = cluster.gave_up(node).await?;
        ensure!(code == 1, "{} ended with {code}", node.name);
        let saved = cluster.saved(node).await?;
        ensure!(saved.seqno == -1, "{} has a position", node.name);
        proofs.push(format!("{} {}:{}", node.name, saved.uuid, saved.seqno));
    }
    Ok(format!(
        "no node reaches a primary component: {}",
        proofs.join(", ")
    ))
}
