//! A scene: the lab's API server in this process, agents that answer as told, the engine between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hasteward_coordinator::clock::{Clock, SystemClock};
use hasteward_coordinator::engine::agents::{AgentError, Agents};
use hasteward_coordinator::engine::cnpg::CnpgEngine;
use hasteward_coordinator::kubernetes::Caches;
use hasteward_lab_apiserver::server::write_admin_kubeconfig;
use hasteward_lab_apiserver::{Config, Server};
use hasteward_proto::primitive::{ClusterRef, NodeName};
use hasteward_proto::wire::agent as wire;
use hasteward_verdict::evidence::cnpg::AgentPresence;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "db";
const SYSTEM: u64 = 7_300_000_000_000_000_001;
const END: u64 = 0x0500_0148;

/// The one cluster of a scene.
pub fn cluster() -> ClusterRef {
    ClusterRef {
        namespace: NAMESPACE.to_owned(),
        name: "pg".to_owned(),
    }
}

/// What an agent answers.
#[derive(Clone)]
pub enum Answer {
    /// This.
    Reply(Box<wire::InspectPostgresReply>),
    /// Nothing, ever.
    Hang,
    /// It is not connected.
    Gone,
}

impl Answer {
    /// A running primary that sees `streaming`.
    pub fn primary(streaming: &[&str]) -> Self {
        let standby = |name: &&str| wire::Standby {
            application_name: (*name).to_owned(),
            state: "streaming".to_owned(),
            sent_lsn: END,
            write_lsn: END,
            flush_lsn: END,
            replay_lsn: END,
            sync_state: "async".to_owned(),
        };
        let server = wire::Server {
            flush_lsn: END,
            standbys: streaming.iter().map(standby).collect(),
            ..base(false)
        };
        Self::Reply(Box::new(reply(server, wire::ClusterState::InProduction, false)))
    }

    /// A running standby that streams.
    pub fn standby() -> Self {
        let receiver = wire::WalReceiver {
            status: "streaming".to_owned(),
            received_timeline: 1,
            flushed_lsn: END,
            slot_name: String::new(),
            last_message_at_ms: 0,
        };
        let server = wire::Server {
            receive_lsn: END,
            replay_lsn: END,
            receiver: Some(receiver),
            ..base(true)
        };
        Self::Reply(Box::new(reply(
            server,
            wire::ClusterState::InArchiveRecovery,
            true,
        )))
    }
}

fn base(in_recovery: bool) -> wire::Server {
    wire::Server {
        system_id: SYSTEM,
        version_num: 150_020,
        in_recovery,
        timeline: 1,
        ..wire::Server::default()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the wire has an option")]
fn provenance() -> Option<wire::Provenance> {
    Some(wire::Provenance {
        source: "test".to_owned(),
        read_at_ms: SystemClock.now().0,
    })
}

fn reply(server: wire::Server, state: wire::ClusterState, standby: bool) -> wire::InspectPostgresReply {
    macro_rules! known {
        ($reading:ident, $module:ident, $value:expr) => {
            Some(wire::$reading {
                provenance: provenance(),
                outcome: Some(wire::$module::Outcome::Known($value)),
            })
        };
    }
    let control = wire::ControlFile {
        system_id: SYSTEM,
        version: 1300,
        state: state.into(),
        checkpoint_lsn: 0x0500_0098,
        redo_lsn: 0x0500_0060,
        checkpoint_timeline: 1,
        min_recovery_lsn: if standby { END } else { 0 },
        min_recovery_timeline: u32::from(standby),
        wal_segment_size: 16 << 20,
        ..wire::ControlFile::default()
    };
    let postmaster = wire::Postmaster {
        pid: 100,
        uid: 26,
        gid: 26,
        started_at_ms: 1,
        stopped: false,
    };
    let absent = || wire::Absent {
        proof: "listed".to_owned(),
    };
    let wal = wire::WalDirectory {
        bytes: 16 << 20,
        segments: 1,
        oldest_segment_lsn: 0x0500_0000,
        oldest_segment_timeline: 1,
        ..Default::default()
    };
    let unread = wire::Unread {
        kind: wire::UnreadKind::NotNeeded.into(),
        detail: "the server answers".to_owned(),
    };
    wire::InspectPostgresReply {
        processes: known!(
            ProcessesReading,
            processes_reading,
            wire::Processes {
                manager: true,
                postmaster: Some(postmaster),
                tools: vec![]
            }
        ),
        control_file: known!(ControlFileReading, control_file_reading, control),
        signals: known!(
            SignalsReading,
            signals_reading,
            wire::Signals {
                standby,
                recovery: false
            }
        ),
        backup_label: Some(wire::BackupLabelReading {
            provenance: provenance(),
            outcome: Some(wire::backup_label_reading::Outcome::Absent(absent())),
        }),
        histories: known!(
            HistoriesReading,
            histories_reading,
            wire::Histories { files: vec![] }
        ),
        wal_end: Some(wire::WalEndReading {
            provenance: provenance(),
            outcome: Some(wire::wal_end_reading::Outcome::Unread(unread)),
        }),
        wal_directory: known!(WalDirectoryReading, wal_directory_reading, wal),
        slots: known!(SlotsReading, slots_reading, wire::Slots { slots: vec![] }),
        tablespaces: known!(
            TablespacesReading,
            tablespaces_reading,
            wire::Tablespaces { tablespaces: vec![] }
        ),
        volumes: vec![],
        leftovers: known!(
            LeftoversReading,
            leftovers_reading,
            wire::Leftovers { paths: vec![] }
        ),
        server: known!(ServerReading, server_reading, server),
    }
}

/// Agents that answer as told, and remember what they were asked.
#[derive(Clone, Default)]
pub struct FakeAgents {
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<(String, wire::Target)>>>,
    before: Arc<Mutex<Option<Before>>>,
}

/// Happens before the agent of node-1 answers.
type Before = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl FakeAgents {
    /// From now on `node` answers this.
    pub fn set(&self, node: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(node.to_owned(), answer);
    }

    /// From now on this happens before the agent of node-1 answers.
    pub fn before(&self, act: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.before.lock().unwrap() = Some(Arc::new(act));
    }

    /// What `node` was asked.
    pub fn asked(&self, node: &str) -> Vec<wire::Target> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|(n, _)| n == node)
            .map(|(_, t)| t.clone())
            .collect()
    }
}

