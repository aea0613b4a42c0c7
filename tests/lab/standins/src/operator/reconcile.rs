//! One round for one cluster, in the documented order of giving up early.

use super::election::{self, Decision, Roles};
use super::observe::{self, Seen};
use super::{Args, hibernation, resources, secrets, status, work};
use crate::cnpg::{Cluster, Phase, Scope, names, now, record_event};
use anyhow::Context;
use std::time::Duration;

/// One round. An error means: again in the next.
pub(super) async fn reconcile(args: &Args, scope: &Scope, cluster: Cluster) -> anyhow::Result<()> {
    if cluster.annotation(names::RECONCILIATION_LOOP) == Some("disabled")
        || cluster.metadata.deletion_timestamp.is_some()
    {
        return Ok(());
    }
    resources::ensure_root_ca(scope).await?;
    let ca = secrets::ensure(scope, &cluster).await?;
    resources::ensure_all(scope, &cluster).await?;
    let seen = observe::look(args, scope, &cluster, &ca).await?;
    for (instance, error) in &seen.errors {
        tracing::debug!(instance, "no report: {error}");
    }
    work::finish_bootstraps(scope, &seen).await?;
    let image = cluster.spec.image_name.as_deref().unwrap_or(&args.image);
    let cluster = status::write(scope, &cluster, &status::refreshed(&cluster, &seen, image))
        .await
        .context("refreshing the status")?;
    work::label_roles(scope, &cluster, &seen).await?;
    if !lead(scope, &cluster, &seen).await? {
        return Ok(());
    }
    work::reconcile(args, scope, &cluster, &seen).await
}

/// Settles who leads; `true` when other work may go on.
async fn lead(scope: &Scope, cluster: &Cluster, seen: &Seen) -> anyhow::Result<bool> {
    let roles = Roles {
        current: cluster.current_primary(),
        target: cluster.target_primary(),
    };
    let current = roles.current.unwrap_or_default();
    let decision = election::decide(roles, &seen.candidates);
    let before_election = matches!(
        decision,
        Decision::Proceed | Decision::StartFailover | Decision::AwaitReceivers | Decision::Elect(_)
    );
    if before_election && hibernation::reconcile(scope, cluster, seen).await? {
        return Ok(false);
    }
    match decision {
        Decision::Proceed => {
            if cluster
                .observed()
                .current_primary_failing_since_timestamp
                .is_some()
            {
                let mut after = cluster.observed();
                after.current_primary_failing_since_timestamp = None;
                status::write(scope, cluster, &after).await?;
                return Ok(false);
            }
            return Ok(true);
        }
        Decision::AwaitSwitchover => {
            tracing::debug!("waiting for the switchover to {:?}", roles.target);
        }
        Decision::RevertTarget => {
            let mut after = cluster.observed();
            after.target_primary = Some(current.to_owned());
            after.target_primary_timestamp = Some(now());
            status::write(scope, cluster, &after).await?;
        }
        Decision::AwaitOldPrimary => {
            let text = "An old primary pod has been detected. Awaiting its recognition of the new role";
            tracing::info!("{text}");
            let mut after = cluster.observed();
            after.phase_reason = Some(text.to_owned());
            status::write(scope, cluster, &after).await?;
        }
        Decision::CommunicationIssue => {
            status::phase(
                scope,
                cluster,
                Phase::CommunicationIssue,
                "No Ready instance answers",
            )
            .await?;
        }
        Decision::NoSpace => {
            let reason = "Insufficient disk space detected in one or more pods is preventing PostgreSQL from running. \
                          Please verify your storage settings. Further information inside .status.instancesReportedState";
            status::phase(scope, cluster, Phase::NotEnoughDiskSpace, reason).await?;
        }
        Decision::AwaitReadiness(instance) => {
            tracing::info!(instance, "Waiting for the Kubelet to refresh the readiness probe");
        }
        Decision::PrimaryStatusFails => {
            let message = format!("The primary {current} is Ready but its status cannot be read");
            if cluster
                .observed()
                .current_primary_failing_since_timestamp
                .is_none()
            {
                record_event(scope, cluster, "Warning", "PrimaryStatusCheckFailed", &message).await;
                let mut after = cluster.observed();
                after.current_primary_failing_since_timestamp = Some(now());
                status::write(scope, cluster, &after).await?;
            }
        }
        Decision::StartFailover => start_failover(scope, cluster, current).await?,
        Decision::AwaitReceivers => tracing::info!("waiting for all WAL receivers to be down"),
        Decision::Elect(winner) => {
            record_event(
                scope,
                cluster,
                "Normal",
                "FailoverTarget",
                &format!("Failing over from {current} to {winner}"),
            )
            .await;
            let mut after = cluster.observed();
            after.target_primary = Some(winner.clone());
            after.target_primary_timestamp = Some(now());
            after.current_primary_failing_since_timestamp = None;
            status::enter(
                &mut after,
                Phase::FailingOver,
                &format!("Failing over from {current} to {winner}"),
            );
            status::write(scope, cluster, &after).await?;
        }
    }
    Ok(false)
}

/// The primary is lost: after `failoverDelay` the election begins.
async fn start_failover(scope: &Scope, cluster: &Cluster, current: &str) -> anyhow::Result<()> {
    let mut after = cluster.observed();
    let since = after
        .current_primary_failing_since_timestamp
        .get_or_insert_with(now)
        .clone();
    let delay = Duration::from_secs(cluster.spec.failover_delay);
    if elapsed(&since) >= delay {
        record_event(
            scope,
            cluster,
            "Normal",
            "FailingOver",
            &format!("Current primary isn't healthy, initiating a failover from {current}"),
        )
        .await;
        after.target_primary = Some(names::PENDING.to_owned());
        after.target_primary_timestamp = Some(now());
        status::enter(
            &mut after,
            Phase::FailingOver,
            &format!("Failing over from {current} to pending"),
        );
    }
    status::write(scope, cluster, &after).await.map(drop)
}

fn elapsed(since: &str) -> Duration {
    let Ok(since) = since.parse::<jiff::Timestamp>() else {
        return Duration::MAX;
    };
    Duration::try_from(jiff::Timestamp::now().duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_cannot_be_read_is_over() {
        assert_eq!(elapsed("yesterday"), Duration::MAX);
        assert!(elapsed("2020-01-01T00:00:00Z") > Duration::from_secs(1));
        assert!(elapsed(&now()) < Duration::from_secs(5));
    }
}
