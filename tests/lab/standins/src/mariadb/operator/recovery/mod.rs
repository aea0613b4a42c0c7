//! Recovery of a Galera cluster, in one go: it scales down, runs Jobs, deletes pods and waits for minutes, and looks
//! at nothing but its own steps meanwhile: not at `suspend`, not at another change of the resource.

mod choose;
mod pods;

use super::agents::Agents;
use super::{Args, event, job, monitor, reconcile, status, workload};
use crate::cnpg::{Scope, now};
use crate::mariadb::resource::{Bootstrap, MariaDB, Position, RecoveryStatus, SavedState};
use anyhow::{Context, bail, ensure};
use choose::ByPosition;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use pods::until;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the new cluster starts.
struct Source {
    pod: String,
    position: Option<Position>,
}

/// One pass. Any error starts it again in the next round.
pub(super) async fn reconcile(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    let settings = mariadb.galera().recovery;
    let known = mariadb.observed().galera_recovery.unwrap_or_default();
    if let Some(bootstrap) = &known.bootstrap
        && age(bootstrap.time.as_deref()) > settings.cluster_bootstrap_timeout.0
    {
        event(
            scope,
            mariadb,
            "Warning",
            "GaleraClusterBootstrapTimeout",
            "Galera cluster bootstrap timed out",
        )
        .await;
        status::update(scope, &name, |status| status.galera_recovery = None).await?;
        return Ok(());
    }
    tracing::info!(mariadb = name, "Recovering cluster");
    let agents = Agents::of(scope, mariadb).await?;
    let source = match known
        .bootstrap
        .as_ref()
        .and_then(|bootstrap| bootstrap.pod.clone())
    {
        Some(pod) => {
            let position = position_of(&known, &pod, settings.force_cluster_bootstrap_in_pod.as_deref());
            Source { pod, position }
        }
        None => choose_source(args, scope, mariadb, &agents).await?,
    };
    let restarted = scope
        .api::<MariaDB>()
        .get(&name)
        .await?
        .observed()
        .galera_recovery
        .is_some_and(|recovery| recovery.pods_restarted == Some(true));
    if !restarted {
        tracing::info!(mariadb = name, "Restarting Pods");
        pods::restart(args, scope, mariadb, &agents, &source).await?;
        change(scope, &name, |recovery| recovery.pods_restarted = Some(true)).await?;
    }
    let set = scope.api::<StatefulSet>().get(&name).await?;
    if !reconcile::is_complete(mariadb, &set) {
        bail!("not all pods are ready after the recovery");
    }
    reconcile::complete(scope, mariadb, &set, &monitor::pods(scope, &name).await?).await
}

fn age(time: Option<&str>) -> Duration {
    let Some(time) = time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) else {
        return Duration::ZERO;
    };
    Duration::try_from(jiff::Timestamp::now().duration_since(time)).unwrap_or_default()
}

async fn change(scope: &Scope, name: &str, change: impl Fn(&mut RecoveryStatus)) -> anyhow::Result<()> {
    status::update(scope, name, |status| {
        change(status.galera_recovery.get_or_insert_default());
    })
    .await
    .map(drop)
}

/// The position that goes with a choice made earlier.
fn position_of(known: &RecoveryStatus, pod: &str, forced: Option<&str>) -> Option<Position> {
    if forced == Some(pod) {
        return None;
    }
    known.recovered.get(pod).cloned().or_else(|| {
        known.state.get(pod).map(|state| Position {
            uuid: state.uuid.clone(),
            seqno: state.seqno,
        })
    })
}

