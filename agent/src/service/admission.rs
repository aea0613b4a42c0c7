//! How many readings are under way at once. A reading that hangs keeps its place until the kernel lets it go: the bound of
//! each pod leaves places for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::PodUid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Readings at once on this node.
pub const READINGS_MAX: usize = 16;

/// Readings at once of one pod.
const READINGS_PER_POD: usize = 2;

/// Lets readings in.
#[derive(Debug)]
pub(super) struct Admission {
    node: Arc<Semaphore>,
    pods: Mutex<HashMap<PodUid, Arc<Semaphore>>>,
}

/// The place of one reading.
#[derive(Debug)]
pub(super) struct Place {
    _pod: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            node: Arc::new(Semaphore::new(READINGS_MAX)),
            pods: Mutex::default(),
        }
    }

    /// A place for a reading of `pod`, waited for no longer than `within`.
    pub(super) async fn enter(&self, pod: &PodUid, within: Duration) -> Result<Place, Failure> {
        let of_pod = {
            let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            pods.retain(|_, places| {
                Arc::strong_count(places) > 1 || places.available_permits() < READINGS_PER_POD
            });
            pods.entry(pod.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(READINGS_PER_POD)))
                .clone()
        };
        let both = async {
            // The pod's own first: whoever waits for a pod that hangs takes no place from the node.
            let pod = of_pod.acquire_owned().await.ok()?;
            let node = self.node.clone().acquire_owned().await.ok()?;
            Some(Place {
                _pod: pod,
                _node: node,
            })
        };
        let place = tokio::time::timeout(within, both).await.ok().flatten();
        place.ok_or_else(|| {
            let message = format!(
                "pod {pod}: {READINGS_PER_POD} readings of it, or {READINGS_MAX} on this node, are under way"
            );
            Failure::new("agent-busy", FailureKind::Busy, message).retryable()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: usize) -> PodUid {
        PodUid::new(&format!("{number:032x}")).unwrap()
    }

    #[tokio::test]
    async fn a_pod_that_hangs_leaves_places_for_the_others() {
        let admission = Admission::new();
        let brief = Duration::from_millis(5);
        let mut hanging = Vec::new();
        for _ in 0..READINGS_PER_POD {
            hanging.push(admission.enter(&pod(0), brief).await.unwrap());
        }
        assert_eq!(
            admission.enter(&pod(0), brief).await.unwrap_err().kind,
            FailureKind::Busy
        );
        let mut others = Vec::new();
        for number in 1..=READINGS_MAX - READINGS_PER_POD {
            others.push(admission.enter(&pod(number), brief).await.unwrap());
        }
        assert!(admission.enter(&pod(99), brief).await.is_err());
        drop(others);
        assert!(admission.enter(&pod(99), brief).await.is_ok());
        drop(hanging);
        assert!(admission.enter(&pod(0), brief).await.is_ok());
        assert!(
            admission.pods.lock().unwrap().len() <= 2,
            "pods that nobody reads are forgotten"
        );
    }
}
