//! Partial Kubernetes objects: the fields that decide something, everything else ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

/// Implements [`kube::Resource`] for a partial object.
macro_rules! resource {
    ($type:ident, group: $group:literal, version: $version:literal, plural: $plural:literal, scope: $scope:ty) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($type).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Cluster, group: "postgresql.cnpg.io", version: "v1", plural: "clusters", scope: k8s_openapi::NamespaceResourceScope);
resource!(Pod, group: "", version: "v1", plural: "pods", scope: k8s_openapi::NamespaceResourceScope);
resource!(PersistentVolumeClaim, group: "", version: "v1", plural: "persistentvolumeclaims", scope: k8s_openapi::NamespaceResourceScope);
resource!(PersistentVolume, group: "", version: "v1", plural: "persistentvolumes", scope: k8s_openapi::ClusterResourceScope);
resource!(Node, group: "", version: "v1", plural: "nodes", scope: k8s_openapi::ClusterResourceScope);

/// `postgresql.cnpg.io/v1 Cluster`.
#[derive(Debug, Clone, Deserialize)]
pub struct Cluster {
    /// Object metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: ClusterSpec,
    /// What the operator reports.
    #[serde(default)]
    pub status: ClusterStatus,
}

/// `Cluster.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// How many instances.
    pub instances: u32,
    /// A separate volume for WAL.
    pub wal_storage: Option<Value>,
    /// Tablespaces, each with a volume.
    pub tablespaces: Vec<Named>,
    /// Replica cluster settings.
    pub replica: Option<Replica>,
    /// Slots for the replicas of this cluster.
    pub replication_slots: Option<ReplicationSlots>,
    /// In-tree backup settings.
    pub backup: Option<BackupSpec>,
    /// Plugins.
    pub plugins: Vec<Plugin>,
}

/// Anything with a name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: String,
}

/// `Cluster.spec.replica`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Replica {
    /// Old form: this is a replica cluster.
    pub enabled: Option<bool>,
    /// New form: which cluster of the topology is primary.
    pub primary: Option<String>,
    /// New form: the name of this cluster in the topology (default: the object's name).
    #[serde(rename = "self")]
    pub own: Option<String>,
}

/// `Cluster.spec.backup`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    /// In-tree Barman Cloud.
    pub barman_object_store: Option<Value>,
}

/// `Cluster.spec.plugins[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Unset means enabled.
    pub enabled: Option<bool>,
    /// It archives WAL.
    #[serde(rename = "isWALArchiver")]
    pub is_wal_archiver: bool,
}

/// `Cluster.spec.replicationSlots`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationSlots {
    /// Slots for replicas.
    pub high_availability: Option<Enabled>,
}

/// Something that can be switched off.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Unset means the operator's default.
    pub enabled: Option<bool>,
}

/// `Cluster.status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// Phase, verbatim.
    pub phase: Option<String>,
    /// Its reason.
    pub phase_reason: Option<String>,
    /// Current primary.
    pub current_primary: Option<String>,
    /// Target primary, or `pending`.
    pub target_primary: Option<String>,
    /// Timeline that the primary reported.
    #[serde(rename = "timelineID")]
    pub timeline_id: Option<u32>,
    /// System identifier.
    #[serde(rename = "systemID")]
    pub system_id: Option<String>,
    /// Instances by name.
    pub instance_names: Vec<String>,
    /// Ready instances.
    pub ready_instances: u32,
    /// Replica-cluster switch.
    pub switch_replica_cluster_status: Option<SwitchReplicaCluster>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// `Cluster.status.switchReplicaClusterStatus`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SwitchReplicaCluster {
    /// It is under way.
    pub in_progress: bool,
}

/// A condition of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// For people.
    pub message: Option<String>,
    /// For programs.
    pub reason: Option<String>,
}

/// Core `Pod`.
#[derive(Debug, Clone, Deserialize)]
pub struct Pod {
    /// Object metadata.
    pub metadata: ObjectMeta,
    /// What runs.
    #[serde(default)]
    pub spec: PodSpec,
    /// How it goes.
    #[serde(default)]
    pub status: PodStatus,
}

/// `Pod.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is bound to.
    pub node_name: Option<String>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Volumes.
    pub volumes: Vec<PodVolume>,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it mounts.
    pub volume_mounts: Vec<VolumeMount>,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// The pod's volume.
    pub name: String,
    /// Where the container sees it.
    pub mount_path: String,
    /// Below the volume.
    pub sub_path: Option<String>,
}

