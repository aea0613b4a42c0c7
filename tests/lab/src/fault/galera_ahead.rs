//! The wrong node was bootstrapped: one that is down has committed more than the running cluster knows.

use anyhow::ensure;

use super::galera_cluster::{Cluster, Saved};
use super::{Fault, Outcome, Scene};
use crate::galera::Status;

pub(super) const FAULT: Fault = Fault {
    name: "galera-ahead",
    about: "bootstrap a Galera cluster without its furthest node, which is down; the operator is suspended",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// Transactions that only the victim has.
const AHEAD: i64 = 5;

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    let others = cluster.others()?;
    cluster.suspend().await?;
    cluster.commit(victim, "known to all").await?;
    cluster.tell("stopping the others in order; the victim goes on alone");
    for node in &others {
        cluster.stop(node).await?;
    }
    cluster
        .says(victim, "Primary alone", |s| s.is_synced() && s.size == 1)
        .await?;
    for _ in 0..AHEAD {
        cluster.commit(victim, "known to one").await?;
    }
    cluster.stop(victim).await?;
    cluster.tell("stopped the victim as well; now one of the others is bootstrapped");
    // The way to hold it that a person can switch off.
    cluster.crash(victim)?;
    cluster.free(victim).await?;
    for (index, node) in others.iter().enumerate() {
        if index == 0 {
            let saved = cluster.saved(node).await?;
            cluster.save(node, &Saved { safe: true, ..saved }).await?;
            cluster.ask_bootstrap(node).await?;
        }
        cluster.free(node).await?;
        cluster.renew(node).await?;
        let size = u32::try_from(index + 1)?;
        let joined = |s: &Status| s.is_synced() && s.size == size;
        cluster.says(node, "in the lesser cluster", joined).await?;
    }
    let running = cluster.others_go_on().await?;
    let ahead = cluster.saved(victim).await?;
    ensure!(ahead.uuid == running.uuid, "another history");
    ensure!(
        ahead.seqno > running.committed,
        "{} is at {}, the cluster at {}",
        victim.name,
        ahead.seqno,
        running.committed
    );
    Ok(format!(
        "{} is down at {} of {}; the running cluster of {} is at {}",
        victim.name, ahead.seqno, ahead.uuid, running.size, running.committed
    ))
}
