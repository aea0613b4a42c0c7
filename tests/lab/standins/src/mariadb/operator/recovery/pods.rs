//! Pods in a recovery: their states, and their restart one after the other.

use super::Source;
use crate::cnpg::Scope;
use crate::mariadb::init::is_ready;
use crate::mariadb::operator::agents::Agents;
use crate::mariadb::operator::{Args, monitor, objects};
use crate::mariadb::resource::{MariaDB, SavedState};
use crate::mariadb::{client, names};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(500);
/// How long one question to a server may take.
const ASK: Duration = Duration::from_secs(5);

/// Looks until there is an answer. An error ends the wait.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await.with_context(|| what.to_owned())? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(STEP).await;
    }
}

/// The address of a pod that runs.
fn address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    (status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none())
        .then(|| status.pod_ip.clone())?
}

/// Waits for a pod whose agent answers.
async fn answering(scope: &Scope, agents: &Agents, pod: &str, limit: Duration) -> anyhow::Result<String> {
    until("the agent answers", limit, async || {
        let found = scope.api::<Pod>().get_opt(pod).await?;
        let Some(ip) = found.as_ref().and_then(address) else {
            return Ok(None);
        };
        Ok(agents.healthy(&ip).await.then_some(ip))
    })
    .await
    .with_context(|| format!("pod {pod}"))
}

/// `grastate.dat` of every pod. A pod whose agent does not answer is deleted.
pub(super) async fn states(
    args: &Args,
    scope: &Scope,
    mariadb: &MariaDB,
    agents: &Agents,
) -> anyhow::Result<BTreeMap<String, SavedState>> {
    let limit = Duration::from_millis(args.agent_timeout_ms);
    let mut states = BTreeMap::new();
    for pod in monitor::pods(scope, &mariadb.name_any()).await? {
        let name = pod.name_any();
        let ip = match answering(scope, agents, &name, limit).await {
            Ok(ip) => ip,
            Err(error) => {
                delete(scope, &name).await?;
                return Err(error);
            }
        };
        if let Some(state) = agents
            .state(&ip)
            .await
            .with_context(|| format!("state of {name}"))?
        {
            states.insert(name, state);
        }
    }
    Ok(states)
}

/// Puts the bootstrap file where the cluster starts and removes it elsewhere, then has the source and after it every
/// other pod Synced, by deleting those that are not.
pub(super) async fn restart(
    args: &Args,
    scope: &Scope,
    mariadb: &MariaDB,
    agents: &Agents,
    source: &Source,
) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    let limit = mariadb.galera().recovery.cluster_upscale_timeout.0;
    let mut order: Vec<String> = (0..mariadb.spec.replicas).map(|n| names::pod(&name, n)).collect();
    order.sort_by_key(|pod| *pod != source.pod);
    for pod in order.iter().filter(|pod| **pod != source.pod) {
        let ip = answering(scope, agents, pod, limit).await?;
        agents.disable_bootstrap(&ip).await?;
    }
    let ip = answering(scope, agents, &source.pod, limit).await?;
    agents.enable_bootstrap(&ip, source.position.as_ref()).await?;
    let secret = mariadb.root_password(&name);
    let password = objects::read_password(scope, &secret.name, &secret.key)
        .await?
        .unwrap_or_default();
    for pod in &order {
        let patience = Duration::from_millis(args.sync_check_ms);
        if synced(scope, pod, &password, patience).await.is_ok() {
            continue;
        }
        tracing::info!(pod, "not Synced: deleting the pod");
        delete(scope, pod).await?;
        synced(
            scope,
            pod,
            &password,
            mariadb.galera().recovery.pod_sync_timeout.0,
        )
        .await
        .with_context(|| format!("pod {pod}"))?;
    }
    until("all pods are ready", limit, async || {
        let pods = monitor::pods(scope, &name).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok((ready == order.len()).then_some(()))
    })
    .await
}

async fn synced(scope: &Scope, pod: &str, password: &str, limit: Duration) -> anyhow::Result<()> {
    until("the server is Synced", limit, async || {
        let found = scope.api::<Pod>().get_opt(pod).await?;
        let Some(ip) = found.as_ref().and_then(address) else {
            return Ok(None);
        };
        let state = client::status(&ip, password, "wsrep_local_state_comment", ASK).await;
        Ok((state.ok().as_deref() == Some("Synced")).then_some(()))
    })
    .await
}

async fn delete(scope: &Scope, pod: &str) -> anyhow::Result<()> {
    match scope.api::<Pod>().delete(pod, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("deleting a pod"),
    }
}
