//! Replicas that are down, off the primary's history, or cannot follow it.

use super::{Finding, about};
use crate::cnpg::action::{self, Conduct, follows, young};
use crate::cnpg::case::Member;
use crate::cnpg::relation::{Nothing, Relation};
use crate::cnpg::room;
use crate::cnpg::subject::Life;
use crate::cnpg::supply::{self, Supply};
use crate::evidence::cnpg::AgentPresence;
use crate::report::{Action, Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    if finding.hibernates() || finding.case.transition().is_some() {
        return Vec::new();
    }
    let replicas = finding.members().filter(|(member, _)| !member.subject.is_primary);
    replicas
        .flat_map(|(member, conduct)| replica(finding, member, conduct))
        .collect()
}

fn replica(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    found.extend(control_file(finding, member, conduct));
    if finding.provable() && !action::paused(member) {
        found.extend(missing_wal(finding, member, conduct));
        found.extend(off_timeline(finding, member, conduct));
        found.extend(unfinished(finding, member, conduct));
    }
    if action::paused(member) && !member.subject.fenced {
        return vec![replay_paused(finding, member, conduct)];
    }
    if found.is_empty() {
        found.extend(hung(finding, member, conduct).or_else(|| down(finding, member, conduct)));
        found.extend(slow(finding, member));
        found.extend(not_streaming(finding, member, conduct));
    }
    found
}

fn diagnosis(
    finding: &Finding<'_, '_>,
    member: &Member<'_>,
    conduct: &Conduct,
    id: &str,
    severity: Severity,
    summary: String,
) -> Diagnosis {
    Diagnosis {
        evidence: conduct.reasons.clone(),
        remedy: finding.cure(member, conduct),
        ..about(member, id, severity, summary)
    }
}

fn control_file(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let subject = &member.subject;
    let readable = !matches!(member.relation, Relation::Unread(_) | Relation::Nothing(_));
    if !subject.control_corrupt() || !readable {
        return None;
    }
    let summary = format!("the control file of {} is not readable", subject.name());
    let severity = if subject.running() == Some(true) {
        Severity::Warning
    } else {
        Severity::Error
    };
    let mut found = diagnosis(
        finding,
        member,
        conduct,
        "cnpg-control-file-corrupt",
        severity,
        summary,
    );
    if let Some(unread) = subject.ev.disk.control.why_unread() {
        found.evidence.insert(0, unread.detail.clone());
    }
    if let Some(position) = subject.position {
        found.evidence.push(format!(
            "its WAL ends at {} on timeline {} ({})",
            position.lsn,
            position.timeline,
            position.source.text()
        ));
    }
    Some(found)
}

fn missing_wal(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    if member.relation != Relation::Contained || member.subject.writes() {
        return None;
    }
    let Supply::Gone { archived, .. } = supply::of(finding.case, member) else {
        return None;
    };
    // Before a start has shown whether the archive serves it, it is merely down.
    if archived && !member.subject.recovers() {
        return None;
    }
    let severity = if conduct.action == Action::Wait {
        Severity::Warning
    } else {
        Severity::Error
    };
    let summary = format!(
        "{} needs WAL that the primary has no longer",
        member.subject.name()
    );
    Some(diagnosis(
        finding,
        member,
        conduct,
        "cnpg-replica-missing-wal",
        severity,
        summary,
    ))
}

fn off_timeline(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let subject = &member.subject;
    let parted = member.parted().is_some();
    let former = conduct.action == Action::Rewind
        || (conduct.action == Action::Reseed
            && subject.stood_by() == Some(false)
            && member.relation == Relation::Contained);
    let waits = matches!(conduct.action, Action::Wait) && subject.life == Life::Starting;
    if !(parted || former || subject.writes()) || waits || subject.control_corrupt() {
        return None;
    }
    let summary = format!(
        "{} is off the primary's timeline and holds no commit of its own",
        subject.name()
    );
    Some(diagnosis(
        finding,
        member,
        conduct,
        "cnpg-replica-off-timeline",
        Severity::Error,
        summary,
    ))
}

fn unfinished(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let name = member.subject.name();
    let stopped = member.subject.server().is_none() && member.subject.life != Life::Starting;
    match &member.relation {
        Relation::Nothing(Nothing::Unfinished(_)) if stopped && conduct.action != Action::Wait => {
            let summary = format!("{name} is an unfinished base backup");
            Some(diagnosis(
                finding,
                member,
                conduct,
                "cnpg-unfinished-backup",
                Severity::Error,
                summary,
            ))
        }
        Relation::Nothing(Nothing::Empty) if stopped && conduct.action != Action::Wait => {
            let summary = format!("the data directory of {name} is empty");
            Some(diagnosis(
                finding,
                member,
                conduct,
                "cnpg-data-empty",
                Severity::Error,
                summary,
            ))
        }
        _ => None,
    }
}

