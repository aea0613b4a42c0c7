//! Switches that somebody set on the cluster, and what dead operations left.

use hasteward_proto::primitive::InstanceName;

use super::{Finding, about, general};
use crate::cnpg::case::Member;
use crate::cnpg::relation::Relation;
use crate::evidence::cnpg::{ClusterResource, Fences};
use crate::report::{Diagnosis, Severity};

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let Some(resource) = finding.case.resource else {
        return Vec::new();
    };
    let mut found = fences(finding, resource);
    found.extend(leftovers(finding, resource));
    let target = finding.resource();
    let mut say = |on: bool, id: &str, severity, summary: &str, evidence: &str, remedy: String| {
        if on {
            found.push(Diagnosis {
                evidence: vec![evidence.to_owned()],
                remedy,
                ..general(id, severity, summary.to_owned())
            });
        }
    };
    say(
        resource.reconciliation_disabled,
        "reconciliation-disabled",
        Severity::Warning,
        "the operator does not look after this cluster: somebody paused it",
        "annotation cnpg.io/reconciliationLoop: disabled",
        format!("kubectl annotate {target} cnpg.io/reconciliationLoop-"),
    );
    say(
        resource.hibernation,
        "hibernated",
        Severity::Info,
        "the cluster hibernates: its pods are gone on purpose, its volumes stay",
        "annotation cnpg.io/hibernation: on",
        format!("kubectl annotate {target} cnpg.io/hibernation=off --overwrite"),
    );
    say(
        resource.replica_cluster,
        "replica-cluster",
        Severity::Info,
        "this is a replica cluster: its primary is designated and follows another cluster",
        "spec.replica",
        format!(
            "kubectl cnpg status {} {}",
            finding.namespace(),
            finding.case.name()
        ),
    );
    say(
        resource.replica_switch_in_progress,
        "replica-switch-in-progress",
        Severity::Info,
        "a switch between primary and replica cluster is in progress",
        "status.switchReplicaClusterStatus.inProgress",
        format!("wait for the operator; then: {}", finding.triage()),
    );
    found
}

/// Fences are respected: an instance whose data is sound keeps its action, and the diagnosis carries the way to lift it.
fn fences(finding: &Finding<'_, '_>, resource: &ClusterResource) -> Vec<Diagnosis> {
    let lift = |who: &str, safe: bool| {
        if safe {
            format!("if nobody holds it any more: {who}")
        } else {
            format!(
                "leave it until histories are decided; then look again: {}",
                finding.triage()
            )
        }
    };
    let all_lifted = format!("kubectl annotate {} cnpg.io/fencedInstances-", finding.resource());
    match &resource.fences {
        Fences::None => Vec::new(),
        Fences::Invalid(text) => vec![Diagnosis {
            evidence: vec![format!(
                "annotation cnpg.io/fencedInstances: {}",
                text.chars().take(120).collect::<String>()
            )],
            remedy: all_lifted,
            ..general(
                "fence-invalid",
                Severity::Warning,
                "the fence annotation is no list of names, so the operator fences nobody".to_owned(),
            )
        }],
        // The operator itself fences everything while a replica cluster is switched.
        Fences::All if resource.replica_switch_in_progress => Vec::new(),
        Fences::All => vec![Diagnosis {
            evidence: vec!["annotation cnpg.io/fencedInstances: [\"*\"]".to_owned()],
            remedy: lift(
                &all_lifted,
                finding.provable() && finding.case.members.iter().all(sound),
            ),
            ..general(
                "stale-fence",
                Severity::Error,
                "every instance is fenced: nothing serves".to_owned(),
            )
        }],
        Fences::Some(names) => names.iter().map(|name| fence(finding, name, &lift)).collect(),
    }
}

fn fence(finding: &Finding<'_, '_>, name: &InstanceName, lift: &dyn Fn(&str, bool) -> String) -> Diagnosis {
    let command = format!(
        "kubectl cnpg fencing off {} {} {name}",
        finding.namespace(),
        finding.case.name()
    );
    let member = finding.case.member(name);
    let safe = finding.provable() && member.is_none_or(sound);
    let diagnosis = match member {
        Some(member) if member.subject.is_primary => about(
            member,
            "stale-fence",
            Severity::Critical,
            format!("{name}, the primary, is fenced: no writes, and no failover"),
        ),
        Some(member) => about(
            member,
            "stale-fence",
            Severity::Warning,
            format!("{name} is fenced: it does not serve"),
        ),
        None => general(
            "stale-fence",
            Severity::Warning,
            format!("{name} is fenced, and there is no such instance"),
        ),
    };
    Diagnosis {
        evidence: vec![
            format!("annotation cnpg.io/fencedInstances names {name}"),
            "while any instance is fenced, the operator makes no other missing pod again".to_owned(),
        ],
        remedy: lift(&command, safe),
        ..diagnosis
    }
}

/// Its data is where it should be, so that starting its server is harmless.
fn sound(member: &Member<'_>) -> bool {
    match member.relation {
        Relation::Primary | Relation::SeenByPrimary(_) | Relation::Remembered(_) => true,
        Relation::Contained => member.subject.stood_by() == Some(true),
        _ => false,
    }
}

fn leftovers(finding: &Finding<'_, '_>, resource: &ClusterResource) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    if !resource.operation_marks.is_empty() {
        let keys = resource
            .operation_marks
            .iter()
            .map(|mark| mark.split('=').next().unwrap_or(mark));
        let removal = keys.fold(String::new(), |all, key| all + " " + key + "-");
        found.push(Diagnosis {
            evidence: resource
                .operation_marks
                .iter()
                .map(|mark| format!("annotation {mark}"))
                .collect(),
            remedy: format!(
                "if no operation runs: kubectl annotate {}{removal}",
                finding.resource()
            ),
            ..general(
                "operation-leftovers",
                Severity::Warning,
                "marks of an operation are on the cluster and no operation is known".to_owned(),
            )
        });
    }
    for (member, _) in finding.members() {
        let subject = &member.subject;
        let busy = subject
            .ev
            .disk
            .processes
            .value()
            .is_some_and(|processes| !processes.tools.is_empty());
        let Some(paths) = subject
            .ev
            .disk
            .leftovers
            .value()
            .filter(|paths| !paths.is_empty() && !busy)
        else {
            continue;
        };
        let mut evidence = paths.clone();
        if paths.iter().any(|path| path.ends_with("global/pg_control.old")) {
            evidence.push(
                "pg_control.old means a rewind that did not end: the directory may be half overwritten"
                    .to_owned(),
            );
        }
        found.push(Diagnosis {
            evidence,
            remedy: format!(
                "look before removing anything: kubectl exec {} {} -c postgres -- ls -la /var/lib/postgresql/data",
                finding.namespace(),
                subject.name()
            ),
            ..about(
                member,
                "operation-leftovers",
                Severity::Warning,
                format!("a dead operation left files in the volume of {}", subject.name()),
            )
        });
    }
    found
}
