//! `postgresql.cnpg.io/v1` Cluster, as far as the stand-ins read it. Unknown fields are left to the API server.

use super::names;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was asked for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "postgresql.cnpg.io",
    version = "v1",
    kind = "Cluster",
    namespaced,
    status = "ClusterStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// Number of instances.
    pub instances: u32,
    /// Image of the container `postgres`; none = the lab's.
    pub image_name: Option<String>,
    /// Server configuration.
    pub postgresql: Postgres,
    /// High-availability slots.
    pub replication_slots: ReplicationSlots,
    /// How the first instance comes to be.
    pub bootstrap: Option<Bootstrap>,
    /// Volume of PGDATA.
    pub storage: Storage,
    /// Volume of the WAL, if apart.
    pub wal_storage: Option<Storage>,
    /// Declarative tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// In-tree backup; in the lab only a directory as the destination.
    pub backup: Option<Backup>,
    /// Seconds an unhealthy primary is tolerated.
    pub failover_delay: u64,
    /// Seconds a server may take to start (3600).
    pub start_delay: Option<u64>,
    /// Seconds of termination grace (1800).
    pub stop_delay: Option<u64>,
    /// Seconds of smart shutdown before the fast one (180).
    pub smart_shutdown_timeout: Option<u64>,
    /// Seconds of fast shutdown before the immediate one (3600).
    pub switchover_delay: Option<u64>,
    /// Timing of the primary's Lease.
    pub primary_lease: PrimaryLease,
    /// Resources of the container.
    pub resources: Option<serde_json::Value>,
}

/// Server configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Postgres {
    /// Parameters of `postgresql.conf`.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` between the generated ones.
    #[serde(rename = "pg_hba")]
    pub pg_hba: Vec<String>,
    /// Lines added to `pg_ident.conf`.
    #[serde(rename = "pg_ident")]
    pub pg_ident: Vec<String>,
    /// Whether `ALTER SYSTEM` may write its file.
    pub enable_alter_system: bool,
    /// Synchronous replication.
    pub synchronous: Option<Synchronous>,
    /// Libraries to preload.
    #[serde(rename = "shared_preload_libraries")]
    pub shared_preload_libraries: Vec<String>,
}

/// `spec.postgresql.synchronous`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Synchronous {
    /// `any` or `first`.
    pub method: String,
    /// Number of standbys to wait for.
    pub number: u32,
    /// `required`, or `preferred`: without enough Ready standbys writes go on.
    pub data_durability: Option<String>,
}

/// Timing of the primary's Lease, in seconds (CNPG 1.30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrimaryLease {
    /// How long an unchanged record keeps others out.
    pub lease_duration_seconds: u32,
    /// Pause between two renewals.
    pub retry_period_seconds: u32,
}

impl Default for PrimaryLease {
    fn default() -> Self {
        Self {
            lease_duration_seconds: 15,
            retry_period_seconds: 2,
        }
    }
}

/// `spec.replicationSlots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationSlots {
    /// One slot for every other instance.
    pub high_availability: HighAvailability,
}

/// `spec.replicationSlots.highAvailability`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HighAvailability {
    /// On by default.
    pub enabled: bool,
    /// `_cnpg_` by default.
    pub slot_prefix: String,
}

impl Default for HighAvailability {
    fn default() -> Self {
        Self {
            enabled: true,
            slot_prefix: names::SLOT_PREFIX.to_owned(),
        }
    }
}

/// `spec.bootstrap`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bootstrap {
    /// A new, empty database cluster.
    pub initdb: Option<InitDb>,
}

/// `spec.bootstrap.initdb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitDb {
    /// Application database.
    pub database: String,
    /// Its owner.
    pub owner: String,
    /// Page checksums (`initdb --data-checksums`).
    pub data_checksums: bool,
    /// Megabytes of a WAL segment.
    pub wal_segment_size: Option<u32>,
    /// Statements run as the superuser in `postgres`.
    #[serde(rename = "postInitSQL")]
    pub post_init_sql: Vec<String>,
    /// Statements run as the superuser in the application database.
    #[serde(rename = "postInitApplicationSQL")]
    pub post_init_application_sql: Vec<String>,
}

impl Default for InitDb {
    fn default() -> Self {
        Self {
            database: "app".to_owned(),
            owner: "app".to_owned(),
            data_checksums: false,
            wal_segment_size: None,
            post_init_sql: Vec::new(),
            post_init_application_sql: Vec::new(),
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Kubernetes quantity.
    pub size: String,
    /// Storage class; none = the default one.
    pub storage_class: Option<String>,
    /// Further fields of the claim's spec, merged over ours.
    pub pvc_template: Option<serde_json::Value>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: "1Gi".to_owned(),
            storage_class: None,
            pvc_template: None,
        }
    }
}

