//! The monitor of Galera clusters. It knows no `suspend`: it goes on looking, sets `GaleraReady=False` and throws the
//! status of a recovery away, also while a person works on the cluster.

use super::{event, status, workload};
use crate::cnpg::{Scope, now};
use crate::mariadb::init::is_ready;
use crate::mariadb::resource::MariaDB;
use crate::mariadb::{client, names};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often the monitor looks whether a resource is due.
const TICK: Duration = Duration::from_millis(500);
/// How long one pod may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// Runs for ever.
pub(super) async fn run(client: Client, wake: Arc<Notify>) {
    let mut due: HashMap<String, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(TICK).await;
        let resources = match super::all(&client).await {
            Ok(resources) => resources,
            Err(error) => {
                tracing::debug!("{error:#}");
                continue;
            }
        };
        for (scope, mariadb) in resources {
            let key = format!("{}/{}", scope.namespace, mariadb.name_any());
            if due.get(&key).is_some_and(|at| *at > Instant::now()) {
                continue;
            }
            if let Err(error) = look(&scope, &mariadb).await {
                tracing::warn!(mariadb = key, "monitor: {error:#}");
            }
            let interval = mariadb.galera().recovery.cluster_monitor_interval.0;
            due.insert(key, Instant::now() + interval);
            wake.notify_one();
        }
    }
}

/// Whether the monitor has anything to watch.
fn watches(mariadb: &MariaDB) -> bool {
    mariadb.galera().recovery.enabled
        && mariadb.is_configured()
        && mariadb.observed().condition(names::GALERA_READY) != Some(false)
}

/// One look: at once if the cluster is healthy, else for as long as a cluster may be unhealthy.
async fn look(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<()> {
    if !watches(mariadb) {
        return Ok(());
    }
    let name = mariadb.name_any();
    let recovery = mariadb.galera().recovery;
    let deadline = Instant::now() + recovery.cluster_healthy_timeout.0;
    let step = recovery.cluster_healthy_timeout.0.min(Duration::from_secs(1)) / 2;
    loop {
        match unhealthy(scope, mariadb).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => tracing::info!(mariadb = name, "not healthy: {why}"),
            Err(error) => tracing::info!(mariadb = name, "not healthy: {error:#}"),
        }
        if Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(step).await;
    }
    status::update(scope, &name, |status| {
        status.set_condition(
            names::GALERA_READY,
            false,
            "GaleraNotReady",
            "Galera not ready",
            &now(),
        );
        status.galera_recovery = None;
    })
    .await?;
    event(
        scope,
        mariadb,
        "Warning",
        "GaleraClusterNotHealthy",
        "Galera cluster is not healthy",
    )
    .await;
    Ok(())
}

/// Why the cluster is unhealthy: no pod is ready, or the one that is asked sees too few members. One bad pod of
/// several never is a reason, and neither is a nil UUID.
async fn unhealthy(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<Option<String>> {
    let name = mariadb.name_any();
    let set = scope.api::<StatefulSet>().get(&name).await?;
    if workload::ready(&set) == 0 {
        return Ok(Some("no pod is ready".to_owned()));
    }
    let pods = pods(scope, &name).await?;
    let Some(ip) = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .find_map(|pod| pod.status.as_ref()?.pod_ip.clone())
    else {
        return Ok(Some("no ready pod has an address".to_owned()));
    };
    let secret = mariadb.root_password(&name);
    let password = super::objects::read_password(scope, &secret.name, &secret.key)
        .await?
        .unwrap_or_default();
    let size: u32 = client::status(&ip, &password, "wsrep_cluster_size", ASK)
        .await?
        .parse()?;
    let wanted = mariadb.galera().recovery.min_cluster_size;
    Ok((size < wanted).then(|| format!("{size} of at least {wanted} members")))
}

/// The pods of the StatefulSet, by ordinal.
pub(super) async fn pods(scope: &Scope, mariadb: &str) -> anyhow::Result<Vec<Pod>> {
    let ours =
        ListParams::default().labels(&format!("{}=mariadb,{}={mariadb}", names::NAME, names::INSTANCE));
    let mut pods = scope.api::<Pod>().list(&ours).await?.items;
    pods.sort_by_key(|pod| names::ordinal(&pod.name_any()));
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::resource::{Galera, MariaDBSpec, MariaDBStatus};

    #[test]
    fn suspend_does_not_stop_the_monitor() {
        let mut status = MariaDBStatus::default();
        status.set_condition(names::GALERA_CONFIGURED, true, "GaleraConfigured", "", "");
        let mut mariadb = MariaDB::new(
            "m",
            MariaDBSpec {
                suspend: true,
                galera: Some(Galera::default()),
                ..MariaDBSpec::default()
            },
        );
        assert!(!watches(&mariadb), "not configured yet");
        mariadb.status = Some(status.clone());
        assert!(watches(&mariadb));
        status.set_condition(names::GALERA_READY, false, "GaleraNotReady", "", "");
        mariadb.status = Some(status);
        assert!(!watches(&mariadb), "a recovery is under way");
    }
}
