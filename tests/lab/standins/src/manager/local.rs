//! The manager's server on localhost, for its own commands: `wal-archive` and `wal-restore` run as children of the
//! database server and ask here instead of the API server.

use super::Place;
use super::state::Shared;
use crate::cnpg::{Cluster, now};
use anyhow::{Context, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The result of one archiving.
#[derive(Serialize, Deserialize)]
struct Archived {
    error: Option<String>,
}

fn address(place: &Place) -> (String, u16) {
    let host = if place.listen == "*" {
        "127.0.0.1"
    } else {
        &place.listen
    };
    (host.to_owned(), crate::cnpg::names::LOCAL_PORT)
}

/// Starts the server.
pub(super) async fn serve(shared: Arc<Shared>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address(&shared.place))
        .await
        .context("listening on localhost")?;
    let router = Router::new()
        .route(
            "/cache/cluster",
            get(|State(shared): State<Arc<Shared>>| async move { Json(shared.cluster()) }),
        )
        .route("/cluster/status/condition/wal/archive", post(archived))
        .with_state(shared);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the local server ended: {error}");
        }
    });
    Ok(())
}

async fn archived(State(shared): State<Arc<Shared>>, Json(result): Json<Archived>) -> StatusCode {
    let mut status = shared.cluster().observed();
    let (reason, message) = match &result.error {
        None => (
            "ContinuousArchivingSuccess",
            "Continuous archiving is working".to_owned(),
        ),
        Some(error) => ("ContinuousArchivingFailing", error.clone()),
    };
    let before = status.conditions.clone();
    status.set_condition(
        "ContinuousArchiving",
        result.error.is_none(),
        reason,
        &message,
        &now(),
    );
    if before == status.conditions {
        return StatusCode::OK;
    }
    match shared
        .patch_status(&json!({ "conditions": status.conditions }))
        .await
    {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::warn!("condition ContinuousArchiving was not written: {error}");
            StatusCode::BAD_GATEWAY
        }
    }
}

/// The Cluster as the manager knows it.
pub(super) async fn cluster(place: &Place) -> anyhow::Result<Cluster> {
    let body = ask(place, "GET", "/cache/cluster", "").await?;
    serde_json::from_str(&body).context("reading the cached Cluster")
}

/// Tells the manager how an archiving went.
pub(super) async fn report_archiving(place: &Place, error: Option<String>) -> anyhow::Result<()> {
    let body = serde_json::to_string(&Archived { error })?;
    ask(place, "POST", "/cluster/status/condition/wal/archive", &body)
        .await
        .map(drop)
}

async fn ask(place: &Place, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address(place)).await?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .context("the manager does not answer")??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the manager's answer has no body")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("the manager answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
