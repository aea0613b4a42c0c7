//! Stand-in of mariadb-operator for MariaDB resources with Galera. Two things run side by side, as in the original:
//! the reconciler of resources (which stops at `spec.suspend`, and in which one recovery blocks everything else) and
//! the monitor of clusters (which knows no suspend).

mod agents;
mod job;
mod monitor;
mod objects;
mod primary;
mod reconcile;
mod recovery;
mod status;
mod workload;

use super::resource::MariaDB;
use crate::cnpg::Scope;
use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Command line of the operator. The API server is found as any client finds it: `KUBECONFIG`, else in the cluster.
/// Timers that the MariaDB resource has are taken from there.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Milliseconds between two rounds; a change of a resource or a pod starts one at once
    #[arg(long, default_value_t = 1000)]
    poll_interval_ms: u64,
    /// Seconds before the first probe
    #[arg(long, default_value_t = 20)]
    probe_initial_delay_seconds: u32,
    /// Period of the probes, in seconds
    #[arg(long, default_value_t = 10)]
    probe_period_seconds: u32,
    /// Milliseconds that a server has to answer the agent's probe
    #[arg(long, default_value_t = 1000)]
    probe_budget_ms: u64,
    /// Image of servers whose resource names none
    #[arg(long, default_value = "lab/mariadb")]
    image: String,
    /// Image of init container and agent: the operator's own
    #[arg(long, default_value = "lab/mariadb-operator")]
    data_plane_image: String,
    /// The stand-ins' program inside the images
    #[arg(long, default_value = "/standins")]
    program: String,
    /// Milliseconds that a running server has to be Synced before a recovery deletes its pod
    #[arg(long, default_value_t = 10_000)]
    sync_check_ms: u64,
    /// Milliseconds that an agent has to answer before a recovery deletes its pod
    #[arg(long, default_value_t = 30_000)]
    agent_timeout_ms: u64,
}

/// Runs until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("finding the API server")?;
    while let Err(error) = install_definition(&client).await {
        tracing::warn!("{error:#}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let wake = Arc::new(Notify::new());
    tokio::spawn(wake_on(
        Api::<MariaDB>::all(client.clone()),
        watcher::Config::default(),
        wake.clone(),
    ));
    let ours = watcher::Config::default().labels("app.kubernetes.io/name=mariadb");
    tokio::spawn(wake_on(Api::<Pod>::all(client.clone()), ours, wake.clone()));
    tokio::spawn(monitor::run(client.clone(), wake.clone()));
    let interval = Duration::from_millis(args.poll_interval_ms);
    loop {
        match all(&client).await {
            Ok(resources) => {
                for (scope, mariadb) in resources {
                    let name = mariadb.name_any();
                    if let Err(error) = reconcile::reconcile(&args, &scope, &mariadb).await {
                        tracing::warn!(mariadb = name, "{error:#}");
                    }
                }
            }
            Err(error) => tracing::warn!("{error:#}"),
        }
        let _ = tokio::time::timeout(interval, wake.notified()).await;
        // A burst of events is one round.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every MariaDB resource with Galera that is not being deleted.
async fn all(client: &Client) -> anyhow::Result<Vec<(Scope, MariaDB)>> {
    let list = Api::<MariaDB>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("listing the MariaDB resources")?;
    let ours = list
        .into_iter()
        .filter(|mariadb| mariadb.galera().enabled && mariadb.metadata.deletion_timestamp.is_none());
    Ok(ours
        .map(|mariadb| {
            let namespace = mariadb.namespace().unwrap_or_default();
            let client = client.clone();
            (Scope { client, namespace }, mariadb)
        })
        .collect())
}

async fn install_definition(client: &Client) -> anyhow::Result<()> {
    let definition: CustomResourceDefinition =
        serde_json::from_str(super::custom_resource_definition()).context("reading the definition")?;
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    match api.create(&PostParams::default(), &definition).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context("creating the definition"),
    }
}

async fn wake_on<K>(api: Api<K>, config: watcher::Config, wake: Arc<Notify>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => wake.notify_one(),
                Err(error) => {
                    tracing::debug!("watch: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Records an event about a MariaDB resource. One that cannot be written is only logged.
async fn event(scope: &Scope, mariadb: &MariaDB, kind: &str, reason: &str, message: &str) {
    tracing::info!(reason, "{message}");
    let at = crate::cnpg::now();
    let event = serde_json::from_value::<Event>(json!({
        "metadata": {"generateName": format!("{}.", mariadb.name_any()), "namespace": scope.namespace},
        "involvedObject": {
            "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "name": mariadb.name_any(),
            "namespace": scope.namespace, "uid": mariadb.uid(),
        },
        "type": kind, "reason": reason, "message": message, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": "mariadb-operator"},
        "reportingComponent": "mariadb-operator", "reportingInstance": "mariadb-operator",
    }));
    let written = match event {
        Ok(event) => scope
            .api::<Event>()
            .create(&PostParams::default(), &event)
            .await
            .map(drop)
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = written {
        tracing::warn!("event {reason} was not recorded: {error}");
    }
}
