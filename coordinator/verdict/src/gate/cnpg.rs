//! The gate table for CloudNativePG.

use hasteward_proto::primitive::InstanceName;

use super::{Cleared, Code, Refusal};
use crate::cnpg::case::{Case, Member, Transition};
use crate::cnpg::relation::{self, Nothing, Relation};
use crate::cnpg::subject::Life;
use crate::cnpg::verdict::judge;
use crate::cnpg::{Plan, Request, Step};
use crate::evidence::cnpg::{ClaimRole, CnpgEvidence, Fences, StandbyState, TargetPrimary};
use crate::report::{Action, Verdict, VerdictKind};

fn stop(code: Code, reason: impl Into<String>) -> Refusal {
    Refusal {
        code,
        reason: reason.into(),
        overridable: false,
    }
}

fn unless_forced(code: Code, reason: impl Into<String>) -> Refusal {
    Refusal {
        code,
        reason: reason.into(),
        overridable: true,
    }
}

/// Check a plan against the evidence that it was made from.
///
/// What cannot be overridden is answered first, so that nobody is told to try `--force` in vain.
pub fn clear(ev: &CnpgEvidence, request: &Request, plan: &Plan) -> Result<Cleared, Refusal> {
    let mut refusals = Vec::new();
    let case = Case::new(ev);
    let verdict = judge(&case);
    if request.force && request.target.is_none() {
        refusals.push(stop(Code::ForceNeedsTarget, "--force is for one named instance"));
    }
    refusals.extend(cluster(&case));
    refusals.extend(histories(&case, &verdict, request));
    let mut targets: Vec<&InstanceName> = plan
        .steps
        .iter()
        .map(|step| &step.instance)
        .chain(&request.target)
        .collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        match case.member(target) {
            Some(member) => refusals.extend(instance(&case, &verdict, member)),
            None => refusals.push(stop(
                Code::TargetUnknown,
                format!("there is no instance {target}"),
            )),
        }
    }
    if !plan.steps.is_empty() && donor(&case).is_none() {
        refusals.push(stop(
            Code::NoHealthyDonor,
            "the primary does not serve, so there is nobody to follow or to clone from",
        ));
    }
    for step in &plan.steps {
        refusals.extend(proof(&case, request, step));
    }
    if let Some(final_one) = refusals.iter().find(|refusal| !refusal.overridable) {
        return Err(final_one.clone());
    }
    match refusals.first() {
        Some(first) if !request.force => Err(first.clone()),
        _ => Ok(Cleared {
            plan: plan.clone(),
            overridden: refusals,
        }),
    }
}

/// States of the whole cluster in which nobody but the operator (or whoever set them) acts.
fn cluster(case: &Case<'_>) -> Vec<Refusal> {
    let Some(resource) = case.resource else {
        return vec![stop(Code::Undeterminable, "the Cluster resource was not read")];
    };
    let mut refusals = Vec::new();
    match case.transition() {
        Some(Transition::FailoverPending) => refusals.push(stop(Code::RoleMoving, "a failover is pending")),
        Some(Transition::Handover(to)) => {
            refusals.push(stop(
                Code::RoleMoving,
                format!("the role of primary is on its way to {to}"),
            ));
        }
        Some(Transition::Moved) => refusals.push(stop(
            Code::RoleMoving,
            "roles or the timeline changed while the instances were read",
        )),
        Some(Transition::MajorUpgrade) => {
            refusals.push(stop(Code::MajorUpgrade, "a major upgrade is in progress"));
        }
        None => {}
    }
    if resource.hibernation {
        refusals.push(stop(Code::Hibernation, "the cluster hibernates"));
    }
    if resource.replica_switch_in_progress {
        refusals.push(stop(
            Code::ReplicaSwitch,
            "a replica-cluster switch is in progress",
        ));
    }
    if resource.reconciliation_disabled {
        refusals.push(stop(
            Code::Paused,
            "somebody paused the operator for this cluster",
        ));
    }
    if resource.fences == Fences::All {
        refusals.push(stop(Code::Fenced, "somebody fenced every instance"));
    }
    refusals
}

