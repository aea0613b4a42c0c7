//! The kubelet: takes pods from the API server to their workers, until it is told to end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use nix::mount::{MsFlags, mount};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::cluster::{Changed, Cluster, key};
use crate::node;
use crate::options::Options;
use crate::pod::worker::{Update, Worker};
use crate::runtime::cgroup::{Cgroups, Names};
use crate::runtime::children::Children;
use crate::runtime::network::Addresses;
use crate::runtime::{Runtime, mountinfo};
use crate::server::{self, Served};
use crate::volume::Volumes;
use crate::volume::layout::Layout;

/// What everything on the node shares.
pub struct Node {
    /// The command line.
    pub options: Options,
    /// The API server.
    pub client: Client,
    /// The container runtime.
    pub runtime: Arc<Runtime>,
    /// Volumes.
    pub volumes: Volumes,
    /// Pods as the HTTP server finds them.
    pub served: Served,
    /// Pods and Services everywhere.
    pub cluster: Cluster,
    /// ConfigMaps and Secrets that change.
    pub changes: broadcast::Sender<Changed>,
}

/// Runs the kubelet until SIGTERM or SIGINT; then everything that it started or mounted is gone.
///
/// # Errors
/// When the node cannot be prepared.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = Arc::new(prepare(options).await?);
    let listener = tokio::net::TcpListener::bind((node.options.node_ip, node.options.port)).await;
    let listener =
        listener.with_context(|| format!("listen on {}:{}", node.options.node_ip, node.options.port))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, Arc::clone(&node)));
    tasks.spawn(node::keep(node.client.clone(), node.options.clone()));
    tasks.spawn(watch_services(Arc::clone(&node)));
    tasks.spawn(watch_objects::<ConfigMap>(Arc::clone(&node), false));
    tasks.spawn(watch_objects::<Secret>(Arc::clone(&node), true));
    let mut pods = Pods {
        node: Arc::clone(&node),
        workers: HashMap::new(),
        running: JoinSet::new(),
    };
    tokio::select! {
        () = pods.follow() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    tasks.shutdown().await;
    pods.end().await;
    let (root, cgroup) = (node.options.root.clone(), node.runtime.cgroups.root().to_owned());
    node.runtime
        .blocking(move |children| {
            mountinfo::unmount_below(&root)?;
            let _ = children.run("ip", &["link", "del", crate::runtime::network::BRIDGE], "");
            Cgroups::destroy(&cgroup).map_err(std::io::Error::other)
        })
        .await??;
    Ok(())
}

