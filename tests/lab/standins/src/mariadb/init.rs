//! The init container: writes the pod's Galera configuration at every creation of the pod (not at a restart of a
//! container), and keeps the first deployment in order.

use super::resource::MariaDB;
use super::{names, server_config};
use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Left by a state transfer that was killed; a joiner that finds them waits for a transfer that is no more.
const STALE: [&str; 2] = ["wsrep_sst.pid", "sst_in_progress"];
/// How often the pod before is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Command line of the init container. What it knows of its pod comes from the environment.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the configuration
    #[arg(long, default_value = names::CONFIG)]
    config: PathBuf,
    /// The data directory
    #[arg(long, default_value = names::DATA)]
    datadir: PathBuf,
    /// Name of the MariaDB resource
    #[arg(long, env = "MARIADB_NAME")]
    mariadb: String,
    /// Its namespace
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Name of the pod
    #[arg(long, env = "POD_NAME")]
    pod: String,
    /// Address of the pod
    #[arg(long, env = "POD_IP")]
    ip: String,
}

/// Runs to its end.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let password = std::env::var("MARIADB_ROOT_PASSWORD").context("MARIADB_ROOT_PASSWORD")?;
    let client = Client::try_default().await.context("finding the API server")?;
    let resource = Api::<MariaDB>::namespaced(client.clone(), &args.namespace)
        .get(&args.mariadb)
        .await
        .context("reading the MariaDB resource")?;
    let node = server_config::Node {
        mariadb: &args.mariadb,
        namespace: &args.namespace,
        pod: &args.pod,
        ip: &args.ip,
    };
    let text = server_config::galera(node, &resource.galera(), resource.spec.replicas, &password);
    fs::write(args.config.join(names::GALERA_FILE), text).context("writing the Galera configuration")?;
    for name in STALE {
        remove(&args.datadir.join(name))?;
    }
    let ordinal = names::ordinal(&args.pod).context("the pod has no ordinal")?;
    let first_deployment =
        !resource.is_configured() && resource.observed().condition(names::GALERA_READY).is_none();
    if first_deployment {
        if ordinal == 0 {
            tracing::info!("first deployment: this pod bootstraps");
            fs::write(args.config.join(names::BOOTSTRAP_FILE), server_config::BOOTSTRAP)?;
        } else {
            let previous = names::pod(&args.mariadb, ordinal - 1);
            super::until_terminated(async {
                previous_ready(&client, &args.namespace, &previous).await;
                Ok(())
            })
            .await?;
        }
    }
    tracing::info!("initialised");
    Ok(())
}

/// Waits for the pod before this one; the kubelet ends a wait that is not wanted any more.
async fn previous_ready(client: &Client, namespace: &str, pod: &str) {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    tracing::info!("first deployment: waiting for {pod}");
    loop {
        match pods.get_opt(pod).await {
            Ok(Some(found)) if is_ready(&found) => return,
            Ok(_) => {}
            Err(error) => tracing::warn!("looking at {pod}: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the kubelet says Ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {
            tracing::info!("removed {}", path.display());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}
