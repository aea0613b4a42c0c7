//! The agent's way to the coordinator: who it dials, and one [`line`](super::line) to each replica.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use hasteward_proto::channel::instance::NoRandomness;
use hasteward_proto::channel::reverse::prepare_socket;
use hasteward_proto::channel::tls::{DialledStream, Protocol, TlsError, client_config, connect};
use hasteward_proto::channel::{
    AgentInstance, CertifiedIdentity, ChannelSettings, MaterialError, ServerName, TrustBundle,
};
use hasteward_proto::primitive::NodeName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use super::enrol::{self, Credentials, Held};
use super::line::Line;

/// Addresses are not resolved more often than this, however often connections break.
const MIN_RESOLVE_PAUSE: Duration = Duration::from_secs(1);
/// No headless service of a coordinator has more replicas.
const MAX_ADDRESSES: usize = 16;

/// `host:port` of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorAddress {
    /// A name whose every address is a replica, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "coordinator address `{0}`: expected <host>:<port>, for example hasteward-coordinator.hasteward.svc:8443"
)]
pub struct AddressError(String);

impl FromStr for CoordinatorAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(120).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() || ServerName::try_from(host).is_err() {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Finds the addresses of the coordinator's replicas.
#[tonic::async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// Every address now.
    async fn resolve(&self, coordinator: &CoordinatorAddress) -> io::Result<Vec<SocketAddr>>;
}

/// Asks the system (hosts file, DNS).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[tonic::async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, coordinator: &CoordinatorAddress) -> io::Result<Vec<SocketAddr>> {
        Ok(
            tokio::net::lookup_host((coordinator.host.as_str(), coordinator.port))
                .await?
                .collect(),
        )
    }
}

/// Pauses between attempts.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// After the first failure; doubled after each further one, with jitter.
    pub min: Duration,
    /// Never longer than this (and its jitter).
    pub max: Duration,
    /// A connection that lived this long makes the pauses short again.
    pub healthy_after: Duration,
    /// How often the coordinator's addresses are resolved.
    pub resolve_every: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(500),
            max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            resolve_every: Duration::from_secs(30),
        }
    }
}

impl Pauses {
    /// A fresh sequence of pauses, without end. The seed keeps a thousand agents that lost one coordinator apart.
    pub(super) fn backoff(&self, seed: u64) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.min)
            .with_max_delay(self.max)
            .with_jitter()
            .with_jitter_seed(seed)
            .without_max_times()
            .build()
    }
}

/// How to reach the coordinator, and as whom.
#[derive(Clone)]
pub struct DialConfig {
    /// Where the coordinator is.
    pub coordinator: CoordinatorAddress,
    /// The name that its certificate must carry; `None` = the host of its address.
    pub server_name: Option<String>,
    /// The node that this agent speaks for.
    pub node: NodeName,
    /// How this agent comes by a certificate, and whom it trusts.
    pub credentials: Credentials,
    /// Bounds and time limits of connections.
    pub settings: ChannelSettings,
    /// Pauses between attempts.
    pub pauses: Pauses,
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
}

impl DialConfig {
    /// With the defaults of everything else.
    #[must_use]
    pub fn new(coordinator: CoordinatorAddress, node: NodeName, credentials: Credentials) -> Self {
        Self {
            coordinator,
            server_name: None,
            node,
            credentials,
            settings: ChannelSettings::default(),
            pauses: Pauses::default(),
            resolver: Arc::new(SystemResolver),
        }
    }

    /// The name that the coordinator must prove.
    ///
    /// # Errors
    /// Neither a host name nor an address.
    pub(super) fn name(&self) -> Result<ServerName<'static>, RunError> {
        let name = self.server_name.as_ref().unwrap_or(&self.coordinator.host);
        ServerName::try_from(name.clone()).map_err(|_| RunError::ServerName(name.clone()))
    }
}

/// The agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The name that the coordinator must prove is no name.
    #[error("server name `{0}`: expected a host name or an IP address")]
    ServerName(String),
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The certificate files cannot be used.
    #[error(transparent)]
    Identity(#[from] enrol::IdentityError),
}

/// One attempt to reach a coordinator failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The certificates to trust cannot be read.
    #[error(transparent)]
    Trust(#[from] MaterialError),
    /// No TCP connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No TCP connection in time.
    #[error("connect to {address}: no answer within {limit:?}")]
    ConnectTimeout {
        /// Where to.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The peer is not the coordinator that is trusted, or TLS failed otherwise.
    #[error("{address}: {source}")]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: TlsError,
    },
}

/// Connects and verifies that the peer is the coordinator. The trust bundle is read anew each time: it changes when the authority does.
pub(super) async fn dial(
    config: &DialConfig,
    name: &ServerName<'static>,
    address: SocketAddr,
    identity: Option<&CertifiedIdentity>,
    protocol: Protocol,
) -> Result<DialledStream<TcpStream>, DialError> {
    let bundle = TrustBundle::from_file(config.credentials.trust())?;
    let tls = |source| DialError::Tls { address, source };
    let client = client_config(&bundle, identity, protocol).map_err(tls)?;
    let limit = config.settings.handshake_timeout;
    let stream = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::ConnectTimeout { address, limit })?
        .and_then(|stream| prepare_socket(&stream).map(|()| stream))
        .map_err(|source| DialError::Connect { address, source })?;
    connect(Arc::new(client), name.clone(), stream, limit)
        .await
        .map_err(tls)
}

/// The distinct addresses of the coordinator.
pub(super) async fn addresses(config: &DialConfig) -> io::Result<BTreeSet<SocketAddr>> {
    Ok(one_family(config.resolver.resolve(&config.coordinator).await?))
}

