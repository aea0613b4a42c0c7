//! The lab's MariaDB Galera cluster: a `MariaDB` of mariadb-operator, carried out by the stand-ins of the operator and of
//! its data plane.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cnpg::NAMESPACE;
use crate::container::Container;
use crate::options::UpOptions;
use crate::wait::{Look, until};
use crate::{image, kubernetes};

/// Name of the MariaDB resource; its pods are `maria-0`, `maria-1`, …
pub const CLUSTER: &str = "maria";
/// The definition that the operator's stand-in installs.
const DEFINITION: &str = "mariadbs.k8s.mariadb.com";
/// How long a new cluster may take per node: the first joins one after the other.
const DEADLINE_PER_NODE: Duration = Duration::from_secs(90);
/// uid and gid of the server in its image.
const MYSQL_UID: &str = "999";
/// The data directory in the containers of a pod.
pub const DATA: &str = "/var/lib/mysql";
/// The volume with `0-galera.cnf` and, while a bootstrap is asked for, `1-bootstrap.cnf`.
pub const CONFIG: &str = "/etc/mysql/mariadb.conf.d";

/// The state UUID of nobody's history.
pub const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// The operator's probes, quicker than its defaults (20 s, then every 10 s). Thresholds are in the resource.
pub(crate) const OPERATOR_FLAGS: [&str; 6] = [
    "--probe-initial-delay-seconds=1",
    "--probe-period-seconds=2",
    "--probe-budget-ms=4000",
    "--poll-interval-ms=500",
    "--sync-check-ms=5000",
    "--agent-timeout-ms=15000",
];

/// An API for MariaDB resources.
#[must_use]
pub fn clusters(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("k8s.mariadb.com", "v1alpha1", "MariaDB");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "mariadbs");
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

/// Creates the cluster.
pub async fn create(client: &Client, options: &UpOptions) -> anyhow::Result<()> {
    kubernetes::established(client, DEFINITION, Duration::from_secs(30)).await?;
    kubernetes::apply(client, manifest(options))
        .await
        .context("create the MariaDB Galera cluster")?;
    Ok(())
}

fn manifest(options: &UpOptions) -> Value {
    json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB",
        "metadata": { "name": CLUSTER, "namespace": NAMESPACE },
        "spec": {
            "image": image::MARIADB,
            "replicas": options.galera,
            "rootPasswordSecretKeyRef": { "name": format!("{CLUSTER}-root"), "key": "password", "generate": true },
            "storage": { "size": "1Gi", "storageClassName": options.storage.class() },
            // Small, because every lab pays for it in time and disk.
            "myCnf": "[mariadb]\ninnodb_buffer_pool_size=64M\ninnodb_log_file_size=32M\nperformance_schema=OFF\n",
            "galera": {
                "enabled": true,
                "sst": options.sst.to_string(),
                "providerOptions": { "gcache.size": "32M" },
                // The monitor is quicker than by default (10 s and 30 s).
                "recovery": {
                    "enabled": true, "clusterMonitorInterval": "2s", "clusterHealthyTimeout": "10s",
                    "clusterBootstrapTimeout": "10m", "clusterUpscaleTimeout": "5m", "clusterDownscaleTimeout": "5m",
                    "podRecoveryTimeout": "5m", "podSyncTimeout": "5m",
                },
            },
            // As long as by default: a joiner has two minutes, a node without quorum 30 seconds.
            "startupProbe": { "failureThreshold": 60 },
            "livenessProbe": { "failureThreshold": 15 },
            "readinessProbe": { "failureThreshold": 2 },
        }
    })
}

/// Waits until the operator calls the cluster ready, with every node Synced in one primary component of one history.
pub async fn healthy(client: &Client, nodes: u8) -> anyhow::Result<()> {
    let within = DEADLINE_PER_NODE * u32::from(nodes.max(1));
    until(format!("cluster {CLUSTER} healthy"), within, async || {
        let cluster = clusters(client).get(CLUSTER).await?;
        let ready = condition(&cluster, "Ready");
        let galera = condition(&cluster, "GaleraReady");
        if ready.as_deref() != Some("True") || galera.as_deref() != Some("True") {
            return Ok(Look::NotYet(format!("Ready {ready:?}, GaleraReady {galera:?}")));
        }
        let mut histories = Vec::new();
        for ordinal in 0..nodes {
            let status = Node::of(client, &pod(ordinal)).await?.status().await?;
            if !status.is_synced() || status.size != u32::from(nodes) || !status.has_history() {
                return Ok(Look::NotYet(format!("{}: {status:?}", pod(ordinal))));
            }
            histories.push(status.uuid);
        }
        histories.dedup();
        Ok(if histories.len() == 1 {
            Look::Done(())
        } else {
            Look::NotYet(format!("{} histories", histories.len()))
        })
    })
    .await?;
    Ok(())
}

/// Name of the pod with this ordinal.
#[must_use]
pub fn pod(ordinal: u8) -> String {
    format!("{CLUSTER}-{ordinal}")
}

/// Whether a pod of this name belongs to the cluster.
#[must_use]
pub fn owns(pod: &str) -> bool {
    pod.strip_prefix(CLUSTER)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|ordinal| ordinal.parse::<u8>().is_ok())
}

/// Names of all pods that the resource asks for.
pub async fn pods(client: &Client) -> anyhow::Result<Vec<String>> {
    let cluster = clusters(client).get(CLUSTER).await?;
    let replicas = cluster.data["spec"]["replicas"].as_u64().unwrap_or(0);
    (0..replicas).map(|n| Ok(pod(u8::try_from(n)?))).collect()
}

