//! Writing the status of a pod, when it has changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::record::Board;
use super::status::{View, status};
use super::worker::{Update, start_time};
use crate::kubelet::Node;

/// Publishes one pod's status.
#[derive(Clone)]
pub struct Publisher {
    node: Arc<Node>,
    updates: watch::Receiver<Update>,
    board: Board,
    known: Arc<Mutex<Known>>,
    writing: Arc<tokio::sync::Mutex<()>>,
}

struct Known {
    address: Option<String>,
    initialized: bool,
    failed: Option<(&'static str, &'static str)>,
    start_time: Timestamp,
    conditions: Vec<PodCondition>,
    sent: Option<PodStatus>,
}

const RETRY: Duration = Duration::from_millis(300);

impl Publisher {
    /// A publisher that goes on from the status the API server has.
    pub fn new(node: Arc<Node>, updates: watch::Receiver<Update>, board: Board) -> Self {
        let pod = Arc::clone(&updates.borrow().pod);
        let spec = pod.spec.as_ref();
        let known = Known {
            address: None,
            initialized: spec.is_some_and(|spec| spec.init_containers.is_none()),
            failed: None,
            start_time: start_time(&pod),
            conditions: pod
                .status
                .as_ref()
                .and_then(|status| status.conditions.clone())
                .unwrap_or_default(),
            sent: None,
        };
        Self {
            node,
            updates,
            board,
            known: Arc::new(Mutex::new(known)),
            writing: Arc::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.board.touch();
    }

    /// The pod has an address.
    pub fn address(&self, address: String) {
        self.change(|known| known.address = Some(address));
    }

    /// All init containers have done their work.
    pub fn initialized(&self) {
        self.change(|known| known.initialized = true);
    }

    /// The kubelet has given the pod up.
    pub fn failed(&self, reason: &'static str, message: &'static str) {
        self.change(|known| known.failed = Some((reason, message)));
    }

    /// Publishes each change, for ever.
    pub async fn keep_up(mut self) {
        loop {
            self.publish().await;
            tokio::select! {
                () = self.board.changed() => {}
                changed = self.updates.changed() => if changed.is_err() { return },
            }
        }
    }

    fn current(&self) -> PodStatus {
        let pod = Arc::clone(&self.updates.borrow().pod);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let view = View {
            pod: &pod,
            records: &self.board.all(),
            pod_ip: known.address.clone(),
            host_ip: self.node.options.node_ip.to_string(),
            start_time: known.start_time,
            scheme: self.node.options.runtime.scheme(),
            initialized: known.initialized,
            before: &known.conditions,
            failed: known.failed,
            now: Timestamp::now(),
        };
        let status = status(&view);
        known.conditions = status.conditions.clone().unwrap_or_default();
        status
    }

    /// Brings the API server up to date; gives up only when the pod is gone or the kubelet ends.
    pub async fn publish(&self) {
        let _one = self.writing.lock().await;
        loop {
            let pod = Arc::clone(&self.updates.borrow().pod);
            let status = self.current();
            if self
                .known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .sent
                .as_ref()
                == Some(&status)
            {
                return;
            }
            let pods: Api<Pod> =
                Api::namespaced(self.node.client.clone(), &pod.namespace().unwrap_or_default());
            let patch = Patch::Strategic(patch(&pod, &status));
            match pods
                .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => {
                    self.known.lock().unwrap_or_else(PoisonError::into_inner).sent = Some(status);
                    return;
                }
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
                Err(error) => tracing::warn!(pod = pod.name_any(), %error, "status"),
            }
            let update = self.updates.borrow().clone();
            if update.removed || update.shutdown {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The patch. Conditions are merged by type, so what a condition lost must be named.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    let mut status = json!(status);
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}
