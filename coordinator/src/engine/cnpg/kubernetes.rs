//! Cached Kubernetes objects to evidence. Pure.

use std::collections::BTreeSet;

use hasteward_proto::primitive::{
    ClusterRef, Engine, InstanceName, NodeName, PodUid, SystemId, TimelineId, UnixMillis,
};
use hasteward_verdict::evidence::cnpg::{
    Claim, ClaimRole, ClusterResource, ContainerState, Fences, Pod as PodEvidence, PreviousRun, TargetPrimary,
};
use hasteward_verdict::report::ClusterRow;

use crate::kubernetes::{Cluster, ContainerStateObject, PersistentVolumeClaim, Pod};

/// The annotation that fences instances (CNPG `cnpg.io/fencedInstances`).
const FENCED: &str = "cnpg.io/fencedInstances";
/// The annotation that pauses the operator (CNPG `cnpg.io/reconciliationLoop`).
const RECONCILIATION: &str = "cnpg.io/reconciliationLoop";
/// The annotation that hibernates (CNPG `cnpg.io/hibernation`).
const HIBERNATION: &str = "cnpg.io/hibernation";
/// Annotations that operations of ours leave.
const OURS: &str = "clinic.hasteward.prplanit.com/";
/// CNPG's phase while `pg_upgrade` runs.
const MAJOR_UPGRADE: &str = "Upgrading Postgres major version";
/// The name of the database container (CNPG).
pub(super) const CONTAINER: &str = "postgres";

/// The cluster's custom resource, as evidence.
pub(super) fn resource(cluster: &Cluster) -> ClusterResource {
    let meta = &cluster.metadata;
    let annotation = |name: &str| {
        meta.annotations
            .as_ref()
            .and_then(|a| a.get(name))
            .map(String::as_str)
    };
    let instance = |name: &Option<String>| name.as_deref().and_then(|n| InstanceName::new(n).ok());
    let status = &cluster.status;
    let slots = cluster
        .spec
        .replication_slots
        .as_ref()
        .and_then(|s| s.high_availability.as_ref())
        .and_then(|h| h.enabled);
    let archiving = status
        .conditions
        .iter()
        .find(|c| c.kind == "ContinuousArchiving" && c.status == "False");
    ClusterResource {
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        wanted_instances: cluster.spec.instances,
        wal_storage: cluster.spec.wal_storage.is_some(),
        tablespaces: cluster.spec.tablespaces.iter().map(|t| t.name.clone()).collect(),
        ha_slots: slots.unwrap_or(true),
        phase: status.phase.clone(),
        phase_reason: status.phase_reason.clone(),
        current_primary: instance(&status.current_primary),
        target_primary: match status.target_primary.as_deref() {
            Some("pending") => TargetPrimary::Pending,
            Some(name) => InstanceName::new(name).map_or(TargetPrimary::None, TargetPrimary::Instance),
            None => TargetPrimary::None,
        },
        timeline: status.timeline_id.and_then(TimelineId::new),
        system_id: status
            .system_id
            .as_deref()
            .and_then(|id| id.parse::<SystemId>().ok()),
        instance_names: status
            .instance_names
            .iter()
            .filter_map(|n| InstanceName::new(n).ok())
            .collect(),
        ready_instances: status.ready_instances,
        fences: annotation(FENCED).map_or(Fences::None, fences),
        reconciliation_disabled: annotation(RECONCILIATION) == Some("disabled"),
        hibernation: annotation(HIBERNATION) == Some("on"),
        replica_cluster: is_replica_cluster(cluster),
        replica_switch_in_progress: status
            .switch_replica_cluster_status
            .as_ref()
            .is_some_and(|s| s.in_progress),
        major_upgrade: status.phase.as_deref() == Some(MAJOR_UPGRADE),
        wal_archive: has_archive(cluster),
        archiving_failing: archiving.map(|c| c.message.clone().unwrap_or_default()),
        operation_marks: meta
            .annotations
            .iter()
            .flatten()
            .map(|(k, _)| k)
            .filter(|k| k.starts_with(OURS))
            .cloned()
            .collect(),
    }
}

