//! The Cluster's status: what was seen, and phases.

use super::observe::{Seen, is_ready};
use crate::cnpg::{Cluster, ClusterStatus, InstanceState, Phase, Scope, difference, now, patch_status};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// Writes a changed status; only the fields that differ, and only if nobody wrote since the Cluster was read.
pub(super) async fn write(
    scope: &Scope,
    cluster: &Cluster,
    after: &ClusterStatus,
) -> anyhow::Result<Cluster> {
    let before = serde_json::to_value(cluster.observed())?;
    let Some(patch) = difference(&before, &serde_json::to_value(after)?) else {
        return Ok(cluster.clone());
    };
    let version = cluster.resource_version();
    Ok(patch_status(scope, &cluster.name_any(), version.as_deref(), &patch).await?)
}

/// Enters a phase.
pub(super) async fn phase(
    scope: &Scope,
    cluster: &Cluster,
    phase: Phase,
    reason: &str,
) -> anyhow::Result<Cluster> {
    let mut status = cluster.observed();
    enter(&mut status, phase, reason);
    write(scope, cluster, &status).await
}

/// Enters a phase in a status not yet written.
pub(super) fn enter(status: &mut ClusterStatus, phase: Phase, reason: &str) {
    if status.phase.as_deref() != Some(phase.text()) {
        tracing::info!(reason, "{}", phase.text());
    }
    status.phase = Some(phase.text().to_owned());
    status.phase_reason = (!reason.is_empty()).then(|| reason.to_owned());
    let ready = phase == Phase::Healthy;
    let (word, message) = if ready {
        ("ClusterIsReady", "Cluster is Ready")
    } else {
        ("ClusterIsNotReady", "Cluster Is Not Ready")
    };
    status.set_condition("Ready", ready, word, message, &now());
}

/// The status with everything that was seen.
pub(super) fn refreshed(cluster: &Cluster, seen: &Seen, image: &str) -> ClusterStatus {
    let mut status = cluster.observed();
    let name = cluster.name_any();
    let count = |number: usize| Some(u32::try_from(number).unwrap_or(u32::MAX));
    status.instances = count(seen.claims.instances.len());
    status.ready_instances = count(seen.ready());
    status.instance_names = seen.claims.instances.iter().cloned().collect();
    status.healthy_pvc.clone_from(&seen.claims.healthy);
    status.dangling_pvc.clone_from(&seen.claims.dangling);
    status.unusable_pvc.clone_from(&seen.claims.unusable);
    status.initializing_pvc.clone_from(&seen.claims.initializing);
    status.pvc_count = count(seen.claim_objects.len());
    status.image = Some(image.to_owned());
    status.write_service = Some(format!("{name}-rw"));
    status.read_service = Some(format!("{name}-r"));
    status.instances_status = instances_by_state(seen);
    status.instances_reported_state = seen
        .candidates
        .iter()
        .filter_map(|candidate| {
            let report = candidate.report.as_ref()?;
            let ip = seen.pods.get(&candidate.name)?.status.as_ref()?.pod_ip.clone();
            let timeline_id = (report.timeline_id != 0).then_some(report.timeline_id);
            Some((
                candidate.name.clone(),
                InstanceState {
                    is_primary: report.is_primary,
                    timeline_id,
                    ip,
                },
            ))
        })
        .collect();
    let primary = cluster.current_primary().and_then(|primary| seen.report(primary));
    if let Some(report) = primary.filter(|report| report.is_primary && report.timeline_id != 0) {
        status.timeline_id = Some(report.timeline_id);
    }
    note_system_ids(&mut status, seen);
    status
}

fn instances_by_state(seen: &Seen) -> BTreeMap<String, Vec<String>> {
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, pod) in &seen.pods {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default();
        let state = match phase {
            _ if is_ready(pod) => "healthy",
            "Running" | "Pending" => "replicating",
            _ => "failed",
        };
        states.entry(state.to_owned()).or_default().push(name.clone());
    }
    states
}

fn note_system_ids(status: &mut ClusterStatus, seen: &Seen) {
    let ids: BTreeSet<&str> = seen
        .candidates
        .iter()
        .filter_map(|candidate| Some(candidate.report.as_ref()?.system_id.as_str()))
        .filter(|id| !id.is_empty())
        .collect();
    let (good, reason, message) = match ids.len() {
        0 => (
            false,
            "NotFound",
            "No instances are present in the cluster to report a system ID.".to_owned(),
        ),
        1 => (
            true,
            "Unique",
            "A single, unique system ID was found across reporting instances.".to_owned(),
        ),
        _ => (
            false,
            "Mismatch",
            format!("Multiple system IDs were reported by the instances: {ids:?}"),
        ),
    };
    if ids.len() == 1 {
        status.system_id = ids.first().map(|id| (*id).to_owned());
    }
    status.set_condition("ConsistentSystemID", good, reason, &message, &now());
}
