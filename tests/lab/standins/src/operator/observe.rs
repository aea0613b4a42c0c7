//! One look at a cluster: its pods, its claims and what every instance says.

use super::claims::{Claim, ClaimRole, ClaimStatus, Classification, classify};
use super::election::{self, Candidate};
use super::{Args, resources};
use crate::cnpg::{Cluster, InstanceReport, Scope, names};
use crate::tls::StatusClient;
use anyhow::Context;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one look showed.
pub(super) struct Seen {
    /// All pods of instances, also those being deleted.
    pub(super) pods: BTreeMap<String, Pod>,
    /// Instances with an active pod, in the operator's order.
    pub(super) candidates: Vec<Candidate>,
    /// Why an instance did not report.
    pub(super) errors: BTreeMap<String, String>,
    /// The claims.
    pub(super) claims: Classification,
    /// Owned claims as they are, by name, also those being deleted.
    pub(super) claim_objects: BTreeMap<String, PersistentVolumeClaim>,
}

impl Seen {
    /// The report of an instance.
    pub(super) fn report(&self, instance: &str) -> Option<&InstanceReport> {
        self.candidates
            .iter()
            .find(|candidate| candidate.name == instance)?
            .report
            .as_ref()
    }

    /// Number of Ready instances.
    pub(super) fn ready(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.ready).count()
    }

    /// Number of instances that are Ready or whose errors are masked by a fence: what the operator compares with the
    /// Ready ones before it makes a missing pod again.
    pub(super) fn ready_or_masked(&self) -> usize {
        self.candidates
            .iter()
            .filter(|candidate| {
                candidate.ready
                    || candidate
                        .report
                        .as_ref()
                        .is_some_and(|report| report.might_be_unavailable)
            })
            .count()
    }

    /// Whether every instance reports.
    pub(super) fn all_report(&self) -> bool {
        self.candidates.iter().all(|candidate| candidate.report.is_some())
    }
}

/// Looks.
pub(super) async fn look(args: &Args, scope: &Scope, cluster: &Cluster, ca: &str) -> anyhow::Result<Seen> {
    let name = cluster.name_any();
    let ours = ListParams::default().labels(&format!("{}={name}", names::CLUSTER));
    let uid = cluster.uid().unwrap_or_default();
    let pods: BTreeMap<String, Pod> = scope
        .api::<Pod>()
        .list(&ours)
        .await
        .context("listing pods")?
        .into_iter()
        .filter(|pod| {
            pod.labels()
                .get(names::POD_ROLE)
                .is_some_and(|role| role == "instance")
        })
        .filter(|pod| owned_by(&pod.metadata, &uid))
        .map(|pod| (pod.name_any(), pod))
        .collect();
    let claim_objects: BTreeMap<String, PersistentVolumeClaim> = scope
        .api::<PersistentVolumeClaim>()
        .list(&ours)
        .await
        .context("listing claims")?
        .into_iter()
        .filter(|claim| owned_by(&claim.metadata, &uid))
        .map(|claim| (claim.name_any(), claim))
        .collect();
    let claims: Vec<Claim> = claim_objects.values().filter_map(claim_of).collect();
    let expected: BTreeSet<ClaimRole> = resources::claims_of(cluster, "x")
        .into_iter()
        .map(|(_, role, _)| role)
        .collect();
    let present: BTreeSet<String> = pods.keys().cloned().collect();
    let claims = classify(&claims, &expected, &present);

    let client = StatusClient::new(ca, &format!("{name}-rw"))?;
    let limit = Duration::from_millis(args.status_timeout_ms);
    let active = pods.values().filter(|pod| is_active(pod));
    let asked = active.map(|pod| async {
        let report = ask(&client, pod, limit).await;
        (pod.name_any(), is_ready(pod), left_without_space(pod), report)
    });
    let mut errors = BTreeMap::new();
    let mut candidates: Vec<Candidate> = futures::future::join_all(asked)
        .await
        .into_iter()
        .map(|(name, ready, no_space, report)| {
            let report = report
                .map_err(|error| errors.insert(name.clone(), format!("{error:#}")))
                .ok();
            Candidate {
                name,
                ready,
                no_space: no_space && report.is_none(),
                report,
            }
        })
        .collect();
    election::sort(&mut candidates);
    Ok(Seen {
        pods,
        candidates,
        errors,
        claims,
        claim_objects,
    })
}

async fn ask(client: &StatusClient, pod: &Pod, limit: Duration) -> anyhow::Result<InstanceReport> {
    let ip = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref())
        .context("the pod has no IP")?;
    let body = client.get(ip, names::STATUS_PORT, "/pg/status", limit).await?;
    serde_json::from_slice(&body).context("reading the report")
}

fn owned_by(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, uid: &str) -> bool {
    metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// A pod that is neither being deleted nor over.
pub(super) fn is_active(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && phase != "Failed" && phase != "Succeeded"
}

/// Whether the kubelet says Ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the manager's last exit was for lack of disk space.
fn left_without_space(pod: &Pod) -> bool {
    let code = i32::from(names::EXIT_NO_SPACE);
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .filter(|container| container.name == "postgres")
        .any(|container| {
            let now = container
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            let last = container
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            now.or(last)
                .is_some_and(|terminated| terminated.exit_code == code)
        })
}

/// Whether the bootstrap of a pod is over and went well.
pub(super) fn is_bootstrapped(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let Some(bootstrap) = status
        .init_container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == "bootstrap-instance")
    else {
        return false;
    };
    bootstrap
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|terminated| terminated.exit_code == 0)
}

fn claim_of(claim: &PersistentVolumeClaim) -> Option<Claim> {
    if claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let labels = claim.labels();
    let status = match claim.annotations().get(names::PVC_STATUS)?.as_str() {
        "initializing" => ClaimStatus::Initializing,
        "ready" => ClaimStatus::Ready,
        _ => return None,
    };
    let role = match labels.get(names::PVC_ROLE)?.as_str() {
        "PG_DATA" => ClaimRole::Data,
        "PG_WAL" => ClaimRole::Wal,
        "PG_TABLESPACE" => ClaimRole::Tablespace(labels.get(names::TABLESPACE_NAME)?.clone()),
        _ => return None,
    };
    Some(Claim {
        name: claim.name_any(),
        instance: labels.get(names::INSTANCE_NAME)?.clone(),
        role,
        status,
    })
}
