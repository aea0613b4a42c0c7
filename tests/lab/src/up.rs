//! Brings a lab up, step by step, until everything that was asked for is healthy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;

use crate::options::{UpOptions, Which};
use crate::place::Place;
use crate::process::{ProcessIdentity, write_whole};
use crate::supervise::{self, report::Report};
use crate::wait::{Look, until};
use crate::{cnpg, deploy, down, galera, image, kubernetes};

/// How long the supervisor may take to start every process.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long the nodes may take to become Ready.
const NODES_DEADLINE: Duration = Duration::from_secs(60);

/// Who ends the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody but `down`.
    Standing,
    /// The process that holds the lab's lifeline socket open.
    Lifeline,
}

/// Tells the person (or nobody) what happens.
pub type Tell<'a> = &'a (dyn Fn(&str) + Sync);

/// Brings the lab up.
///
/// # Errors
/// Names the step that failed. What was started stays for a look at the logs: `down` removes it.
pub async fn up(
    which: &Which,
    options: &UpOptions,
    ownership: Ownership,
    tell: Tell<'_>,
) -> anyhow::Result<Client> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes namespaces and mounts: run it as root");
    }
    let place = which.place()?;
    let _lock = down::Lock::take(&place)?;
    if ProcessIdentity::read(&place.pid_file()).is_some_and(|supervisor| supervisor.is_alive()) {
        bail!(
            "lab {} is up already; `cargo lab down` ends it, `--name` makes another beside it",
            place.name()
        );
    }
    down::clean(&place).context("remove what an earlier lab left")?;
    for directory in [place.state(), place.log(), place.faults(), place.own_node()] {
        fs::create_dir_all(directory)?;
    }
    write_whole(&place.options(), &serde_json::to_vec_pretty(options)?)?;
    image::write(&place, options.pg > 0, options.galera > 0, !options.bare)?;
    // Bound before the supervisor connects; the caller's process holds it until it ends.
    if ownership == Ownership::Lifeline {
        hold_lifeline(&place.lifeline())?;
    }
    tell(&format!(
        "starting {} nodes and their control plane",
        options.nodes
    ));
    start_supervisor(which, &place, ownership)?;
    supervisor_started(&place).await?;
    let client = kubernetes::client(&place.kubeconfig()).await?;
    // Nothing that is waited for from here on comes true without the lab's processes.
    tokio::select! {
        filled = fill(&client, &place, options, tell) => filled.map_err(|error| with_ended(&place, error))?,
        error = process_ended(&place) => return Err(with_ended(&place, error)),
    }
    Ok(client)
}

/// Puts everything that was asked for into a lab whose processes run, and waits until it is healthy.
async fn fill(client: &Client, place: &Place, options: &UpOptions, tell: Tell<'_>) -> anyhow::Result<()> {
    let nodes: Vec<String> = options.node_names().collect();
    kubernetes::nodes_ready(client, &nodes, NODES_DEADLINE).await?;
    deploy::base(client)
        .await
        .context("apply the lab's own objects")?;
    if options.pg > 0 {
        let (namespace, cluster) = (cnpg::NAMESPACE, cnpg::CLUSTER);
        tell(&format!(
            "creating PostgreSQL cluster {namespace}/{cluster} with {} instances",
            options.pg
        ));
        cnpg::create(client, options).await?;
    }
    if options.galera > 0 {
        tell(&format!(
            "creating MariaDB Galera cluster {}/{} with {} nodes",
            cnpg::NAMESPACE,
            galera::CLUSTER,
            options.galera
        ));
        galera::create(client, options).await?;
    }
    if !options.bare {
        tell("installing hasteward: one agent a node, one coordinator");
        deploy::hasteward(client, place).await?;
    }
    if options.pg > 0 {
        tell("waiting for PostgreSQL to replicate to every instance");
        cnpg::healthy(client, options.pg).await?;
    }
    if options.galera > 0 {
        tell("waiting for every Galera node to be Synced");
        galera::healthy(client, options.galera).await?;
    }
    if !options.bare {
        deploy::hasteward_ready(client, place, options.nodes).await?;
    }
    Ok(())
}

/// Returns when one of the lab's processes has ended, or the supervisor.
async fn process_ended(place: &Place) -> anyhow::Error {
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !ProcessIdentity::read(&place.pid_file()).is_some_and(|supervisor| supervisor.is_alive()) {
            return anyhow::anyhow!("the supervisor is gone");
        }
        if Report::read(place).is_some_and(|report| report.ended().next().is_some()) {
            return anyhow::anyhow!("a process of the lab ended");
        }
    }
}

fn start_supervisor(which: &Which, place: &Place, ownership: Ownership) -> anyhow::Result<()> {
    let mut command = Command::new(supervise::program("hasteward-lab")?);
    command
        .arg("--name")
        .arg(which.name.to_string())
        .arg("--root")
        .arg(place.root())
        .arg("supervise");
    if ownership == Ownership::Lifeline {
        command.arg("--lifeline");
    }
    // A process group of its own: Ctrl-C in the terminal is not for the lab.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if !output.status.success() {
        bail!(
            "start the supervisor: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

async fn supervisor_started(place: &Place) -> anyhow::Result<()> {
    let outcome = until("the lab's processes", START_DEADLINE, async || {
        if let Some(report) = Report::read(place) {
            if let Some(failure) = report.failure {
                return Ok(Look::Done(Err(failure)));
            }
            if report.started {
                return Ok(Look::Done(Ok(())));
            }
        }
        // The pid file is the supervisor's first act; before it there is nothing to judge.
        if ProcessIdentity::read(&place.pid_file()).is_some_and(|supervisor| !supervisor.is_alive()) {
            return Ok(Look::Done(Err("the supervisor ended".to_owned())));
        }
        Ok(Look::not_yet("starting"))
    })
    .await?;
    outcome.map_err(|failure| anyhow::anyhow!("{failure} (logs: {})", place.log().display()))
}

/// Adds to an error which of the lab's processes have ended, because that usually is the cause.
fn with_ended(place: &Place, error: anyhow::Error) -> anyhow::Error {
    let report = Report::read(place).unwrap_or_default();
    let ended: Vec<String> = report
        .ended()
        .map(|p| format!("{} ({})", p.name, p.ended.as_deref().unwrap_or_default()))
        .collect();
    let cause = if ended.is_empty() {
        String::new()
    } else {
        format!("; ended: {}", ended.join(", "))
    };
    error.context(format!(
        "lab {} is not healthy{cause}; logs: {}",
        place.name(),
        place.log().display()
    ))
}

/// Listens on the lifeline until this process ends. The supervisor's connection stays unaccepted in the queue on purpose: the
/// kernel resets it when the last holder of the socket is gone, however that ends.
fn hold_lifeline(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::net::UnixListener;
    static HELD: std::sync::Mutex<Vec<UnixListener>> = std::sync::Mutex::new(Vec::new());
    let listener = UnixListener::bind(path).context("bind the lifeline")?;
    HELD.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(listener);
    Ok(())
}
