//! The kubelet's HTTP server: logs, port-forward, health.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Key, key};
use crate::kubelet::{Node, PATIENCE};
use crate::logs;
use crate::pod::record::{Board, State as ContainerState};

/// Pods that run here.
#[derive(Debug, Default)]
pub struct Served {
    pods: Mutex<BTreeMap<Key, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    uid: String,
    sandbox: i32,
    board: Board,
}

impl Served {
    /// A pod has a sandbox.
    pub fn sandbox(&self, pod: &Pod, sandbox: i32, board: &Board) {
        let entry = Entry {
            uid: pod.uid().unwrap_or_default(),
            sandbox,
            board: board.clone(),
        };
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key(pod), entry);
    }

    /// A pod runs no more.
    pub fn forget(&self, pod: &Pod) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods
            .get(&key(pod))
            .is_some_and(|entry| Some(&entry.uid) == pod.metadata.uid.as_ref())
        {
            pods.remove(&key(pod));
        }
    }

    fn get(&self, namespace: &str, pod: &str) -> Option<Entry> {
        let key = (namespace.to_owned(), pod.to_owned());
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, node: Arc<Node>) {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .route("/portForward/{namespace}/{pod}/{port}", get(port_forward))
        .with_state(node);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP server");
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: Option<String>,
    tail_lines: Option<usize>,
    previous: Option<String>,
}

fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "true" || value == "1" || value.is_empty())
}

fn not_found(what: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("{what} not found\n")).into_response()
}

async fn container_logs(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let Some((path, board)) = log_path(
        &node,
        &namespace,
        &pod,
        &container,
        is_true(query.previous.as_ref()),
    ) else {
        return not_found("container");
    };
    let mut reader = logs::Reader::new(path);
    let text = match reader.all() {
        Ok(text) => text,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let text = query
        .tail_lines
        .map_or(text.as_slice(), |count| logs::tail(&text, count));
    let begin = Bytes::copy_from_slice(text);
    let mut response = match board.filter(|_| is_true(query.follow.as_ref())) {
        None => Body::from(begin),
        Some(board) => Body::from_stream(follow(begin, reader, board, container)),
    }
    .into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// The log wanted, and the records when the pod is still here.
fn log_path(
    node: &Node,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Option<(PathBuf, Option<Board>)> {
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    if !(plain(namespace) && plain(pod) && plain(container)) {
        return None;
    }
    let state = &node.options.state;
    if let Some(entry) = node.served.get(namespace, pod) {
        let record = entry.board.get(container)?;
        let attempt = if previous {
            record.restarts.checked_sub(1)?
        } else {
            record.restarts
        };
        let directory = logs::directory(state, namespace, pod, &entry.uid);
        return Some((logs::file(&directory, container, attempt), Some(entry.board)));
    }
    // A pod whose containers have all ended: the latest log that is kept.
    let start = format!("{namespace}_{pod}_");
    let entries = std::fs::read_dir(state.join("logs")).ok()?.flatten();
    let directory = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .last()?
        .path();
    let runs = std::fs::read_dir(directory.join(container)).ok()?.flatten();
    let number = |entry: std::fs::DirEntry| {
        entry
            .file_name()
            .to_str()?
            .strip_suffix(".log")?
            .parse::<u32>()
            .ok()
    };
    let attempt = runs.filter_map(number).max()?;
    let attempt = if previous {
        attempt.checked_sub(1)?
    } else {
        attempt
    };
    Some((logs::file(&directory, container, attempt), None))
}

const LOOK: Duration = Duration::from_millis(100);

/// The log so far, then what comes, until that run of the container has ended.
fn follow(
    begin: Bytes,
    reader: logs::Reader,
    board: Board,
    container: String,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    let restarts = board.get(&container).map(|record| record.restarts);
    futures::stream::unfold((Some(begin), reader, false), move |(begin, mut reader, over)| {
        let (board, container) = (board.clone(), container.clone());
        async move {
            if let Some(begin) = begin {
                return Some((Ok(begin), (None, reader, over)));
            }
            let mut over = over;
            loop {
                if over {
                    return None;
                }
                // Looked at before the log is read: what the last look finds is complete.
                over = board.get(&container).is_none_or(|record| {
                    Some(record.restarts) != restarts || matches!(record.state, ContainerState::Terminated(_))
                });
                match reader.more() {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => return Some((Ok(text.into()), (None, reader, over))),
                    Err(error) => return Some((Err(error), (None, reader, true))),
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    })
}

async fn port_forward(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, port)): Path<(String, String, u16)>,
    mut request: Request<Body>,
) -> Response {
    let Some(entry) = node.served.get(&namespace, &pod) else {
        return not_found("pod");
    };
    let upgrade = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"tcp"));
    if !upgrade {
        return (StatusCode::BAD_REQUEST, "Upgrade: tcp expected\n").into_response();
    }
    let mut target = match connect(entry.sandbox, port).await {
        Ok(stream) => stream,
        Err(error) => {
            return (
                StatusCode::BAD_GATEWAY,
                format!("connect to port {port} of {pod}: {error}\n"),
            )
                .into_response();
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => drop(tokio::io::copy_bidirectional(&mut TokioIo::new(stream), &mut target).await),
            Err(error) => tracing::debug!(%error, "port-forward"),
        }
    });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Connects within the network namespace of a sandbox: to its loopback, else to the address of the pod.
async fn connect(sandbox: i32, port: u16) -> std::io::Result<TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel::<std::io::Result<std::net::TcpStream>>();
    // A thread of its own: it stays in that namespace until it ends.
    std::thread::Builder::new()
        .name("port-forward".to_owned())
        .spawn(move || {
            let connect = || -> std::io::Result<std::net::TcpStream> {
                setns(
                    File::open(format!("/proc/{sandbox}/ns/net"))?,
                    CloneFlags::CLONE_NEWNET,
                )?;
                let stream = open(Ipv4Addr::LOCALHOST, port).or_else(|error| {
                    let own = own_address().ok_or(error)?;
                    open(own, port)
                })?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            drop(sender.send(connect()));
        })?;
    TcpStream::from_std(receiver.await.map_err(std::io::Error::other)??)
}

fn open(address: Ipv4Addr, port: u16) -> std::io::Result<std::net::TcpStream> {
    std::net::TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)
}

/// The address of the calling thread's network namespace.
fn own_address() -> Option<Ipv4Addr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .find(|address| !address.is_loopback())
}
