//! pods/portforward: three protocols of clients, one of kubelets.
//!
//! - WebSocket with channels (`v4.channel.k8s.io`), as kube-rs speaks it;
//! - SPDY/3.1 inside a WebSocket (`SPDY/3.1+portforward.k8s.io`), kubectl from 1.30;
//! - SPDY/3.1 by HTTP upgrade, older kubectl.

mod dictionary;
mod frames;
mod spdy;
mod websocket;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::answer::Answer;
use crate::error::ApiError;
use crate::kubelet;
use crate::routes::Call;

const CHANNELS: &str = "v4.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
const STREAMS: &str = "portforward.k8s.io";

/// The pod that streams go to.
#[derive(Debug, Clone)]
struct Target {
    kubelet: SocketAddr,
    namespace: String,
    pod: String,
}

impl Target {
    async fn dial(&self, port: u16) -> Result<TokioIo<hyper::upgrade::Upgraded>, ApiError> {
        kubelet::dial(self.kubelet, &self.namespace, &self.pod, port).await
    }
}

/// How a client wants to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Protocol {
    Channels(Vec<u16>),
    Tunnel,
    Spdy,
}

fn words<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

fn protocol(call: &Call, headers: &HeaderMap) -> Result<Protocol, ApiError> {
    let upgrade = |to: &str| words(headers, "upgrade").any(|w| w.eq_ignore_ascii_case(to));
    if upgrade(SPDY) {
        // Old clients may name no stream protocol at all.
        let mut asked = words(headers, "x-stream-protocol-version").peekable();
        if asked.peek().is_some() && !asked.any(|w| w == STREAMS) {
            return Err(ApiError::forbidden(format!(
                "unable to upgrade: only {STREAMS} is spoken"
            )));
        }
        return Ok(Protocol::Spdy);
    }
    if !upgrade("websocket") {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    if words(headers, "sec-websocket-protocol").any(|w| w == TUNNEL) {
        return Ok(Protocol::Tunnel);
    }
    if !words(headers, "sec-websocket-protocol").any(|w| w == CHANNELS) {
        return Err(ApiError::bad_request(format!(
            "unable to upgrade: {CHANNELS} or {TUNNEL} is spoken"
        )));
    }
    let ports = call.query.all("ports").flat_map(|p| p.split(','));
    let ports = ports.map(str::parse).collect::<Result<Vec<u16>, _>>();
    match ports {
        // Two channels a port, one byte for the channel.
        Ok(ports) if (1..=127).contains(&ports.len()) && !ports.contains(&0) => Ok(Protocol::Channels(ports)),
        _ => Err(ApiError::bad_request(
            "query parameter \"ports\" must list 1 to 127 ports",
        )),
    }
}

/// Switches protocols and serves the streams until the client or the pod ends them.
pub(crate) fn answer(call: &Call, mut request: Request<Incoming>) -> Result<Answer, ApiError> {
    let protocol = protocol(call, request.headers())?;
    let (pod, kubelet) = kubelet::locate(&call.api, &call.path.namespace, &call.path.name)?;
    let phase = crate::object::text(&pod, &["status", "phase"]);
    if phase != "Running" {
        return Err(ApiError::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let target = Target {
        kubelet,
        namespace: call.path.namespace.clone(),
        pod: call.path.name.clone(),
    };
    let accept = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes()));
    let upgrade = hyper::upgrade::on(&mut request);
    let mut answer = Response::new(Empty::<Bytes>::new().boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match &protocol {
        Protocol::Spdy => {
            headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert("x-stream-protocol-version", HeaderValue::from_static(STREAMS));
        }
        Protocol::Channels(_) | Protocol::Tunnel => {
            let accept = accept.ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key is missing"))?;
            let accept = accept
                .parse()
                .map_err(|_| ApiError::bad_request("Sec-WebSocket-Key is malformed"))?;
            let chosen = if protocol == Protocol::Tunnel {
                TUNNEL
            } else {
                CHANNELS
            };
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
        }
    }
    call.api.background.spawn(async move {
        let client = match upgrade.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return tracing::debug!(%error, "port-forward upgrade"),
        };
        let ended = match protocol {
            Protocol::Spdy => spdy::serve(client, target).await,
            Protocol::Tunnel => websocket::tunnel(client, target).await,
            Protocol::Channels(ports) => websocket::channels(client, target, &ports).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "port-forward");
        }
    });
    Ok(answer)
}
