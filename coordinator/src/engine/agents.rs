//! [`Agents`]: what an engine needs of the fleet.

use std::time::Duration;

use futures::future::BoxFuture;
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::agent::{
    CountCommitsReply, CountCommitsRequest, InspectPostgresReply, InspectPostgresRequest,
};
use hasteward_verdict::evidence::{UnreadReason, cnpg::AgentPresence};

/// Why an agent gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No agent was ever seen on the node.
    #[error("node {0} has no agent")]
    NoAgent(NodeName),
    /// The agent is not connected.
    #[error("the agent of node {0} is not connected")]
    Unreachable(NodeName),
    /// It did not answer in time.
    #[error("the agent of node {node} did not answer within {millis} ms")]
    Timeout {
        /// Its node.
        node: NodeName,
        /// The limit.
        millis: u64,
    },
    /// It answered with an error.
    #[error("the agent of node {node} answered: {message}")]
    Answered {
        /// Its node.
        node: NodeName,
        /// What it said.
        message: String,
    },
}

impl AgentError {
    /// How this reads as evidence.
    #[must_use]
    pub fn reason(&self) -> UnreadReason {
        match self {
            Self::NoAgent(_) => UnreadReason::NoAgent,
            Self::Unreachable(_) => UnreadReason::AgentUnreachable,
            Self::Timeout { .. } => UnreadReason::Timeout,
            Self::Answered { .. } => UnreadReason::Refused,
        }
    }
}

/// The agents of the fleet, by node.
pub trait Agents: Send + Sync {
    /// Whether the node's agent can be asked.
    fn presence(&self, node: &NodeName) -> AgentPresence;

    /// Everything that can be read of one PostgreSQL instance.
    fn inspect_postgres(
        &self,
        node: &NodeName,
        request: InspectPostgresRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<InspectPostgresReply, AgentError>>;

    /// Commits past a position.
    fn count_commits(
        &self,
        node: &NodeName,
        request: CountCommitsRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<CountCommitsReply, AgentError>>;
}