impl Agents for FakeAgents {
    fn presence(&self, node: &NodeName) -> AgentPresence {
        match self.answers.lock().unwrap().get(node.as_str()) {
            Some(Answer::Gone) => AgentPresence::Unreachable,
            Some(_) => AgentPresence::Connected,
            None => AgentPresence::None,
        }
    }

    fn inspect_postgres(
        &self,
        node: &NodeName,
        request: wire::InspectPostgresRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<wire::InspectPostgresReply, AgentError>> {
        let target = request.target.unwrap_or_default();
        self.asked.lock().unwrap().push((node.to_string(), target));
        let answer = self.answers.lock().unwrap().get(node.as_str()).cloned();
        let before = self
            .before
            .lock()
            .unwrap()
            .clone()
            .filter(|_| node.as_str() == "node-1");
        let node = node.clone();
        async move {
            if let Some(act) = before {
                act().await;
            }
            match answer {
                Some(Answer::Reply(reply)) => Ok(*reply),
                Some(Answer::Hang) => {
                    tokio::time::sleep(limit).await;
                    Err(AgentError::Timeout {
                        node,
                        millis: u64::try_from(limit.as_millis()).unwrap(),
                    })
                }
                Some(Answer::Gone) => Err(AgentError::Unreachable(node)),
                None => Err(AgentError::NoAgent(node)),
            }
        }
        .boxed()
    }

    fn count_commits(
        &self,
        node: &NodeName,
        _: wire::CountCommitsRequest,
        _: Duration,
    ) -> BoxFuture<'static, Result<wire::CountCommitsReply, AgentError>> {
        futures::future::ready(Err(AgentError::NoAgent(node.clone()))).boxed()
    }
}

