//! [`Cache`]: the objects of one kind, kept current by a watch.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use futures::StreamExt;
use hasteward_proto::primitive::UnixMillis;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::{Cluster, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use crate::clock::Clock;

/// Namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String);

/// The objects of one kind.
pub struct Cache<K> {
    objects: Arc<RwLock<BTreeMap<Key, Arc<K>>>>,
    state: watch::Receiver<CacheState>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            state: self.state.clone(),
        }
    }
}

/// How current a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheState {
    /// The first list was complete: what is not here does not exist (as of `confirmed_at`).
    pub synced: bool,
    /// When the API server last said anything about this kind.
    pub confirmed_at: UnixMillis,
    /// The API server does not serve this kind (the operator is not installed).
    pub not_served: bool,
    /// Why the watch is interrupted, while it is.
    pub interrupted: Option<String>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    /// Starts watching `api` until `shutdown`.
    fn start(
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Self {
        let objects = Arc::new(RwLock::new(BTreeMap::new()));
        let initial = CacheState {
            synced: false,
            confirmed_at: UnixMillis(0),
            not_served: false,
            interrupted: None,
        };
        let (sender, state) = watch::channel(initial);
        let cache = Self {
            objects: Arc::clone(&objects),
            state,
        };
        tokio::spawn(async move {
            let mut writer = Writer {
                objects,
                state: sender,
                clock,
                incoming: BTreeMap::new(),
            };
            let mut events = watcher(api, config).default_backoff().boxed();
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    event = events.next() => match event {
                        Some(Ok(event)) => writer.apply(event),
                        Some(Err(error)) => writer.interrupted(&error),
                        None => break,
                    },
                }
            }
        });
        cache
    }
}

impl<K> Cache<K> {
    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every object that `wanted` accepts, by namespace and name.
    pub fn list(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read()
            .values()
            .filter(|object| wanted(object))
            .cloned()
            .collect()
    }

    /// How current it is.
    pub fn state(&self) -> CacheState {
        self.state.borrow().clone()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut state = self.state.clone();
        // The sender lives as long as the watch task; a closed channel means shutdown.
        let _ = state.wait_for(|s| s.synced).await;
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Writer<K> {
    objects: Arc<RwLock<BTreeMap<Key, Arc<K>>>>,
    state: watch::Sender<CacheState>,
    clock: Arc<dyn Clock>,
    /// What a re-list has brought so far; replaces `objects` when it is complete.
    incoming: BTreeMap<Key, Arc<K>>,
}

impl<K> Writer<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    fn apply(&mut self, event: watcher::Event<DeserializeGuard<K>>) {
        let mut synced = self.state.borrow().synced;
        match event {
            watcher::Event::Init => self.incoming.clear(),
            watcher::Event::InitApply(object) => {
                if let Some((key, object)) = readable(object) {
                    self.incoming.insert(key, object);
                }
            }
            watcher::Event::InitDone => {
                *self.write() = std::mem::take(&mut self.incoming);
                synced = true;
            }
            watcher::Event::Apply(object) => {
                if let Some((key, object)) = readable(object) {
                    self.write().insert(key, object);
                }
            }
            watcher::Event::Delete(object) => {
                let key = key(object.meta());
                self.write().remove(&key);
            }
        }
        let confirmed_at = self.clock.now();
        self.state.send_replace(CacheState {
            synced,
            confirmed_at,
            not_served: false,
            interrupted: None,
        });
    }

    fn interrupted(&self, error: &watcher::Error) {
        // 404 on the list of a kind means that its CRD is not installed: an empty set, not an unknown one.
        let not_served = matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404);
        let confirmed_at = self.clock.now();
        self.state.send_modify(|state| {
            if not_served {
                self.write().clear();
                *state = CacheState {
                    synced: true,
                    confirmed_at,
                    not_served: true,
                    interrupted: None,
                };
            } else {
                state.interrupted = Some(error.to_string());
            }
        });
        if !not_served {
            tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted");
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.objects
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn key(meta: &kube::api::ObjectMeta) -> Key {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// One unreadable object must not end the watch of its kind.
fn readable<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<(Key, Arc<K>)> {
    let key = key(object.meta());
    match object.0 {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Some((key, Arc::new(object)))
        }
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), namespace = key.0, name = key.1, %error, "object cannot be read");
            None
        }
    }
}

/// Every cache that triage reads.
#[derive(Clone)]
pub struct Caches {
    /// CNPG clusters.
    pub clusters: Cache<Cluster>,
    /// Pods of CNPG clusters.
    pub pods: Cache<Pod>,
    /// PVCs of CNPG clusters.
    pub claims: Cache<PersistentVolumeClaim>,
    /// All PVs.
    pub volumes: Cache<PersistentVolume>,
    /// All nodes.
    pub nodes: Cache<Node>,
    /// Our own agents' pods.
    pub agent_pods: Cache<Pod>,
}

impl Caches {
    /// Starts every watch. `own_namespace` is where the agents run.
    pub fn start(
        client: &Client,
        own_namespace: &str,
        clock: &Arc<dyn Clock>,
        shutdown: &CancellationToken,
    ) -> Self {
        let of_cluster = || watcher::Config::default().labels("cnpg.io/cluster");
        let agents = watcher::Config::default()
            .labels("app.kubernetes.io/name=hasteward,app.kubernetes.io/component=agent");
        let all = watcher::Config::default;
        Self {
            clusters: Cache::start(
                Api::all(client.clone()),
                all(),
                Arc::clone(clock),
                shutdown.clone(),
            ),
            pods: Cache::start(
                Api::all(client.clone()),
                of_cluster(),
                Arc::clone(clock),
                shutdown.clone(),
            ),
            claims: Cache::start(
                Api::all(client.clone()),
                of_cluster(),
                Arc::clone(clock),
                shutdown.clone(),
            ),
            volumes: Cache::start(
                Api::all(client.clone()),
                all(),
                Arc::clone(clock),
                shutdown.clone(),
            ),
            nodes: Cache::start(
                Api::all(client.clone()),
                all(),
                Arc::clone(clock),
                shutdown.clone(),
            ),
            agent_pods: Cache::start(
                Api::namespaced(client.clone(), own_namespace),
                agents,
                Arc::clone(clock),
                shutdown.clone(),
            ),
        }
    }

    /// Every cache by name, for readiness and metrics.
    pub fn states(&self) -> [(&'static str, CacheState); 6] {
        [
            ("clusters", self.clusters.state()),
            ("pods", self.pods.state()),
            ("claims", self.claims.state()),
            ("volumes", self.volumes.state()),
            ("nodes", self.nodes.state()),
            ("agent_pods", self.agent_pods.state()),
        ]
    }

    /// Waits until every first list is complete.
    pub async fn synced(&self) {
        tokio::join!(
            self.clusters.synced(),
            self.pods.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.nodes.synced(),
            self.agent_pods.synced()
        );
    }
}
