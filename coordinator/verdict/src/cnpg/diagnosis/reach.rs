//! What could not be reached or read.

use super::{Finding, about, general};
use crate::cnpg::action::follows;
use crate::cnpg::case::{Member, resource_gap};
use crate::cnpg::relation::Relation;
use crate::cnpg::subject::Life;
use crate::evidence::cnpg::AgentPresence;
use crate::report::{Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    if let Some(gap) = resource_gap(finding.case.ev) {
        found.push(Diagnosis {
            evidence: vec![gap],
            remedy: format!("kubectl get {}", finding.resource()),
            ..general(
                "cluster-unread",
                Severity::Error,
                "the Cluster resource could not be read".to_owned(),
            )
        });
    }
    for (member, _) in finding.members() {
        found.extend(unreachable(member).or_else(|| unreadable(finding, member)));
    }
    found
}

fn unreachable(member: &Member<'_>) -> Option<Diagnosis> {
    let subject = &member.subject;
    let name = subject.name();
    let node = subject.ev.node.value();
    let node_name = node.map_or_else(|| "its node".to_owned(), |node| format!("node {}", node.name));
    let mut evidence = Vec::new();
    match &member.relation {
        Relation::SeenByPrimary(position) => {
            evidence.push(format!("the primary streams to {name}, up to {}", position.lsn));
        }
        Relation::Remembered(position) => {
            evidence.push(format!(
                "{name} was seen streaming on timeline {} up to {}",
                position.timeline, position.lsn
            ));
        }
        Relation::Unread(why) => evidence.push(format!("this blocks the verdict: {why}")),
        _ => {}
    }
    if subject.node_down() {
        let remedy = node.map_or_else(
            || "kubectl get nodes".to_owned(),
            |node| format!("kubectl describe node {}", node.name),
        );
        let summary = format!("{node_name} of {name} is not ready");
        return Some(Diagnosis {
            evidence,
            remedy,
            ..about(member, "node-unreachable", Severity::Error, summary)
        });
    }
    let (id, summary) = match node?.agent {
        AgentPresence::Connected => return None,
        AgentPresence::Unreachable => (
            "agent-unreachable",
            format!("the agent on {node_name} does not answer; {name} is not read"),
        ),
        AgentPresence::None => (
            "agent-missing",
            format!("{node_name} has no agent; {name} is not read"),
        ),
    };
    let remedy = "hasteward get agents".to_owned();
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, id, Severity::Warning, summary)
    })
}

/// The way there is open, and its own files or server could not be read.
fn unreadable(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let subject = &member.subject;
    if finding.hibernates() || finding.case.transition().is_some() || subject.life == Life::Starting {
        return None;
    }
    let why = match &member.relation {
        Relation::Unread(why) => why.clone(),
        Relation::SeenByPrimary(_) | Relation::Remembered(_) if !follows(finding.case, member) => {
            subject.why_unread()
        }
        _ => return None,
    };
    let blocks = matches!(member.relation, Relation::Unread(_));
    let mut evidence = vec![why];
    if blocks {
        evidence.push("it may hold anything, so this blocks the verdict".to_owned());
    }
    let remedy = if subject.ev.pod.value().is_some() {
        finding.describe_pod(member)
    } else {
        finding.triage()
    };
    let severity = if blocks {
        Severity::Error
    } else {
        Severity::Warning
    };
    let summary = format!("{} could not be read", subject.name());
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, "cnpg-instance-unreadable", severity, summary)
    })
}