/// API server, agents and engine.
pub struct Scene {
    pub engine: CnpgEngine,
    pub agents: FakeAgents,
    caches: Caches,
    client: Client,
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    _server: Server,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Scene {
    /// With CloudNativePG's CRD.
    pub async fn start() -> Self {
        let scene = Self::without_operator().await;
        scene.install_operator().await;
        scene
    }

    /// Without it.
    pub async fn without_operator() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            fault_file: Some(directory.path().join("faults.json")),
            audit_log: Some(directory.path().join("audit.log")),
            ..Config::new(directory.path().join("data"))
        };
        let server = Server::start(&config, vec![listener]).unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        write_admin_kubeconfig(server.api(), &server.url(), &kubeconfig).unwrap();
        let kubeconfig = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
                .await
                .unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shutdown = CancellationToken::new();
        let caches = Caches::start(&client, "hasteward-system", &clock, &shutdown);
        caches.synced().await;
        let agents = FakeAgents::default();
        let engine = CnpgEngine::new(caches.clone(), client.clone(), Arc::new(agents.clone()), clock);
        Self {
            engine,
            agents,
            caches,
            client,
            directory,
            shutdown,
            _server: server,
        }
    }

    /// Creates the CRD and waits until the watch has noticed.
    pub async fn install_operator(&self) {
        let crd: Value =
            serde_json::from_str(include_str!("../../../tests/lab/standins/crds/clusters.json")).unwrap();
        self.create("customresourcedefinitions", &crd).await;
        until("the CRD is served", || !self.caches.clusters.state().not_served).await;
    }

    /// A cluster of three with a pod, a PVC and a PV each, on three nodes with agents; waits until the caches have it all.
    pub async fn healthy_cluster(&self) {
        self.create(
            "namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        )
        .await;
        let resource = json!({
            "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "pg", "namespace": NAMESPACE},
            "spec": {"instances": 3, "storage": {"size": "1Gi"}},
        });
        let created = self.create("clusters", &resource).await;
        let uid = created.metadata.uid.unwrap();
        let status = json!({"status": {
            "phase": "Cluster in healthy state", "currentPrimary": "pg-1", "targetPrimary": "pg-1", "timelineID": 1,
            "systemID": SYSTEM.to_string(), "instanceNames": ["pg-1", "pg-2", "pg-3"], "instances": 3, "readyInstances": 3,
        }});
        self.api("clusters")
            .patch_status("pg", &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        for n in 1..=3 {
            let (name, node) = (format!("pg-{n}"), format!("node-{n}"));
            self.create(
                "nodes",
                &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}),
            )
            .await;
            let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            self.api("nodes")
                .patch_status(&node, &PatchParams::default(), &Patch::Merge(&ready))
                .await
                .unwrap();
            self.create("persistentvolumes", &json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("pv-{name}")},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": name}},
            }))
            .await;
            self.create("persistentvolumeclaims", &claim(&name, &uid)).await;
            let bound = json!({"status": {"phase": "Bound"}});
            self.api("persistentvolumeclaims")
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(&bound))
                .await
                .unwrap();
            self.create("pods", &pod(&name, &node, &uid)).await;
            let digit = char::from(b'`' + u8::try_from(n).unwrap());
            let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "postgres", "ready": true, "restartCount": 0, "image": "lab/cnpg", "imageID": "",
                    "containerID": format!("containerd://{}", digit.to_string().repeat(64)),
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
            self.api("pods")
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(&running))
                .await
                .unwrap();
        }
        self.agents.set("node-1", Answer::primary(&["pg-2", "pg-3"]));
        self.agents.set("node-2", Answer::standby());
        self.agents.set("node-3", Answer::standby());
        until("the caches hold everything", || {
            let status = self
                .caches
                .clusters
                .get(NAMESPACE, "pg")
                .is_some_and(|c| c.status.current_primary.is_some());
            let nodes = self
                .caches
                .nodes
                .list(|n| hasteward_coordinator::kubernetes::is_true(&n.status.conditions, "Ready"))
                .len();
            let pods = self
                .caches
                .pods
                .list(|p| !p.status.container_statuses.is_empty())
                .len();
            let claims = self
                .caches
                .claims
                .list(|c| c.status.phase.as_deref() == Some("Bound"))
                .len();
            status && (nodes, pods, claims) == (3, 3, 3) && self.caches.volumes.list(|_| true).len() == 3
        })
        .await;
    }

    /// Makes `name` the current and target primary in the custom resource's status.
    pub fn switch_to(&self, name: &str) -> BoxFuture<'static, ()> {
        let api = self.api("clusters");
        let status = json!({"status": {"currentPrimary": name, "targetPrimary": name}});
        async move {
            api.patch_status("pg", &PatchParams::default(), &Patch::Merge(&status))
                .await
                .unwrap();
        }
        .boxed()
    }

    /// Requests fail as `rules` say from now on.
    pub fn fault(&self, rules: &str) {
        std::fs::write(self.directory.path().join("faults.json"), rules).unwrap();
    }

    /// How many writing requests the API server has seen.
    pub fn writes(&self) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("audit.log")).unwrap();
        let verbs = log.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["verb"]
                .as_str()
                .unwrap_or("")
                .to_owned()
        });
        verbs
            .filter(|verb| !matches!(verb.as_str(), "get" | "list" | "watch"))
            .count()
    }

    pub async fn create(&self, plural: &str, object: &Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        self.api(plural)
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|e| panic!("{plural}: {e}"))
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        let (group, version, kind, namespaced) = match plural {
            "clusters" => ("postgresql.cnpg.io", "v1", "Cluster", true),
            "customresourcedefinitions" => ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", false),
            "pods" => ("", "v1", "Pod", true),
            "persistentvolumeclaims" => ("", "v1", "PersistentVolumeClaim", true),
            "persistentvolumes" => ("", "v1", "PersistentVolume", false),
            "nodes" => ("", "v1", "Node", false),
            "namespaces" => ("", "v1", "Namespace", false),
            other => panic!("{other}"),
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if namespaced {
            Api::namespaced_with(self.client.clone(), NAMESPACE, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }
}

fn owned(name: &str, uid: &str) -> Value {
    let owner = json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": "pg", "uid": uid, "controller": true});
    json!({"name": name, "namespace": NAMESPACE, "ownerReferences": [owner],
        "labels": {"cnpg.io/cluster": "pg", "cnpg.io/instanceName": name, "cnpg.io/pvcRole": "PG_DATA"}})
}

fn claim(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": owned(name, uid),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": format!("pv-{name}")}})
}

/// A pod of instance `name`, controlled by the cluster with `uid`.
pub fn pod(name: &str, node: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": owned(name, uid), "spec": {
        "nodeName": node,
        "containers": [{"name": "postgres", "image": "lab/cnpg", "volumeMounts": [{"name": "pgdata", "mountPath": "/var/lib/postgresql/data"}]}],
        "volumes": [{"name": "pgdata", "persistentVolumeClaim": {"claimName": name}}]}})
}

/// Waits until `done`, at most thirty seconds.
async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("not within 30 s: {what}"));
}