/// In-tree Barman, or an enabled plugin that is the WAL archiver (CNPG `spec.plugins[].isWALArchiver`).
fn has_archive(cluster: &Cluster) -> bool {
    let in_tree = cluster
        .spec
        .backup
        .as_ref()
        .is_some_and(|b| b.barman_object_store.is_some());
    in_tree
        || cluster
            .spec
            .plugins
            .iter()
            .any(|p| p.is_wal_archiver && p.enabled != Some(false))
}

/// CNPG's rule: `enabled`, or `primary` names another cluster than this one.
fn is_replica_cluster(cluster: &Cluster) -> bool {
    let Some(replica) = &cluster.spec.replica else {
        return false;
    };
    if let Some(enabled) = replica.enabled {
        return enabled;
    }
    let own = replica.own.as_ref().or(cluster.metadata.name.as_ref());
    replica.primary.is_some() && replica.primary.as_ref() != own
}

/// The value of `cnpg.io/fencedInstances`: a JSON list of names, or `["*"]`.
fn fences(text: &str) -> Fences {
    if text.is_empty() {
        return Fences::None;
    }
    let invalid = || Fences::Invalid(text.chars().take(200).collect());
    let Ok(names) = serde_json::from_str::<Vec<String>>(text) else {
        return invalid();
    };
    if names.iter().any(|n| n == "*") {
        return Fences::All;
    }
    let parsed: Result<BTreeSet<_>, _> = names.iter().map(|n| InstanceName::new(n)).collect();
    match parsed {
        Ok(names) if names.is_empty() => Fences::None,
        Ok(names) => Fences::Some(names),
        Err(_) => invalid(),
    }
}

/// A line of `get status`.
pub(super) fn row(cluster: &Cluster, seen_at: UnixMillis) -> Option<ClusterRow> {
    Some(ClusterRow {
        engine: Engine::Cnpg,
        cluster: ClusterRef {
            namespace: cluster.metadata.namespace.clone()?,
            name: cluster.metadata.name.clone()?,
        },
        wanted_instances: cluster.spec.instances,
        ready_instances: cluster.status.ready_instances,
        primary: cluster.status.current_primary.clone(),
        phase: cluster.status.phase.clone(),
        seen_at,
    })
}

/// A pod, as evidence; `None` where the API server gave it without a usable UID.
pub(super) fn pod(pod: &Pod) -> Option<PodEvidence> {
    let meta = &pod.metadata;
    let status = pod.status.container_statuses.iter().find(|c| c.name == CONTAINER);
    let scheduled = pod
        .status
        .conditions
        .iter()
        .find(|c| c.kind == "PodScheduled" && c.status == "False");
    Some(PodEvidence {
        uid: PodUid::new(meta.uid.as_deref()?).ok()?,
        node: pod.spec.node_name.as_deref().and_then(|n| NodeName::new(n).ok()),
        running: pod.status.phase.as_deref() == Some("Running"),
        ready: crate::kubernetes::is_true(&pod.status.conditions, "Ready"),
        terminating: meta.deletion_timestamp.is_some(),
        delete_by: meta.deletion_timestamp.as_ref().map(|by| millis(Some(by))),
        container: status.map_or(ContainerState::Unreported, |s| container(&s.state, &s.last_state)),
        restarts: status.map_or(0, |s| s.restart_count),
        previous: status
            .and_then(|s| s.last_state.terminated.as_ref())
            .map(|t| PreviousRun {
                exit: t.exit_code,
                started_at: millis(t.started_at.as_ref()),
                finished_at: millis(t.finished_at.as_ref()),
            }),
        labelled_primary: label(meta, "cnpg.io/instanceRole") == Some("primary"),
        unschedulable: scheduled.map(|c| c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default()),
        created_at: millis(meta.creation_timestamp.as_ref()),
    })
}

fn container(state: &ContainerStateObject, last: &ContainerStateObject) -> ContainerState {
    if let Some(running) = &state.running {
        return ContainerState::Running {
            since: millis(running.started_at.as_ref()),
        };
    }
    if let Some(terminated) = &state.terminated {
        return ContainerState::Terminated {
            exit: terminated.exit_code,
        };
    }
    match &state.waiting {
        Some(waiting) => ContainerState::Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            last_exit: last.terminated.as_ref().map(|t| t.exit_code),
        },
        None => ContainerState::Unreported,
    }
}

