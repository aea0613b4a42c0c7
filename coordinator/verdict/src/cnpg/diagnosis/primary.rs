//! The primary's service, and the role on the move.

use super::{Finding, about, general};
use crate::cnpg::action::{serves_as_primary, young};
use crate::cnpg::case::{Member, Transition};
use crate::cnpg::room;
use crate::cnpg::subject::Life;
use crate::report::{Action, Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    found.extend(transition(finding));
    if finding.hibernates() || finding.case.transition().is_some() {
        return found;
    }
    let Some((member, conduct)) = finding.members().find(|(member, _)| member.subject.is_primary) else {
        return found;
    };
    let subject = &member.subject;
    let name = subject.name();
    found.extend(control_file(finding, member));
    if serves_as_primary(finding.case, subject) || subject.fenced || room::wal_full(subject).is_some() {
        return found;
    }
    let status = format!(
        "kubectl cnpg status {} {}",
        finding.namespace(),
        finding.case.name()
    );
    match subject.life {
        Life::Serving if conduct.action != Action::Wait => found.push(Diagnosis {
            evidence: vec![format!("{name} answers and is in recovery")],
            remedy: status,
            ..about(
                member,
                "cnpg-primary-in-recovery",
                Severity::Error,
                format!("{name} is the primary and accepts no writes"),
            )
        }),
        Life::Hung => found.push(Diagnosis {
            evidence: vec![format!("{name}'s postmaster exists and does not answer")],
            remedy: status,
            ..about(
                member,
                "server-hung",
                Severity::Critical,
                format!("{name}, the primary, is hung: no writes are possible"),
            )
        }),
        Life::CrashLooping | Life::Down | Life::NoPod | Life::Stuck => found.push(Diagnosis {
            evidence: conduct.reasons.clone(),
            remedy: if subject.ev.pod.value().is_some() {
                finding.describe_pod(member)
            } else {
                status
            },
            ..about(
                member,
                "cnpg-primary-down",
                Severity::Critical,
                format!("{name}, the primary, does not run: no writes are possible"),
            )
        }),
        Life::Slow => found.push(super::server_slow(finding, member)),
        // A primary whose node or agent is out of reach is diagnosed as such.
        Life::Running | Life::Unknown if subject.running() != Some(true) => {}
        Life::Running | Life::Unknown | Life::Serving | Life::Starting => {
            let silent = subject.life == Life::Running && !young(finding.case, subject);
            let (severity, what) = if silent {
                (Severity::Critical, "runs and answers nobody")
            } else {
                (Severity::Warning, "is on its way up")
            };
            let why = subject.ev.server.why_unread().map(|unread| unread.detail.clone());
            found.push(Diagnosis {
                evidence: conduct.reasons.iter().cloned().chain(why).collect(),
                remedy: status,
                ..about(
                    member,
                    "cnpg-primary-down",
                    severity,
                    format!("{name}, the primary, {what}: no writes are possible"),
                )
            });
        }
    }
    found
}

/// A server that runs goes on without it, and cannot start again.
fn control_file(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let subject = &member.subject;
    let why = subject.ev.disk.control.why_unread();
    let effect = if subject.running() == Some(true) {
        "if it stops like this, it cannot start"
    } else {
        "it cannot start"
    };
    subject.control_corrupt().then(|| Diagnosis {
        evidence: why.map(|unread| unread.detail.clone()).into_iter().collect(),
        remedy: format!(
            "do not stop what still runs; look at the backups before anything else: kubectl get backups.postgresql.cnpg.io {}",
            finding.namespace()
        ),
        ..about(
            member,
            "cnpg-control-file-corrupt",
            Severity::Critical,
            format!(
                "the control file of {}, the primary, is not readable: {effect}",
                subject.name()
            ),
        )
    })
}

fn transition(finding: &Finding<'_, '_>) -> Option<Diagnosis> {
    let watch = format!("wait for the operator; then: {}", finding.triage());
    Some(match finding.case.transition()? {
        Transition::FailoverPending => Diagnosis {
            evidence: vec!["status.targetPrimary is pending".to_owned()],
            remedy: watch,
            ..general(
                "failover-pending",
                Severity::Error,
                "a failover waits for the WAL receivers to go down".to_owned(),
            )
        },
        Transition::Handover(target) => Diagnosis {
            evidence: vec![format!(
                "status.targetPrimary is {target} and not yet the current primary"
            )],
            remedy: watch,
            ..general(
                "cnpg-role-moving",
                Severity::Info,
                format!("the role of primary is on its way to {target}"),
            )
        },
        Transition::Moved => Diagnosis {
            evidence: vec![
                "current primary, target primary or timeline differ between the first and the last read, or could not be confirmed"
                    .to_owned(),
            ],
            remedy: format!("ask again: {}", finding.triage()),
            ..general(
                "cnpg-role-moving",
                Severity::Info,
                "roles moved while the instances were read".to_owned(),
            )
        },
        Transition::MajorUpgrade => Diagnosis {
            evidence: vec!["the operator upgrades PostgreSQL to another major version".to_owned()],
            remedy: watch,
            ..general(
                "major-upgrade",
                Severity::Info,
                "a major upgrade of PostgreSQL is in progress".to_owned(),
            )
        },
    })
}
