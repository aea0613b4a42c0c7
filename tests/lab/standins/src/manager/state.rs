//! What the manager's tasks share.

use super::Place;
use crate::cnpg::{Cluster, Scope, patch_status};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::Notify;

/// State shared between the reconcile loop and the servers.
pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) scope: Scope,
    /// Rung after every Cluster event.
    pub(super) changed: Notify,
    /// A fence holds, or was lifted a moment ago: errors are masked and readiness is false.
    pub(super) unavailable: AtomicBool,
    /// Counts fences and unfences, so that a late unmasking does not hit a newer fence.
    pub(super) fence_changes: AtomicU64,
    /// The start-up path is rewinding.
    pub(super) rewinding: AtomicBool,
    /// Differs after every start.
    pub(super) session: String,
    cluster: RwLock<Cluster>,
    api_reached: Mutex<Instant>,
}

impl Shared {
    pub(super) fn new(place: Place, scope: Scope, cluster: Cluster) -> Self {
        let session = format!(
            "{}-{}",
            std::process::id(),
            jiff::Timestamp::now().as_nanosecond()
        );
        Self {
            place,
            scope,
            changed: Notify::new(),
            unavailable: AtomicBool::new(false),
            fence_changes: AtomicU64::new(0),
            rewinding: AtomicBool::new(false),
            session,
            cluster: RwLock::new(cluster),
            api_reached: Mutex::new(Instant::now()),
        }
    }

    /// The Cluster as last seen.
    pub(super) fn cluster(&self) -> Cluster {
        self.cluster
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a newer Cluster.
    pub(super) fn observe(&self, cluster: Cluster) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
        self.reached_api();
        self.changed.notify_one();
    }

    /// Notes that the API server answered.
    pub(super) fn reached_api(&self) {
        *self.api_reached.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When the API server answered last.
    pub(super) fn api_reached_at(&self) -> Instant {
        *self.api_reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes fields of the Cluster's status.
    pub(super) async fn patch_status(&self, status: &Value) -> kube::Result<()> {
        let cluster = patch_status(&self.scope, &self.place.cluster, None, status).await?;
        self.observe(cluster);
        Ok(())
    }

    /// Fenced, or just unfenced.
    pub(super) fn might_be_unavailable(&self) -> bool {
        self.unavailable.load(Ordering::SeqCst)
    }
}
