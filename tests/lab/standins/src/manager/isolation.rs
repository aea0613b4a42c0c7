//! The isolation check (CloudNativePG 1.27): a primary that reaches neither the API server nor any other instance
//! fails its liveness probe.

use super::state::Shared;
use crate::cnpg::{Cluster, names};
use crate::tls;
use std::time::Duration;

/// How old an answer of the API server may be without asking again; also both time limits of the check.
const LIMIT: Duration = Duration::from_secs(1);

/// Whether this instance is an isolated primary. A cluster of one is never isolated.
pub(super) async fn isolated(shared: &Shared) -> bool {
    let cluster = shared.cluster();
    if cluster.spec.instances < 2 || !shared.place.is_primary() || reaches_api(shared).await {
        return false;
    }
    let me = &shared.place.instance;
    let others: Vec<String> = cluster
        .observed()
        .instances_reported_state
        .into_iter()
        .filter(|(name, _)| name != me)
        .filter_map(|(_, state)| state.ip)
        .collect();
    if others.is_empty() {
        return false;
    }
    let Ok(ca) = std::fs::read_to_string(shared.place.certificates().join("server-ca.crt")) else {
        return false;
    };
    let Ok(client) = tls::StatusClient::new(&ca, &shared.place.write_service()) else {
        return false;
    };
    let asked = others
        .iter()
        .map(|ip| client.get(ip, names::STATUS_PORT, "/failsafe", LIMIT));
    let reached = futures::future::join_all(asked).await.iter().any(Result::is_ok);
    if !reached {
        tracing::warn!("neither the API server nor another instance can be reached");
    }
    !reached
}

async fn reaches_api(shared: &Shared) -> bool {
    if shared.api_reached_at().elapsed() < LIMIT {
        return true;
    }
    let api = shared.scope.api::<Cluster>();
    match tokio::time::timeout(LIMIT, api.get(&shared.place.cluster)).await {
        Ok(Ok(_) | Err(kube::Error::Api(_))) => {
            shared.reached_api();
            true
        }
        _ => false,
    }
}
