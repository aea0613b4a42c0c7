//! The lab's PostgreSQL cluster: a `Cluster` of CloudNativePG, carried out by the stand-in of its operator.

use std::time::Duration;

use anyhow::Context as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::options::UpOptions;
use crate::wait::{Look, until};
use crate::{image, kubernetes};

/// Namespace of the databases.
pub const NAMESPACE: &str = "db";
/// Name of the PostgreSQL cluster; its instances are `pg-1`, `pg-2`, …
pub const CLUSTER: &str = "pg";
/// The definition that the operator's stand-in installs.
const DEFINITION: &str = "clusters.postgresql.cnpg.io";
/// How long a new cluster may take per instance.
const DEADLINE_PER_INSTANCE: Duration = Duration::from_secs(60);
/// Phase of a cluster in which the operator has nothing to do.
pub const HEALTHY_PHASE: &str = "Cluster in healthy state";

/// An API for CloudNativePG clusters.
#[must_use]
pub fn clusters(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("postgresql.cnpg.io", "v1", "Cluster");
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&gvk))
}

/// Creates the cluster.
pub async fn create(client: &Client, options: &UpOptions) -> anyhow::Result<()> {
    kubernetes::established(client, DEFINITION, Duration::from_secs(30)).await?;
    kubernetes::apply(client, manifest(options))
        .await
        .context("create the PostgreSQL cluster")?;
    Ok(())
}

fn manifest(options: &UpOptions) -> Value {
    let volume = |size: &str| json!({ "size": size, "storageClass": options.storage.class() });
    let mut cluster = json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
        "metadata": { "name": CLUSTER, "namespace": NAMESPACE },
        "spec": {
            "instances": options.pg,
            "imageName": image::POSTGRES,
            "storage": volume("1Gi"),
            "bootstrap": { "initdb": { "database": "app", "owner": "app" } },
            "postgresql": { "parameters": {
                // Small, because every lab pays for it in time and disk.
                "shared_buffers": "32MB", "max_wal_size": "128MB", "min_wal_size": "32MB",
                // Without an archive a former primary can be rewound, and commits past a fork be counted, only from WAL that is kept.
                "wal_keep_size": "64MB" } },
            // The defaults of 180 s and 15 s would be most of every failover.
            "smartShutdownTimeout": 5,
            "primaryLease": { "leaseDurationSeconds": 3, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1 },
        }
    });
    if options.wal_volume {
        cluster["spec"]["walStorage"] = volume("512Mi");
    }
    cluster
}

/// Waits until every instance of the cluster is ready and the operator has nothing left to do.
pub async fn healthy(client: &Client, instances: u8) -> anyhow::Result<()> {
    settled(
        client,
        instances,
        DEADLINE_PER_INSTANCE * u32::from(instances.max(1)),
    )
    .await
}

/// As [`healthy`], within a time of one's own.
pub async fn settled(client: &Client, instances: u8, within: Duration) -> anyhow::Result<()> {
    let clusters = clusters(client);
    until(format!("cluster {CLUSTER} healthy"), within, async || {
        let cluster = clusters.get(CLUSTER).await?;
        let status = &cluster.data["status"];
        let ready = status["readyInstances"].as_u64().unwrap_or(0);
        let phase = status["phase"].as_str().unwrap_or("no phase yet");
        Ok(if ready == u64::from(instances) && phase == HEALTHY_PHASE {
            Look::Done(())
        } else {
            Look::NotYet(format!("{ready} of {instances} ready, phase {phase:?}"))
        })
    })
    .await?;
    Ok(())
}

/// The instance that is the primary now (`status.currentPrimary`).
pub async fn primary(client: &Client) -> anyhow::Result<String> {
    let cluster = clusters(client).get(CLUSTER).await?;
    let name = cluster.data["status"]["currentPrimary"].as_str();
    name.map(str::to_owned)
        .with_context(|| format!("cluster {} has no primary", cluster.name_any()))
}
