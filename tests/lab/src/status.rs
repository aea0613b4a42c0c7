//! What a lab is doing, for a person.

use std::io::Write;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

use crate::place::Place;
use crate::process::ProcessIdentity;
use crate::supervise::report::Report;
use crate::{cnpg, galera, kubernetes};

/// Whether a lab is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Everything runs.
    Up,
    /// Something ended that should run.
    Degraded,
    /// There is no lab, or it crashed.
    Down,
}

/// Prints the state of the lab: processes, nodes, clusters, hasteward.
pub async fn print(place: &Place, out: &mut impl Write) -> anyhow::Result<Health> {
    let supervisor = ProcessIdentity::read(&place.pid_file());
    let Some(supervisor) = supervisor.filter(ProcessIdentity::is_alive) else {
        let left = if place.state().exists() {
            " (files of a crashed one are left: `cargo lab down`)"
        } else {
            ""
        };
        writeln!(out, "lab {}: down{left}", place.name())?;
        return Ok(Health::Down);
    };
    let report = Report::read(place).unwrap_or_default();
    let degraded = report.ended().next().is_some() || report.failure.is_some();
    let word = match (degraded, report.started) {
        (true, _) => "degraded",
        (false, true) => "up",
        (false, false) => "starting",
    };
    writeln!(
        out,
        "lab {}: {word}   supervisor {}   API https://127.0.0.1:{}",
        place.name(),
        supervisor.pid,
        report.port
    )?;
    if let Some(failure) = &report.failure {
        writeln!(out, "  {failure}")?;
    }
    writeln!(out, "\n{}", heading("PROCESS          STATE"))?;
    for process in &report.processes {
        let state = process
            .ended
            .as_deref()
            .map_or_else(|| "running".to_owned(), |how| format!("ended: {how}"));
        writeln!(out, "{:<16} {state}", process.name)?;
    }
    match kubernetes::client(&place.kubeconfig()).await {
        Ok(client) => objects(&client, out).await?,
        Err(error) => writeln!(out, "\nno API server: {error:#}")?,
    }
    writeln!(out, "\nlogs: {}", place.log().display())?;
    Ok(if degraded { Health::Degraded } else { Health::Up })
}

async fn objects(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let everything = ListParams::default();
    let nodes: Api<Node> = Api::all(client.clone());
    writeln!(out, "\n{}", heading("NODE             STATE       ADDRESS"))?;
    for node in nodes.list(&everything).await.context("list nodes")? {
        let state = if kubernetes::is_ready(&node) {
            "Ready"
        } else {
            "NotReady"
        };
        let addresses = node
            .status
            .as_ref()
            .and_then(|s| s.addresses.as_deref())
            .unwrap_or_default();
        let address = addresses
            .iter()
            .find(|a| a.type_ == "InternalIP")
            .map_or("", |a| a.address.as_str());
        writeln!(out, "{:<16} {state:<11} {address}", node.name_any())?;
    }
    if let Ok(clusters) = cnpg::clusters(client).list(&everything).await
        && !clusters.items.is_empty()
    {
        writeln!(out, "\n{}", heading("CLUSTER          READY  PRIMARY     PHASE"))?;
        for cluster in clusters {
            let status = &cluster.data["status"];
            let text = |field: &str| status[field].as_str().unwrap_or("-").to_owned();
            let ready = status["readyInstances"].as_u64().unwrap_or(0);
            let wanted = cluster.data["spec"]["instances"].as_u64().unwrap_or(0);
            let name = format!("{}/{}", cnpg::NAMESPACE, cluster.name_any());
            writeln!(
                out,
                "{name:<16} {:<6} {:<11} {}",
                format!("{ready}/{wanted}"),
                text("currentPrimary"),
                text("phase")
            )?;
        }
    }
    if let Ok(clusters) = galera::clusters(client).list(&everything).await
        && !clusters.items.is_empty()
    {
        writeln!(out, "\n{}", heading("MARIADB          READY  PRIMARY     STATUS"))?;
        for cluster in clusters {
            let ready = cluster.data["status"]["replicas"].as_u64().unwrap_or(0);
            let wanted = cluster.data["spec"]["replicas"].as_u64().unwrap_or(0);
            let primary = cluster.data["status"]["currentPrimary"].as_str().unwrap_or("-");
            let conditions = cluster.data["status"]["conditions"].as_array();
            let says = conditions
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == "Ready")
                .and_then(|condition| condition["message"].as_str())
                .unwrap_or("-");
            let name = format!("{}/{}", cnpg::NAMESPACE, cluster.name_any());
            writeln!(
                out,
                "{name:<16} {:<6} {primary:<11} {says}",
                format!("{ready}/{wanted}")
            )?;
        }
    }
    let pods: Api<Pod> = Api::all(client.clone());
    writeln!(
        out,
        "\n{}",
        heading("POD                                        NODE  STATE")
    )?;
    for pod in pods.list(&everything).await.context("list pods")? {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let node = pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .unwrap_or("-");
        writeln!(out, "{name:<42} {node:<5} {}", pod_state(&pod))?;
    }
    Ok(())
}

/// What `kubectl get pods` would show, roughly.
fn pod_state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let Some(status) = &pod.status else {
        return "Pending".to_owned();
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let waiting = containers
        .iter()
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let ready = containers.iter().filter(|c| c.ready).count();
    let restarts: i32 = containers.iter().map(|c| c.restart_count).sum();
    let phase = waiting
        .or_else(|| status.phase.clone())
        .unwrap_or_else(|| "Pending".to_owned());
    let again = if restarts > 0 {
        format!(", {restarts} restarts")
    } else {
        String::new()
    };
    format!("{phase} {ready}/{}{again}", containers.len())
}

fn heading(text: &str) -> String {
    let style = anstyle::Style::new().bold();
    format!("{style}{text}{style:#}")
}
