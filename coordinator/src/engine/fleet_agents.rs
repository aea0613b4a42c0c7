//! [`FleetAgents`]: the fleet, as engines see it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::agent::{
    CountCommitsReply, CountCommitsRequest, InspectPostgresReply, InspectPostgresRequest,
};
use hasteward_verdict::evidence::cnpg::AgentPresence;

use super::agents::{AgentError, Agents};
use crate::fleet::{AgentClient, AgentState, Fleet};

/// Calls agents over their own connections.
#[derive(Clone)]
pub struct FleetAgents(Fleet);

impl FleetAgents {
    /// The agents of `fleet`.
    pub fn new(fleet: Fleet) -> Self {
        Self(fleet)
    }

    /// Calls the agent of `node`, with `limit` for the whole way.
    fn call<T, F>(
        &self,
        node: &NodeName,
        limit: Duration,
        call: impl FnOnce(AgentClient) -> F,
    ) -> BoxFuture<'static, Result<T, AgentError>>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send + 'static,
        T: Send + 'static,
    {
        let node = node.clone();
        let Some(client) = self.0.agent(&node) else {
            let error = match self.presence(&node) {
                AgentPresence::None => AgentError::NoAgent(node),
                AgentPresence::Connected | AgentPresence::Unreachable => AgentError::Unreachable(node),
            };
            return futures::future::ready(Err(error)).boxed();
        };
        let answer = tokio::time::timeout(limit, call(client));
        async move {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            match answer.await {
                Ok(Ok(reply)) => Ok(reply.into_inner()),
                Err(_) => Err(AgentError::Timeout { node, millis }),
                Ok(Err(status)) => Err(match status.code() {
                    tonic::Code::Unavailable | tonic::Code::Cancelled => AgentError::Unreachable(node),
                    tonic::Code::DeadlineExceeded => AgentError::Timeout { node, millis },
                    _ => AgentError::Answered {
                        node,
                        message: status.message().to_owned(),
                    },
                }),
            }
        }
        .boxed()
    }
}

impl Agents for FleetAgents {
    fn presence(&self, node: &NodeName) -> AgentPresence {
        if self.0.agent(node).is_some() {
            return AgentPresence::Connected;
        }
        match self
            .0
            .list()
            .into_iter()
            .find(|agent| &agent.node == node)
            .map(|agent| agent.state)
        {
            Some(AgentState::Connected) => AgentPresence::Connected,
            Some(AgentState::Lost | AgentState::NeverSeen) => AgentPresence::Unreachable,
            None => AgentPresence::None,
        }
    }

    fn inspect_postgres(
        &self,
        node: &NodeName,
        request: InspectPostgresRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<InspectPostgresReply, AgentError>> {
        self.call(node, limit, |mut client| async move {
            client.inspect_postgres(request).await
        })
    }

    fn count_commits(
        &self,
        node: &NodeName,
        request: CountCommitsRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<CountCommitsReply, AgentError>> {
        self.call(node, limit, |mut client| async move {
            client.count_commits(request).await
        })
    }
}
