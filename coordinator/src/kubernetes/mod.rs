//! What the coordinator reads of Kubernetes: partial objects, cached by watches.
//!
//! Only the fields that decide something are kept, and unknown fields are tolerated: a custom resource of a newer
//! operator must not blind us. Agents read nothing here; the coordinator tells them what they need.

mod cache;
mod objects;

pub use cache::{Cache, CacheState, Caches};
pub use objects::{
    Cluster, ClusterSpec, ClusterStatus, Container, ContainerStateObject, ContainerStatus, Node,
    PersistentVolume, PersistentVolumeClaim, Pod, PodVolume, VolumeMount, is_true,
};
