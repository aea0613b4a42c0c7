//! The `data` of every answer.

use hasteward_proto::primitive::UnixMillis;
use hasteward_verdict::report::{ClusterList, TriageReport};
use schemars::JsonSchema;
use serde::Serialize;

/// The answer of one command.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Data {
    /// `triage`
    Triage(Box<TriageReport>),
    /// `get status`
    Status(ClusterList),
    /// `get agents`
    Agents(AgentList),
    /// `version`
    Version(Version),
    /// `man`
    Man(Man),
    /// `schema`: printed as it is, without an envelope.
    #[serde(skip)]
    Schema(serde_json::Value),
}

/// `get agents`
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentList {
    /// By node.
    pub agents: Vec<AgentRow>,
}

/// One agent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// Its node.
    pub node: String,
    /// Whether it answers.
    pub state: AgentState,
    /// Its release; `None` = never seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Since when it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<UnixMillis>,
    /// When it was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<UnixMillis>,
    /// When its certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<UnixMillis>,
    /// How often two live connections claimed this node.
    pub identity_conflicts: u32,
}

/// State of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It answers.
    Connected,
    /// It was connected and is not.
    Lost,
    /// Its node has an agent pod that has never connected.
    NeverSeen,
}

/// `version`
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// This program.
    pub client: String,
    /// The coordinator; `None` = not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
}

/// `man`
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Man {
    /// Files written.
    pub files: Vec<String>,
}
