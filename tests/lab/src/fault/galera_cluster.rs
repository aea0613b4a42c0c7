//! What the faults of a Galera cluster share: its nodes, holding them down, cutting them off, and the way back.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::Command;

use super::Scene;
use crate::cnpg::NAMESPACE;
use crate::galera::{self, CONFIG, DATA, Node, Status};
use crate::process::{self, write_whole};
use crate::wait::{Look, until};

/// How long Galera may take to notice the loss of a peer (`evs.suspect_timeout` 5 s, `evs.inactive_timeout` 15 s), and more.
pub(super) const VIEW_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to end or to start: the kubelet's back-off is part of it.
pub(super) const RESTART_DEADLINE: Duration = Duration::from_secs(120);
/// How long the operator may take to put a cluster together again.
const HEAL_DEADLINE: Duration = Duration::from_secs(300);
/// A configuration with which a server ends before it touches a file: the provider does not exist.
const HOLD: &str = "zz-lab-hold.cnf";

/// The cluster of a scene.
pub(super) struct Cluster<'a> {
    scene: &'a Scene<'a>,
    nodes: Vec<Node>,
}

/// `grastate.dat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) uuid: String,
    pub(super) seqno: i64,
    pub(super) safe: bool,
}

impl Saved {
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
        };
        Some(Self {
            uuid: value("uuid")?.to_owned(),
            seqno: value("seqno")?.parse().ok()?,
            safe: value("safe_to_bootstrap")? == "1",
        })
    }

    /// The file as Galera writes it.
    pub(super) fn render(&self) -> String {
        format!(
            "# GALERA saved state\nversion: 2.1\nuuid:    {}\nseqno:   {}\nsafe_to_bootstrap: {}\n",
            self.uuid,
            self.seqno,
            u8::from(self.safe)
        )
    }
}

impl<'a> Cluster<'a> {
    /// The cluster that the scene's instance belongs to.
    pub(super) async fn of(scene: &'a Scene<'a>) -> anyhow::Result<Self> {
        let names = galera::pods(scene.client)
            .await
            .context("no Galera cluster in this lab")?;
        if !names.iter().any(|name| name == scene.instance) {
            bail!("{} is none of {}", scene.instance, names.join(", "));
        }
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(Node::of(scene.client, &name).await?);
        }
        Ok(Self { scene, nodes })
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node to harm.
    pub(super) fn victim(&self) -> anyhow::Result<&Node> {
        let victim = self.nodes.iter().find(|node| node.name == self.scene.instance);
        victim.context("no victim")
    }

