//! Stand-ins of the built-in controllers: scheduler, DaemonSet, Deployment, StatefulSet, Job, volumes, node lifecycle.
//!
//! One level-triggered loop: whenever anything that matters changes, every controller looks at the whole (small) world and does
//! what is missing. Names of created objects are derived, not random, so that a look at a stale cache cannot create twice.

mod daemon_set;
mod deployment;
mod job;
mod node_lifecycle;
mod pod;
mod scheduler;
mod stateful_set;
mod volume;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use world::World;

/// Everything is looked at again after this time even if nothing was told.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(5);

/// Command line of `controllers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lab's state directory, where provisioned volumes are kept
    #[arg(long)]
    state: PathBuf,
    /// A node is unknown when its Lease is older than this many seconds
    #[arg(long, default_value_t = 40, value_name = "S")]
    node_lease_timeout_s: u32,
    /// Kubeconfig of the DaemonSet controller, whose user name admission policies know
    #[arg(long, value_name = "FILE")]
    daemon_set_kubeconfig: Option<PathBuf>,
}

/// Runs until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("connect to the API server")?;
    let daemon_set_client = match &args.daemon_set_kubeconfig {
        Some(file) => {
            let file = Kubeconfig::read_from(file).context("kubeconfig of the DaemonSet controller")?;
            let options = KubeConfigOptions::default();
            Client::try_from(kube::Config::from_custom_kubeconfig(file, &options).await?)?
        }
        None => client.clone(),
    };
    let lease_timeout = SignedDuration::from_secs(i64::from(args.node_lease_timeout_s));
    let world = World::watch(&client).await?;
    tracing::info!("the controllers run");
    loop {
        let outcomes = [
            ("scheduler", scheduler::reconcile(&world).await),
            (
                "daemon set",
                daemon_set::reconcile(&world, &daemon_set_client).await,
            ),
            ("deployment", deployment::reconcile(&world).await),
            ("stateful set", stateful_set::reconcile(&world).await),
            ("job", job::reconcile(&world).await),
            ("volume", volume::reconcile(&world, &args.state).await),
            (
                "node lifecycle",
                node_lifecycle::reconcile(&world, lease_timeout, jiff::Timestamp::now()).await,
            ),
        ];
        for (controller, outcome) in outcomes {
            if let Err(error) = outcome {
                tracing::warn!("{controller}: {error:#}");
            }
        }
        // A missed tick is no loss: the next look sees everything.
        let _ = tokio::time::timeout(TICK, world.changed()).await;
        tokio::time::sleep(SETTLE).await;
    }
}
