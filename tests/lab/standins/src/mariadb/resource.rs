//! `k8s.mariadb.com/v1alpha1` MariaDB, as far as the stand-ins read it. Unknown fields are left to the API server.

use super::duration::GoDuration;
use super::names;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was asked for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "k8s.mariadb.com",
    version = "v1alpha1",
    kind = "MariaDB",
    plural = "mariadbs",
    namespaced,
    status = "MariaDBStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct MariaDBSpec {
    /// Number of pods.
    pub replicas: u32,
    /// Image of the container `mariadb`; none = the operator's default.
    pub image: Option<String>,
    /// Content of `my.cnf`.
    pub my_cnf: Option<String>,
    /// Where root's password is; none = Secret `<name>-root`, key `password`.
    pub root_password_secret_key_ref: Option<SecretKey>,
    /// The volumes.
    pub storage: Storage,
    /// Galera.
    pub galera: Option<Galera>,
    /// Stops most of the operator, not the monitor.
    pub suspend: bool,
    /// Only thresholds are used.
    pub startup_probe: Option<Threshold>,
    /// Only thresholds are used.
    pub liveness_probe: Option<Threshold>,
    /// Only thresholds are used.
    pub readiness_probe: Option<Threshold>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// `spec.storage`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Size of a data volume.
    pub size: String,
    /// Its class; none = the default class.
    pub storage_class_name: Option<String>,
}

/// What can be set of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Threshold {
    /// Failures in a row.
    pub failure_threshold: Option<u32>,
}

/// `spec.galera`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Galera {
    /// Must be true here: the stand-in knows no other topology.
    pub enabled: bool,
    /// Routing of writes.
    pub primary: Primary,
    /// `mariabackup`, `rsync` or `mysqldump`.
    pub sst: String,
    /// Whether a donor stays ready.
    pub available_when_donor: bool,
    /// The provider.
    pub galera_lib_path: String,
    /// Applier threads.
    pub replica_threads: u32,
    /// Added to `wsrep_provider_options`.
    pub provider_options: BTreeMap<String, String>,
    /// The configuration volume.
    pub config: ConfigVolume,
    /// Automatic recovery.
    pub recovery: Recovery,
}

impl Default for Galera {
    fn default() -> Self {
        Self {
            enabled: false,
            primary: Primary::default(),
            sst: "mariabackup".to_owned(),
            available_when_donor: false,
            galera_lib_path: "/usr/lib/galera/libgalera_smm.so".to_owned(),
            replica_threads: 1,
            provider_options: BTreeMap::new(),
            config: ConfigVolume::default(),
            recovery: Recovery::default(),
        }
    }
}

/// `spec.galera.primary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Primary {
    /// The first primary.
    pub pod_index: u32,
    /// Whether another ready pod takes over.
    pub auto_failover: bool,
}

impl Default for Primary {
    fn default() -> Self {
        Self {
            pod_index: 0,
            auto_failover: true,
        }
    }
}

/// `spec.galera.config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigVolume {
    /// One volume for both: data in `storage/`, configuration in `galera/`.
    pub reuse_storage_volume: bool,
}

/// `spec.galera.recovery`, with the documented defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Recovery {
    /// Whether the monitor looks.
    pub enabled: bool,
    /// Fewer members than this are unhealthy.
    pub min_cluster_size: u32,
    /// Pause between two looks of the monitor.
    pub cluster_monitor_interval: GoDuration,
    /// How long a cluster must be unhealthy.
    pub cluster_healthy_timeout: GoDuration,
    /// After this a choice is thrown away.
    pub cluster_bootstrap_timeout: GoDuration,
    /// How long scaling up may take.
    pub cluster_upscale_timeout: GoDuration,
    /// How long scaling down may take.
    pub cluster_downscale_timeout: GoDuration,
    /// How long a recovery Job may take.
    pub pod_recovery_timeout: GoDuration,
    /// How long a restarted pod may take to be Synced.
    pub pod_sync_timeout: GoDuration,
    /// Skips the choice.
    pub force_cluster_bootstrap_in_pod: Option<String>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            enabled: true,
            min_cluster_size: 1,
            cluster_monitor_interval: GoDuration::seconds(10),
            cluster_healthy_timeout: GoDuration::seconds(30),
            cluster_bootstrap_timeout: GoDuration::seconds(600),
            cluster_upscale_timeout: GoDuration::seconds(300),
            cluster_downscale_timeout: GoDuration::seconds(300),
            pod_recovery_timeout: GoDuration::seconds(300),
            pod_sync_timeout: GoDuration::seconds(300),
            force_cluster_bootstrap_in_pod: None,
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MariaDBStatus {
    /// See the names.
    pub conditions: Vec<Condition>,
    /// Pod that takes writes by routing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary: Option<String>,
    /// Its ordinal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary_pod_index: Option<u32>,
    /// Ready pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// A recovery under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub galera_recovery: Option<RecoveryStatus>,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when.
    pub last_transition_time: Option<String>,
}

