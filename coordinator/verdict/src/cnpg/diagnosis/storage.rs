//! Volumes that are full, nearly full, or gone.

use super::{Finding, about, bytes};
use crate::cnpg::action::Conduct;
use crate::cnpg::case::Member;
use crate::cnpg::relation::{Nothing, Relation};
use crate::cnpg::room::{self, Room};
use crate::evidence::cnpg::{ClaimRole, SlotWal};
use crate::report::{Action, Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    finding
        .members()
        .flat_map(|(member, conduct)| member_volumes(finding, member, conduct))
        .collect()
}

fn member_volumes(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    found.extend(gone(finding, member, conduct));
    let full = room::wal_full(&member.subject);
    if let Some(full) = &full {
        found.push(wal_full(finding, member, full));
    }
    for volume in &member.subject.ev.disk.volumes {
        let Some(space) = volume.space.value() else {
            continue;
        };
        let name = room::volume_name(&volume.role);
        let instance = member.subject.name();
        let told = full.as_ref().is_some_and(|full| full.role == volume.role);
        // `total` 0 is a file system without a fixed number (of inodes) or one that does not say.
        let low = |free: u64, total: u64| total > 0 && free <= total / 10;
        if !told && low(space.free_bytes, space.total_bytes) {
            let full = Room {
                role: volume.role.clone(),
                space: Some(*space),
            };
            found.push(Diagnosis {
                evidence: vec![format!(
                    "{} of {} free",
                    bytes(space.free_bytes),
                    bytes(space.total_bytes)
                )],
                remedy: grow(finding, member, &full),
                ..about(
                    member,
                    "disk-low",
                    Severity::Warning,
                    format!("the {name} volume of {instance} is nearly full"),
                )
            });
        }
        if low(space.free_inodes, space.total_inodes) {
            found.push(Diagnosis {
                evidence: vec![format!(
                    "{} of {} inodes free",
                    space.free_inodes, space.total_inodes
                )],
                remedy: format!(
                    "kubectl get pvc {} -l cnpg.io/instanceName={instance}",
                    finding.namespace()
                ),
                ..about(
                    member,
                    "inodes-low",
                    Severity::Warning,
                    format!("the {name} volume of {instance} runs out of inodes"),
                )
            });
        }
        if space.read_only {
            found.push(Diagnosis {
                evidence: vec![
                    "the file system is mounted read-only; the kernel does that after input/output errors"
                        .to_owned(),
                ],
                remedy: finding.describe_pod(member),
                ..about(
                    member,
                    "volume-read-only",
                    Severity::Error,
                    format!("the {name} volume of {instance} is read-only"),
                )
            });
        }
    }
    found
}

fn gone(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let Relation::Nothing(Nothing::VolumeGone(proof)) = &member.relation else {
        return None;
    };
    let name = member.subject.name();
    let remedy = match (conduct.action, member.subject.ev.pod.value()) {
        // The API-native way to have an instance made anew; the operator refuses it for a primary.
        (Action::Recreate, Some(_)) => {
            format!(
                "kubectl annotate pod {} {name} alpha.cnpg.io/unrecoverable=true",
                finding.namespace()
            )
        }
        (Action::Recreate, None) => finding.cure(member, conduct),
        _ => format!(
            "kubectl get pvc,pv {} -l cnpg.io/cluster={}",
            finding.namespace(),
            finding.case.name()
        ),
    };
    let summary = format!("the volume of {name} is gone");
    Some(Diagnosis {
        evidence: vec![proof.clone()],
        remedy,
        ..about(member, "volume-gone", Severity::Error, summary)
    })
}

fn wal_full(finding: &Finding<'_, '_>, member: &Member<'_>, full: &Room) -> Diagnosis {
    let subject = &member.subject;
    let mut evidence = vec![full.space.map_or_else(
        || "the manager ended with its exit code for low disk space (4)".to_owned(),
        |space| format!("{} of {} free", bytes(space.free_bytes), bytes(space.total_bytes)),
    )];
    if let Some(wal) = subject.ev.disk.wal.value() {
        evidence.push(format!(
            "pg_wal: {} in {} segments",
            bytes(wal.bytes),
            wal.segments
        ));
    }
    evidence.extend(retention(member));
    if let Some(message) = finding
        .case
        .resource
        .and_then(|resource| resource.archiving_failing.as_ref())
    {
        evidence.push(format!("archiving fails: {message}"));
    }
    let severity = if subject.is_primary {
        Severity::Critical
    } else {
        Severity::Error
    };
    let summary = format!(
        "the {} volume of {}, which holds pg_wal, is full",
        room::volume_name(&full.role),
        subject.name()
    );
    Diagnosis {
        evidence,
        remedy: grow(finding, member, full),
        ..about(member, "wal-volume-full", severity, summary)
    }
}

/// What keeps WAL from being recycled: segments that wait for the archive, and slots, oldest first.
fn retention(member: &Member<'_>) -> Vec<String> {
    let subject = &member.subject;
    let disk = &subject.ev.disk;
    let mut lines = Vec::new();
    if let Some(wal) = disk.wal.value().filter(|wal| wal.ready > 0) {
        lines.push(format!("{} segments wait to be archived (.ready)", wal.ready));
    }
    let end = subject.position.map(|position| position.lsn);
    let mut slots: Vec<_> = match subject.server() {
        Some(server) => {
            let reserving = server
                .slots
                .iter()
                .filter(|slot| slot.wal_status != SlotWal::Lost);
            reserving
                .filter_map(|slot| Some((slot.restart?, slot.name.clone(), slot.active)))
                .collect()
        }
        None => disk
            .slots
            .value()
            .into_iter()
            .flatten()
            .filter_map(|slot| Some((slot.state.value()?.restart?, slot.name.clone(), false)))
            .collect(),
    };
    slots.sort();
    for (restart, name, active) in slots.into_iter().take(5) {
        let kept = end.map_or_else(String::new, |end| {
            format!(", {} of WAL", bytes(end.bytes_past(restart)))
        });
        let idle = if active { "" } else { " (nobody reads it)" };
        lines.push(format!("slot {name}{idle} keeps everything from {restart}{kept}"));
    }
    if lines.is_empty() {
        lines.push("no slot and no unarchived segment was seen to retain WAL".to_owned());
    }
    lines
}

/// The command that gives a volume more room. CNPG grows every instance's volume of that kind.
pub(super) fn grow(finding: &Finding<'_, '_>, member: &Member<'_>, full: &Room) -> String {
    let requested = room::claim(&member.subject, &full.role).and_then(|claim| claim.requested_bytes);
    let total = full.space.map(|space| space.total_bytes);
    let Some(now) = requested.or(total) else {
        return format!(
            "kubectl get pvc {} -l cnpg.io/instanceName={}",
            finding.namespace(),
            member.subject.name()
        );
    };
    // Half as much again, in whole MiB.
    let size = format!("{}Mi", (now.saturating_add(now / 2) >> 20) + 1);
    let field = match &full.role {
        ClaimRole::Wal => "walStorage",
        ClaimRole::Data => "storage",
        ClaimRole::Tablespace(_) | ClaimRole::Other(_) => {
            return format!(
                "raise the size of this tablespace: kubectl edit {}",
                finding.resource()
            );
        }
    };
    format!(
        "kubectl patch {} --type merge -p '{{\"spec\":{{\"{field}\":{{\"size\":\"{size}\"}}}}}}'",
        finding.resource()
    )
}
