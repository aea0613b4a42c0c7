//! [`Fleet`]: the connected agents by node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hasteward_proto::channel::instance::INSTANCE_HEADER;
use hasteward_proto::channel::stream::StreamWatch;
use hasteward_proto::channel::{AgentInstance, ChannelSettings, ReverseConnection, ReverseError};
use hasteward_proto::primitive::{NodeName, UnixMillis};
use hasteward_proto::wire::agent::{DescribeReply, DescribeRequest, agent_client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use super::node_channel::{AgentClient, Live, NodeChannel, Slot};
use crate::clock::{Clock, earlier};

/// How long an older connection has to prove that it is alive when a second agent appears.
const CONFLICT_PROBE: Duration = Duration::from_secs(2);

/// Told what happens to the fleet: metrics.
pub trait FleetEvents: Send + Sync + 'static {
    /// An agent is connected.
    fn connected(&self, _node: &NodeName) {}
    /// An agent's last connection ended.
    fn lost(&self, _node: &NodeName) {}
    /// Two live agents claimed one node.
    fn identity_conflict(&self, _node: &NodeName) {}
    /// A connection was refused; `code` is a stable id.
    fn refused(&self, _code: &'static str) {}
    /// A certificate was given.
    fn enrolled(&self, _node: &NodeName) {}
    /// A certificate was refused; `code` is a stable id.
    fn enrolment_refused(&self, _code: &'static str) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl FleetEvents for NoEvents {}

/// Whether an agent can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// Yes.
    Connected,
    /// It was connected since this coordinator started, and is not.
    Lost,
    /// It should be there and has never connected.
    NeverSeen,
}

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// Its node.
    pub node: NodeName,
    /// Whether it can be called.
    pub state: AgentState,
    /// What it said of itself when it connected last.
    pub described: Option<DescribeReply>,
    /// When the current or last connection began.
    pub connected_since: Option<UnixMillis>,
    /// When it was heard last; keep-alive pings count.
    pub last_seen: Option<UnixMillis>,
    /// Expiry of its certificate; `None` without TLS (simulated agents).
    pub certificate_expires: Option<UnixMillis>,
    /// How often two live connections of different processes claimed this node.
    pub identity_conflicts: u32,
}

/// A connection of an agent that was refused, or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The channel could not be opened.
    #[error(transparent)]
    Open(#[from] ReverseError),
    /// The agent does not answer the first call.
    #[error("the agent did not describe itself: {0}")]
    Describe(Status),
    /// The first call took too long.
    #[error("the agent did not describe itself within {0:?}")]
    DescribeTimeout(Duration),
    /// The certificate names one node, the agent another.
    #[error("the certificate names node `{certificate}`, the agent says it is on `{claimed}`")]
    OtherNode {
        /// The certificate's node.
        certificate: NodeName,
        /// The agent's word, cut.
        claimed: String,
    },
    /// A newer connection of this node was faster.
    #[error("a newer connection of this node is in place")]
    Overtaken,
    /// The certificate has expired.
    #[error("the certificate has expired")]
    Expired,
}

impl ServeError {
    /// Stable id, `kebab-case`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Open(_) => "agent-open",
            Self::Describe(_) => "agent-describe",
            Self::DescribeTimeout(_) => "agent-describe-timeout",
            Self::OtherNode { .. } => "agent-other-node",
            Self::Overtaken => "agent-overtaken",
            Self::Expired => "agent-certificate-expired",
        }
    }
}

/// What is remembered of one node.
struct Entry {
    slot: Arc<Slot>,
    described: Option<DescribeReply>,
    connected_since: Option<UnixMillis>,
    last_seen: Option<UnixMillis>,
    certificate_expires: Option<UnixMillis>,
    identity_conflicts: u32,
}

struct Inner {
    nodes: Mutex<BTreeMap<NodeName, Entry>>,
    expected: Mutex<BTreeSet<NodeName>>,
    generation: watch::Sender<u64>,
    sequence: AtomicU64,
    settings: ChannelSettings,
    clock: Arc<dyn Clock>,
    events: Arc<dyn FleetEvents>,
}

/// The connected agents by node. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

