//! API server, operator and node of one test.

use crate::node::{Node, is_ready};
use anyhow::Context;
use hasteward_lab_apiserver::server::write_admin_kubeconfig;
use hasteward_lab_apiserver::{Config, Server};
use hasteward_lab_standins::cnpg::{Cluster, InstanceReport, Scope, names};
use hasteward_lab_standins::tls::StatusClient;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Name of every test's cluster.
pub(crate) const CLUSTER: &str = "pg";

/// One test's cluster. Dropping it ends everything.
pub(crate) struct Lab {
    pub(crate) scope: Scope,
    pub(crate) node: Arc<Node>,
    _operator: Child,
    _api: Server,
    _pods: tokio::task::JoinSet<()>,
    // Last: directories go after what runs in them.
    _root: tempfile::TempDir,
}

impl Lab {
    /// Starts a lab and creates a cluster with the given fields of the spec; `$ROOT` is the lab's directory.
    pub(crate) async fn start(spec: Value) -> Self {
        hasteward_lab_standins::process::prepare();
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let kubeconfig = root.path().join("kubeconfig");
        let api = serve_api(root.path(), &kubeconfig).await;
        std::fs::set_permissions(&kubeconfig, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let config = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
                .await
                .unwrap();
        let scope = Scope {
            client: kube::Client::try_from(config).unwrap(),
            namespace: "default".to_owned(),
        };
        let operator = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                env!("CARGO_BIN_EXE_hasteward-lab-standins"),
                "cnpg-operator",
            ])
            .args(["--poll-interval-ms", "300"])
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(root.path().join("operator.log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let node = Node::new(scope.clone(), root.path(), &kubeconfig);
        let mut pods = tokio::task::JoinSet::new();
        pods.spawn(node.clone().run());
        let lab = Self {
            scope,
            node,
            _operator: operator,
            _api: api,
            _pods: pods,
            _root: root,
        };
        lab.create(spec).await;
        lab
    }

    async fn create(&self, spec: Value) {
        let mut full = json!({
            "instances": 1,
            "storage": {"size": "1Gi"},
            "smartShutdownTimeout": 1,
            "primaryLease": {"leaseDurationSeconds": 3, "retryPeriodSeconds": 1},
            "postgresql": {"parameters": {
                "shared_buffers": "16MB", "fsync": "off", "wal_keep_size": "0", "max_wal_size": "64MB",
                "min_wal_size": "32MB", "max_connections": "30",
            }},
        });
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let text = full
            .to_string()
            .replace("$ROOT", &self.node.root.display().to_string());
        let full: Value = serde_json::from_str(&text).unwrap();
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
            "metadata": {"name": CLUSTER, "namespace": "default"}, "spec": full,
        }))
        .unwrap();
        self.until("the Cluster is accepted", Duration::from_secs(20), || async {
            self.scope
                .api::<Cluster>()
                .create(&PostParams::default(), &cluster)
                .await
                .ok()
                .map(drop)
        })
        .await;
    }

    /// Waits until `look` sees something; panics with the Cluster's status when it never does.
    pub(crate) async fn until<T, F, R>(&self, what: &str, limit: Duration, mut look: F) -> T
    where
        F: FnMut() -> R,
        R: Future<Output = Option<T>>,
    {
        let start = Instant::now();
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            if start.elapsed() > limit {
                let status = self.tell().await;
                panic!("not seen within {limit:?}: {what}\n{status}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Prints the ends of all logs; returns the Cluster's status.
    async fn tell(&self) -> String {
        for log in ["pg-1.log", "pg-2.log", "pg-3.log", "operator.log"] {
            let text = std::fs::read_to_string(self.node.root.join(log)).unwrap_or_default();
            for line in text.lines().rev().take(40).collect::<Vec<_>>().iter().rev() {
                eprintln!("{log}: {line}");
            }
        }
        let status = self.scope.api::<Cluster>().get_opt(CLUSTER).await.ok().flatten();
        status
            .map(|cluster| serde_json::to_string_pretty(&cluster.status).unwrap())
            .unwrap_or_default()
    }

    /// Looks for two seconds whether something stays as it is.
    pub(crate) async fn stays<F, R>(&self, what: &str, mut look: F)
    where
        F: FnMut() -> R,
        R: Future<Output = bool>,
    {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            if !look().await {
                let status = self.tell().await;
                panic!("did not stay: {what}\n{status}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn cluster(&self) -> Cluster {
        self.scope.api::<Cluster>().get(CLUSTER).await.unwrap()
    }

    pub(crate) async fn pod(&self, name: &str) -> Option<Pod> {
        self.scope.api::<Pod>().get_opt(name).await.unwrap()
    }

    pub(crate) async fn until_phase(&self, text: &str) {
        self.until(&format!("phase {text}"), Duration::from_secs(60), || async {
            (self.cluster().await.observed().phase.as_deref() == Some(text)).then_some(())
        })
        .await;
    }

    /// Waits until nothing is left to do: the phase alone may be an old one.
    pub(crate) async fn until_healthy(&self) {
        self.until("the cluster is healthy", Duration::from_secs(60), || async {
            let cluster = self.cluster().await;
            let status = cluster.observed();
            let all = status.ready_instances == Some(cluster.spec.instances)
                && status.instances_reported_state.len() == cluster.spec.instances as usize
                && status
                    .instances_reported_state
                    .values()
                    .filter(|state| state.is_primary)
                    .count()
                    == 1;
            (all && status.phase.as_deref() == Some("Cluster in healthy state")).then_some(())
        })
        .await;
    }

    /// Waits until a pod is Ready, or is not.
    pub(crate) async fn until_ready(&self, pod: &str, ready: bool) {
        self.until(
            &format!("{pod} ready={ready}"),
            Duration::from_secs(60),
            || async { self.pod(pod).await.filter(|pod| is_ready(pod) == ready).map(drop) },
        )
        .await;
    }

    /// Sets or removes an annotation of the Cluster.
    pub(crate) async fn annotate(&self, name: &str, value: Option<&str>) {
        let patch = json!({"metadata": {"annotations": {name: value}}});
        self.scope
            .api::<Cluster>()
            .patch(CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    pub(crate) async fn fence(&self, instances: &str) {
        self.annotate(names::FENCED_INSTANCES, Some(instances)).await;
    }

    pub(crate) async fn unfence(&self) {
        self.annotate(names::FENCED_INSTANCES, None).await;
    }

    /// Deletes a pod.
    pub(crate) async fn delete_pod(&self, name: &str) {
        self.scope
            .api::<Pod>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// `pgdata` of an instance.
    pub(crate) async fn pgdata(&self, instance: &str) -> PathBuf {
        self.node.claim(instance).await.unwrap().join("pgdata")
    }

    /// What an instance reports.
    pub(crate) async fn report(&self, instance: &str) -> anyhow::Result<InstanceReport> {
        let pod = self.pod(instance).await.context("no pod")?;
        let ip = pod.status.and_then(|status| status.pod_ip).context("no IP")?;
        let secret = self.scope.api::<Secret>().get(&format!("{CLUSTER}-ca")).await?;
        let ca = secret
            .data
            .unwrap_or_default()
            .remove("ca.crt")
            .context("no CA")?;
        let client = StatusClient::new(std::str::from_utf8(&ca.0)?, &format!("{CLUSTER}-rw"))?;
        let body = client
            .get(&ip, names::STATUS_PORT, "/pg/status", Duration::from_secs(5))
            .await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Runs SQL on an instance over its socket, as its own user.
    pub(crate) async fn sql(&self, instance: &str, statement: &str) -> anyhow::Result<String> {
        let pod = self.pod(instance).await.context("no pod")?;
        let sockets = self.node.volume(&pod, "scratch-data").join("run");
        let output = Command::new("setpriv")
            .args([
                "--reuid",
                "26",
                "--regid",
                "26",
                "--clear-groups",
                "psql",
                "-XAtq",
                "-U",
                "postgres",
                "-h",
            ])
            .arg(&sockets)
            .args(["-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement])
            .output()
            .await?;
        anyhow::ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// PID of an instance's postmaster, as the host counts.
    pub(crate) async fn postmaster(&self, instance: &str) -> Option<nix::unistd::Pid> {
        let pgdata = format!("{}", self.node.root.display());
        let claim = self
            .scope
            .api::<k8s_openapi::api::core::v1::PersistentVolumeClaim>()
            .get(instance)
            .await
            .ok()?;
        let uid = claim.uid()?;
        for entry in std::fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.trim() != "postgres" {
                continue;
            }
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
            let here = mounts.contains(&pgdata) || mounts.contains(&uid);
            if here && mounts.contains(&uid) && String::from_utf8_lossy(&command).contains("-D\0") {
                return Some(nix::unistd::Pid::from_raw(pid));
            }
        }
        None
    }
}

/// The API server, in this process.
async fn serve_api(root: &Path, kubeconfig: &Path) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(&Config::new(root.join("api")), vec![listener]).unwrap();
    write_admin_kubeconfig(server.api(), &server.url(), kubeconfig).unwrap();
    server
}
