//! Stand-ins of mariadb-operator and of its data plane for MariaDB Galera: operator, init container, agent, and the
//! entrypoint of the server's image. What they do is observable behaviour (documentation, files, messages),
//! including what hurts: a monitor that ignores `suspend`, a recovery that never compares UUIDs, an entrypoint that
//! initialises an emptied data directory.

pub mod agent;
mod client;
mod duration;
pub mod entrypoint;
pub mod grastate;
pub mod init;
pub mod names;
pub mod operator;
mod resource;
pub mod server_config;

pub use duration::GoDuration;
pub use resource::{
    Bootstrap, Condition, ConfigVolume, Galera, MariaDB, MariaDBSpec, MariaDBStatus, Position, Primary,
    Recovery, RecoveryStatus, SavedState, SecretKey, Storage, Threshold,
};

/// Runs until it ends or the container is told to end: process 1 of a container has no default for SIGTERM.
async fn until_terminated(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = terminated.recv() => Ok(()),
    }
}

/// The definition of `mariadbs.k8s.mariadb.com`, as a JSON document ready for the API server.
#[must_use]
pub fn custom_resource_definition() -> &'static str {
    include_str!("../../crds/mariadbs.json")
}