/// With two families the same replica stands there twice, and its two connections would replace each other for ever.
fn one_family(found: Vec<SocketAddr>) -> BTreeSet<SocketAddr> {
    let v4 = found.iter().any(SocketAddr::is_ipv4);
    let distinct: BTreeSet<_> = found
        .into_iter()
        .filter(|address| address.is_ipv4() == v4)
        .collect();
    distinct.into_iter().take(MAX_ADDRESSES).collect()
}

/// What every line of this agent shares.
pub(super) struct Shared {
    pub config: DialConfig,
    pub name: ServerName<'static>,
    pub routes: Routes,
    pub instance: AgentInstance,
    pub identity: watch::Receiver<Option<Arc<Held>>>,
    /// Generation of an identity that a coordinator refused.
    pub rejected: watch::Sender<u64>,
    /// A line lost its connection: addresses may have changed.
    pub unsettled: Notify,
    pub shutdown: CancellationToken,
}

/// A running line.
struct Running {
    gone: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Enrols, dials every replica of the coordinator and serves `routes` to each, until `shutdown`. Whatever fails on the way is
/// logged and tried again.
///
/// # Errors
/// The configuration itself cannot be used.
pub async fn run(config: DialConfig, routes: Routes, shutdown: CancellationToken) -> Result<(), RunError> {
    let name = config.name()?;
    let (rejected, refusals) = watch::channel(0);
    let instance = AgentInstance::random()?;
    let identity = enrol::Keeper::new(config.clone(), name.clone(), refusals, instance.seed())?;
    let shared = Arc::new(Shared {
        name,
        routes,
        instance,
        identity: identity.subscribe(),
        rejected,
        unsettled: Notify::new(),
        shutdown: shutdown.clone(),
        config,
    });
    let stop = shutdown.clone();
    let keeping = tokio::spawn(async move { stop.run_until_cancelled(Box::pin(identity.keep())).await });
    let mut lines: BTreeMap<SocketAddr, Running> = BTreeMap::new();
    let pauses = shared.config.pauses;
    let mut retries = pauses.backoff(shared.instance.seed());
    while !shutdown.is_cancelled() {
        let pause = match addresses(&shared.config).await {
            Ok(found) if !found.is_empty() => {
                settle(&shared, &mut lines, &found);
                retries = pauses.backoff(shared.instance.seed());
                pauses.resolve_every
            }
            // An agent often starts before the coordinator has a name: that must not cost it a whole round.
            found => {
                let host = &shared.config.coordinator.host;
                let error = found
                    .err()
                    .map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
                warn!(host, error, "cannot resolve the coordinator's address");
                retries.next().unwrap_or(pauses.max).min(pauses.resolve_every)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
            () = shared.unsettled.notified() => {
                let pause = MIN_RESOLVE_PAUSE.min(shared.config.pauses.resolve_every);
                shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
    for running in lines.into_values() {
        // A line that panicked has said so already.
        let _ = running.task.await;
    }
    let _ = keeping.await;
    Ok(())
}

/// A line for each address; the lines of vanished addresses end when their connection does.
fn settle(shared: &Arc<Shared>, lines: &mut BTreeMap<SocketAddr, Running>, found: &BTreeSet<SocketAddr>) {
    lines.retain(|_, running| !running.task.is_finished());
    for (address, running) in lines.iter() {
        running.gone.send_if_modified(|gone| {
            std::mem::replace(gone, !found.contains(address)) == found.contains(address)
        });
    }
    for address in found {
        lines.entry(*address).or_insert_with(|| {
            info!(%address, "coordinator replica found");
            let (gone, is_gone) = watch::channel(false);
            let line = Line::new(shared.clone(), *address, is_gone);
            Running {
                gone,
                task: tokio::spawn(line.run()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let read = |text: &str| text.parse::<CoordinatorAddress>().map(|a| (a.host, a.port));
        assert_eq!(read("c.ns.svc:8443"), Ok(("c.ns.svc".to_owned(), 8443)));
        assert_eq!(read("127.0.0.1:1"), Ok(("127.0.0.1".to_owned(), 1)));
        assert_eq!(read("[::1]:1"), Ok(("::1".to_owned(), 1)));
        for bad in [
            "",
            "c",
            ":1",
            "c:",
            "c:0",
            "c:65536",
            "https://c:1",
            "a b:1",
            "c:1/x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replica_counts_once() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = one_family(vec![
            at("[fd00::1]:1"),
            at("10.0.0.2:1"),
            at("10.0.0.1:1"),
            at("10.0.0.2:1"),
        ]);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [at("10.0.0.1:1"), at("10.0.0.2:1")]
        );
        assert_eq!(one_family(vec![at("[fd00::1]:1"), at("[fd00::2]:1")]).len(), 2);
        assert_eq!(
            one_family(
                (1..100)
                    .map(|port| SocketAddr::from(([10, 0, 0, 1], port)))
                    .collect()
            )
            .len(),
            MAX_ADDRESSES
        );
    }

    #[test]
    fn pauses_grow_to_their_bound_without_end() {
        let pauses = Pauses {
            min: Duration::from_millis(10),
            max: Duration::from_millis(80),
            ..Pauses::default()
        };
        let all: Vec<_> = pauses.backoff(7).take(50).collect();
        assert_eq!(all.len(), 50);
        assert!(
            all[0] >= Duration::from_millis(10) && all[0] <= Duration::from_millis(20),
            "{:?}",
            all[0]
        );
        assert!(
            all.iter().all(|pause| *pause <= Duration::from_millis(160)),
            "{all:?}"
        );
        assert!(all[20] >= Duration::from_millis(80), "{:?}", all[20]);
    }
}
