//! Stand-in of the CloudNativePG operator: level-triggered, one cluster after the other, everything read afresh from
//! the API server in every round and every instance asked at `/pg/status` by pod IP.

mod claims;
mod election;
mod hibernation;
mod observe;
mod pod;
mod reconcile;
mod resources;
mod secrets;
mod status;
mod work;

pub use claims::{Claim, ClaimRole, ClaimStatus, Classification, classify};
pub use election::{Candidate, Decision, Roles, decide, sort};

pub(crate) use resources::{ensure, ensure_root_ca};

use crate::cnpg::{Cluster, Scope};
use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Command line of the operator. The API server is found as any client finds it: `KUBECONFIG`, else in the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Milliseconds between two rounds; a change of a Cluster or a pod starts one at once.
    #[arg(long, default_value_t = 1000)]
    poll_interval_ms: u64,
    /// Period of the probes, in seconds.
    #[arg(long, default_value_t = 1)]
    probe_period_seconds: u32,
    /// Image of instances whose Cluster names none.
    #[arg(long, default_value = "lab/cnpg")]
    image: String,
    /// The instance manager's program inside the image.
    #[arg(long, default_value = "/manager")]
    manager_path: String,
    /// Milliseconds an instance has to answer.
    #[arg(long, default_value_t = 3000)]
    status_timeout_ms: u64,
}

/// Runs until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("finding the API server")?;
    while let Err(error) = install_definitions(&client).await {
        tracing::warn!("{error:#}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let wake = Arc::new(Notify::new());
    tokio::spawn(wake_on(
        Api::<Cluster>::all(client.clone()),
        watcher::Config::default(),
        wake.clone(),
    ));
    let ours = watcher::Config::default().labels(crate::cnpg::names::CLUSTER);
    tokio::spawn(wake_on(Api::<Pod>::all(client.clone()), ours, wake.clone()));
    let interval = Duration::from_millis(args.poll_interval_ms);
    loop {
        match Api::<Cluster>::all(client.clone())
            .list(&ListParams::default())
            .await
        {
            Ok(clusters) => {
                for cluster in clusters {
                    let scope = Scope {
                        client: client.clone(),
                        namespace: cluster.namespace().unwrap_or_default(),
                    };
                    let name = cluster.name_any();
                    if let Err(error) = reconcile::reconcile(&args, &scope, cluster).await {
                        tracing::warn!(cluster = name, "{error:#}");
                    }
                }
            }
            Err(error) => tracing::warn!("listing the Clusters: {error}"),
        }
        let _ = tokio::time::timeout(interval, wake.notified()).await;
        // A burst of events is one round.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Creates the definitions of our resources where they are missing.
async fn install_definitions(client: &Client) -> anyhow::Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for document in crate::cnpg::custom_resource_definitions() {
        let definition: CustomResourceDefinition =
            serde_json::from_str(document).context("reading a definition")?;
        match api.create(&PostParams::default(), &definition).await {
            Ok(_) => tracing::info!("created CustomResourceDefinition {}", definition.name_any()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).context("creating a definition"),
        }
    }
    Ok(())
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
