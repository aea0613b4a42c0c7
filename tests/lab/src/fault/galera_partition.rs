//! A Galera node is cut off from the network.

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};

pub(super) const FAULT: Fault = Fault {
    name: "galera-partition",
    about: "take a Galera pod's cable down: it loses quorum, the others go on",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.tell(&format!("taking the cable of {} down", victim.name));
    cluster.cable(victim, "down").await?;
    let alone = cluster
        .says(victim, "without quorum", |status| {
            status.component == "non-Primary"
        })
        .await?;
    let status = cluster.others_go_on().await?;
    cluster
        .commit(cluster.others()?[0], "beyond the partition")
        .await?;
    Ok(format!(
        "{} is {} and sees {} member; {} others are Primary and take writes",
        victim.name, alone.component, alone.size, status.size
    ))
}
