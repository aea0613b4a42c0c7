//! A replica's slot is gone and the primary has recycled the WAL that the replica needs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use super::{Fault, Outcome, Scene};
use crate::container::{self, Container};
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "lose-slot",
    about: "drop a replica's slot and recycle the WAL that it needs: it can never catch up",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// What the primary answers a receiver that asks for WAL it no longer has (PostgreSQL, `src/backend/access/transam/xlogreader.c`
/// and `walsender.c`: "requested WAL segment %s has already been removed").
const REMOVED: &str = "has already been removed";

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let instance = scene.instance;
    let (replica, primary) = scene.replica_and_primary().await?;
    let slot = format!("_cnpg_{}", instance.replace('-', "_"));
    let logged_before = container::log(scene.client, instance)
        .await
        .map_or(0, |log| log.matches(REMOVED).count());

    (scene.tell)(&format!("stopping the WAL receiver of {instance}"));
    let receiver = replica.processes_titled("walreceiver");
    if receiver.is_empty() {
        bail!("{instance} has no WAL receiver: it is not streaming");
    }
    replica.signal(&receiver, Signal::SIGSTOP)?;
    let recycled = take_away(scene, &replica, &primary, &slot).await;
    // Whatever happened: the receiver must not stay frozen.
    replica.signal(&receiver, Signal::SIGCONT)?;
    let needed = recycled?;

    (scene.tell)(&format!(
        "the receiver of {instance} runs again and asks for {needed}"
    ));
    let line = until(
        format!("the receiver of {instance} told that its WAL is gone"),
        Duration::from_secs(90),
        async || {
            let log = container::log(scene.client, instance).await?;
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(REMOVED)).collect();
            Ok(match lines.last() {
                Some(line) if lines.len() > logged_before => Look::Done((*line).to_owned()),
                _ => Look::not_yet("no such line in its log"),
            })
        },
    )
    .await?;
    let said = line
        .find("requested WAL")
        .map_or(line.as_str(), |start| &line[start..]);
    let said: String = said.chars().take_while(|c| *c != '"').collect();
    Ok(format!("{instance} cannot catch up: {said}"))
}

/// With the receiver stopped: finds the segment that it needs next and takes it away. Returns its name.
async fn take_away(
    scene: &Scene<'_>,
    replica: &Container,
    primary: &Container,
    slot: &str,
) -> anyhow::Result<String> {
    let position = replica.psql("SELECT pg_last_wal_receive_lsn()").await?;
    // The next byte: at the start of a segment, pg_walfile_name() names the one before.
    let needed = primary
        .psql(&format!("SELECT pg_walfile_name('{position}'::pg_lsn + 1)"))
        .await?;
    unpinned(primary, slot, &position).await?;
    recycle(scene, primary, slot, &needed).await?;
    Ok(needed)
}

/// An error if another replica that does not stream pins the WAL: taking it away would harm that one too.
async fn unpinned(primary: &Container, slot: &str, position: &str) -> anyhow::Result<()> {
    let pinning = primary
        .psql(&format!(
            "SELECT string_agg(slot_name, ', ') FROM pg_replication_slots \
             WHERE slot_name <> '{slot}' AND NOT active AND restart_lsn <= '{position}'"
        ))
        .await?;
    if !pinning.is_empty() {
        bail!(
            "slot {pinning} of another instance, which does not stream, needs the same WAL; heal that one first"
        );
    }
    Ok(())
}

/// Drops the slot, then moves the primary on until the segment `needed` is gone, then leaves a fresh slot behind: so that the
/// replica's complaint is about its WAL and not about a missing slot.
async fn recycle(scene: &Scene<'_>, primary: &Container, slot: &str, needed: &str) -> anyhow::Result<()> {
    (scene.tell)(&format!(
        "dropping slot {slot} on the primary and recycling {needed}"
    ));
    until(format!("segment {needed} recycled"), Duration::from_secs(120), async || {
        // The instance manager makes the slot again every now and then; a slot in use cannot be dropped.
        let drop_slot = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active; \
             SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active;"
        );
        primary.psql(&drop_slot).await?;
        primary
            .psql(
                "CREATE TABLE IF NOT EXISTS hasteward_lab_wal (at timestamptz); \
                 INSERT INTO hasteward_lab_wal VALUES (now()); SELECT pg_switch_wal(); CHECKPOINT;",
            )
            .await?;
        let left = primary.psql(&format!("SELECT count(*) FROM pg_ls_waldir() WHERE name = '{needed}'")).await?;
        Ok(if left == "0" { Look::Done(()) } else { Look::not_yet("still in pg_wal") })
    })
    .await?;
    primary
        .psql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))
        .await
        .context("make the slot again")?;
    Ok(())
}
