//! [`Case`]: the evidence of a whole cluster with every instance related to the primary. Verdict, actions and diagnoses all
//! read this one thing, so that they cannot contradict each other.

use hasteward_proto::primitive::InstanceName;

use super::relation::{self, Nothing, Reader, Relation};
use super::subject::Subject;
use crate::evidence::Evidence;
use crate::evidence::cnpg::{ClusterResource, CnpgEvidence, TargetPrimary};

/// A cluster, instance by instance.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) ev: &'a CnpgEvidence,
    pub(crate) resource: Option<&'a ClusterResource>,
    /// By ordinal, then by name.
    pub(crate) members: Vec<Member<'a>>,
}

/// An instance and what it is to the primary.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) relation: Relation,
}

/// Something that makes the operator's world move right now, so that nothing may be concluded from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition<'a> {
    /// A failover waits for the WAL receivers to go down.
    FailoverPending,
    /// `targetPrimary` names another instance than `currentPrimary`.
    Handover(&'a InstanceName),
    /// Roles or the timeline changed while the evidence was collected.
    Moved,
    MajorUpgrade,
}

impl<'a> Case<'a> {
    pub(crate) fn new(ev: &'a CnpgEvidence) -> Self {
        let resource = ev.resource.value();
        let mut subjects: Vec<_> = ev
            .instances
            .iter()
            .map(|instance| Subject::new(instance, ev))
            .collect();
        subjects.sort_by_key(|subject| (subject.name().ordinal(), subject.name().clone()));
        let relations = {
            let primary = subjects.iter().find(|subject| subject.is_primary);
            let primary = primary.and_then(|subject| authority(subject).ok());
            let relate = |subject: &Subject<'_>| match (&primary, resource) {
                (Some(primary), Some(resource)) if subject.is_primary => own_relation(primary, resource),
                (Some(primary), Some(resource)) => relation::relate(subject, primary, resource),
                _ => uncompared(subject, resource),
            };
            subjects.iter().map(relate).collect::<Vec<_>>()
        };
        let members = subjects
            .into_iter()
            .zip(relations)
            .map(|(subject, relation)| Member { subject, relation });
        Self {
            ev,
            resource,
            members: members.collect(),
        }
    }

    pub(crate) fn primary(&self) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.subject.is_primary)
    }

    pub(crate) fn member(&self, name: &InstanceName) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.subject.name() == name)
    }

    /// The primary, where its history and end are known.
    pub(crate) fn primary_reader(&self) -> Option<Reader<'_>> {
        let primary = self.primary()?;
        (primary.relation == Relation::Primary)
            .then(|| authority(&primary.subject).ok())
            .flatten()
    }

    /// The primary's server answers and does what a primary does: others can be cloned from it.
    pub(crate) fn donor(&self) -> Option<&Member<'a>> {
        let replica = self.resource.is_some_and(|resource| resource.replica_cluster);
        self.primary().filter(|member| {
            member.relation == Relation::Primary
                && !member.subject.fenced
                && (member.subject.writes() || (replica && member.subject.recovers()))
        })
    }

    pub(crate) fn transition(&self) -> Option<Transition<'a>> {
        let resource = self.resource?;
        if resource.major_upgrade {
            return Some(Transition::MajorUpgrade);
        }
        match &resource.target_primary {
            TargetPrimary::Pending => Some(Transition::FailoverPending),
            TargetPrimary::Instance(target) if Some(target) != resource.current_primary.as_ref() => {
                Some(Transition::Handover(target))
            }
            TargetPrimary::Instance(_) | TargetPrimary::None => {
                self.ev.roles_moved.then_some(Transition::Moved)
            }
        }
    }

    /// `kubectl` and `hasteward` name a cluster by namespace and name.
    pub(crate) fn namespace(&self) -> &str {
        &self.ev.cluster.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.ev.cluster.name
    }
}

impl Member<'_> {
    pub(crate) fn parted(&self) -> Option<relation::Parted> {
        match self.relation {
            Relation::Parted(parted) => Some(parted),
            _ => None,
        }
    }
}

/// A reader that may stand as the primary's position.
fn authority<'s>(subject: &'s Subject<'s>) -> Result<Reader<'s>, String> {
    relation::reader(subject)
}

/// The primary is itself, unless it is of another system than the cluster says.
fn own_relation(primary: &Reader<'_>, resource: &ClusterResource) -> Relation {
    let ids = primary.subject.systems();
    let reference = resource.system_id.or_else(|| ids.first().copied());
    ids.into_iter()
        .find(|&id| Some(id) != reference)
        .map_or(Relation::Primary, Relation::Foreign)
}

/// Without a primary to compare with, an instance is at most read.
fn uncompared(subject: &Subject<'_>, resource: Option<&ClusterResource>) -> Relation {
    let reference = resource.and_then(|resource| resource.system_id);
    let foreign = reference.and_then(|own| subject.systems().into_iter().find(|&id| id != own));
    if let Some(other) = foreign {
        return Relation::Foreign(other);
    }
    match relation::nothing(subject) {
        // A primary that is cloned or restored at this moment is no proof that nothing is there.
        Some(Nothing::Joining | Nothing::Unfinished(_)) if subject.is_primary => {
            Relation::Unread("it is being made or restored".to_owned())
        }
        Some(nothing) => match nothing.doubt(subject) {
            None => Relation::Nothing(nothing),
            Some(why) => Relation::Unread(why),
        },
        None => relation::reader(subject).map_or_else(Relation::Unread, |_| Relation::Uncompared),
    }
}

/// Whether the cluster resource itself could be read.
pub(crate) fn resource_gap(ev: &CnpgEvidence) -> Option<String> {
    match &ev.resource {
        Evidence::Known(_) => None,
        Evidence::Unread(unread) => Some(format!("the Cluster resource was not read: {}", unread.detail)),
        Evidence::Absent(absent) => Some(format!("the Cluster resource does not exist: {}", absent.proof)),
    }
}