fn replay_paused(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Diagnosis {
    let name = member.subject.name();
    // PostgreSQL 14 and later pause where a replayed parameter change asks for more than the standby has.
    let also = "a setting below the primary's (max_connections and the like) pauses replay too, and resuming then ends the server: its log says so";
    Diagnosis {
        evidence: conduct.reasons.iter().cloned().chain([also.to_owned()]).collect(),
        remedy: format!(
            "if nobody needs it any more: kubectl exec {} {name} -c postgres -- psql -c 'SELECT pg_wal_replay_resume()'",
            finding.namespace()
        ),
        ..about(
            member,
            "replay-paused",
            Severity::Warning,
            format!("replay of {name} is paused: its data grows older, and its pg_wal grows"),
        )
    }
}

fn slow(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let subject = &member.subject;
    (subject.life == Life::Slow && !subject.fenced).then(|| super::server_slow(finding, member))
}

fn hung(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let subject = &member.subject;
    if subject.life != Life::Hung || subject.fenced {
        return None;
    }
    let summary = format!("the server of {} exists and does not answer", subject.name());
    let mut found = diagnosis(finding, member, conduct, "server-hung", Severity::Error, summary);
    let stopped = subject
        .ev
        .disk
        .processes
        .value()
        .and_then(|all| all.postmaster.as_ref())
        .filter(|one| one.stopped);
    if let Some(postmaster) = stopped {
        found.evidence.push(format!(
            "postmaster (host pid {}) is stopped by a signal or a tracer",
            postmaster.pid
        ));
    }
    Some(found)
}

fn down(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let subject = &member.subject;
    let explained = subject.fenced
        || subject.node_down()
        || room::wal_full(subject).is_some()
        || matches!(
            member.relation,
            Relation::Nothing(_) | Relation::Foreign(_) | Relation::SeenByPrimary(_)
        )
        || member.parted().is_some()
        || action::agent(subject).is_some_and(|agent| agent != AgentPresence::Connected);
    let how = match subject.life {
        Life::CrashLooping => "crash-loops".to_owned(),
        Life::Down => "does not run".to_owned(),
        Life::NoPod => "has no pod".to_owned(),
        Life::Stuck => format!("cannot start: {}", action::stuck(subject)),
        _ => return None,
    };
    if explained {
        return None;
    }
    let mut found = diagnosis(
        finding,
        member,
        conduct,
        "cnpg-replica-down",
        Severity::Error,
        format!("{} {how}", subject.name()),
    );
    if subject.life == Life::NoPod {
        found.remedy = format!(
            "kubectl cnpg status {} {}",
            finding.namespace(),
            finding.case.name()
        );
    }
    if let Some(run) = subject.ev.pod.value().and_then(|pod| pod.previous) {
        let seconds = run.finished_at.millis_since(run.started_at) / 1000;
        found.evidence.push(format!(
            "its last run ended after {seconds} s with exit code {}",
            run.exit
        ));
    }
    Some(found)
}

/// It runs, and for longer than any start takes, without WAL coming in.
fn not_streaming(finding: &Finding<'_, '_>, member: &Member<'_>, conduct: &Conduct) -> Option<Diagnosis> {
    let subject = &member.subject;
    let busy = young(finding.case, subject) || follows(finding.case, member) || subject.fenced;
    let running =
        subject.recovers() || (subject.life == Life::Running && subject.ev.server.why_unread().is_some());
    let parted = member.parted().is_some() || matches!(member.relation, Relation::Foreign(_));
    let reachable = action::agent(subject).is_none_or(|agent| agent == AgentPresence::Connected);
    if !running || busy || parted || !reachable || finding.case.donor().is_none() {
        return None;
    }
    let supply = supply::of(finding.case, member);
    if matches!(supply, Supply::Streaming | Supply::CatchingUp) {
        return None;
    }
    let summary = format!("{} runs and does not stream", subject.name());
    let mut found = diagnosis(
        finding,
        member,
        conduct,
        "cnpg-replica-not-streaming",
        Severity::Warning,
        summary,
    );
    if let Supply::Unknown(why) = supply {
        found.evidence.push(format!(
            "whether the WAL that it needs is still there is not known: {why}"
        ));
    }
    if conduct.action == Action::Wait {
        found.remedy = format!(
            "kubectl logs {} {} -c postgres --tail=50",
            finding.namespace(),
            subject.name()
        );
    }
    Some(found)
}
