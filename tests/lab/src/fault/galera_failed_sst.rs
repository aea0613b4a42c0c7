//! A full state transfer breaks off: the joiner's data is gone or half there, and its state says so.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use super::galera_cluster::{Cluster, NIL, RESTART_DEADLINE};
use super::{Fault, Outcome, Scene};
use crate::galera::{DATA, Node};
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "galera-failed-sst",
    about: "break a Galera node's full state transfer off: its data directory is no copy any more",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// The receiving programs of the SST methods `rsync` and `mariabackup`.
const RECEIVERS: [&str; 4] = ["rsync --daemon", "rsync", "socat", "mbstream"];

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.kill(victim).await?;
    cluster.others_go_on().await?;
    // Whatever it could offer for an incremental transfer: the next start must ask for all data.
    victim
        .beside(&format!(
            "rm -f {DATA}/grastate.dat {DATA}/gvwstate.dat {DATA}/galera.cache"
        ))
        .await?;
    cluster.release(victim)?;
    cluster.renew(victim).await?;
    cluster.tell(&format!("{} starts and asks for all data", victim.name));
    let broken = break_transfer(victim).await;
    // Whatever happened: a second transfer would cover it.
    cluster.crash(victim)?;
    let broken = broken.context("break the transfer")?;
    cluster.backing_off(victim).await?;
    let status = cluster.others_go_on().await?;
    let saved = cluster.saved(victim).await?;
    ensure!(
        saved.uuid == NIL && saved.seqno == -1,
        "its state says {}:{}",
        saved.uuid,
        saved.seqno
    );
    Ok(format!(
        "{}: the transfer was broken off ({broken}), its state is nil; {} others are Primary",
        victim.name, status.size
    ))
}

/// Kills the receiver as soon as there is one, until the server gives up.
async fn break_transfer(victim: &Node) -> anyhow::Result<String> {
    let mut broken = None;
    let what = format!("{} gives up", victim.name);
    let ended = until(what, RESTART_DEADLINE, async || {
        let Ok(server) = victim.server().await else {
            return Ok(match &broken {
                Some(program) => Look::Done(format!("{program} was killed")),
                None => Look::not_yet("the server does not run"),
            });
        };
        for receiver in RECEIVERS {
            let found = server.processes_titled(receiver);
            if !found.is_empty() {
                server.signal(&found, Signal::SIGKILL)?;
                broken.get_or_insert(receiver);
            }
        }
        Ok(Look::not_yet(if broken.is_some() {
            "killed, the server lives"
        } else {
            "no receiver"
        }))
    });
    Ok(tokio::time::timeout(RESTART_DEADLINE + Duration::from_secs(10), ended).await??)
}
