//! kube-rs against the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod objects;
mod watches;

use common::{LONG, object};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::time::timeout;

fn configmaps(client: &kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the server: {other}"),
    }
}

async fn configmap(api: &Api<ConfigMap>, name: &str) -> ConfigMap {
    api.create(
        &PostParams::default(),
        &object(json!({"metadata": {"name": name}, "data": {"a": "1"}})),
    )
    .await
    .unwrap()
}

/// Polls until a condition holds; the server works in the background.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let poll = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, poll).await.expect("the condition holds in time");
}