/// A connection that is in place.
struct Installed<'a> {
    fleet: &'a Fleet,
    node: &'a NodeName,
    sequence: u64,
    watch: &'a StreamWatch,
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        self.watch.cut();
        self.fleet
            .remove(self.node, self.sequence, self.watch.silent_for());
    }
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new(settings: ChannelSettings, clock: Arc<dyn Clock>, events: Arc<dyn FleetEvents>) -> Self {
        let inner = Inner {
            nodes: Mutex::default(),
            expected: Mutex::default(),
            generation: watch::Sender::new(0),
            sequence: AtomicU64::new(0),
            settings,
            clock,
            events,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeName, Entry>> {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listeners of refusals and the like.
    pub(crate) fn events(&self) -> &dyn FleetEvents {
        &*self.inner.events
    }

    /// Bounds and time limits.
    #[must_use]
    pub fn settings(&self) -> &ChannelSettings {
        &self.inner.settings
    }

    /// The client of a node's agent, where one is connected.
    #[must_use]
    pub fn agent(&self, node: &NodeName) -> Option<AgentClient> {
        let nodes = self.nodes();
        let entry = nodes.get(node)?;
        entry
            .slot
            .peek(|live| live.is_some())
            .then(|| self.client(entry.slot.clone()))
    }

    fn client(&self, slot: Arc<Slot>) -> AgentClient {
        AgentClient::new(NodeChannel::new(slot)).max_decoding_message_size(self.inner.settings.max_message)
    }

    /// The client of a node's agent, as soon as one is connected. The caller sets the time limit.
    pub async fn wait_for(&self, node: &NodeName) -> AgentClient {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Some(client) = self.agent(node) {
                return client;
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// A number that grows with every connect and disconnect: wait for a change, then look.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    fn changed(&self) {
        self.inner.generation.send_modify(|generation| *generation += 1);
    }

    /// The nodes that should have an agent.
    pub fn set_expected(&self, nodes: BTreeSet<NodeName>) {
        *self.inner.expected.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        self.changed();
    }

    /// Every agent that is, was or should be, by node.
    #[must_use]
    pub fn list(&self) -> Vec<AgentStatus> {
        let now = self.inner.clock.now();
        let expected = self
            .inner
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let nodes = self.nodes();
        let mut all: BTreeMap<&NodeName, AgentStatus> = nodes
            .iter()
            .map(|(node, entry)| (node, Self::status(node, entry, now)))
            .collect();
        for node in &expected {
            all.entry(node).or_insert_with(|| AgentStatus {
                node: node.clone(),
                state: AgentState::NeverSeen,
                described: None,
                connected_since: None,
                last_seen: None,
                certificate_expires: None,
                identity_conflicts: 0,
            });
        }
        all.into_values().collect()
    }

    fn status(node: &NodeName, entry: &Entry, now: UnixMillis) -> AgentStatus {
        let silent = entry.slot.peek(|live| live.map(|live| live.watch.silent_for()));
        AgentStatus {
            node: node.clone(),
            state: if silent.is_some() {
                AgentState::Connected
            } else {
                AgentState::Lost
            },
            described: entry.described.clone(),
            connected_since: entry.connected_since,
            last_seen: silent.map_or(entry.last_seen, |silent| Some(earlier(now, silent))),
            certificate_expires: entry.certificate_expires,
            identity_conflicts: entry.identity_conflicts,
        }
    }

    /// Takes over the accepted connection of an agent that proved to be `node`'s, and follows it to its end. `expires`: when its
    /// certificate does; the connection does not outlive it.
    ///
    /// # Errors
    /// The agent does not answer, or says that it is another node's.
    pub async fn serve<S>(
        &self,
        stream: S,
        node: NodeName,
        expires: Option<UnixMillis>,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let sequence = self.inner.sequence.fetch_add(1, Ordering::Relaxed);
        let remaining = match expires {
            Some(expires) => {
                let left = expires.millis_since(self.inner.clock.now());
                if left == 0 {
                    return Err(ServeError::Expired);
                }
                Duration::from_millis(left)
            }
            None => Duration::MAX,
        };
        let connection = ReverseConnection::open(stream, &self.inner.settings).await?;
        let watch = connection.watch();
        let (described, instance) = self.describe(&node, connection.channel()).await?;
        let live = Live {
            sequence,
            channel: connection.channel(),
            watch: watch.clone(),
            instance,
        };
        drop(connection);
        self.install(&node, live, described, expires)?;
        // Taken out again also where this future is dropped.
        let _installed = Installed {
            fleet: self,
            node: &node,
            sequence,
            watch: &watch,
        };
        tokio::select! {
            () = watch.closed().cancelled() => {}
            () = tokio::time::sleep(remaining) => {
                info!(%node, "the agent's certificate has expired; closing its connection");
            }
        }
        Ok(())
    }

    /// The first call on a connection.
    async fn describe(
        &self,
        node: &NodeName,
        channel: Channel,
    ) -> Result<(DescribeReply, Option<AgentInstance>), ServeError> {
        let limit = self.inner.settings.handshake_timeout;
        let mut client = agent_client::AgentClient::new(channel).max_decoding_message_size(64 << 10);
        let reply = tokio::time::timeout(limit, client.describe(DescribeRequest {}))
            .await
            .map_err(|_| ServeError::DescribeTimeout(limit))?
            .map_err(ServeError::Describe)?;
        let instance = reply
            .metadata()
            .get(INSTANCE_HEADER)
            .and_then(|v| v.to_str().ok())
            .and_then(AgentInstance::parse);
        let described = reply.into_inner();
        if described.node != node.as_str() {
            let claimed = described.node.chars().take(80).collect();
            return Err(ServeError::OtherNode {
                certificate: node.clone(),
                claimed,
            });
        }
        Ok((described, instance))
    }

    /// Puts a connection in place. The newest wins; what was there finishes its calls if it is the same process, and is cut if not.
    fn install(
        &self,
        node: &NodeName,
        live: Live,
        described: DescribeReply,
        expires: Option<UnixMillis>,
    ) -> Result<(), ServeError> {
        let mut nodes = self.nodes();
        let entry = nodes.entry(node.clone()).or_insert_with(|| Entry {
            slot: Slot::new(node.clone()),
            described: None,
            connected_since: None,
            last_seen: None,
            certificate_expires: None,
            identity_conflicts: 0,
        });
        let version = described.version.clone();
        let instance = live.instance.clone();
        let previous = entry.slot.change(|place| match place {
            Some(current) if current.sequence > live.sequence => Err(ServeError::Overtaken),
            _ => Ok(place.replace(live)),
        })?;
        let now = self.inner.clock.now();
        entry.described = Some(described);
        entry.connected_since = Some(now);
        entry.last_seen = Some(now);
        entry.certificate_expires = expires;
        drop(nodes);
        match previous {
            None => {
                info!(%node, version, "agent connected");
                self.inner.events.connected(node);
            }
            Some(previous) if previous.instance.is_some() && previous.instance == instance => {
                debug!(%node, "agent renewed its connection");
            }
            Some(previous) => self.resolve_conflict(node.clone(), previous),
        }
        self.changed();
        Ok(())
    }

    /// A second process under one identity: a conflict if the first still answers (a node that was reset leaves a dead connection
    /// behind), and in either case the end of the older connection.
    fn resolve_conflict(&self, node: NodeName, previous: Live) {
        let fleet = self.clone();
        tokio::spawn(async move {
            let Live { channel, watch, .. } = previous;
            let mut client = agent_client::AgentClient::new(channel);
            let probed = tokio::time::timeout(CONFLICT_PROBE, client.describe(DescribeRequest {})).await;
            if matches!(probed, Ok(Ok(_))) {
                if let Some(entry) = fleet.nodes().get_mut(&node) {
                    entry.identity_conflicts = entry.identity_conflicts.saturating_add(1);
                }
                warn!(%node, "two live agents claim this node; the newest connection is used, the older one was closed");
                fleet.inner.events.identity_conflict(&node);
                fleet.changed();
            } else {
                info!(%node, "agent came back; its previous connection was dead");
            }
            watch.cut();
        });
    }

    /// The end of a connection.
    fn remove(&self, node: &NodeName, sequence: u64, silent: Duration) {
        let removed = {
            let mut nodes = self.nodes();
            let Some(entry) = nodes.get_mut(node) else { return };
            let removed = entry.slot.change(|place| match place {
                Some(current) if current.sequence == sequence => place.take(),
                _ => None,
            });
            if removed.is_some() {
                entry.last_seen = Some(earlier(self.inner.clock.now(), silent));
            }
            removed
        };
        if removed.is_some() {
            info!(%node, "agent lost");
            self.inner.events.lost(node);
            self.changed();
        }
    }
}
