//! What is wrong, with a stable id, the evidence and a remedy that can be pasted.
//!
//! A remedy that erases data is printed only where the action of that instance proves it right.

mod archive;
mod cluster;
mod history;
mod primary;
mod reach;
mod replica;
mod storage;

use super::action::Conduct;
use super::case::{Case, Member};
use crate::evidence::cnpg::Fences;
use crate::report::{Action, Diagnosis, Severity, Verdict, VerdictKind};

/// What the finders look at.
pub(crate) struct Finding<'f, 'a> {
    pub(crate) case: &'f Case<'a>,
    pub(crate) verdict: &'f Verdict,
    /// In the order of the case's members.
    pub(crate) conducts: &'f [Conduct],
}

/// Every diagnosis, worst first.
pub(crate) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let finders = [
        history::find,
        primary::find,
        replica::find,
        storage::find,
        archive::find,
        reach::find,
        cluster::find,
    ];
    let mut all: Vec<_> = finders.iter().flat_map(|find| find(finding)).collect();
    all.sort_by(|a, b| {
        let key = |d: &Diagnosis| {
            (
                d.severity,
                d.id.clone(),
                d.target.as_ref().map(|t| (t.ordinal(), t.clone())),
            )
        };
        key(a).cmp(&key(b))
    });
    all
}

impl<'f, 'a> Finding<'f, 'a> {
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'f Member<'a>, &'f Conduct)> {
        self.case.members.iter().zip(self.conducts)
    }

    pub(crate) fn provable(&self) -> bool {
        self.verdict.kind == VerdictKind::Provable
    }

    pub(crate) fn hibernates(&self) -> bool {
        self.case.resource.is_some_and(|resource| resource.hibernation)
    }

    /// `-n <namespace>`.
    pub(crate) fn namespace(&self) -> String {
        format!("-n {}", self.case.namespace())
    }

    /// `cluster.postgresql.cnpg.io/<name> -n <namespace>`.
    pub(crate) fn resource(&self) -> String {
        format!(
            "cluster.postgresql.cnpg.io/{} {}",
            self.case.name(),
            self.namespace()
        )
    }

    pub(crate) fn triage(&self) -> String {
        format!(
            "hasteward triage -e cnpg {} -c {}",
            self.namespace(),
            self.case.name()
        )
    }

    pub(crate) fn describe_pod(&self, member: &Member<'_>) -> String {
        format!(
            "kubectl describe pod {} {}",
            self.namespace(),
            member.subject.name()
        )
    }

    /// The remedy that fits the action; only `reseed`, `rewind` and `recreate` name a command that erases.
    ///
    /// Each of them leaves it to the operator to make the pod again, which it does not do while it is paused or while any
    /// instance is fenced.
    pub(crate) fn cure(&self, member: &Member<'_>, conduct: &Conduct) -> String {
        let name = member.subject.name();
        let command = match conduct.action {
            Action::Restart => format!("kubectl delete pod {} {name}", self.namespace()),
            Action::Reseed | Action::Rewind | Action::Recreate => {
                format!(
                    "kubectl cnpg destroy {} {} {name}",
                    self.namespace(),
                    self.case.name()
                )
            }
            Action::None | Action::Wait | Action::Rejoin | Action::Blocked => {
                return self.describe_pod(member);
            }
        };
        let asleep = self.case.resource.is_some_and(|resource| {
            resource.reconciliation_disabled || !matches!(resource.fences, Fences::None | Fences::Invalid(_))
        });
        if asleep {
            format!("first lift the pause or fence (see its own diagnosis); then: {command}")
        } else {
            command
        }
    }
}

/// One diagnosis about an instance.
pub(crate) fn about(member: &Member<'_>, id: &str, severity: Severity, summary: String) -> Diagnosis {
    Diagnosis {
        target: Some(member.subject.name().clone()),
        ..general(id, severity, summary)
    }
}

/// One diagnosis about the cluster.
pub(crate) fn general(id: &str, severity: Severity, summary: String) -> Diagnosis {
    Diagnosis {
        id: id.to_owned(),
        severity,
        summary,
        evidence: Vec::new(),
        remedy: String::new(),
        target: None,
    }
}

/// One answer that did not come in time.
pub(crate) fn server_slow(finding: &Finding<'_, '_>, member: &Member<'_>) -> Diagnosis {
    let name = member.subject.name();
    let why = member.subject.ev.server.why_unread();
    Diagnosis {
        evidence: why.map(|unread| unread.detail.clone()).into_iter().collect(),
        remedy: format!(
            "ask again in a minute; meanwhile: kubectl logs {} {name} -c postgres --tail=50",
            finding.namespace()
        ),
        ..about(
            member,
            "server-slow",
            Severity::Warning,
            format!("the server of {name} did not answer in time, once"),
        )
    }
}

/// `12.3 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    UNITS.iter().find(|(_, unit)| count >= *unit).map_or_else(
        || format!("{count} B"),
        |(name, unit)| {
            let tenths = u128::from(count) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}
