//! A node was bootstrapped beside a running cluster: two primary components with two histories, and both take writes.

use anyhow::ensure;

use super::galera_cluster::{Cluster, Saved};
use super::{Fault, Outcome, Scene};
use crate::galera::DATA;

pub(super) const FAULT: Fault = Fault {
    name: "galera-double-bootstrap",
    about: "bootstrap a Galera node beside the running cluster: two primary components; the operator is suspended",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.suspend().await?;
    cluster.kill(victim).await?;
    let others = cluster.others_go_on().await?;
    // Once the others have forgotten it, it starts a cluster of its own, with a history of its own.
    let saved = cluster.saved(victim).await?;
    cluster.save(victim, &Saved { safe: true, ..saved }).await?;
    victim.beside(&format!("rm -f {DATA}/gvwstate.dat")).await?;
    cluster.ask_bootstrap(victim).await?;
    cluster.release(victim)?;
    cluster.renew(victim).await?;
    cluster.tell(&format!("{} starts a cluster of its own", victim.name));
    let alone = cluster
        .says(victim, "Primary alone", |s| s.is_synced() && s.size == 1)
        .await?;
    cluster.commit(victim, "in the second component").await?;
    cluster
        .commit(cluster.others()?[0], "in the first component")
        .await?;
    let still = cluster.others_go_on().await?;
    ensure!(alone.uuid != still.uuid, "both are of history {}", alone.uuid);
    Ok(format!(
        "two primary components take writes: {} with {}, {} others with {}",
        victim.name, alone.uuid, others.size, still.uuid
    ))
}
