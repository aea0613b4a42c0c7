//! What the controllers see: caches of every kind they care for.

use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

/// Caches, and a client to act with.
pub(super) struct World {
    pub(super) client: Client,
    changed: Arc<Notify>,
    pub(super) pods: Store<Pod>,
    pub(super) nodes: Store<Node>,
    pub(super) claims: Store<PersistentVolumeClaim>,
    pub(super) volumes: Store<PersistentVolume>,
    pub(super) classes: Store<StorageClass>,
    pub(super) leases: Store<Lease>,
    pub(super) daemon_sets: Store<DaemonSet>,
    pub(super) deployments: Store<Deployment>,
    pub(super) replica_sets: Store<ReplicaSet>,
    pub(super) stateful_sets: Store<StatefulSet>,
    pub(super) jobs: Store<Job>,
}

impl World {
    /// Starts watching and waits until every cache was filled once.
    pub(super) async fn watch(client: &Client) -> anyhow::Result<Self> {
        let changed = Arc::new(Notify::new());
        Ok(Self {
            client: client.clone(),
            pods: cache(client, &changed).await?,
            nodes: cache(client, &changed).await?,
            claims: cache(client, &changed).await?,
            volumes: cache(client, &changed).await?,
            classes: cache(client, &changed).await?,
            leases: cache(client, &changed).await?,
            daemon_sets: cache(client, &changed).await?,
            deployments: cache(client, &changed).await?,
            replica_sets: cache(client, &changed).await?,
            stateful_sets: cache(client, &changed).await?,
            jobs: cache(client, &changed).await?,
            changed,
        })
    }

    /// Waits until something changed since the last wait.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The pods whose controller is `uid`.
    pub(super) fn pods_of(&self, uid: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.state();
        pods.retain(|pod| controller(pod.as_ref()).is_some_and(|owner| owner.uid == uid));
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }
}

/// The controller of an object.
pub(super) fn controller<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object
        .meta()
        .owner_references
        .as_deref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

async fn cache<K>(client: &Client, changed: &Arc<Notify>) -> anyhow::Result<Store<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::all(client.clone());
    let changed = Arc::clone(changed);
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    tokio::spawn(async move {
        let mut stream = pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => tracing::warn!("watch of {}: {error}", K::kind(&())),
            }
        }
    });
    store
        .wait_until_ready()
        .await
        .with_context(|| format!("watch {}", K::kind(&())))?;
    Ok(store)
}

/// Creates an object; one that exists already is as good (the cache was behind).
pub(super) async fn create<K>(client: &Client, namespace: &str, object: &K) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes exactly this object; one that is gone, or another of its name, is left alone.
pub(super) async fn delete<K>(client: &Client, object: &K) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: None,
    };
    let parameters = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    match api.delete(&object.name_any(), &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
