//! Archiving and slots.

use super::{Finding, about, general};
use crate::evidence::cnpg::SlotWal;
use crate::report::{Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    found.extend(failing(finding));
    let Some(primary) = finding.case.primary() else {
        return found;
    };
    let Some(server) = primary.subject.server() else {
        return found;
    };
    for slot in server
        .slots
        .iter()
        .filter(|slot| slot.wal_status == SlotWal::Lost)
    {
        let of = finding
            .case
            .members
            .iter()
            .find(|member| member.subject.name().cnpg_slot_name() == slot.name);
        let summary = format!(
            "slot {} on {} is lost: it keeps no WAL any more",
            slot.name,
            primary.subject.name()
        );
        // CNPG does not notice a lost slot. Dropped, its own slots are made again for every instance.
        let drop = format!(
            "kubectl exec {} {} -c postgres -- psql -c \"SELECT pg_drop_replication_slot('{}')\"",
            finding.namespace(),
            primary.subject.name(),
            slot.name.replace(['\'', '"', '\\', '$', '`'], "_")
        );
        let remedy = if of.is_some() && finding.provable() {
            drop
        } else {
            "decide whether its reader is still wanted; it must start from a new copy".to_owned()
        };
        let found_about = |diagnosis: Diagnosis| match of {
            Some(member) => Diagnosis {
                target: Some(member.subject.name().clone()),
                ..diagnosis
            },
            None => diagnosis,
        };
        found.push(found_about(Diagnosis {
            evidence: vec!["pg_replication_slots.wal_status is lost".to_owned()],
            remedy,
            ..general("slot-lost", Severity::Warning, summary)
        }));
    }
    found
}

fn failing(finding: &Finding<'_, '_>) -> Option<Diagnosis> {
    let reported = finding
        .case
        .resource
        .and_then(|resource| resource.archiving_failing.clone());
    let primary = finding.case.primary();
    let segment = primary
        .and_then(|member| member.subject.server())
        .and_then(|server| server.archive_failing.clone());
    if reported.is_none() && segment.is_none() {
        return None;
    }
    let ready = primary
        .and_then(|member| member.subject.ev.disk.wal.value())
        .map(|wal| wal.ready);
    let evidence = reported
        .map(|message| format!("ContinuousArchiving is False: {message}"))
        .into_iter()
        .chain(segment.map(|segment| format!("the last attempt failed: {segment}")))
        .chain(ready.map(|ready| format!("{ready} segments wait")))
        .collect();
    let remedy = format!(
        "kubectl cnpg status {} {}",
        finding.namespace(),
        finding.case.name()
    );
    let summary =
        "WAL is not archived; it piles up on the primary, and no restore reaches the present".to_owned();
    let diagnosis = match primary {
        Some(member) => about(member, "archiving-failing", Severity::Warning, summary),
        None => general("archiving-failing", Severity::Warning, summary),
    };
    Some(Diagnosis {
        evidence,
        remedy,
        ..diagnosis
    })
}
