//! The probes on port 5566, asked by the kubelet.

use super::Agent;
use crate::mariadb::{client, names};
use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;

/// What the API server has to answer with before the agent goes on without it.
const API_BUDGET: Duration = Duration::from_secs(1);

pub(super) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/health", get(|| async { "OK" }))
        .route("/liveness", get(liveness))
        .route("/readiness", get(readiness))
        .with_state(agent)
}

fn answer(result: anyhow::Result<()>) -> Response {
    match result {
        Ok(()) => "OK".into_response(),
        Err(error) => {
            tracing::debug!("probe: {error:#}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
        }
    }
}

/// `Some(ready)` as the condition says, and whether a donor counts as ready.
async fn resource(agent: &Agent) -> (Option<bool>, bool) {
    let Some(resources) = &agent.resources else {
        return (None, false);
    };
    match tokio::time::timeout(API_BUDGET, resources.get(&agent.args.mariadb)).await {
        Ok(Ok(mariadb)) => (
            mariadb.observed().condition(names::GALERA_READY),
            mariadb.galera().available_when_donor,
        ),
        _ => (None, false),
    }
}

/// During a recovery always alive, so that nothing kills what is being recovered; else the node must be in a primary
/// component.
async fn liveness(State(agent): State<Arc<Agent>>) -> Response {
    if resource(&agent).await.0 == Some(false) {
        return "OK".into_response();
    }
    answer(primary(&agent).await.map(drop))
}

async fn readiness(State(agent): State<Arc<Agent>>) -> Response {
    let (_, available_when_donor) = resource(&agent).await;
    answer(async { ready(&primary(&agent).await?, available_when_donor) }.await)
}

fn ready(state: &str, available_when_donor: bool) -> anyhow::Result<()> {
    ensure!(
        state == "Synced" || (available_when_donor && state == "Donor/Desynced"),
        "wsrep_local_state_comment is {state}"
    );
    Ok(())
}

/// The local state of a node that is in a primary component.
async fn primary(agent: &Agent) -> anyhow::Result<String> {
    // SHOW works without quorum, when ordinary queries are refused.
    let sql =
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_status', 'wsrep_local_state_comment')";
    let rows = client::query(
        "127.0.0.1",
        names::SQL_PORT,
        &agent.root_password,
        sql,
        agent.budget(),
    )
    .await?;
    let value = |name: &str| {
        rows.lines()
            .filter_map(|row| row.split_once('\t'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .with_context(|| format!("no {name}"))
    };
    let status = value("wsrep_cluster_status")?;
    ensure!(status == "Primary", "wsrep_cluster_status is {status}");
    value("wsrep_local_state_comment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_donor_is_ready_only_when_asked_for() {
        assert!(ready("Synced", false).is_ok() && ready("Donor/Desynced", true).is_ok());
        assert!(ready("Donor/Desynced", false).is_err() && ready("Joined", true).is_err());
    }
}
