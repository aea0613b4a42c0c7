//! [`NodeChannel`]: calls to the agent of one node, over whatever connection it has now.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use hasteward_proto::channel::AgentInstance;
use hasteward_proto::channel::stream::StreamWatch;
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::agent::agent_client;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Status, TimeoutExpired};
use tower::{Service, ServiceExt as _};

/// Calls the agent of one node. Cheap to clone; stays good across reconnects.
pub type AgentClient = agent_client::AgentClient<NodeChannel>;

/// The connection that calls go to.
#[derive(Debug)]
pub(super) struct Live {
    /// Order of acceptance.
    pub sequence: u64,
    /// Dropping the last clone closes the connection after its last call.
    pub channel: Channel,
    /// For following and cutting it.
    pub watch: StreamWatch,
    /// The run of the agent process.
    pub instance: Option<AgentInstance>,
}

/// The place of one node's connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub node: NodeName,
    live: RwLock<Option<Live>>,
}

impl Slot {
    pub(super) fn new(node: NodeName) -> Arc<Self> {
        Arc::new(Self {
            node,
            live: RwLock::new(None),
        })
    }

    /// Looks at the connection.
    pub(super) fn peek<T>(&self, look: impl FnOnce(Option<&Live>) -> T) -> T {
        look(self.live.read().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// Changes the connection.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Option<Live>) -> T) -> T {
        change(&mut self.live.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Calls the agent of one node: every call goes to the newest connection at that moment, so that a renewed certificate or a
/// restarted agent needs no new client.
#[derive(Debug, Clone)]
pub struct NodeChannel {
    slot: Arc<Slot>,
}

impl NodeChannel {
    pub(super) const fn new(slot: Arc<Slot>) -> Self {
        Self { slot }
    }
}

/// What a failed call means: a time limit, or the connection is gone.
fn failed(node: &NodeName, error: &(dyn std::error::Error + 'static)) -> Status {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Status::deadline_exceeded(format!("the agent of node {node} did not answer in time"));
        }
        if let Some(status) = error.downcast_ref::<Status>() {
            return status.clone();
        }
        cause = error.source();
    }
    let detail = error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    Status::unavailable(format!(
        "the connection to the agent of node {node} was lost: {detail}"
    ))
}

impl Service<http::Request<Body>> for NodeChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let node = self.slot.node.clone();
        let channel = self.slot.peek(|live| live.map(|live| live.channel.clone()));
        Box::pin(async move {
            let Some(channel) = channel else {
                return Err(Status::unavailable(format!(
                    "the agent of node {node} is not connected"
                )));
            };
            let response = channel
                .oneshot(request)
                .await
                .map_err(|error| failed(&node, &error))?;
            Ok(response.map(|body| Body::new(body.map_err(move |error| failed(&node, &error)))))
        })
    }
}
