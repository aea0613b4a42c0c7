//! `get status`, `get agents`, `version`.

use hasteward_verdict::report::ClusterList;

use super::super::data::{AgentList, AgentState, Version};
use super::super::table::{Field, Tone, render};
use super::units;

pub(super) fn status(list: &ClusterList) -> String {
    if list.clusters.is_empty() {
        return "No clusters.\n".to_owned();
    }
    let rows = list.clusters.iter().map(|row| {
        let complete = row.ready_instances >= row.wanted_instances;
        let ready = format!("{}/{}", row.ready_instances, row.wanted_instances);
        vec![
            Field::plain(row.engine.to_string()),
            Field::plain(&row.cluster.namespace),
            Field::plain(&row.cluster.name),
            Field::toned(ready, if complete { Tone::Good } else { Tone::Bad }),
            Field::plain(row.primary.as_deref().unwrap_or("-")),
            Field::plain(row.phase.as_deref().unwrap_or("-")),
        ]
    });
    render(
        &["ENGINE", "NAMESPACE", "CLUSTER", "READY", "PRIMARY", "PHASE"],
        rows.collect(),
    )
}

pub(super) fn agents(list: &AgentList, now: i64) -> String {
    if list.agents.is_empty() {
        return "No agents: kubectl get daemonset -n hasteward-system hasteward-agent\n".to_owned();
    }
    let rows = list.agents.iter().map(|row| {
        let (state, tone) = match row.state {
            AgentState::Connected => ("connected", Tone::Good),
            AgentState::Lost => ("lost", Tone::Bad),
            AgentState::NeverSeen => ("never seen", Tone::Bad),
        };
        let when = |at: Option<hasteward_proto::primitive::UnixMillis>| {
            at.map_or_else(|| "-".to_owned(), |t| units::ago(now, t.0))
        };
        let expires = row.certificate_expires.map_or_else(
            || "-".to_owned(),
            |t| {
                format!(
                    "in {}",
                    units::span(u64::try_from(t.0.saturating_sub(now)).unwrap_or(0))
                )
            },
        );
        let conflicts = if row.identity_conflicts == 0 {
            Tone::Quiet
        } else {
            Tone::Bad
        };
        vec![
            Field::plain(&row.node),
            Field::toned(state, tone),
            Field::plain(row.version.as_deref().unwrap_or("-")),
            Field::plain(when(row.connected_since)),
            Field::plain(when(row.last_seen)),
            Field::plain(expires),
            Field::toned(row.identity_conflicts.to_string(), conflicts),
        ]
    });
    render(
        &[
            "NODE",
            "STATE",
            "VERSION",
            "CONNECTED",
            "LAST SEEN",
            "CERTIFICATE ENDS",
            "CONFLICTS",
        ],
        rows.collect(),
    )
}

pub(super) fn version(version: &Version) -> String {
    let coordinator = version
        .coordinator
        .as_deref()
        .map(|c| format!("coordinator {c}\n"))
        .unwrap_or_default();
    format!("hasteward   {}\n{coordinator}", version.client)
}