/// A volume of a pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    /// Its name in the pod.
    pub name: String,
    /// A PVC.
    pub persistent_volume_claim: Option<ClaimSource>,
    /// An emptyDir.
    pub empty_dir: Option<Value>,
}

/// `persistentVolumeClaim` of a pod's volume.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    /// The PVC's name.
    pub claim_name: String,
}

/// `Pod.status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Running`, `Pending` ...
    pub phase: Option<String>,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatus>,
}

/// `Pod.status.containerStatuses[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The container's name.
    pub name: String,
    /// Now.
    pub state: ContainerStateObject,
    /// Before the last restart.
    pub last_state: ContainerStateObject,
    /// How often it was restarted.
    pub restart_count: u32,
    /// Passes its readiness probe.
    pub ready: bool,
    /// `<runtime>://<id>`.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

/// State of a container: at most one is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStateObject {
    /// Running.
    pub running: Option<Running>,
    /// Waiting.
    pub waiting: Option<Waiting>,
    /// Ended.
    pub terminated: Option<Terminated>,
}

/// A running container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Since.
    pub started_at: Option<Time>,
}

/// A waiting container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Why.
    pub reason: Option<String>,
}

/// An ended container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// How.
    pub exit_code: i32,
    /// From.
    pub started_at: Option<Time>,
    /// To.
    pub finished_at: Option<Time>,
}

/// Core `PersistentVolumeClaim`.
#[derive(Debug, Clone, Deserialize)]
pub struct PersistentVolumeClaim {
    /// Object metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: ClaimSpec,
    /// How it goes.
    #[serde(default)]
    pub status: ClaimStatus,
}

/// `PersistentVolumeClaim.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// The PV it is bound to.
    pub volume_name: Option<String>,
    /// Requests.
    pub resources: Resources,
}

/// `resources` of a claim.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Quantities by resource.
    pub requests: BTreeMap<String, String>,
}

/// `PersistentVolumeClaim.status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// `Bound`, `Pending`, `Lost`.
    pub phase: Option<String>,
}

/// Core `PersistentVolume`.
#[derive(Debug, Clone, Deserialize)]
pub struct PersistentVolume {
    /// Object metadata.
    pub metadata: ObjectMeta,
    /// Where the data is.
    #[serde(default)]
    pub spec: VolumeSpec,
}

/// `PersistentVolume.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    /// A CSI volume.
    pub csi: Option<Value>,
    /// A local volume.
    pub local: Option<PathSource>,
    /// A directory of the host.
    pub host_path: Option<PathSource>,
    /// NFS.
    pub nfs: Option<Value>,
    /// Which nodes can reach it.
    pub node_affinity: Option<NodeAffinity>,
}

/// A volume that is a path.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PathSource {
    /// On the host.
    pub path: String,
}

/// `PersistentVolume.spec.nodeAffinity`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    /// Required terms.
    pub required: NodeSelector,
}

/// Alternatives of node terms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The alternatives.
    pub node_selector_terms: Vec<NodeTerm>,
}

/// One alternative.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerm {
    /// All must hold.
    pub match_expressions: Vec<NodeExpression>,
}

/// One condition on a node's labels.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeExpression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn` ...
    pub operator: String,
    /// The values.
    pub values: Vec<String>,
}

impl PersistentVolume {
    /// The one node that this volume is tied to, where it is tied to exactly one by `kubernetes.io/hostname`.
    #[must_use]
    pub fn only_node(&self) -> Option<&str> {
        let [term] = self
            .spec
            .node_affinity
            .as_ref()?
            .required
            .node_selector_terms
            .as_slice()
        else {
            return None;
        };
        let by_host = |e: &&NodeExpression| e.key == "kubernetes.io/hostname" && e.operator == "In";
        match term.match_expressions.iter().find(by_host)?.values.as_slice() {
            [node] => Some(node),
            _ => None,
        }
    }
}

/// Core `Node`.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Object metadata.
    pub metadata: ObjectMeta,
    /// How it goes.
    #[serde(default)]
    pub status: NodeStatus,
}

/// `Node.status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Whether `conditions` holds `kind` with status `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.kind == kind && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_missing_parts_are_tolerated() {
        let cluster: Cluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "a", "future": 1},
            "spec": {"instances": 3, "somethingNew": {"x": []}}, "status": {"phase": "Cluster in healthy state", "newer": true}
        }))
        .unwrap();
        assert_eq!(cluster.spec.instances, 3);
        assert_eq!(cluster.status.phase.as_deref(), Some("Cluster in healthy state"));
        let bare: Cluster = serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(bare.status.current_primary, None);
    }
}