/// Rows *split-brain* and *undeterminable*.
fn histories(case: &Case<'_>, verdict: &Verdict, request: &Request) -> Option<Refusal> {
    let why = verdict.reasons.join("; ");
    let refuse = |code, what: &str| {
        let reason = format!("{what}: {why}");
        if request.target.is_some() {
            unless_forced(code, reason)
        } else {
            stop(code, reason)
        }
    };
    match verdict.kind {
        VerdictKind::Provable => None,
        VerdictKind::Diverged => Some(refuse(Code::SplitBrain, "histories parted")),
        VerdictKind::LeaderNotPrimary => Some(refuse(
            Code::AuthorityNotPrimary,
            "the data that counts is not on the primary",
        )),
        VerdictKind::Undeterminable
            if request
                .target
                .as_ref()
                .is_some_and(|target| harmless(case, target)) =>
        {
            None
        }
        VerdictKind::Undeterminable => Some(refuse(Code::Undeterminable, "not enough could be read")),
    }
}

/// The unread instances can be neither authority nor target: the primary runs, its history and system were read, the target
/// itself was read, and none of the unread ones was the primary of the parent timeline.
fn harmless(case: &Case<'_>, target: &InstanceName) -> bool {
    let Some(primary) = donor(case).and_then(|_| case.primary_reader()) else {
        return false;
    };
    let all_seen = case.resource.is_some_and(|resource| {
        resource
            .instance_names
            .iter()
            .all(|name| case.member(name).is_some())
    });
    let parent = primary.lineage.parent().map(|(timeline, _)| timeline);
    let wrote_parent = |member: &Member<'_>| {
        member
            .subject
            .ev
            .last_written
            .is_some_and(|wrote| Some(wrote.timeline) == parent)
    };
    let innocent = |member: &Member<'_>| {
        let name = member.subject.name();
        // On a first timeline there was no other primary. Else it is proven by whoever was, or by having streamed then.
        let other_was = case
            .members
            .iter()
            .any(|other| other.subject.name() != name && wrote_parent(other));
        let streamed = member
            .subject
            .ev
            .remembered
            .is_some_and(|seen| Some(seen.timeline) == parent);
        name != target && !wrote_parent(member) && (parent.is_none() || other_was || streamed)
    };
    all_seen
        && case.members.iter().all(|member| match &member.relation {
            Relation::Unread(_) => innocent(member),
            Relation::Parted(parted) => !parted.own.may_hold(),
            Relation::Foreign(_) | Relation::Uncompared => false,
            _ => true,
        })
}

/// Rows about the target, whoever named it.
fn instance(case: &Case<'_>, verdict: &Verdict, member: &Member<'_>) -> Vec<Refusal> {
    let name = member.subject.name();
    let mut refusals = Vec::new();
    let target_primary = case
        .resource
        .is_some_and(|resource| resource.target_primary == TargetPrimary::Instance(name.clone()));
    if member.subject.is_primary || target_primary {
        refusals.push(stop(
            Code::TargetIsPrimary,
            format!("{name} is the primary (or about to be)"),
        ));
    }
    if verdict.kind != VerdictKind::Provable && verdict.authority.as_ref() == Some(name) {
        refusals.push(stop(
            Code::TargetIsAuthority,
            format!("{name} holds the data that counts"),
        ));
    }
    if member.subject.fenced {
        refusals.push(stop(Code::Fenced, format!("somebody fenced {name}")));
    }
    if healthy(case, member) {
        refusals.push(unless_forced(
            Code::TargetHealthy,
            format!("{name} streams from the primary; there is nothing to do"),
        ));
    }
    refusals
}

/// The primary's own row says that it streams, and its own server does not contradict.
fn healthy(case: &Case<'_>, member: &Member<'_>) -> bool {
    let row = donor(case)
        .and_then(|donor| donor.subject.server())
        .is_some_and(|server| {
            let own = |name: &str| name == member.subject.name().as_str();
            server
                .standbys
                .iter()
                .any(|row| own(&row.application_name) && row.state == StandbyState::Streaming)
        });
    let subject = &member.subject;
    let contradicts = subject.writes()
        || subject.life == Life::Hung
        || subject.running() == Some(false)
        || matches!(member.relation, Relation::Parted(_) | Relation::Foreign(_));
    row && !contradicts
}

