//! A node died and its `grastate.dat` is empty, as after a full disk.

use anyhow::ensure;

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};
use crate::galera::DATA;

pub(super) const FAULT: Fault = Fault {
    name: "galera-zero-grastate",
    about: "kill a Galera node and empty its grastate.dat: its data is complete, its state is not told",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.kill(victim).await?;
    victim.beside(&format!(": > {DATA}/grastate.dat")).await?;
    let status = cluster.others_go_on().await?;
    let text = victim.file("grastate.dat").await?;
    ensure!(text.as_deref() == Some(""), "grastate.dat is {text:?}");
    ensure!(victim.has(&format!("{DATA}/ibdata1")).await?, "no ibdata1");
    Ok(format!(
        "{} is down with an empty grastate.dat beside its data; {} others are Primary",
        victim.name, status.size
    ))
}
