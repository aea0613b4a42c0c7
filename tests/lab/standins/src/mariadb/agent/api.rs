//! The API on port 5555: what the operator's recovery asks for.

use super::Agent;
use crate::mariadb::resource::{Position, SavedState};
use crate::mariadb::{names, server_config};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use std::io::ErrorKind;
use std::sync::Arc;

pub(super) fn router(agent: Arc<Agent>) -> Router {
    let guarded = Router::new()
        .route("/api/galera/state", get(state))
        .route(
            "/api/galera/bootstrap",
            get(bootstrap_enabled)
                .put(enable_bootstrap)
                .delete(disable_bootstrap),
        )
        .layer(middleware::from_fn_with_state(agent.clone(), authenticate));
    Router::new()
        .route("/health", get(|| async { "OK" }))
        .merge(guarded)
        .with_state(agent)
}

async fn authenticate(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let wanted = base64::engine::general_purpose::STANDARD.encode(format!(
        "{}:{}",
        names::AGENT_USER,
        agent.api_password
    ));
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if given.and_then(|given| given.strip_prefix("Basic ")) == Some(&wanted) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

fn failed(error: &impl std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

async fn state(State(agent): State<Arc<Agent>>) -> Response {
    match std::fs::read_to_string(agent.args.datadir.join(names::GRASTATE)) {
        Ok(text) => match SavedState::parse(&text) {
            Some(state) => Json(state).into_response(),
            None => failed(&"error unmarshaling galera state"),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

async fn bootstrap_enabled(State(agent): State<Arc<Agent>>) -> StatusCode {
    if agent.args.config.join(names::BOOTSTRAP_FILE).exists() {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

/// Rewrites `grastate.dat` as safe to bootstrap, at the given position if there is one, and asks the next start to
/// bootstrap. Without a `grastate.dat` this fails.
async fn enable_bootstrap(State(agent): State<Arc<Agent>>, body: Bytes) -> Response {
    let position = if body.is_empty() {
        None
    } else {
        match serde_json::from_slice::<Position>(&body) {
            Ok(position) => Some(position),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    };
    match write_bootstrap(&agent, position) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => failed(&error),
    }
}

fn write_bootstrap(agent: &Agent, position: Option<Position>) -> std::io::Result<()> {
    let file = agent.args.datadir.join(names::GRASTATE);
    let mut state = SavedState::parse(&std::fs::read_to_string(&file)?)
        .ok_or_else(|| std::io::Error::other("error unmarshaling galera state"))?;
    if let Some(Position { uuid, seqno }) = position {
        state = SavedState { uuid, seqno, ..state };
    }
    state.safe_to_bootstrap = true;
    std::fs::write(&file, state.render())?;
    std::fs::write(
        agent.args.config.join(names::BOOTSTRAP_FILE),
        server_config::BOOTSTRAP,
    )
}

async fn disable_bootstrap(State(agent): State<Arc<Agent>>) -> Response {
    match std::fs::remove_file(agent.args.config.join(names::BOOTSTRAP_FILE)) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) if error.kind() == ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}