async fn choose_source(
    args: &Args,
    scope: &Scope,
    mariadb: &MariaDB,
    agents: &Agents,
) -> anyhow::Result<Source> {
    let name = mariadb.name_any();
    let forced = mariadb.galera().recovery.force_cluster_bootstrap_in_pod;
    let source = if let Some(pod) = forced {
        Source { pod, position: None }
    } else {
        let states = pods::states(args, scope, mariadb, agents).await?;
        change(scope, &name, |recovery| recovery.state.clone_from(&states)).await?;
        event(
            scope,
            mariadb,
            "Normal",
            "GaleraPodStateFetched",
            "Galera state of the pods fetched",
        )
        .await;
        match choose::by_state(&states) {
            Some(pod) => Source {
                position: states.get(&pod).map(|SavedState { uuid, seqno, .. }| Position {
                    uuid: uuid.clone(),
                    seqno: *seqno,
                }),
                pod,
            },
            None => by_recovery(args, scope, mariadb).await?,
        }
    };
    let message = format!("Bootstrapping Galera cluster in Pod '{}'", source.pod);
    event(scope, mariadb, "Normal", "GaleraClusterBootstrap", &message).await;
    change(scope, &name, |recovery| {
        recovery.bootstrap = Some(Bootstrap {
            time: Some(now()),
            pod: Some(source.pod.clone()),
        });
        recovery.pods_restarted = None;
    })
    .await?;
    Ok(source)
}

/// Positions by `mariadbd --wsrep-recover`: the StatefulSet is scaled to 0 for the Jobs, and back whatever happens.
async fn by_recovery(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<Source> {
    let name = mariadb.name_any();
    let settings = mariadb.galera().recovery;
    let nodes: BTreeMap<String, Option<String>> = monitor::pods(scope, &name)
        .await?
        .iter()
        .map(|pod| {
            (
                pod.name_any(),
                pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            )
        })
        .collect();
    workload::scale(scope, &name, 0).await?;
    let recovered = positions(args, scope, mariadb, &nodes).await;
    workload::scale(scope, &name, mariadb.spec.replicas).await?;
    let recovered = recovered?;
    until(
        "the pods are back",
        settings.cluster_upscale_timeout.0,
        async || {
            let pods = monitor::pods(scope, &name).await?;
            Ok((pods.len() == usize::try_from(mariadb.spec.replicas)?).then_some(()))
        },
    )
    .await?;
    change(scope, &name, |recovery| recovery.recovered.clone_from(&recovered)).await?;
    match choose::by_position(&recovered) {
        ByPosition::Chosen(pod) => Ok(Source {
            position: recovered.get(&pod).cloned(),
            pod,
        }),
        ByPosition::NobodyKnows => bail!("no pod has a position to bootstrap from"),
    }
}

async fn positions(
    args: &Args,
    scope: &Scope,
    mariadb: &MariaDB,
    nodes: &BTreeMap<String, Option<String>>,
) -> anyhow::Result<BTreeMap<String, Position>> {
    let name = mariadb.name_any();
    let settings = mariadb.galera().recovery;
    ensure!(settings.enabled, "Galera recovery must be enabled");
    until(
        "the pods are gone",
        settings.cluster_downscale_timeout.0,
        async || Ok(monitor::pods(scope, &name).await?.is_empty().then_some(())),
    )
    .await?;
    let mut recovered = BTreeMap::new();
    for (pod, node) in nodes {
        let job = job::recover(args, scope, mariadb, pod, node.as_deref()).await?;
        let position = position(scope, &job, settings.pod_recovery_timeout.0).await;
        job::delete(scope, &job).await?;
        let position = position.with_context(|| format!("recovering {pod}"))?;
        let message = format!(
            "Recovered Galera sequence in Pod '{pod}': {}:{}",
            position.uuid, position.seqno
        );
        event(scope, mariadb, "Normal", "GaleraPodRecovered", &message).await;
        recovered.insert(pod.clone(), position);
    }
    Ok(recovered)
}

async fn position(scope: &Scope, job: &str, limit: Duration) -> anyhow::Result<Position> {
    until("the recovery Job ends", limit, async || {
        let found = scope.api::<Job>().get(job).await?;
        Ok(match job::ended(&found) {
            None => None,
            Some(false) => bail!("Job {job} failed"),
            Some(true) => Some(
                choose::recovered_position(&job::log(scope, job).await?)
                    .context("no recovered position in the log")?,
            ),
        })
    })
    .await
}
