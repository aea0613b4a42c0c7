//! [`Plan`]: what a repair would do, in which order, and what each step rests on. It allows nothing; [`crate::gate`] does.

use hasteward_proto::primitive::{InstanceName, Lsn, SystemId, TimelineId};
use serde::{Deserialize, Serialize};

use super::assess;
use super::case::Case;
use crate::evidence::cnpg::CnpgEvidence;
use crate::report::Action;

/// What a person or a schedule asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The kind of operation.
    pub kind: RequestKind,
    /// One instance; `None` = every instance that needs it.
    pub target: Option<InstanceName>,
    /// Override what may be overridden. Only with a target.
    pub force: bool,
}

/// Kinds of operation that change instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestKind {
    /// Bring instances back behind the primary.
    Repair,
}

/// Steps in order, one instance at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Cheap and harmless first.
    pub steps: Vec<Step>,
}

/// One action on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// On this instance.
    pub instance: InstanceName,
    /// `restart`, `rewind`, `reseed` or `recreate`.
    pub action: Action,
    /// What the decision rested on; the agent reads it again right before it acts.
    pub basis: Basis,
}

/// What a decision rested on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    /// Whose copy replaces the data: the current primary.
    pub donor: Option<InstanceName>,
    /// The donor's system.
    pub system_id: Option<SystemId>,
    /// The donor's timeline and end.
    pub donor_at: Option<(TimelineId, Lsn)>,
    /// The instance's own timeline and end.
    pub instance_at: Option<(TimelineId, Lsn)>,
}

/// What `request` comes to on this evidence. No steps: nothing to do.
#[must_use]
pub fn plan(ev: &CnpgEvidence, request: &Request) -> Plan {
    let case = Case::new(ev);
    let wanted = |name: &InstanceName| request.target.as_ref().is_none_or(|target| target == name);
    let mut steps: Vec<Step> = assess(ev)
        .instances
        .into_iter()
        .filter(|one| wanted(&one.instance))
        .filter_map(|one| {
            let action = match one.action {
                Action::Restart | Action::Rewind | Action::Reseed | Action::Recreate => one.action,
                // Forced onto one that triage would leave alone: the gate says whether that may be.
                _ if request.force && request.target.is_some() => Action::Reseed,
                _ => return None,
            };
            Some(Step {
                basis: basis(&case, &one.instance),
                instance: one.instance,
                action,
            })
        })
        .collect();
    steps.sort_by_key(|step| match step.action {
        Action::Restart => 0,
        Action::Rewind => 1,
        Action::Reseed => 2,
        _ => 3,
    });
    Plan { steps }
}

fn basis(case: &Case<'_>, name: &InstanceName) -> Basis {
    let donor = case.donor();
    let at = |member: &super::case::Member<'_>| {
        member
            .subject
            .position
            .map(|position| (position.timeline, position.lsn))
    };
    Basis {
        donor: donor.map(|donor| donor.subject.name().clone()),
        system_id: donor.and_then(|donor| donor.subject.systems().first().copied()),
        donor_at: donor.and_then(at),
        instance_at: case.member(name).and_then(at),
    }
}
