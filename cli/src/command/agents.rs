//! `hasteward get agents`

use hasteward_proto::failure::Failure;
use hasteward_proto::primitive::UnixMillis;
use hasteward_proto::wire::people::{self, ListAgentsRequest};

use crate::args::Global;
use crate::connect;
use crate::output::{AgentList, AgentRow, AgentState, Data, Outcome};

pub(super) async fn run(global: &Global) -> Result<Outcome, Failure> {
    let mut steward = connect::steward(global).await?;
    let reply = steward.list_agents(ListAgentsRequest {}).await?;
    let agents = reply.agents.into_iter().map(row).collect();
    Ok(Outcome::done(Data::Agents(AgentList { agents })))
}

fn row(row: people::AgentRow) -> AgentRow {
    let state = match row.state() {
        people::AgentState::Connected => AgentState::Connected,
        people::AgentState::Lost => AgentState::Lost,
        people::AgentState::NeverSeen | people::AgentState::Unspecified => AgentState::NeverSeen,
    };
    let time = |ms: i64| (ms != 0).then_some(UnixMillis(ms));
    AgentRow {
        state,
        version: (!row.version.is_empty()).then_some(row.version),
        node: row.node,
        connected_since: time(row.connected_since_ms),
        last_seen: time(row.last_seen_ms),
        certificate_expires: time(row.certificate_expires_ms),
        identity_conflicts: row.identity_conflicts,
    }
}