/// A PVC, as evidence.
pub(super) fn claim(claim: &PersistentVolumeClaim) -> Claim {
    let meta = &claim.metadata;
    let role = match label(meta, "cnpg.io/pvcRole") {
        Some("PG_DATA") => ClaimRole::Data,
        Some("PG_WAL") => ClaimRole::Wal,
        Some("PG_TABLESPACE") => ClaimRole::Tablespace(
            label(meta, "cnpg.io/tablespaceName")
                .unwrap_or_default()
                .to_owned(),
        ),
        other => ClaimRole::Other(other.unwrap_or_default().to_owned()),
    };
    Claim {
        name: meta.name.clone().unwrap_or_default(),
        role,
        volume: claim.spec.volume_name.clone(),
        bound: claim.status.phase.as_deref() == Some("Bound"),
        terminating: meta.deletion_timestamp.is_some(),
        status: meta
            .annotations
            .as_ref()
            .and_then(|a| a.get("cnpg.io/pvcStatus"))
            .cloned(),
        requested_bytes: claim
            .spec
            .resources
            .requests
            .get("storage")
            .and_then(|q| quantity(q)),
    }
}

/// The instance that an object belongs to, if its controller is the cluster `uid`: a label alone proves nothing.
pub(super) fn instance_of(meta: &kube::api::ObjectMeta, uid: &str) -> Option<InstanceName> {
    let owned = meta
        .owner_references
        .iter()
        .flatten()
        .any(|o| o.controller == Some(true) && o.uid == uid);
    owned
        .then(|| label(meta, "cnpg.io/instanceName"))
        .flatten()
        .and_then(|n| InstanceName::new(n).ok())
}

pub(super) fn label<'a>(meta: &'a kube::api::ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

fn millis(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> UnixMillis {
    UnixMillis(time.map_or(0, |t| t.0.as_millisecond()))
}

/// A Kubernetes quantity in bytes (`apimachinery/pkg/api/resource`): a decimal number with an SI or binary suffix.
fn quantity(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale
    };
    whole.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fences_as_cnpg_reads_them() {
        let one = |n: &str| InstanceName::new(n).unwrap();
        assert_eq!(fences(r#"["*"]"#), Fences::All);
        assert_eq!(fences(r#"["a-1"]"#), Fences::Some([one("a-1")].into()));
        assert_eq!(fences("[]"), Fences::None);
        assert_eq!(fences(""), Fences::None);
        assert!(matches!(fences("a-1"), Fences::Invalid(_)));
        assert!(matches!(fences(r#"["a/1"]"#), Fences::Invalid(_)));
    }

    #[test]
    fn quantities() {
        for (text, bytes) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("100M", Some(100_000_000)),
            ("7", Some(7)),
            ("x", None),
            ("1e3", None),
        ] {
            assert_eq!(quantity(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_label_without_the_owner_proves_nothing() {
        let meta = |uid: &str, controller: bool| -> kube::api::ObjectMeta {
            serde_json::from_value(json!({"name": "x", "labels": {"cnpg.io/instanceName": "a-1"},
                "ownerReferences": [{"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": "a", "uid": uid, "controller": controller}]}))
            .unwrap()
        };
        assert!(instance_of(&meta("u", true), "u").is_some());
        assert!(instance_of(&meta("other", true), "u").is_none());
        assert!(instance_of(&meta("u", false), "u").is_none());
    }

    #[test]
    fn replica_clusters_in_both_forms() {
        let cluster = |replica: serde_json::Value| -> Cluster {
            serde_json::from_value(
                json!({"metadata": {"name": "a"}, "spec": {"instances": 1, "replica": replica}}),
            )
            .unwrap()
        };
        assert!(is_replica_cluster(&cluster(
            json!({"enabled": true, "source": "b"})
        )));
        assert!(is_replica_cluster(&cluster(json!({"primary": "b"}))));
        assert!(!is_replica_cluster(&cluster(json!({"primary": "a"}))));
        assert!(!is_replica_cluster(&cluster(
            json!({"primary": "z", "self": "z"})
        )));
    }
}
