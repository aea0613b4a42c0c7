//! What the coordinator can ask of this agent.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{NodeName, UnixMillis};
use hasteward_proto::wire::agent::agent_server::{Agent, AgentServer};
use hasteward_proto::wire::agent::{
    CountCommitsReply, CountCommitsRequest, DescribeReply, DescribeRequest, InspectGaleraReply,
    InspectGaleraRequest, InspectPostgresReply, InspectPostgresRequest,
};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::{inspect, inspect_galera};
use crate::hands::Hands;
use crate::memory::resident_bytes;

/// Bytes of the largest request: a target with many tablespaces.
const REQUEST_MAX: usize = 1 << 20;

/// The service `hasteward.agent.v1.Agent`.
#[derive(Debug, Clone)]
pub struct AgentService(Arc<Shared>);

/// What every call uses.
#[derive(Debug)]
pub(super) struct Shared {
    node: NodeName,
    started_at: UnixMillis,
    pub(super) hands: Arc<Hands>,
    pub(super) admission: Admission,
    /// Recoveries of Galera nodes at once: one.
    pub(super) recoveries: Arc<Semaphore>,
}

/// This node's clock.
pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl AgentService {
    /// The service of this node's agent.
    #[must_use]
    pub fn new(node: NodeName, hands: Arc<Hands>) -> Self {
        Self(Arc::new(Shared {
            node,
            started_at: now(),
            hands,
            admission: Admission::new(),
            recoveries: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The service, to be served on a connection.
    #[must_use]
    pub fn routes(self) -> Routes {
        Routes::new(AgentServer::new(self).max_decoding_message_size(REQUEST_MAX))
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        let hands = self.0.hands.clone();
        let hands = tokio::task::spawn_blocking(move || hands.status())
            .await
            .map_err(|error| internal(&error.to_string()))?
            .map_err(|error| internal(&error.to_string()))?;
        let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Ok(Response::new(DescribeReply {
            node: self.0.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.0.started_at.0,
            head_rss_bytes: resident_bytes(),
            hands_rss_bytes: hands.rss_bytes,
            kernel: kernel.unwrap_or_default(),
        }))
    }

    async fn inspect_postgres(
        &self,
        request: Request<InspectPostgresRequest>,
    ) -> Result<Response<InspectPostgresReply>, Status> {
        Ok(inspect::inspect(&self.0, request.into_inner())
            .await
            .map(Response::new)?)
    }

    async fn count_commits(
        &self,
        request: Request<CountCommitsRequest>,
    ) -> Result<Response<CountCommitsReply>, Status> {
        Ok(inspect::count(&self.0, request.into_inner())
            .await
            .map(Response::new)?)
    }

    async fn inspect_galera(
        &self,
        request: Request<InspectGaleraRequest>,
    ) -> Result<Response<InspectGaleraReply>, Status> {
        Ok(inspect_galera::inspect(&self.0, request.into_inner())
            .await
            .map(Response::new)?)
    }
}

fn internal(detail: &str) -> Failure {
    Failure::new("agent-internal", FailureKind::Internal, detail)
}
