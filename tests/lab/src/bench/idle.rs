//! `idle`: resident memory of agent and coordinator while nothing happens.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

use super::figures::Figures;
use crate::{deploy, process};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks `runs` times; each look gives the largest agent (head and hands together) and the largest coordinator, in MiB.
pub(super) async fn measure(client: &Client, runs: u32) -> anyhow::Result<Figures> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), deploy::NAMESPACE);
    let mut figures = Figures::new("idle", runs);
    for _ in 0..runs {
        tokio::time::sleep(INTERVAL).await;
        let all = pods.list(&ListParams::default()).await?;
        let (mut agent, mut coordinator) = (0.0_f64, 0.0_f64);
        for pod in all {
            let resident = resident_mib(&pod);
            if pod.name_any().starts_with(deploy::AGENT) {
                agent = agent.max(resident);
            } else if pod.name_any().starts_with(deploy::COORDINATOR) {
                coordinator = coordinator.max(resident);
            }
        }
        ensure!(
            agent > 0.0 && coordinator > 0.0,
            "no process of agent or coordinator found"
        );
        figures.add("agent_rss_mib", agent);
        figures.add("coordinator_rss_mib", coordinator);
    }
    Ok(figures)
}

/// Resident memory of all processes in a pod's containers.
fn resident_mib(pod: &Pod) -> f64 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    let ids: Vec<&str> = statuses
        .iter()
        .filter_map(|s| s.container_id.as_deref()?.rsplit('/').next())
        .collect();
    let kib: u64 = process::all()
        .into_iter()
        .filter(|pid| {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            ids.iter().any(|id| !id.is_empty() && cgroup.contains(id))
        })
        .filter_map(process::resident_kib)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^52 KiB")]
    let mib = kib as f64 / 1024.0;
    mib
}