/// The current primary answers, in the role of a primary, on the cluster's own system.
fn donor<'c, 'a>(case: &'c Case<'a>) -> Option<&'c Member<'a>> {
    let resource = case.resource?;
    case.members.iter().find(|member| {
        let Some(server) = member.subject.server() else {
            return false;
        };
        resource.current_primary.as_ref() == Some(member.subject.name())
            && server.in_recovery == resource.replica_cluster
            && resource.system_id.is_none_or(|own| own == server.system_id)
            && !resource.fences.holds(member.subject.name())
    })
}

/// What each action needs to be true, from the evidence itself.
fn proof(case: &Case<'_>, request: &Request, step: &Step) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let Some(member) = case.member(&step.instance) else {
        return refusals;
    };
    let name = &step.instance;
    if request.target.as_ref().is_some_and(|target| target != name) {
        refusals.push(stop(
            Code::NotProven,
            format!("the plan touches {name}, which was not asked for"),
        ));
    }
    let subject = &member.subject;
    match step.action {
        Action::Restart if subject.standby_signal() != Some(true) => {
            refusals.push(stop(
                Code::NotProven,
                format!("{name} has no standby.signal: its start path may rewind it"),
            ));
        }
        Action::Restart => {}
        Action::Recreate => {
            let intact = subject.ev.claims.value().is_some_and(|claims| {
                claims
                    .iter()
                    .any(|claim| claim.role == ClaimRole::Data && claim.bound)
            });
            let proven = matches!(member.relation, Relation::Nothing(Nothing::VolumeGone(_)));
            if intact || !proven {
                refusals.push(stop(
                    Code::NotProven,
                    format!("the volume of {name} is not proven to be gone"),
                ));
            }
        }
        Action::Rewind | Action::Reseed => {
            refusals.extend(holds_nothing(member));
            if let Some(((timeline, at), _)) = relation::abandoned(subject) {
                refusals.push(unless_forced(
                    Code::SplitBrain,
                    format!("{name} holds WAL of timeline {timeline} past {at} that may hold commits nobody else has"),
                ));
            }
            let same = donor(case)
                .and_then(|donor| donor.subject.server())
                .map(|server| server.system_id);
            if step.basis.system_id.is_none() || step.basis.system_id != same {
                refusals.push(stop(
                    Code::NotProven,
                    "the plan rests on another system than the primary's",
                ));
            }
        }
        Action::None | Action::Wait | Action::Rejoin | Action::Blocked => {
            refusals.push(stop(
                Code::NotProven,
                format!("{:?} of {name} is nothing that can be carried out", step.action),
            ));
        }
    }
    refusals
}

/// Erasing takes the proof that the primary holds everything; without it only a person may say so (and it is captured).
fn holds_nothing(member: &Member<'_>) -> Option<Refusal> {
    let name = member.subject.name();
    let why = match &member.relation {
        Relation::Contained => return None,
        Relation::Nothing(nothing) => match (nothing, nothing.doubt(&member.subject)) {
            (_, Some(why)) => format!("{name} may hold data: {why}"),
            (Nothing::Unfinished(_), None) if member.subject.running() != Some(false) => {
                format!("{name} is not known to be down, and may be replaying its base backup")
            }
            (Nothing::Empty, None) if member.subject.running() == Some(true) => {
                format!("{name} runs, and its PGDATA is empty")
            }
            (_, None) => return None,
        },
        Relation::SeenByPrimary(_) | Relation::Remembered(_) => {
            format!("the end of {name} was not read, only where it was seen")
        }
        Relation::Parted(parted) if !parted.own.may_hold() => return None,
        Relation::Primary => return Some(stop(Code::TargetIsPrimary, format!("{name} is the primary"))),
        Relation::Parted(_) => {
            return Some(unless_forced(
                Code::SplitBrain,
                format!("{name} may hold commits that the primary lacks"),
            ));
        }
        Relation::Foreign(id) => format!("{name} holds data of another system ({id})"),
        Relation::Uncompared => format!("{name} could not be compared with the primary"),
        Relation::Unread(why) => format!("{name} could not be placed in history: {why}"),
    };
    Some(unless_forced(Code::Undeterminable, why))
}
