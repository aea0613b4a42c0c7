//! A server in this process, a node whose kubelet echoes, and clients.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hasteward_lab_apiserver::{Config, Server};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Nothing here takes longer.
pub const LONG: Duration = Duration::from_secs(30);

/// A server in a directory of its own.
pub struct Lab {
    pub server: Server,
    pub dir: TempDir,
}

impl Lab {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = Config::new(dir.path());
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(&config, vec![listener]).unwrap();
        Self { server, dir }
    }

    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> String {
        self.server
            .api()
            .authority
            .kubeconfig(user, groups, &self.server.url())
            .unwrap()
    }

    pub fn kubeconfig_file(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, self.kubeconfig("admin", &["system:masters"])).unwrap();
        path
    }

    pub async fn admin(&self) -> kube::Client {
        self.client("admin", &["system:masters"]).await
    }

    pub async fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        kube::Client::try_from(self.config(user, groups).await).unwrap()
    }

    /// A client with a bearer token instead of a certificate.
    pub async fn token_client(&self, token: &str) -> kube::Client {
        let mut config = self.config("nobody", &[]).await;
        config.auth_info = kube::config::AuthInfo {
            token: Some(token.to_owned().into()),
            ..Default::default()
        };
        kube::Client::try_from(config).unwrap()
    }

    async fn config(&self, user: &str, groups: &[&str]) -> kube::Config {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig(user, groups)).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        // kube's own retries (fifteen of every 429, 503 and 504) would hide what the server answers.
        config.default_retry = false;
        config
    }
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

fn text(code: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *answer.status_mut() = code;
    answer
}

/// What a kubelet answers here: logs are the path and query; port 80 echoes, port 81 greets and closes, every other
/// port refuses.
fn kubelet(mut request: Request<Incoming>) -> Answer {
    let path = request.uri().to_string();
    if path.starts_with("/containerLogs/") {
        return text(StatusCode::OK, format!("log of {path}\n"));
    }
    let port = path.rsplit('/').next().unwrap_or_default().to_owned();
    if !path.starts_with("/portForward/") || !["80", "81"].contains(&port.as_str()) {
        return text(StatusCode::BAD_GATEWAY, "connection refused".into());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        if port == "81" {
            let _ = stream.write_all(b"hello from the pod").await;
            let _ = stream.shutdown().await;
            return;
        }
        let mut buffer = vec![0; 8192];
        while let Ok(count) = stream.read(&mut buffer).await {
            if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = stream.shutdown().await;
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    answer
        .headers_mut()
        .insert("connection", "Upgrade".parse().unwrap());
    answer.headers_mut().insert("upgrade", "tcp".parse().unwrap());
    answer
}

/// Serves the kubelet until the runtime of the test ends.
pub async fn start_kubelet() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|r| async { Ok::<_, Infallible>(kubelet(r)) });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    address
}

pub fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A node with that kubelet, and a running pod `p` on it.
pub async fn running_pod(client: &kube::Client) {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use kube::api::{Api, Patch, PatchParams, PostParams};
    use serde_json::json;
    let kubelet = start_kubelet().await;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": kubelet.ip().to_string()}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}}}});
    nodes.create(&PostParams::default(), &object(node)).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "lab/x:1", "ports": [{"containerPort": 80}]}]}});
    pods.create(&PostParams::default(), &object(pod)).await.unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.1.5",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "lab/x:1", "imageID": "",
            "state": {"running": {}}}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}
