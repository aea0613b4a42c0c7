//! One round for one resource, phase by phase; everything after "suspend" stops there.

use super::job::{self, FirstVolume};
use super::{Args, agents::Agents, event, monitor, objects, primary, recovery, status, workload};
use crate::cnpg::{Scope, now};
use crate::mariadb::names;
use crate::mariadb::resource::MariaDB;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// One round. An error means: again in the next.
pub(super) async fn reconcile(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    if mariadb.spec.suspend {
        status::update(scope, &name, |status| {
            status.set_condition(names::READY, false, "Suspended", "Suspended", &now());
        })
        .await?;
        return Ok(());
    }
    objects::ensure_all(scope, mariadb).await?;
    if mariadb.observed().condition(names::GALERA_INITIALIZED) != Some(true)
        && !initialised(args, scope, mariadb).await?
    {
        return Ok(());
    }
    // A recovery has set the number of replicas to 0 only while it runs, inside this very round.
    let set = workload::ensure(args, scope, mariadb).await?;
    let pods = monitor::pods(scope, &name).await?;
    primary::reconcile(scope, mariadb, &pods).await?;
    match mariadb.observed().condition(names::GALERA_READY) {
        Some(false) => return recovery::reconcile(args, scope, mariadb).await,
        Some(true) => {}
        None => complete(scope, mariadb, &set, &pods).await?,
    }
    refresh(scope, mariadb, &set).await
}

/// The first volume; `true` when the StatefulSet may start.
async fn initialised(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<bool> {
    let first = job::initialise(args, scope, mariadb).await?;
    let name = mariadb.name_any();
    match first {
        FirstVolume::Initialising => {
            status::update(scope, &name, |status| {
                status.set_condition(names::READY, false, "Initializing", "Initializing", &now());
            })
            .await?;
            return Ok(false);
        }
        FirstVolume::Initialised => {
            job::delete(scope, &format!("{name}-init")).await?;
            status::update(scope, &name, |status| {
                status.set_condition(
                    names::GALERA_INITIALIZED,
                    true,
                    "GaleraInitialized",
                    "Galera initialized",
                    &now(),
                );
            })
            .await?;
        }
        FirstVolume::Existing => {
            status::update(scope, &name, |status| {
                status.set_condition(
                    names::GALERA_INITIALIZED,
                    true,
                    "GaleraInitialized",
                    "Existing volumes",
                    &now(),
                );
                status.set_condition(
                    names::GALERA_CONFIGURED,
                    true,
                    "GaleraConfigured",
                    "Existing volumes",
                    &now(),
                );
                status.set_condition(
                    names::GALERA_READY,
                    false,
                    "GaleraNotReady",
                    "Galera not ready",
                    &now(),
                );
            })
            .await?;
        }
    }
    Ok(true)
}

/// Whether every pod is there and ready.
pub(super) fn is_complete(mariadb: &MariaDB, set: &StatefulSet) -> bool {
    workload::ready(set) == mariadb.spec.replicas && mariadb.spec.replicas > 0
}

/// Without a verdict on Galera: the operator looks for itself, and when all pods are ready removes the bootstrap files.
pub(super) async fn complete(
    scope: &Scope,
    mariadb: &MariaDB,
    set: &StatefulSet,
    pods: &[Pod],
) -> anyhow::Result<()> {
    if !is_complete(mariadb, set) {
        return Ok(());
    }
    let agents = Agents::of(scope, mariadb).await?;
    for pod in pods {
        if let Some(ip) = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) {
            agents.disable_bootstrap(ip).await?;
        }
    }
    status::update(scope, &mariadb.name_any(), |status| {
        status.set_condition(names::GALERA_READY, true, "GaleraReady", "Galera ready", &now());
        status.set_condition(
            names::GALERA_CONFIGURED,
            true,
            "GaleraConfigured",
            "Galera configured",
            &now(),
        );
        status.galera_recovery = None;
    })
    .await?;
    event(
        scope,
        mariadb,
        "Normal",
        "GaleraClusterHealthy",
        "Galera cluster is healthy",
    )
    .await;
    Ok(())
}

async fn refresh(scope: &Scope, mariadb: &MariaDB, set: &StatefulSet) -> anyhow::Result<()> {
    let ready = workload::ready(set);
    let complete = is_complete(mariadb, set);
    status::update(scope, &mariadb.name_any(), |status| {
        status.replicas = Some(ready);
        let galera = status.condition(names::GALERA_READY) == Some(true);
        let (good, reason, message) = match (complete, galera) {
            (false, _) => (
                false,
                "StatefulSetNotReady",
                format!("Not ready {ready}/{}", mariadb.spec.replicas),
            ),
            (true, false) => (false, "GaleraNotReady", "Galera not ready".to_owned()),
            (true, true) => (true, "StatefulSetReady", "Running".to_owned()),
        };
        status.set_condition(names::READY, good, reason, &message, &now());
    })
    .await
    .map(drop)
}
