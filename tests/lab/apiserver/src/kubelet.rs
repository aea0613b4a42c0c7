//! The way to a pod: its node's kubelet, over plain HTTP/1.1 inside the lab.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::answer::{self, Answer};
use crate::api::Api;
use crate::error::ApiError;
use crate::object::{at, text};
use crate::routes::Call;
use crate::store::{GroupResource, Key};

const CONNECT: Duration = Duration::from_secs(10);

/// The pod of a call, and its kubelet.
pub(crate) fn locate(
    api: &Api,
    namespace: &str,
    name: &str,
) -> Result<(std::sync::Arc<Value>, SocketAddr), ApiError> {
    let pod = api
        .store
        .get(&GroupResource::new("", "pods"), &Key::new(namespace, name))
        .ok_or_else(|| ApiError::not_found("", "pods", name))?;
    let node_name = text(&pod, &["spec", "nodeName"]);
    if node_name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let node = api
        .store
        .get(&GroupResource::new("", "nodes"), &Key::new("", node_name))
        .ok_or_else(|| ApiError::not_found("", "nodes", node_name))?;
    let addresses = at(&node, &["status", "addresses"]).and_then(Value::as_array);
    let address = addresses
        .into_iter()
        .flatten()
        .find(|a| a["type"] == "InternalIP");
    let address = address.and_then(|a| text(a, &["address"]).parse().ok());
    let port = at(&node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    match (address, port.and_then(|p| u16::try_from(p).ok())) {
        (Some(address), Some(port)) => Ok((pod, SocketAddr::new(address, port))),
        _ => Err(ApiError::internal(format!(
            "node {node_name} has no InternalIP or kubelet port"
        ))),
    }
}

async fn ask(
    kubelet: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<http::Response<Incoming>, ApiError> {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        ApiError::internal(format!("error dialing backend: {what} {kubelet}: {e}"))
    };
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(kubelet))
        .await
        .map_err(|e| failed("dial tcp", &e))?
        .map_err(|e| failed("dial tcp", &e))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed("speak to", &e))?;
    // Ends with the request: the connection is not kept.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|e| failed("ask", &e))
}

fn request(kubelet: SocketAddr, path: &str) -> http::request::Builder {
    Request::get(path).header(header::HOST, kubelet.to_string())
}

/// A raw byte stream to a port in a pod.
pub(crate) async fn dial(
    kubelet: SocketAddr,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<TokioIo<hyper::upgrade::Upgraded>, ApiError> {
    let asked = request(kubelet, &format!("/portForward/{namespace}/{pod}/{port}"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Empty::new())
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let answer = ask(kubelet, asked).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = answer.status();
        let why = answer
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        return Err(ApiError::internal(format!(
            "kubelet answered {code}: {}",
            String::from_utf8_lossy(&why)
        )));
    }
    let upgraded = hyper::upgrade::on(answer)
        .await
        .map_err(|e| ApiError::internal(format!("kubelet: {e}")))?;
    Ok(TokioIo::new(upgraded))
}

/// pods/log.
pub(crate) async fn log(call: &Call) -> Result<Answer, ApiError> {
    let (namespace, name) = (&call.path.namespace, &call.path.name);
    let (pod, kubelet) = locate(&call.api, namespace, name)?;
    let names: Vec<&str> = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|field| pod["spec"][field].as_array())
        .flatten()
        .map(|c| text(c, &["name"]))
        .collect();
    let main = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let container = match call.query.get("container") {
        Some(container) if names.contains(&container) => container,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "container {other} is not valid for pod {name}"
            )));
        }
        None if main == 1 => names[0],
        None => {
            return Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: {names:?}"
            )));
        }
    };
    let passed = [
        "follow",
        "tailLines",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "timestamps",
        "limitBytes",
    ];
    let query: Vec<String> = passed
        .into_iter()
        .filter_map(|key| {
            call.query
                .get(key)
                .map(|value| format!("{key}={}", value.replace([' ', '&', '#'], "")))
        })
        .collect();
    let path = format!(
        "/containerLogs/{namespace}/{name}/{container}?{}",
        query.join("&")
    );
    let asked = request(kubelet, &path)
        .body(Empty::new())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let answer = ask(kubelet, asked).await?;
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let why = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let why = String::from_utf8_lossy(&why).into_owned();
        return Err(match parts.status.as_u16() {
            404 | 400 => ApiError::bad_request(why),
            _ => ApiError::internal(why),
        });
    }
    // A kubelet that goes away ends the log; there is no way to tell a reader of plain text more.
    let frames = http_body_util::BodyStream::new(body);
    let frames = futures::StreamExt::filter_map(frames, |frame| async move { frame.ok().map(Ok) });
    let mut out = answer::text(StatusCode::OK, Bytes::new());
    *out.body_mut() = http_body_util::StreamBody::new(frames).boxed_unsync();
    Ok(out)
}