/// `status` of a condition of the resource.
#[must_use]
pub fn condition(cluster: &DynamicObject, kind: &str) -> Option<String> {
    let conditions = cluster.data["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    found["status"].as_str().map(str::to_owned)
}

/// Sets or clears `spec.suspend`.
pub async fn suspend(client: &Client, suspended: bool) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "suspend": suspended } });
    clusters(client)
        .patch(CLUSTER, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("set suspend to {suspended}"))?;
    Ok(())
}

/// root's password.
pub async fn root_password(client: &Client) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets.get(&format!("{CLUSTER}-root")).await?;
    let password = secret.data.unwrap_or_default().remove("password");
    Ok(String::from_utf8(password.context("no password")?.0)?)
}

/// What a server says about its place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `wsrep_cluster_status`: `Primary`, `non-Primary` or `Disconnected`.
    pub component: String,
    /// `wsrep_local_state_comment`.
    pub state: String,
    /// `wsrep_cluster_size`.
    pub size: u32,
    /// `wsrep_cluster_state_uuid`.
    pub uuid: String,
    /// `wsrep_last_committed`.
    pub committed: i64,
}

impl Status {
    /// Whether the node takes part in a primary component with all data.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.component == "Primary" && self.state == "Synced"
    }

    /// Whether the component knows which history it is of. One that does not looks green in everything else.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.uuid != NIL
    }

    /// Reads the rows of `SHOW GLOBAL STATUS`.
    fn parse(rows: &str) -> anyhow::Result<Self> {
        let value = |name: &str| {
            rows.lines()
                .filter_map(|row| row.split_once('\t'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .with_context(|| format!("no {name}"))
        };
        Ok(Self {
            component: value("wsrep_cluster_status")?,
            state: value("wsrep_local_state_comment")?,
            size: value("wsrep_cluster_size")?.parse()?,
            uuid: value("wsrep_cluster_state_uuid")?,
            committed: value("wsrep_last_committed")?.parse()?,
        })
    }
}

/// A pod of the cluster, through its containers.
#[derive(Clone)]
pub struct Node {
    /// Name of the pod.
    pub name: String,
    client: Client,
    password: String,
}

impl Node {
    /// The pod called `name`.
    pub async fn of(client: &Client, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            client: client.clone(),
            password: root_password(client).await?,
        })
    }

    /// The running container with the server.
    pub async fn server(&self) -> anyhow::Result<Container> {
        Container::named(&self.client, &self.name, "mariadb", MYSQL_UID).await
    }

    /// The running container beside it, which has the same volumes and lives on when the server dies.
    pub async fn sidecar(&self) -> anyhow::Result<Container> {
        Container::named(&self.client, &self.name, "agent", MYSQL_UID).await
    }

    /// Runs SQL as root over the server's socket. Rows as lines, columns separated by tabs. Password and statements travel
    /// through standard input.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        let script = "read -r MYSQL_PWD; export MYSQL_PWD; \
                      exec timeout 20 mariadb --no-defaults --protocol=socket --socket=/run/mysqld/mysqld.sock -uroot -N -B";
        let input = format!("{}\n{sql}\n", self.password);
        let output = self.server().await?.run("sh", &["-c", script], &input).await?;
        Ok(output.trim_end().to_owned())
    }

    /// What the server says of itself.
    pub async fn status(&self) -> anyhow::Result<Status> {
        Status::parse(&self.sql("SHOW GLOBAL STATUS LIKE 'wsrep_%';").await?)
    }

    /// The content of a file in the data directory; nothing when there is none.
    pub async fn file(&self, name: &str) -> anyhow::Result<Option<String>> {
        let script = r#"if [ -e "$0" ]; then echo yes; cat "$0"; else echo no; fi"#;
        let path = format!("{DATA}/{name}");
        let output = self
            .sidecar()
            .await?
            .run("sh", &["-c", script, &path], "")
            .await?;
        Ok(output.strip_prefix("yes\n").map(str::to_owned))
    }

    /// Whether a path exists in the pod's volumes.
    pub async fn has(&self, path: &str) -> anyhow::Result<bool> {
        let script = r#"if [ -e "$0" ]; then echo yes; else echo no; fi"#;
        let output = self.sidecar().await?.run("sh", &["-c", script, path], "").await?;
        Ok(output.trim_end() == "yes")
    }

    /// Runs a shell script beside the server, as its user, with the same volumes.
    pub async fn beside(&self, script: &str) -> anyhow::Result<String> {
        self.sidecar().await?.run("sh", &["-ec", script], "").await
    }

    /// Whether the server's container runs.
    pub async fn runs(&self) -> bool {
        self.server().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_rows() {
        let rows = "wsrep_cluster_size\t3\nwsrep_cluster_state_uuid\tbc86\nwsrep_cluster_status\tPrimary\n\
                    wsrep_last_committed\t-1\nwsrep_local_state_comment\tSynced\n";
        let status = Status::parse(rows).unwrap();
        assert!(status.is_synced());
        assert_eq!((status.size, status.committed), (3, -1));
        assert!(Status::parse("wsrep_cluster_size\t3\n").is_err());
    }

    #[test]
    fn pods_of_the_cluster() {
        assert!(owns("maria-0") && owns(&pod(2)));
        assert!(!owns("pg-1") && !owns("maria") && !owns("maria-x") && !owns("marianne-1"));
    }

    #[test]
    fn the_manifest_carries_the_options() {
        let mut options = UpOptions::NOTHING;
        options.galera = 3;
        let manifest = manifest(&options);
        assert_eq!(manifest["spec"]["replicas"], 3);
        assert_eq!(manifest["spec"]["galera"]["sst"], "rsync");
        assert_eq!(manifest["spec"]["storage"]["storageClassName"], "lab-csi");
    }
}
