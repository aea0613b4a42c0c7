//! A replica is promoted behind the operator's back; both sides commit; then it is a replica again. Its history has left the
//! primary's for good, and nobody repairs it: an instance with `standby.signal` is never rewound by CloudNativePG.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::{Fault, Outcome, Scene};
use crate::container::{Container, PGDATA};
use crate::wait::{Look, until};

pub(super) const FAULT: Fault = Fault {
    name: "diverge",
    about: "promote a replica without the operator and commit on both sides: two histories",
    inflict: |scene| -> Outcome<'_> { Box::pin(inflict(scene)) },
};

/// Commits made on each side past the fork.
const COMMITS: usize = 3;

/// Both commands would wait for the frozen manager; and a history that left the primary's must not reach the archive that all share.
/// The manager writes this file anew at its next start.
const ALONE: &str = "restore_command = '/bin/false'\narchive_command = '/bin/true'";

async fn inflict(scene: &Scene<'_>) -> anyhow::Result<String> {
    let instance = scene.instance;
    let (replica, primary) = scene.replica_and_primary().await?;
    let container_before = replica.init();
    // The manager would demote the second primary at once; frozen for the few seconds that the damage takes.
    replica.signal(&[replica.init()], Signal::SIGSTOP)?;
    let split = split(scene, &replica, &primary).await;
    replica.signal(&[replica.init()], Signal::SIGCONT)?;
    let fork = split?;

    (scene.tell)(&format!(
        "waiting for {instance} to start as a replica on its own timeline"
    ));
    until(
        format!("{instance} stuck on its own timeline"),
        Duration::from_secs(120),
        async || {
            let now = Container::of(scene.client, instance).await?;
            if now.init() == container_before {
                return Ok(Look::not_yet("the container was not started again"));
            }
            let state = now
                .psql(
                    "SELECT pg_is_in_recovery(), (SELECT timeline_id FROM pg_control_checkpoint()), \
                 (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming')",
                )
                .await?;
            let own_rows = now
                .psql("SELECT count(*) FROM hasteward_lab_fork WHERE side = 'replica'")
                .await?;
            let primary_rows = primary
                .psql("SELECT count(*) FROM hasteward_lab_fork WHERE side = 'primary'")
                .await?;
            let want = COMMITS.to_string();
            let stuck = state == format!("t|{}|0", fork.child) && own_rows == want && primary_rows == want;
            Ok(if stuck {
                Look::Done(())
            } else {
                Look::NotYet(format!("{state}; rows {own_rows} and {primary_rows}"))
            })
        },
    )
    .await?;
    Ok(format!(
        "{instance} left timeline {} at {} for timeline {}; {COMMITS} commits on each side are on that side only",
        fork.parent, fork.lsn, fork.child
    ))
}

struct Fork {
    parent: String,
    child: String,
    lsn: String,
}

async fn split(scene: &Scene<'_>, replica: &Container, primary: &Container) -> anyhow::Result<Fork> {
    let instance = scene.instance;
    let timeline = "SELECT timeline_id FROM pg_control_checkpoint()";
    let parent = primary.psql(timeline).await?;
    (scene.tell)(&format!(
        "promoting {instance} by SQL, the operator does not know"
    ));
    primary.psql("CREATE TABLE IF NOT EXISTS hasteward_lab_fork (side text, n int); DELETE FROM hasteward_lab_fork;").await?;
    let end = primary.psql("SELECT pg_current_wal_flush_lsn()").await?;
    until(
        format!("{instance} has replayed {end}"),
        Duration::from_secs(30),
        async || {
            let replayed = replica
                .psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"))
                .await?;
            Ok(if replayed == "t" {
                Look::Done(())
            } else {
                Look::not_yet("behind")
            })
        },
    )
    .await?;
    replica
        .run(
            "sh",
            &[
                "-c",
                &format!("printf '%s\\n' \"$1\" >> {PGDATA}/override.conf"),
                "sh",
                ALONE,
            ],
            "",
        )
        .await
        .context("cut the server off from the archive")?;
    replica.psql("SELECT pg_reload_conf()").await?;
    let promoted = replica.psql("SELECT pg_promote(true, 30)").await?;
    anyhow::ensure!(promoted == "t", "{instance} was not promoted");
    let lsn = replica.psql("SELECT pg_current_wal_insert_lsn()").await?;

    (scene.tell)("committing on both sides");
    for (side, container) in [("replica", replica), ("primary", primary)] {
        for n in 1..=COMMITS {
            container
                .psql(&format!("INSERT INTO hasteward_lab_fork VALUES ('{side}', {n})"))
                .await?;
        }
    }
    replica.psql("CHECKPOINT").await?;
    let child = replica.psql(timeline).await?;
    anyhow::ensure!(child != parent, "{instance} is still on timeline {parent}");

    (scene.tell)(&format!(
        "stopping {instance} and making it a replica again, of a primary it has left"
    ));
    replica
        .run("touch", &[&format!("{PGDATA}/standby.signal")], "")
        .await
        .context("write standby.signal")?;
    replica
        .run(
            "pg_ctl",
            &["stop", "-D", PGDATA, "-m", "fast", "-w", "-t", "60"],
            "",
        )
        .await
        .context("stop the server")?;
    Ok(Fork { parent, child, lsn })
}