/// `status.galeraRecovery`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecoveryStatus {
    /// `grastate.dat` of each pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, SavedState>,
    /// Recovered positions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub recovered: BTreeMap<String, Position>,
    /// The choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// Whether all pods were restarted after the choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_restarted: Option<bool>,
}

/// `grastate.dat` as the agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedState {
    /// Version of the file's format.
    pub version: String,
    /// The cluster's state UUID.
    pub uuid: String,
    /// Position, -1 while running and after a crash.
    pub seqno: i64,
    /// Whether Galera thinks that this node left last.
    pub safe_to_bootstrap: bool,
}

/// A recovered position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The cluster's state UUID.
    pub uuid: String,
    /// Sequence number.
    pub seqno: i64,
}

/// The choice of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bootstrap {
    /// When.
    pub time: Option<String>,
    /// Where.
    pub pod: Option<String>,
}

impl MariaDBStatus {
    /// `Some(true)` when the condition is True, `Some(false)` when it is there and not True.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<bool> {
        let found = self.conditions.iter().find(|condition| condition.kind == kind)?;
        Some(found.status == "True")
    }

    /// Sets a condition; the time only changes with the status.
    pub fn set_condition(&mut self, kind: &str, good: bool, reason: &str, message: &str, now: &str) {
        let status = if good { "True" } else { "False" };
        let index = self.conditions.iter().position(|c| c.kind == kind);
        let index = index.unwrap_or_else(|| {
            self.conditions.push(Condition {
                kind: kind.to_owned(),
                ..Condition::default()
            });
            self.conditions.len() - 1
        });
        let condition = &mut self.conditions[index];
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(now.to_owned());
        }
        reason.clone_into(&mut condition.reason);
        message.clone_into(&mut condition.message);
    }
}

impl MariaDB {
    /// The status, empty when there is none yet.
    #[must_use]
    pub fn observed(&self) -> MariaDBStatus {
        self.status.clone().unwrap_or_default()
    }

    /// Galera's settings.
    #[must_use]
    pub fn galera(&self) -> Galera {
        self.spec.galera.clone().unwrap_or_default()
    }

    /// Where root's password is.
    #[must_use]
    pub fn root_password(&self, name: &str) -> SecretKey {
        self.spec
            .root_password_secret_key_ref
            .clone()
            .unwrap_or_else(|| SecretKey {
                name: format!("{name}-root"),
                key: "password".to_owned(),
            })
    }

    /// Whether the cluster was complete once.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.observed().condition(names::GALERA_CONFIGURED) == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut status = MariaDBStatus::default();
        assert_eq!(status.condition("Ready"), None);
        status.set_condition("Ready", false, "A", "", "1");
        status.set_condition("Ready", false, "B", "", "2");
        assert_eq!(status.conditions[0].last_transition_time.as_deref(), Some("1"));
        status.set_condition("Ready", true, "C", "", "3");
        assert_eq!(status.conditions[0].last_transition_time.as_deref(), Some("3"));
        assert_eq!(status.condition("Ready"), Some(true));
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let spec: MariaDBSpec = serde_json::from_value(serde_json::json!({
            "galera": {"enabled": true, "recovery": {"clusterMonitorInterval": "2s"}}
        }))
        .unwrap();
        let galera = spec.galera.unwrap();
        assert_eq!(galera.sst, "mariabackup");
        assert_eq!(galera.recovery.cluster_monitor_interval, GoDuration::seconds(2));
        assert_eq!(galera.recovery.pod_sync_timeout, GoDuration::seconds(300));
        assert!(galera.recovery.enabled);
    }
}
