//! A full state transfer breaks off: the joiner's data is gone or half there, and its state says so.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use super::galera_cluster::{Cluster, RESTART_DEADLINE};
use super::{Fault, Outcome, Scene};
use crate::galera::{NIL, Node};
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "galera-failed-sst",
    about: "break a Galera node's full state transfer off: its data directory is no copy any more",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// What receives: the program's command line and how many of it there are once data comes in. rsync's daemon has a child for
/// each connection; mariabackup's stream ends in
/// `mbstream`, started when the data directory has been emptied.
const RECEIVERS: [(&str, usize); 2] = [("rsync --daemon", 2), ("mbstream", 1)];

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let cluster = Cluster::of(scene).await?;
    let victim = cluster.victim()?;
    cluster.kill(victim).await?;
    cluster.others_go_on().await?;
    // Its state has no position: the next start must ask for all data.
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
        for (receiver, receiving) in RECEIVERS {
            let found = server.processes_titled(receiver);
            if found.len() >= receiving {
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
