//! What an instance does because of its role.

use super::lease::{Claim, PrimaryLease};
use super::slots;
use super::sql::{Session, identifier, literal};
use super::state::Shared;
use crate::cnpg::{Cluster, now};
use anyhow::Context;
use serde_json::json;
use std::fs;

/// What the Cluster asks of this instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Primary, and meant to be.
    Lead,
    /// Primary, but another one is meant to be, or an election is under way: stop.
    StepDown,
    /// Replica, meant to become the primary.
    Promote,
    /// Replica.
    Follow,
}

/// The duty of an instance, from its signal file and the Cluster.
pub(super) fn duty(cluster: &Cluster, instance: &str, is_primary: bool) -> Duty {
    let target = cluster.target_primary();
    match (is_primary, target == Some(instance)) {
        (true, true) => Duty::Lead,
        (true, false) if target.is_none() => Duty::Lead,
        (true, false) => Duty::StepDown,
        (false, true) => Duty::Promote,
        (false, false) => Duty::Follow,
    }
}

/// What became of an attempt to promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promotion {
    /// It is the primary now.
    Done,
    /// WAL still arrives, or the Lease is held.
    NotYet,
}

/// Promotes this replica once its WAL receiver is down and the Lease is ours.
pub(super) async fn promote(shared: &Shared, lease: &mut PrimaryLease) -> anyhow::Result<Promotion> {
    let session = Session::open(&shared.place, "postgres").await?;
    if session
        .value("SELECT 1 FROM pg_stat_wal_receiver")
        .await?
        .is_some()
    {
        return Ok(Promotion::NotYet);
    }
    if let Claim::Others(holder) = lease.claim(shared).await? {
        tracing::info!(holder, "the Lease is still held");
        return Ok(Promotion::NotYet);
    }
    tracing::info!("promoting");
    let promoted = session.value("SELECT pg_promote(true, 60)").await?;
    anyhow::ensure!(promoted.as_deref() == Some("t"), "the promotion did not finish");
    session.execute("CHECKPOINT").await?;
    announce(shared).await?;
    Ok(Promotion::Done)
}

/// Writes `status.currentPrimary`.
async fn announce(shared: &Shared) -> anyhow::Result<()> {
    shared
        .patch_status(&json!({
            "currentPrimary": shared.place.instance,
            "currentPrimaryTimestamp": now(),
        }))
        .await
        .context("writing currentPrimary")
}

/// The primary's standing work, while its server answers.
pub(super) async fn lead(shared: &Shared) -> anyhow::Result<()> {
    let cluster = shared.cluster();
    let place = &shared.place;
    let session = Session::open(place, "postgres").await?;
    if cluster.target_primary() == Some(&place.instance) && cluster.current_primary() != Some(&place.instance)
    {
        session.execute("CHECKPOINT").await?;
        announce(shared).await?;
    }
    slots::reconcile(&session, &cluster, &place.instance).await?;
    for tablespace in &cluster.spec.tablespaces {
        let exists = session
            .value(&format!(
                "SELECT 1 FROM pg_tablespace WHERE spcname = {}",
                literal(&tablespace.name)
            ))
            .await?;
        if exists.is_some() {
            continue;
        }
        let location = place.tablespaces.join(&tablespace.name).join("data");
        fs::create_dir_all(&location).with_context(|| format!("making {}", location.display()))?;
        let owner = tablespace.owner.name.as_deref().unwrap_or("postgres");
        session
            .execute(&format!(
                "CREATE TABLESPACE {} OWNER {} LOCATION {}",
                identifier(&tablespace.name),
                identifier(owner),
                literal(&location.display().to_string())
            ))
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnpg::{ClusterSpec, ClusterStatus};
    use rstest::rstest;

    #[rstest]
    #[case(Some("c-1"), true, Duty::Lead)]
    #[case(None, true, Duty::Lead)]
    #[case(Some("pending"), true, Duty::StepDown)]
    #[case(Some("c-2"), true, Duty::StepDown)]
    #[case(Some("c-1"), false, Duty::Promote)]
    #[case(Some("pending"), false, Duty::Follow)]
    #[case(Some("c-2"), false, Duty::Follow)]
    fn duties(#[case] target: Option<&str>, #[case] is_primary: bool, #[case] expected: Duty) {
        let mut cluster = Cluster::new("c", ClusterSpec::default());
        cluster.status = Some(ClusterStatus {
            target_primary: target.map(str::to_owned),
            ..ClusterStatus::default()
        });
        assert_eq!(duty(&cluster, "c-1", is_primary), expected);
    }
}
