//! The HTTPS server on port 8000: probes of the kubelet and the status the operator polls.

use super::state::Shared;
use super::{isolation, programs, report};
use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Starts the server with the certificate of the cluster.
pub(super) async fn serve(shared: Arc<Shared>) -> anyhow::Result<()> {
    let acceptor = acceptor(&shared)?;
    let host = if shared.place.listen == "*" {
        "0.0.0.0"
    } else {
        &shared.place.listen
    };
    let listener = TcpListener::bind((host, crate::cnpg::names::STATUS_PORT))
        .await
        .context("listening on 8000")?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/failsafe", get(|| async { "OK" }))
        .route("/pg/status", get(status))
        .with_state(shared);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let acceptor = acceptor.clone();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

fn acceptor(shared: &Shared) -> anyhow::Result<TlsAcceptor> {
    let directory = shared.place.certificates();
    let chain = CertificateDer::pem_file_iter(directory.join("server.crt"))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context("reading server.crt")?;
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).context("reading server.key")?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("using the server's certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn server_ready(shared: &Shared) -> bool {
    programs::accepts_connections(&shared.place, shared.place.sockets().as_os_str()).await
}

fn answer(good: bool, bad: &'static str) -> Response {
    if good {
        "OK".into_response()
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, bad).into_response()
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    answer(!isolation::isolated(&shared).await, "the primary is isolated")
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    answer(
        !shared.might_be_unavailable() && server_ready(&shared).await,
        "the server is not ready",
    )
}

async fn startupz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.might_be_unavailable() {
        return "Skipped".into_response();
    }
    answer(server_ready(&shared).await, "the server has not started")
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    match report::collect(&shared).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}
