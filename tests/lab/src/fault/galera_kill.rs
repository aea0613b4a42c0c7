//! A Galera node dies with SIGKILL whenever it runs.

use anyhow::ensure;

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};

pub(super) const FAULT: Fault = Fault {
    name: "galera-kill",
    about: "kill a Galera node whenever it runs; the others go on",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.tell(&format!("killing the server of {} whenever it runs", victim.name));
    cluster.kill(victim).await?;
    let status = cluster.others_go_on().await?;
    cluster.commit(cluster.others()?[0], "without the victim").await?;
    let saved = cluster.saved(victim).await?;
    ensure!(saved.seqno == -1, "its position is {} on disk", saved.seqno);
    Ok(format!(
        "{} is in CrashLoopBackOff with seqno -1 of {}; {} others are Primary and take writes",
        victim.name, saved.uuid, status.size
    ))
}