/// `spec.tablespaces[]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tablespace {
    /// Its name in SQL.
    pub name: String,
    /// Its volume.
    pub storage: Storage,
    /// Its owner.
    pub owner: TablespaceOwner,
}

/// `spec.tablespaces[].owner`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TablespaceOwner {
    /// Role; none = `postgres`.
    pub name: Option<String>,
}

/// `spec.backup`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backup {
    /// Where WAL goes.
    pub barman_object_store: Option<ObjectStore>,
}

/// `spec.backup.barmanObjectStore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStore {
    /// In the lab: `file:///absolute/directory`.
    pub destination_path: String,
    /// Name below the destination; none = the cluster's.
    pub server_name: Option<String>,
}

impl ObjectStore {
    /// The directory behind a `file://` destination.
    #[must_use]
    pub fn directory(&self) -> Option<&str> {
        self.destination_path
            .strip_prefix("file://")
            .filter(|path| path.starts_with('/'))
    }
}

/// What was observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// Number of PVC groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Number of Ready pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_instances: Option<u32>,
    /// Names of the PVC groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instance_names: Vec<String>,
    /// Instances by `healthy`, `replicating`, `failed`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances_status: BTreeMap<String, Vec<String>>,
    /// What each instance said of itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances_reported_state: BTreeMap<String, InstanceState>,
    /// Instance that acts as the primary; written by its manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary: Option<String>,
    /// Instance that ought to; `pending` while a failover waits for WAL receivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary: Option<String>,
    /// When `currentPrimary` was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary_timestamp: Option<String>,
    /// When `targetPrimary` was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary_timestamp: Option<String>,
    /// Since when the primary is seen failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary_failing_since_timestamp: Option<String>,
    /// Timeline the primary reports.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// System identifier all instances agree on.
    #[serde(rename = "systemID", skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// One of [`super::Phase`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Detail of the phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_reason: Option<String>,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Claims used by a pod.
    #[serde(rename = "healthyPVC", skip_serializing_if = "Vec::is_empty")]
    pub healthy_pvc: Vec<String>,
    /// Claims without pod.
    #[serde(rename = "danglingPVC", skip_serializing_if = "Vec::is_empty")]
    pub dangling_pvc: Vec<String>,
    /// Claims of an incomplete group.
    #[serde(rename = "unusablePVC", skip_serializing_if = "Vec::is_empty")]
    pub unusable_pvc: Vec<String>,
    /// Claims whose bootstrap runs.
    #[serde(rename = "initializingPVC", skip_serializing_if = "Vec::is_empty")]
    pub initializing_pvc: Vec<String>,
    /// Number of claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_count: Option<u32>,
    /// Image in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Service of the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_service: Option<String>,
    /// Service of the replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_service: Option<String>,
}

/// `status.instancesReportedState.<instance>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceState {
    /// From the signal file.
    #[serde(rename = "isPrimary")]
    pub is_primary: bool,
    /// Timeline (0 while fenced).
    #[serde(rename = "timeLineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// Address of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// A condition of the Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// For example `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When the status changed.
    pub last_transition_time: String,
}

impl ClusterStatus {
    /// Sets one condition; the time moves only with the status.
    pub fn set_condition(&mut self, kind: &str, status: bool, reason: &str, message: &str, now: &str) {
        let status = if status { "True" } else { "False" };
        let position = self
            .conditions
            .iter()
            .position(|condition| condition.kind == kind);
        let since = position
            .map(|index| &self.conditions[index])
            .filter(|condition| condition.status == status)
            .map_or_else(
                || now.to_owned(),
                |condition| condition.last_transition_time.clone(),
            );
        let condition = Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
        };
        match position {
            Some(index) => self.conditions[index] = condition,
            None => self.conditions.push(condition),
        }
    }
}

impl Cluster {
    /// The application database and its owner.
    #[must_use]
    pub fn initdb(&self) -> InitDb {
        self.spec
            .bootstrap
            .as_ref()
            .and_then(|bootstrap| bootstrap.initdb.clone())
            .unwrap_or_default()
    }

    /// Value of an annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The status, empty when there is none yet.
    #[must_use]
    pub fn observed(&self) -> ClusterStatus {
        self.status.clone().unwrap_or_default()
    }

    /// `status.currentPrimary`, none when empty.
    #[must_use]
    pub fn current_primary(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .current_primary
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// `status.targetPrimary`, none when empty.
    #[must_use]
    pub fn target_primary(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .target_primary
            .as_deref()
            .filter(|name| !name.is_empty())
    }
}
