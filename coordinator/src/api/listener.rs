//! [`Listener`]: the one TLS port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hasteward_proto::channel::reverse::{http2_server, prepare_socket};
use hasteward_proto::channel::tls::{Protocol, accept};
use hasteward_proto::channel::{PeerCertificate, PeerIdentity};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::gate::Gate;
use crate::fleet::Fleet;

/// How long calls of people may go on after `shutdown`.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most connections of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// Connections of people and of enrolment.
    pub people: usize,
    /// Connections of agents.
    pub agents: usize,
    /// How long a connection of people or of enrolment lives at most; calls in flight are finished.
    pub people_age: Duration,
    /// How soon such a connection must make its first call: nobody holds places without credentials.
    pub first_call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            people: 512,
            agents: 8192,
            people_age: Duration::from_secs(3600),
            first_call: Duration::from_secs(30),
        }
    }
}

/// The one TLS port: agents by ALPN `hasteward-reverse/1`, people and enrolment by `h2`.
pub struct Listener {
    configs: watch::Receiver<Arc<ServerConfig>>,
    fleet: Fleet,
    gate: Gate,
    limits: Limits,
}

/// Shared by the tasks of all connections.
struct Door {
    fleet: Fleet,
    gate: Gate,
    limits: Limits,
    people: Arc<Semaphore>,
    agents: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Listener {
    /// Takes the newest of `configs` for each connection.
    #[must_use]
    pub const fn new(
        configs: watch::Receiver<Arc<ServerConfig>>,
        fleet: Fleet,
        gate: Gate,
        limits: Limits,
    ) -> Self {
        Self {
            configs,
            fleet,
            gate,
            limits,
        }
    }

    /// Serves until `shutdown`, then cuts the agents' connections and lets calls of people finish (ten seconds).
    pub async fn serve(self, socket: TcpListener, shutdown: CancellationToken) {
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        let door = Arc::new(Door {
            people: Arc::new(Semaphore::new(self.limits.people)),
            agents: Arc::new(Semaphore::new(self.limits.agents)),
            fleet: self.fleet,
            gate: self.gate,
            limits: self.limits,
            shutdown: shutdown.clone(),
        });
        let tasks = TaskTracker::new();
        // A permit first: where handshakes are many, further connections wait in the kernel's queue.
        while let Some(Ok(permit)) = shutdown
            .run_until_cancelled(handshakes.clone().acquire_owned())
            .await
        {
            let (stream, from) = match shutdown.run_until_cancelled(socket.accept()).await {
                None => break,
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => {
                    warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let config = self.configs.borrow().clone();
            let door = door.clone();
            tasks.spawn(async move { door.enter(stream, from, config, permit).await });
        }
        drop(socket);
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            debug!("connections were still open at shutdown");
        }
    }
}

/// An answer that carries nothing but an error has its status among the headers (gRPC over HTTP/2, *Trailers-Only*).
fn is_refusal(headers: &http::HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status != "0")
}

impl Door {
    async fn enter(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        config: Arc<ServerConfig>,
        handshake: OwnedSemaphorePermit,
    ) {
        if prepare_socket(&stream).is_err() {
            return;
        }
        let limit = self.fleet.settings().handshake_timeout;
        let accepted = match self
            .shutdown
            .run_until_cancelled(accept(config, stream, limit))
            .await
        {
            None => return,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                debug!(%from, %error, "connection refused");
                self.fleet.events().refused("tls");
                return;
            }
        };
        drop(handshake);
        let permits = match accepted.protocol {
            Protocol::People => &self.people,
            Protocol::Reverse => &self.agents,
        };
        let Ok(_permit) = permits.clone().try_acquire_owned() else {
            warn!(%from, "connection refused: too many");
            self.fleet.events().refused("too-many");
            return;
        };
        match accepted.protocol {
            Protocol::People => self.people(accepted.stream, accepted.peer).await,
            Protocol::Reverse => self.agent(accepted.stream, accepted.peer, from).await,
        }
    }

    /// A connection on which the coordinator calls: only with the certificate of a node.
    async fn agent<S>(&self, stream: S, peer: Option<PeerCertificate>, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (node, expires) = match peer {
            Some(PeerCertificate {
                identity: PeerIdentity::Node(node),
                not_after,
                ..
            }) => (node, not_after),
            Some(other) => {
                warn!(%from, identity = %other.identity, "refused as an agent");
                self.fleet.events().refused("not-a-node");
                return;
            }
            None => {
                warn!(%from, "an agent without a certificate was refused");
                self.fleet.events().refused("no-certificate");
                return;
            }
        };
        let served = tokio::select! {
            served = self.fleet.serve(stream, node.clone(), Some(expires)) => served,
            // Dropping it cuts the connection; the agent goes to another replica, or comes back.
            () = self.shutdown.cancelled() => return,
        };
        if let Err(error) = served {
            warn!(%from, %node, %error, "agent refused");
            self.fleet.events().refused(error.code());
        }
    }

    /// A connection on which people or enrolling agents call.
    async fn people<S>(&self, stream: S, peer: Option<PeerCertificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(peer);
        let gate = self.gate.clone();
        let called = Arc::new(AtomicBool::new(false));
        let calling = called.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (gate, peer, calling) = (gate.clone(), peer.clone(), calling.clone());
            async move {
                let answer = gate.answer(request, (*peer).as_ref()).await;
                // A refusal earns nobody a place: else a stranger could hold all of them.
                if answer.as_ref().is_ok_and(|answer| !is_refusal(answer.headers())) {
                    calling.store(true, Ordering::Relaxed);
                }
                answer
            }
        });
        let serving = http2_server(self.fleet.settings()).serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let silent = async {
            tokio::time::sleep(self.limits.first_call).await;
            if called.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = silent => {
                self.fleet.events().refused("silent");
                return;
            }
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, serving).await.unwrap_or(Ok(()))
            }
            () = tokio::time::sleep(self.limits.people_age) => {
                serving.as_mut().graceful_shutdown();
                tokio::time::timeout(self.limits.people_age, serving).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            debug!(%error, "a connection ended early");
        }
    }
}
