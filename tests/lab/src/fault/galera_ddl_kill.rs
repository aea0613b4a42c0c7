//! A node died in the middle of a schema change: its state says nil although its data is complete.

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use super::galera_cluster::Cluster;
use super::{Fault, Outcome, Scene};
use crate::galera::{DATA, NIL};

pub(super) const FAULT: Fault = Fault {
    name: "galera-ddl-kill",
    about: "kill a Galera node during a schema change: its grastate.dat is nil, its data is complete",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// Rows of the table that is changed: enough for the change to last.
const ROWS: u32 = 150_000;

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    let others = cluster.others()?;
    cluster.commit(others[0], "before the schema change").await?;
    cluster.tell(&format!("filling a table with {ROWS} rows"));
    others[0]
        .sql(&format!(
            "USE hasteward_lab; CREATE OR REPLACE TABLE hasteward_lab.wide (id INT PRIMARY KEY, t VARCHAR(255)); \
             INSERT INTO hasteward_lab.wide SELECT seq, REPEAT('x', 200) FROM seq_1_to_{ROWS};"
        ))
        .await?;
    cluster.tell("changing it everywhere, and killing the server while its state is unsafe");
    let server = victim.server().await?;
    let watch = format!("until grep -q 'uuid: *{NIL}' {DATA}/grastate.dat; do :; done");
    let change = others[0].sql("ALTER TABLE hasteward_lab.wide FORCE, ALGORITHM=COPY;");
    let kill = async {
        tokio::time::timeout(std::time::Duration::from_secs(30), victim.beside(&watch))
            .await
            .context("the state was never unsafe")??;
        cluster.crash(victim)?;
        server.signal(&[server.init()], Signal::SIGKILL)
    };
    let (changed, killed) = tokio::join!(change, kill);
    killed?;
    changed.context("change the table")?;
    cluster.backing_off(victim).await?;
    let status = cluster.others_go_on().await?;
    let saved = cluster.saved(victim).await?;
    ensure!(saved.uuid == NIL, "its state is {}:{}", saved.uuid, saved.seqno);
    ensure!(victim.has(&format!("{DATA}/ibdata1")).await?, "no ibdata1");
    Ok(format!(
        "{} is down with {}:{} beside its data; {} others are Primary",
        victim.name, saved.uuid, saved.seqno, status.size
    ))
}