    /// All others, at least one.
    pub(super) fn others(&self) -> anyhow::Result<Vec<&Node>> {
        let others: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| node.name != self.scene.instance)
            .collect();
        if others.is_empty() {
            bail!("this fault needs more than one node");
        }
        Ok(others)
    }

    pub(super) fn tell(&self, line: &str) {
        (self.scene.tell)(line);
    }

    /// From now on the kubelet kills the server with SIGKILL whenever it runs.
    pub(super) fn crash(&self, node: &Node) -> anyhow::Result<()> {
        Ok(write_whole(&self.fault_file(node), br#"{"crashLoop": true}"#)?)
    }

    /// The kubelet lets the server run again. `true` when it did not.
    pub(super) fn release(&self, node: &Node) -> anyhow::Result<bool> {
        match fs::remove_file(self.fault_file(node)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("remove the fault file"),
        }
    }

    fn fault_file(&self, node: &Node) -> std::path::PathBuf {
        self.scene
            .place
            .faults()
            .join(format!("{NAMESPACE}.{}", node.name))
    }

    /// Kills a server and keeps it down; comes back when the kubelet has backed off.
    pub(super) async fn kill(&self, node: &Node) -> anyhow::Result<()> {
        self.crash(node)?;
        self.backing_off(node).await.map(drop)
    }

    /// Waits until the server's container is in `CrashLoopBackOff`; tells how it ended last.
    pub(super) async fn backing_off(&self, node: &Node) -> anyhow::Result<i32> {
        let what = format!("{} in CrashLoopBackOff", node.name);
        Ok(until(what, RESTART_DEADLINE, async || {
            let Some(status) = self.container(node).await? else {
                return Ok(Look::not_yet("no container"));
            };
            let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
            let reason = waiting.and_then(|w| w.reason.as_deref()).unwrap_or("running");
            let code = status.last_state.and_then(|s| s.terminated).map(|t| t.exit_code);
            Ok(match (reason, code) {
                ("CrashLoopBackOff", Some(code)) => Look::Done(code),
                _ => Look::NotYet(format!("{reason}, {} restarts", status.restart_count)),
            })
        })
        .await?)
    }

    /// Waits until the server has ended by itself since its pod was made; tells its exit code.
    pub(super) async fn gave_up(&self, node: &Node) -> anyhow::Result<i32> {
        let what = format!("{} gives up", node.name);
        Ok(until(what, RESTART_DEADLINE, async || {
            let Some(status) = self.container(node).await? else {
                return Ok(Look::not_yet("no container"));
            };
            let mut both = [status.last_state, status.state].into_iter().flatten();
            Ok(match both.find_map(|state| state.terminated) {
                Some(ended) => Look::Done(ended.exit_code),
                None => Look::not_yet("it runs"),
            })
        })
        .await?)
    }

    /// Status of the server's container.
    pub(super) async fn container(&self, node: &Node) -> anyhow::Result<Option<ContainerStatus>> {
        let statuses = self
            .pod(node)
            .await?
            .status
            .and_then(|status| status.container_statuses)
            .unwrap_or_default();
        Ok(statuses.into_iter().find(|status| status.name == "mariadb"))
    }

    async fn pod(&self, node: &Node) -> anyhow::Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.scene.client.clone(), NAMESPACE);
        pods.get(&node.name)
            .await
            .with_context(|| format!("pod {}", node.name))
    }

    /// Deletes a pod: a new one has no back-off. Comes back when the new one's agent runs.
    pub(super) async fn renew(&self, node: &Node) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.scene.client.clone(), NAMESPACE);
        let before = self.pod(node).await?.metadata.uid;
        pods.delete(&node.name, &DeleteParams::default()).await?;
        until(
            format!("another pod {}", node.name),
            RESTART_DEADLINE,
            async || {
                let same = self.pod(node).await?.metadata.uid == before;
                Ok(if same || node.sidecar().await.is_err() {
                    Look::not_yet("not there")
                } else {
                    Look::Done(())
                })
            },
        )
        .await?;
        Ok(())
    }

    /// Stops a server in order, and keeps it down before it touches a file.
    pub(super) async fn stop(&self, node: &Node) -> anyhow::Result<()> {
        node.beside(&format!(
            "printf '[mariadbd]\\nwsrep_provider=/held-by-the-lab\\n' > {CONFIG}/{HOLD}"
        ))
        .await?;
        let server = node.server().await?;
        server.signal(&[server.init()], Signal::SIGTERM)?;
        self.backing_off(node).await.map(drop)
    }

    /// Lets a server that was stopped start again, at its next start.
    pub(super) async fn free(&self, node: &Node) -> anyhow::Result<()> {
        node.beside(&format!("rm -f {CONFIG}/{HOLD}")).await.map(drop)
    }

    /// `grastate.dat` of a node.
    pub(super) async fn saved(&self, node: &Node) -> anyhow::Result<Saved> {
        let text = node.file("grastate.dat").await?.context("no grastate.dat")?;
        Saved::parse(&text).with_context(|| format!("{}: no state: {text:?}", node.name))
    }

    /// Writes `grastate.dat` of a node whose server does not run.
    pub(super) async fn save(&self, node: &Node, saved: &Saved) -> anyhow::Result<()> {
        let text = saved.render().replace('\n', "\\n");
        node.beside(&format!("printf '{text}' > {DATA}/grastate.dat"))
            .await?;
        Ok(())
    }

    /// Has the server bootstrap at its next start, whatever the others do.
    pub(super) async fn ask_bootstrap(&self, node: &Node) -> anyhow::Result<()> {
        node.beside(&format!(
            "printf '[galera]\\nwsrep_new_cluster=\"ON\"' > {CONFIG}/1-bootstrap.cnf"
        ))
        .await?;
        Ok(())
    }

    /// Waits until a server says what is wanted of it.
    pub(super) async fn says(
        &self,
        node: &Node,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let seen = until(
            format!("{}: {what}", node.name),
            VIEW_DEADLINE + RESTART_DEADLINE,
            async || {
                let status = node.status().await?;
                Ok(if wanted(&status) {
                    Look::Done(status)
                } else {
                    Look::NotYet(format!("{status:?}"))
                })
            },
        )
        .await?;
        Ok(seen)
    }

    /// Waits until the others are a primary component of their own.
    pub(super) async fn others_go_on(&self) -> anyhow::Result<Status> {
        let others = self.others()?;
        let size = u32::try_from(others.len())?;
        let mut last = None;
        for node in others {
            let wanted = |status: &Status| status.is_synced() && status.size == size;
            last = Some(self.says(node, "Primary without the victim", wanted).await?);
        }
        last.context("no other node")
    }

    /// Commits a row on a node, in a table that every node has.
    pub(super) async fn commit(&self, node: &Node, what: &str) -> anyhow::Result<()> {
        node.sql(&format!(
            "CREATE DATABASE IF NOT EXISTS hasteward_lab; \
             CREATE TABLE IF NOT EXISTS hasteward_lab.marks (id BIGINT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(64), \
             at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6)); \
             INSERT INTO hasteward_lab.marks (what) VALUES ('{what}');"
        ))
        .await
        .with_context(|| format!("commit on {}", node.name))
        .map(drop)
    }

    /// Stops the operator, as a person would: it would work on the damage.
    pub(super) async fn suspend(&self) -> anyhow::Result<()> {
        galera::suspend(self.scene.client, true).await?;
        let what = format!("{} suspended", galera::CLUSTER);
        until(what, RESTART_DEADLINE, async || {
            let cluster = galera::clusters(self.scene.client).get(galera::CLUSTER).await?;
            let conditions = cluster.data["status"]["conditions"].as_array();
            let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
            let reason = ready.and_then(|c| c["reason"].as_str()).unwrap_or("nothing");
            Ok(if reason == "Suspended" {
                Look::Done(())
            } else {
                Look::not_yet(reason)
            })
        })
        .await?;
        Ok(())
    }

    /// Whether a pod's cable is up or down.
    pub(super) async fn cable(&self, node: &Node, state: &str) -> anyhow::Result<()> {
        let link = self.link(node).await?;
        self.in_node(node, &["link", "set", &link, state]).await.map(drop)
    }

    /// Whether a pod's cable is cut.
    async fn is_cut(&self, node: &Node) -> anyhow::Result<bool> {
        let link = self.link(node).await?;
        let shown = self.in_node(node, &["-o", "link", "show", &link]).await?;
        Ok(!shown.contains(",UP") && !shown.contains("<UP"))
    }

    /// The node's end of the pod's pair, as the kubelet names it.
    async fn link(&self, node: &Node) -> anyhow::Result<String> {
        let ip = self.pod(node).await?.status.and_then(|status| status.pod_ip);
        let ip: Ipv4Addr = ip.context("the pod has no address")?.parse()?;
        Ok(format!("veth{:08x}", ip.to_bits()))
    }

    /// Runs `ip` in the network namespace of the pod's node.
    async fn in_node(&self, node: &Node, arguments: &[&str]) -> anyhow::Result<String> {
        let name = self.pod(node).await?.spec.and_then(|spec| spec.node_name);
        let name = name.context("the pod has no node")?;
        let state = self.scene.place.state().display().to_string();
        let kubelet = process::all().into_iter().find(|pid| {
            let words = process::command_line(*pid);
            words
                .first()
                .is_some_and(|program| program.ends_with("hasteward-lab-kubelet"))
                && words
                    .windows(2)
                    .any(|pair| pair[0] == "--node" && pair[1] == name)
                && words
                    .windows(2)
                    .any(|pair| pair[0] == "--state" && pair[1] == state)
        });
        let kubelet = kubelet.with_context(|| format!("no kubelet of {name}"))?;
        let output = Command::new("nsenter")
            .args(["--target", &kubelet.to_string(), "--net", "--", "ip"])
            .args(arguments)
            .output()
            .await
            .context("nsenter")?;
        if !output.status.success() {
            bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Puts away what keeps nodes down or apart, and has the operator put the cluster together.
    pub(super) async fn heal(&self) -> anyhow::Result<String> {
        let mut done = Vec::new();
        self.nobody_ahead().await?;
        for node in &self.nodes {
            if self.release(node)? {
                done.push(format!("{} is not killed any more", node.name));
            }
            if self.pod(node).await.is_err() {
                continue;
            }
            if self.is_cut(node).await? {
                self.cable(node, "up").await?;
                done.push(format!("{} is connected again", node.name));
            }
            if node.has(&format!("{CONFIG}/{HOLD}")).await.unwrap_or(false) {
                self.free(node).await?;
                done.push(format!("{} is not held any more", node.name));
            }
        }
        for node in &self.nodes {
            // Left by a transfer that was killed: the next joiner waits for it, until an init container removes them.
            let left = [format!("{DATA}/wsrep_sst.pid"), format!("{DATA}/sst_in_progress")];
            let mut stale = false;
            for path in &left {
                stale |= node.has(path).await.unwrap_or(false);
            }
            if stale && node.status().await.is_err() {
                self.renew(node).await?;
                done.push(format!("{} has a new pod", node.name));
            }
        }
        let cluster = galera::clusters(self.scene.client).get(galera::CLUSTER).await?;
        if cluster.data["spec"]["suspend"] == true {
            // Un-suspended with GaleraReady=False, the operator scales to 0 even what runs well.
            if self.all_synced().await {
                self.forget_recovery(&cluster.data["status"]["conditions"])
                    .await?;
            }
            galera::suspend(self.scene.client, false).await?;
            done.push("the operator works again".to_owned());
        }
        if done.is_empty() {
            bail!("nothing to switch off; lost history needs a repair");
        }
        self.tell(&done.join(", "));
        let mut histories = std::collections::BTreeSet::new();
        for node in &self.nodes {
            if let Ok(status) = node.status().await
                && status.component == "Primary"
            {
                histories.insert(status.uuid);
            }
        }
        if histories.contains(galera::NIL) || histories.len() > 1 {
            let done = done.join(", ");
            bail!("{done}; but the histories are {histories:?}: that needs a repair");
        }
        let size = u8::try_from(self.nodes.len())?;
        tokio::time::timeout(HEAL_DEADLINE, galera::healthy(self.scene.client, size))
            .await
            .context("the cluster did not come together")??;
        Ok(format!(
            "{}; all {size} nodes are Synced in one component",
            done.join(", ")
        ))
    }

    /// A node that is down and further than the running cluster would lose what it has by its start.
    async fn nobody_ahead(&self) -> anyhow::Result<()> {
        let mut running = None;
        for node in &self.nodes {
            if let Ok(status) = node.status().await
                && status.component == "Primary"
            {
                running = Some(status);
            }
        }
        let Some(running) = running else { return Ok(()) };
        for node in &self.nodes {
            if let Ok(saved) = self.saved(node).await
                && saved.uuid == running.uuid
                && saved.seqno > running.committed
            {
                bail!(
                    "{} is at {}, the running cluster at {}: that needs a repair",
                    node.name,
                    saved.seqno,
                    running.committed
                );
            }
        }
        Ok(())
    }

    async fn all_synced(&self) -> bool {
        for node in &self.nodes {
            let size = u32::try_from(self.nodes.len()).ok();
            if !node
                .status()
                .await
                .is_ok_and(|status| status.is_synced() && Some(status.size) == size)
            {
                return false;
            }
        }
        true
    }

    async fn forget_recovery(&self, conditions: &serde_json::Value) -> anyhow::Result<()> {
        let kept: Vec<&serde_json::Value> = conditions
            .as_array()
            .into_iter()
            .flatten()
            .filter(|condition| condition["type"] != "GaleraReady")
            .collect();
        let patch = json!({ "status": { "conditions": kept, "galeraRecovery": null } });
        galera::clusters(self.scene.client)
            .patch_status(galera::CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_is_written() {
        let saved = Saved {
            uuid: galera::NIL.to_owned(),
            seqno: -1,
            safe: true,
        };
        assert_eq!(Saved::parse(&saved.render()), Some(saved));
        assert_eq!(Saved::parse(""), None);
    }
}