async fn prepare(mut options: Options) -> anyhow::Result<Node> {
    for directory in [&options.root, &options.state] {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    options.root = std::fs::canonicalize(&options.root)?;
    options.state = std::fs::canonicalize(&options.state)?;
    let shared = ["faults", "volumes", "logs"].map(|name| options.state.join(name));
    let own = ["hosts", "rootfs"].map(|name| options.own().join(name));
    let mounts = mountinfo::read()?;
    let names = Names {
        driver: options.cgroup_driver,
        flavour: options.runtime,
    };
    let cgroups = Cgroups::find(&mounts, &options.cgroup_prefix, names)?;
    let layout = Layout::new(options.root.clone());
    // What a predecessor left: its containers are dead, their directories and mounts are not gone.
    Cgroups::destroy(cgroups.root())?;
    Cgroups::create(cgroups.root())?;
    mountinfo::unmount_below(&options.root)?;
    share(&options.root)?;
    for directory in shared.iter().chain(&own) {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let children = Children::start()?;
    let addresses = Addresses::new(options.pod_cidr);
    let runtime = Arc::new(Runtime::new(
        children,
        cgroups,
        addresses,
        PathBuf::from("/proc/self/exe"),
    ));
    runtime.prepare_network().await.context("pod network")?;
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    let client = Client::try_from(config)?;
    let volumes = Volumes::new(
        client.clone(),
        layout,
        options.state.clone(),
        Arc::clone(&runtime),
    );
    let (changes, _) = broadcast::channel(64);
    let (served, cluster) = (Served::default(), Cluster::default());
    Ok(Node {
        options,
        client,
        runtime,
        volumes,
        served,
        cluster,
        changes,
    })
}

/// Makes mounts below `root` reach containers that ask for them (`HostToContainer`).
fn share(root: &Path) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    mount(Some(root), root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).context("bind the root")?;
    mount(none, root, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).context("share the root")
}

/// The workers of this node's pods.
struct Pods {
    node: Arc<Node>,
    workers: HashMap<String, watch::Sender<Update>>,
    running: JoinSet<String>,
}

impl Pods {
    async fn follow(&mut self) {
        let pods: Api<Pod> = Api::all(self.node.client.clone());
        let mut events = Box::pin(patient(watcher(pods, watcher::Config::default())));
        let mut listed = HashMap::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Init) => listed.clear(),
                    Some(Event::InitApply(pod)) => {
                        listed.insert(key(&pod), pod);
                    }
                    Some(Event::InitDone) => self.relist(&mut listed),
                    Some(Event::Apply(pod)) => {
                        self.node.cluster.pods(|pods| drop(pods.insert(key(&pod), pod.clone())));
                        self.apply(pod);
                    }
                    Some(Event::Delete(pod)) => {
                        self.node.cluster.pods(|pods| drop(pods.remove(&key(&pod))));
                        self.remove(&pod.uid().unwrap_or_default());
                    }
                    None => return,
                },
                Some(ended) = self.running.join_next() => match ended {
                    Ok(uid) => drop(self.workers.remove(&uid)),
                    Err(error) => tracing::error!(%error, "a pod's worker"),
                },
            }
            write_hosts(&self.node);
        }
    }

    fn relist(&mut self, listed: &mut HashMap<crate::cluster::Key, Pod>) {
        let all: Vec<Pod> = listed.drain().map(|(_, pod)| pod).collect();
        self.node
            .cluster
            .pods(|pods| *pods = all.iter().map(|pod| (key(pod), pod.clone())).collect());
        let uids: Vec<String> = all.iter().map(|pod| pod.uid().unwrap_or_default()).collect();
        let gone: Vec<String> = self
            .workers
            .keys()
            .filter(|uid| !uids.contains(uid))
            .cloned()
            .collect();
        for uid in gone {
            self.remove(&uid);
        }
        // Directories of pods that went while no kubelet ran.
        for entry in std::fs::read_dir(self.node.volumes.layout.pods())
            .into_iter()
            .flatten()
            .flatten()
        {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !uids.contains(&uid) && !self.workers.contains_key(&uid) {
                let volumes = self.node.volumes.clone();
                tokio::spawn(async move { volumes.take_away(&uid).await });
            }
        }
        for pod in all {
            self.apply(pod);
        }
    }

    fn apply(&mut self, pod: Pod) {
        let here =
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&self.node.options.node);
        let uid = pod.uid().unwrap_or_default();
        if !here || uid.is_empty() {
            return;
        }
        let pod = Arc::new(pod);
        if let Some(worker) = self.workers.get(&uid) {
            worker.send_modify(|update| update.pod = pod);
            return;
        }
        let (sender, updates) = watch::channel(Update {
            pod,
            removed: false,
            shutdown: false,
        });
        self.workers.insert(uid.clone(), sender);
        let worker = Worker::new(Arc::clone(&self.node), updates);
        self.running.spawn(async move {
            worker.run().await;
            uid
        });
    }

    fn remove(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get(uid) {
            worker.send_modify(|update| update.removed = true);
        }
    }

    /// Ends all pods at once.
    async fn end(mut self) {
        for worker in self.workers.values() {
            worker.send_modify(|update| update.shutdown = true);
        }
        while self.running.join_next().await.is_some() {}
    }
}

fn write_hosts(node: &Node) {
    if let Err(error) = node.cluster.write_hosts(&node.options) {
        tracing::warn!(%error, "hosts");
    }
}

/// Events of a watch that is taken up again whatever happens.
fn patient<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Send,
{
    let backoff = watcher::DefaultBackoff::default();
    events
        .backoff(backoff)
        .inspect_err(|error| tracing::debug!(%error, "watch"))
        .filter_map(|event| async { event.ok() })
}

async fn watch_services(node: Arc<Node>) {
    let api: Api<Service> = Api::all(node.client.clone());
    let mut events = Box::pin(patient(watcher(api, watcher::Config::default())));
    let mut listed = std::collections::BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(service) => drop(listed.insert(key(&service), service)),
            Event::InitDone => node
                .cluster
                .services(|services| *services = std::mem::take(&mut listed)),
            Event::Apply(service) => node
                .cluster
                .services(|all| drop(all.insert(key(&service), service))),
            Event::Delete(service) => node.cluster.services(|all| drop(all.remove(&key(&service)))),
        }
        write_hosts(&node);
    }
}

/// Tells of ConfigMaps or Secrets that change.
async fn watch_objects<K>(node: Arc<Node>, secret: bool)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::all(node.client.clone());
    let mut events = Box::pin(patient(watcher(api, watcher::Config::default())));
    while let Some(event) = events.next().await {
        if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = event {
            let _ = node.changes.send(Changed {
                secret,
                key: key(&object),
            });
        }
    }
}

/// How long a request that is none of the API server's may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
