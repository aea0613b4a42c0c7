//! A MariaDB Galera cluster in the lab: that it is one, and that the stand-ins of mariadb-operator and of its data plane behave
//! as badly as the originals do.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

use std::time::Duration;

use hasteward_lab::galera::{self, DATA, Node};
use hasteward_lab::options::UpOptions;
use hasteward_lab::wait::{Look, until};
use hasteward_lab::{Lab, cnpg};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

const GALERA: UpOptions = UpOptions {
    galera: 3,
    bare: true,
    backoff_base_ms: 1000,
    ..UpOptions::NOTHING
};

/// Recoveries end servers that wait for peers: each takes its 30 seconds of grace, one after the other.
const SOON: Duration = Duration::from_secs(240);

struct Cluster {
    lab: Lab,
}

impl Cluster {
    async fn up() -> Self {
        Self {
            lab: Lab::up(GALERA).await.unwrap(),
        }
    }

    async fn node(&self, ordinal: u8) -> Node {
        Node::of(self.lab.client(), &galera::pod(ordinal)).await.unwrap()
    }

    async fn synced(&self) {
        galera::healthy(self.lab.client(), 3).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.lab.client().clone(), cnpg::NAMESPACE)
    }

    async fn log(&self, pod: &str, previous: bool) -> String {
        let parameters = LogParams {
            container: Some("mariadb".into()),
            previous,
            ..LogParams::default()
        };
        self.pods().logs(pod, &parameters).await.unwrap_or_default()
    }

    async fn restarts(&self, pod: &str) -> i32 {
        let status = self.pods().get(pod).await.unwrap().status.unwrap();
        let containers = status.container_statuses.unwrap();
        containers
            .iter()
            .find(|c| c.name == "mariadb")
            .unwrap()
            .restart_count
    }

    async fn replicas(&self) -> i32 {
        self.set()
            .get(galera::CLUSTER)
            .await
            .unwrap()
            .spec
            .unwrap()
            .replicas
            .unwrap()
    }

    fn set(&self) -> Api<StatefulSet> {
        Api::namespaced(self.lab.client().clone(), cnpg::NAMESPACE)
    }

    async fn scale(&self, replicas: u32) {
        let patch = json!({ "spec": { "replicas": replicas } });
        self.set()
            .patch(galera::CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    async fn condition(&self, kind: &str) -> Option<String> {
        let cluster = galera::clusters(self.lab.client())
            .get(galera::CLUSTER)
            .await
            .unwrap();
        galera::condition(&cluster, kind)
    }

    /// Says that Galera is not ready, as a person does who works on it.
    async fn declare_not_ready(&self) {
        let cluster = galera::clusters(self.lab.client())
            .get(galera::CLUSTER)
            .await
            .unwrap();
        let mut conditions = cluster.data["status"]["conditions"].as_array().unwrap().clone();
        for condition in &mut conditions {
            if condition["type"] == "GaleraReady" {
                condition["status"] = json!("False");
            }
        }
        let patch = json!({ "status": { "conditions": conditions } });
        galera::clusters(self.lab.client())
            .patch_status(galera::CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    async fn suspend(&self, suspended: bool) {
        galera::suspend(self.lab.client(), suspended).await.unwrap();
    }

    async fn wait(&self, what: &str, look: impl AsyncFn() -> bool) {
        until(what, SOON, async || {
            Ok(if look().await {
                Look::Done(())
            } else {
                Look::not_yet("no")
            })
        })
        .await
        .unwrap();
    }
}

async fn rows(node: &Node) -> String {
    node.sql("SELECT COUNT(*), COALESCE(SUM(id), 0) FROM t.t")
        .await
        .unwrap_or_default()
}

#[tokio::test]
async fn every_node_takes_writes_and_one_that_was_killed_returns() {
    let cluster = Cluster::up().await;
    let nodes = [
        cluster.node(0).await,
        cluster.node(1).await,
        cluster.node(2).await,
    ];
    nodes[0]
        .sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY);")
        .await
        .unwrap();
    for (id, node) in nodes.iter().enumerate() {
        node.sql(&format!("INSERT INTO t.t VALUES ({id})")).await.unwrap();
    }
    for node in &nodes {
        cluster
            .wait("every node has every row", async || rows(node).await == "3\t3")
            .await;
    }

    let victim = &nodes[2];
    let before = cluster.restarts(&victim.name).await;
    let server = victim.server().await.unwrap();
    assert!(
        std::fs::read_link(format!("/proc/{}/exe", server.init()))
            .unwrap()
            .ends_with("mariadbd"),
        "the entrypoint becomes the server"
    );
    server.signal(&[server.init()], Signal::SIGKILL).unwrap();
    nodes[0].sql("INSERT INTO t.t VALUES (7)").await.unwrap();
    cluster
        .wait("the container was restarted", async || {
            cluster.restarts(&victim.name).await > before && victim.runs().await
        })
        .await;
    cluster.synced().await;
    assert_eq!(rows(victim).await, "4\t10");
    // The entrypoint gives no position, so even one missing transaction costs a full copy.
    let log = cluster.log(&victim.name, false).await;
    assert!(
        !log.contains("--wsrep-start-position") && log.contains("rsync SST"),
        "{log}"
    );

    // Nothing to do: nothing is written, least of all by a healthy cluster's operator.
    let audit = cluster.lab.audit().unwrap();
    let mark = victim.status().await.unwrap();
    until("two rounds of monitor and operator", SOON, async || {
        let reads = std::fs::read_to_string(cluster.lab.place().audit_log())?;
        let looks = reads
            .lines()
            .filter(|line| line.contains("mariadb-operator") && line.contains("statefulsets"))
            .count();
        Ok(if looks > 40 {
            Look::Done(())
        } else {
            Look::not_yet(looks)
        })
    })
    .await
    .unwrap();
    let writes = audit.writes(|user| user.contains("mariadb-operator")).unwrap();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(victim.status().await.unwrap().uuid, mark.uuid);
    cluster.lab.down().unwrap();
}

#[tokio::test]
async fn an_emptied_data_directory_is_initialised_by_the_entrypoint() {
    let cluster = Cluster::up().await;
    let victim = cluster.node(1).await;
    let proof = cluster
        .lab
        .inflict("galera-failed-sst", &victim.name)
        .await
        .unwrap();
    assert!(proof.contains("its state is nil"), "{proof}");
    victim
        .beside(&format!("find {DATA} -mindepth 1 -delete"))
        .await
        .unwrap();
    // Only the container restarts, not the pod: no init container looks at it.
    let pod = cluster.pods().get(&victim.name).await.unwrap().uid();
    cluster.lab.heal(&victim.name).await.unwrap();
    assert_eq!(cluster.pods().get(&victim.name).await.unwrap().uid(), pod);
    let log = cluster.log(&victim.name, false).await + &cluster.log(&victim.name, true).await;
    assert!(log.contains("[Entrypoint]: Initializing database files"), "{log}");
    cluster.lab.down().unwrap();
}

#[tokio::test]
async fn suspend_stops_the_operator_but_not_its_monitor_and_pods_come_back_all_at_once() {
    let cluster = Cluster::up().await;
    // Not suspended: the number of replicas is written back.
    cluster.scale(2).await;
    cluster
        .wait("three again", async || cluster.replicas().await == 3)
        .await;
    cluster.synced().await;

    cluster.suspend(true).await;
    cluster
        .wait("Ready is False", async || {
            cluster.condition("Ready").await.as_deref() == Some("False")
        })
        .await;
    cluster.scale(0).await;
    cluster
        .wait("the monitor says not ready", async || {
            cluster.condition("GaleraReady").await.as_deref() == Some("False")
        })
        .await;
    assert_eq!(cluster.replicas().await, 0, "scaling by hand sticks");
    let events: Api<k8s_openapi::api::core::v1::Event> =
        Api::namespaced(cluster.lab.client().clone(), cnpg::NAMESPACE);
    let list = events.list(&ListParams::default()).await.unwrap();
    assert!(
        list.iter()
            .any(|event| event.reason.as_deref() == Some("GaleraClusterNotHealthy"))
    );

    // Parallel: the pods are there together, and none waits for another.
    cluster.scale(3).await;
    cluster
        .wait("three servers run", async || {
            let mut running = 0;
            for ordinal in 0..3 {
                running += u8::from(cluster.node(ordinal).await.runs().await);
            }
            running == 3
        })
        .await;
    let ours = ListParams::default().labels("app.kubernetes.io/name=mariadb");
    let pods = cluster.pods().list(&ours).await.unwrap();
    assert!(
        pods.iter().all(|pod| pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref())
            .is_some_and(|containers| containers.iter().any(|c| c.name == "mariadb" && !c.ready))),
        "nobody is ready, nobody bootstraps"
    );
    // The way out: the operator's own recovery.
    cluster.suspend(false).await;
    cluster.synced().await;
    cluster.lab.down().unwrap();
}

#[tokio::test]
async fn resumed_with_galera_not_ready_a_healthy_cluster_is_scaled_to_zero_and_no_suspend_stops_that() {
    let cluster = Cluster::up().await;
    let history = cluster.node(0).await.status().await.unwrap().uuid;
    cluster.suspend(true).await;
    cluster
        .wait("suspended", async || {
            cluster.condition("Ready").await.as_deref() == Some("False")
        })
        .await;
    cluster.declare_not_ready().await;
    assert!(cluster.node(0).await.status().await.unwrap().is_synced());
    cluster.suspend(false).await;
    cluster
        .wait("scaled to 0", async || cluster.replicas().await == 0)
        .await;
    // The recovery is in flight: it looks at nothing but its own steps.
    cluster.suspend(true).await;
    cluster
        .wait("recovered although suspended", async || {
            cluster.condition("GaleraReady").await.as_deref() == Some("True")
        })
        .await;
    assert_eq!(cluster.condition("Ready").await.as_deref(), Some("False"));
    cluster.suspend(false).await;
    cluster.synced().await;
    assert_eq!(
        cluster.node(0).await.status().await.unwrap().uuid,
        history,
        "bootstrapped with its position, so with its history"
    );
    cluster.lab.down().unwrap();
}

#[tokio::test]
async fn probes_kill_a_node_without_quorum_unless_galera_is_said_to_be_not_ready() {
    let cluster = Cluster::up().await;
    let survivor = cluster.node(0).await;
    let proof = cluster
        .lab
        .inflict("galera-quorum-lost", &survivor.name)
        .await
        .unwrap();
    assert!(proof.contains("non-Primary"), "{proof}");
    // The monitor calls the cluster not ready long before liveness has failed often enough.
    cluster
        .wait("not ready", async || {
            cluster.condition("GaleraReady").await.as_deref() == Some("False")
        })
        .await;
    let before = cluster.restarts(&survivor.name).await;
    let alive = cluster.survives(&survivor, Duration::from_secs(40)).await;
    assert!(alive && cluster.restarts(&survivor.name).await == before);
    cluster.lab.heal(&survivor.name).await.unwrap();
    cluster.synced().await;

    // One node of three: the cluster is healthy, so the node is killed.
    let lonely = cluster.node(2).await;
    cluster
        .lab
        .inflict("galera-partition", &lonely.name)
        .await
        .unwrap();
    let before = cluster.restarts(&lonely.name).await;
    cluster
        .wait("killed", async || cluster.restarts(&lonely.name).await > before)
        .await;
    assert_eq!(cluster.condition("GaleraReady").await.as_deref(), Some("True"));
    cluster.lab.heal(&lonely.name).await.unwrap();
    cluster.lab.down().unwrap();
}

#[tokio::test]
async fn a_cluster_without_a_history_is_green_to_probes_and_monitor() {
    let cluster = Cluster::up().await;
    let proof = cluster.lab.inflict("galera-nil-uuid", "maria-0").await.unwrap();
    assert!(proof.contains("00000000-0000"), "{proof}");
    cluster
        .wait("every pod is Ready", async || {
            let set = cluster.set().get(galera::CLUSTER).await.unwrap();
            set.status.unwrap().ready_replicas == Some(3)
        })
        .await;
    let error = cluster.lab.heal("maria-0").await.unwrap_err();
    assert!(format!("{error:#}").contains("needs a repair"), "{error:#}");
    cluster.lab.down().unwrap();
}

impl Cluster {
    /// Whether a server stays the same process for this long.
    async fn survives(&self, node: &Node, long: Duration) -> bool {
        let before = node.server().await.unwrap().init();
        let ended = until::<()>("the server ends", long, async || {
            let now = node.server().await?.init();
            Ok(if now == before {
                Look::not_yet("it lives")
            } else {
                Look::Done(())
            })
        })
        .await;
        ended.is_err()
    }
}
