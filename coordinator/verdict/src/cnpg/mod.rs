//! CloudNativePG: from evidence to a report.
//!
//! [`questions()`] says which commits must be counted first; [`assess`] does the rest.

mod action;
pub(crate) mod case;
mod diagnosis;
mod intervention;
mod lineage;
mod plan;
mod position;
mod questions;
pub(crate) mod relation;
mod room;
pub(crate) mod subject;
mod supply;
pub(crate) mod verdict;

#[cfg(test)]
mod tests;

use hasteward_proto::primitive::Engine;

pub use plan::{Basis, Plan, Request, RequestKind, Step, plan};
pub use questions::{Question, questions, unscanned};

use crate::evidence::cnpg::CnpgEvidence;
use crate::evidence::{Evidence, Unread, UnreadReason};
use crate::report::{InstanceReport, Position, Role, TriageReport, UnreadItem, VolumeReport};
use case::{Case, Member};
use relation::Relation;

/// The whole triage of one cluster. A function of its argument: the same evidence gives the same report.
#[must_use]
pub fn assess(ev: &CnpgEvidence) -> TriageReport {
    let case = Case::new(ev);
    let verdict = verdict::judge(&case);
    let conducts: Vec<_> = case
        .members
        .iter()
        .map(|member| action::decide(&case, &verdict, member))
        .collect();
    let diagnoses = diagnosis::find(&diagnosis::Finding {
        case: &case,
        verdict: &verdict,
        conducts: &conducts,
    });
    let instances = case
        .members
        .iter()
        .zip(conducts)
        .map(|(member, conduct)| report(&case, member, conduct))
        .collect();
    TriageReport {
        engine: Engine::Cnpg,
        cluster: ev.cluster.clone(),
        collected_at: ev.collected_at,
        phase: case.resource.and_then(|resource| resource.phase.clone()),
        verdict,
        instances,
        diagnoses,
    }
}

fn report(case: &Case<'_>, member: &Member<'_>, conduct: action::Conduct) -> InstanceReport {
    let subject = &member.subject;
    let named = case
        .resource
        .is_some_and(|resource| resource.current_primary.is_some());
    let pod = subject.ev.pod.value();
    let node = pod
        .and_then(|pod| pod.node.clone())
        .or_else(|| subject.ev.node.value().map(|node| node.name.clone()));
    let wal_role = room::wal_role(subject);
    let disk = subject.ev.disk.volumes.iter().filter_map(|volume| {
        let space = volume.space.value()?;
        let wal = subject.ev.disk.wal.value().filter(|_| volume.role == wal_role);
        Some(VolumeReport {
            volume: room::volume_name(&volume.role),
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            wal_bytes: wal.map(|wal| wal.bytes),
        })
    });
    InstanceReport {
        instance: subject.name().clone(),
        pod: pod.map(|_| subject.name().as_str().to_owned()),
        node: node.map(|node| node.as_str().to_owned()),
        role: match (subject.is_primary, named) {
            (true, _) => Role::Primary,
            (false, true) => Role::Replica,
            (false, false) => Role::Unknown,
        },
        state: action::state(case, member),
        running: subject.running(),
        ready: pod.map(|pod| pod.ready),
        action: conduct.action,
        reasons: conduct.reasons,
        position: place(case, member),
        disk: disk.collect(),
        unread: unread(member),
    }
}

fn place(case: &Case<'_>, member: &Member<'_>) -> Option<Position> {
    let position = relation::seen(&member.subject, &member.relation)?;
    let comparable = matches!(
        member.relation,
        Relation::Contained | Relation::SeenByPrimary(_) | Relation::Remembered(_)
    );
    let primary = case.primary_reader().filter(|_| comparable);
    Some(Position {
        timeline: position.timeline,
        lsn: position.lsn,
        source: action::source(&position),
        lag_bytes: primary.map(|primary| primary.position.lsn.bytes_past(position.lsn)),
        seen_at: match position.source {
            position::Source::Remembered(at) => Some(at),
            _ => None,
        },
    })
}

/// What was wanted and could not be read, one line an item; what nobody needed is not listed.
fn unread(member: &Member<'_>) -> Vec<UnreadItem> {
    fn why<T>(item: &'static str, evidence: &Evidence<T>) -> Option<(&'static str, Unread)> {
        evidence.why_unread().map(|unread| (item, unread.clone()))
    }
    let ev = member.subject.ev;
    let disk = &ev.disk;
    let items = [
        why("pod", &ev.pod),
        why("claims", &ev.claims),
        why("node", &ev.node),
        why("server", &ev.server),
        why("processes", &disk.processes),
        why("control file", &disk.control),
        why("signal files", &disk.signals),
        why("backup label", &disk.backup_label),
        why("histories", &disk.histories),
        why("end of WAL", &disk.wal_end),
        why("WAL directory", &disk.wal),
        why("slots", &disk.slots),
        why("tablespaces", &disk.tablespaces),
        why("leftovers", &disk.leftovers),
    ];
    let volumes = disk.volumes.iter().filter_map(|volume| {
        let unread = volume.space.why_unread()?;
        Some((
            format!("space of the {} volume", room::volume_name(&volume.role)),
            unread.clone(),
        ))
    });
    let items = items
        .into_iter()
        .flatten()
        .map(|(item, unread)| (item.to_owned(), unread))
        .chain(volumes);
    items
        .filter(|(_, unread)| unread.reason != UnreadReason::NotNeeded)
        .map(|(item, why)| UnreadItem { item, why })
        .collect()
}
