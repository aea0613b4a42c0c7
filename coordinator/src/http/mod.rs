//! `/metrics`, `/healthz`, `/readyz` over plain HTTP, for probes and scrapers.

pub mod metrics;
mod ready;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::metrics::Metrics;
pub use self::ready::{NotReady, Readiness};

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let address = listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    tracing::info!(%address, "serving /metrics, /healthz and /readyz");
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, readiness });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 and `ok`, or 503 and a line for each thing that is missing.
async fn ready(State(shared): State<Shared>) -> Response {
    let missing = shared.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let lines: String = missing.iter().map(|m| format!("{m}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    struct Fixed(Vec<NotReady>);

    impl Readiness for Fixed {
        fn missing(&self) -> Vec<NotReady> {
            self.0.clone()
        }
    }

    async fn get_path(path: &str, missing: Vec<NotReady>) -> (StatusCode, String) {
        let shared = Shared {
            metrics: Arc::new(Metrics::new("test").unwrap()),
            readiness: Arc::new(Fixed(missing)),
        };
        let router = Router::new()
            .route("/metrics", get(scrape))
            .route("/readyz", get(ready))
            .with_state(shared);
        let response = router
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        assert_eq!(
            get_path("/readyz", Vec::new()).await,
            (StatusCode::OK, "ok\n".to_owned())
        );
        let (status, body) = get_path(
            "/readyz",
            vec![NotReady::Watch {
                kind: "pods",
                why: "not synced".to_owned(),
            }],
        )
        .await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("pods"), "{body}");
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let (status, body) = get_path("/metrics", Vec::new()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            body.contains("hasteward_build_info{version=\"test\"} 1"),
            "{body}"
        );
    }
}
