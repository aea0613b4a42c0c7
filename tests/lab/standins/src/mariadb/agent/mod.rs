//! The agent: a sidecar with the server's volumes. Its API changes files for the operator; its probes ask the server.

mod api;
mod probe;

use super::names;
use super::resource::MariaDB;
use anyhow::Context;
use axum::Router;
use kube::{Api, Client};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Command line of the agent. What it knows of its pod comes from the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory of the configuration
    #[arg(long, default_value = names::CONFIG)]
    config: PathBuf,
    /// The data directory
    #[arg(long, default_value = names::DATA)]
    datadir: PathBuf,
    /// Directory of the credentials that callers need
    #[arg(long, default_value = names::AGENT_AUTH)]
    auth: PathBuf,
    /// Name of the MariaDB resource
    #[arg(long, env = "MARIADB_NAME")]
    mariadb: String,
    /// Its namespace
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Milliseconds that the server has to answer a probe
    #[arg(long, default_value_t = 1000)]
    probe_budget_ms: u64,
}

/// What the handlers share.
struct Agent {
    args: Args,
    resources: Option<Api<MariaDB>>,
    root_password: String,
    api_password: String,
}

impl Agent {
    fn budget(&self) -> Duration {
        Duration::from_millis(self.args.probe_budget_ms)
    }
}

/// Runs until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let api_password =
        std::fs::read_to_string(args.auth.join("password")).context("reading the API's password")?;
    // Without the API server the agent goes on and believes that the cluster is ready.
    let resources = match Client::try_default().await {
        Ok(client) => Some(Api::namespaced(client, &args.namespace)),
        Err(error) => {
            tracing::warn!("no API server: {error}");
            None
        }
    };
    let agent = Arc::new(Agent {
        resources,
        root_password: std::env::var("MARIADB_ROOT_PASSWORD").context("MARIADB_ROOT_PASSWORD")?,
        api_password: api_password.trim_end().to_owned(),
        args,
    });
    let api = serve(names::AGENT_PORT, api::router(agent.clone()));
    let probes = serve(names::PROBE_PORT, probe::router(agent));
    super::until_terminated(async { tokio::try_join!(api, probes).map(drop) }).await
}

async fn serve(port: u16, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("listening on {port}"))?;
    axum::serve(listener, router).await.context("serving")
}
