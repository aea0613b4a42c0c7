//! The vocabulary the operator and the instance manager share: the Cluster resource, its names, and what an
//! instance reports about itself.

mod api;
mod cluster;
mod fencing;
mod lsn;
mod merge;
pub mod names;
mod phase;
mod report;

pub use api::{Scope, now, patch_status, record_event};
pub use cluster::{
    Backup, Bootstrap, Cluster, ClusterSpec, ClusterStatus, Condition, InitDb, InstanceState, ObjectStore,
    Postgres, ReplicationSlots, Storage, Synchronous, Tablespace, TablespaceOwner,
};
pub use fencing::Fences;
pub use lsn::Lsn;
pub use merge::difference;
pub use phase::Phase;
pub use report::{InstanceReport, ReplicationRow, SlotRow};

/// The definitions of the `postgresql.cnpg.io` and related resources, as JSON documents ready for the API server.
#[must_use]
pub fn custom_resource_definitions() -> Vec<&'static str> {
    vec![
        include_str!("../../crds/clusters.json"),
        include_str!("../../crds/backups.json"),
        include_str!("../../crds/scheduledbackups.json"),
    ]
}
