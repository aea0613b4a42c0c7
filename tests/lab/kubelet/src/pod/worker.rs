//! One pod from its binding to its deletion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::container::{Role, Runner, Shared, Stop, restarts_before};
use super::env::PodFacts;
use super::plan::{self, MountedVolumes, hostname, qos};
use super::publish::Publisher;
use super::record::{Board, Record, State};
use super::status::is_sidecar;
use crate::kubelet::Node;
use crate::logs;
use crate::runtime::Sandbox;
use crate::runtime::cgroup::Cgroups;
use crate::runtime::spec::SandboxSpec;
use crate::volume::token::Tokens;

/// What the kubelet knows of a pod's object.
#[derive(Clone, Debug)]
pub struct Update {
    /// The object, as last seen.
    pub pod: Arc<Pod>,
    /// It is gone from the API server.
    pub removed: bool,
    /// The kubelet ends.
    pub shutdown: bool,
}

/// Works for one pod.
pub struct Worker {
    node: Arc<Node>,
    /// As first seen.
    pod: Arc<Pod>,
    updates: watch::Receiver<Update>,
    board: Board,
    publisher: Publisher,
    tokens: Arc<Tokens>,
    stop: Stop,
    _stopper: AbortOnDropHandle<()>,
}

const RETRY: Duration = Duration::from_millis(500);

impl Worker {
    /// A worker for the pod of `updates`.
    pub fn new(node: Arc<Node>, updates: watch::Receiver<Update>) -> Self {
        let pod = Arc::clone(&updates.borrow().pod);
        let board = Board::default();
        let (sender, stop) = watch::channel(None);
        let stopper = AbortOnDropHandle::new(tokio::spawn(watch_for_stop(updates.clone(), sender)));
        let publisher = Publisher::new(Arc::clone(&node), updates.clone(), board.clone());
        Self {
            node,
            pod,
            updates,
            board,
            publisher,
            tokens: Arc::default(),
            stop,
            _stopper: stopper,
        }
    }

    fn uid(&self) -> String {
        self.pod.uid().unwrap_or_default()
    }

    /// Runs the pod to its end, and cleans up after it.
    pub async fn run(mut self) {
        let phase = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        let mut sandbox = None;
        if !over && self.stop.borrow().is_none() {
            self.register();
            let publishing = AbortOnDropHandle::new(tokio::spawn(self.publisher.clone().keep_up()));
            self.live(&mut sandbox).await;
            if self.is_too_old() {
                self.publisher.failed(
                    "DeadlineExceeded",
                    "Pod was active on the node longer than the specified deadline",
                );
            }
            if !self.updates.borrow().shutdown {
                self.publisher.publish().await;
            }
            // Not before: a request that is cut short may still be carried out, after the last one.
            drop(publishing);
        }
        self.clean_up(sandbox).await;
        let gone = |update: &Update| {
            update.removed || update.shutdown || update.pod.metadata.deletion_timestamp.is_some()
        };
        if self.updates.wait_for(gone).await.is_err() {
            return;
        }
        self.finish().await;
    }

    /// It was stopped for `activeDeadlineSeconds` and nothing else.
    fn is_too_old(&self) -> bool {
        let update = self.updates.borrow();
        let asked = update.removed || update.shutdown || update.pod.metadata.deletion_timestamp.is_some();
        self.stop.borrow().is_some() && !asked
    }

    /// Shows the containers before any of them runs.
    fn register(&self) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let before = restarts_before(&self.pod);
        let reason = if spec.init_containers.is_some() {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            let mut record = Record::new(before.get(&container.name).copied().unwrap_or(0), None);
            record.state = State::waiting(reason);
            self.board.insert(&container.name, record);
        }
    }

    /// Volumes, sandbox, init containers, containers; comes back when nothing runs any more.
    async fn live(&mut self, kept: &mut Option<Sandbox>) {
        let mut facts = PodFacts {
            pod_ip: String::new(),
            host_ip: self.node.options.node_ip.to_string(),
        };
        let Some(volumes) = self.until_done("volumes", Self::mount, &facts).await else {
            return;
        };
        let Some(sandbox) = self.until_done("sandbox", Self::start_sandbox, &facts).await else {
            return;
        };
        let address = sandbox.address.unwrap_or(self.node.options.node_ip);
        facts.pod_ip = address.to_string();
        self.node.served.sandbox(&self.pod, sandbox.pid, &self.board);
        self.publisher.address(facts.pod_ip.clone());
        let shared = Shared {
            node: Arc::clone(&self.node),
            pod: Arc::clone(&self.pod),
            facts: facts.clone(),
            sandbox: sandbox.pid,
            volumes: Arc::new(volumes),
            board: self.board.clone(),
        };
        *kept = Some(sandbox);
        let _refresh = AbortOnDropHandle::new(tokio::spawn(refresh(
            Arc::clone(&self.node),
            self.updates.clone(),
            facts,
            Arc::clone(&self.tokens),
        )));
        let (end_sidecars, sidecars_stop) = watch::channel(None);
        let mut sidecars = JoinSet::new();
        if self.initialize(&shared, &mut sidecars, &sidecars_stop).await {
            self.publisher.initialized();
            self.run_containers(&shared).await;
        }
        let deadline = (*self.stop.borrow()).unwrap_or_else(|| Instant::now() + self.grace());
        end_sidecars.send_replace(Some(deadline));
        let mut hurried = self.stop.clone();
        loop {
            tokio::select! {
                ended = sidecars.join_next() => if ended.is_none() { return },
                Ok(()) = hurried.changed() => {
                    let deadline = *hurried.borrow_and_update();
                    end_sidecars.send_if_modified(|have| {
                        let sooner = deadline < *have && deadline.is_some();
                        if sooner { *have = deadline; }
                        sooner
                    });
                }
            }
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Tries `work` until it succeeds; `None` when the pod is to stop.
    async fn until_done<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        work: impl AsyncFn(&Self, &PodFacts) -> Result<T, E>,
        facts: &PodFacts,
    ) -> Option<T> {
        let mut told = String::new();
        loop {
            if self.stop.borrow().is_some() {
                return None;
            }
            match work(self, facts).await {
                Ok(done) => return Some(done),
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        tracing::info!(pod = self.pod.name_any(), error = text, "{what}");
                        for name in self.board.all().keys() {
                            self.board.update(name, |record| {
                                record.state = State::waiting_with("ContainerCreating", &text);
                            });
                        }
                        told = text;
                    }
                }
            }
            let _ = tokio::time::timeout(RETRY, self.stop.wait_for(Option::is_some)).await;
        }
    }

    async fn mount(&self, facts: &PodFacts) -> Result<MountedVolumes, crate::volume::VolumeError> {
        self.node.volumes.put(&self.pod, facts, &self.tokens).await
    }

    async fn start_sandbox(&self, _: &PodFacts) -> Result<Sandbox, crate::runtime::RuntimeError> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let host_network = plan::host_network(&spec);
        let cgroups = &self.node.runtime.cgroups;
        let id = super::container::container_id()?;
        let sandbox = SandboxSpec {
            hostname: (!host_network).then(|| hostname(&self.pod)),
            host_network,
            host_ipc: spec.host_ipc == Some(true),
            cgroup: cgroups
                .pod(qos(&self.pod), &self.uid())
                .join(cgroups.names.container(&id)),
        };
        self.node.runtime.start_sandbox(&sandbox).await
    }

    /// Runs the init containers; false when the pod ends before its containers.
    async fn initialize(
        &mut self,
        shared: &Shared,
        sidecars: &mut JoinSet<Option<i32>>,
        stop: &Stop,
    ) -> bool {
        let init = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.init_containers.clone())
            .unwrap_or_default();
        for container in init {
            let runner = |container: &Container, role, stop: &Stop| Runner {
                shared: shared.clone(),
                container: container.clone(),
                role,
                stop: stop.clone(),
            };
            if is_sidecar(&container) {
                sidecars.spawn(runner(&container, Role::Sidecar, stop).run());
                let started = async {
                    while !self
                        .board
                        .get(&container.name)
                        .is_some_and(|record| record.started)
                    {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    () = started => {}
                    _ = self.stop.wait_for(Option::is_some) => return false,
                }
            } else if runner(&container, Role::Init, &self.stop).run().await != Some(0) {
                return false;
            }
            if self.stop.borrow().is_some() {
                return false;
            }
        }
        true
    }

    async fn run_containers(&self, shared: &Shared) {
        let containers = self
            .pod
            .spec
            .as_ref()
            .map(|spec| spec.containers.clone())
            .unwrap_or_default();
        let mut running = JoinSet::new();
        for (index, container) in containers.into_iter().enumerate() {
            let role = if index == 0 { Role::Main } else { Role::Other };
            running.spawn(
                Runner {
                    shared: shared.clone(),
                    container,
                    role,
                    stop: self.stop.clone(),
                }
                .run(),
            );
        }
        while running.join_next().await.is_some() {}
    }

    /// Processes, network, mounts and cgroups, until all of it is gone.
    async fn clean_up(&self, sandbox: Option<Sandbox>) {
        self.node.served.forget(&self.pod);
        if let Some(sandbox) = sandbox {
            self.node.runtime.stop_sandbox(sandbox).await;
        }
        let cgroup = self.node.runtime.cgroups.pod(qos(&self.pod), &self.uid());
        loop {
            let directory = cgroup.clone();
            let killed = self
                .node
                .runtime
                .blocking(move |_| Cgroups::destroy(&directory))
                .await;
            let unmounted = self.node.volumes.take_away(&self.uid()).await;
            match (killed, unmounted) {
                (Ok(Ok(())), Ok(())) => return,
                (killed, unmounted) => {
                    tracing::warn!(pod = self.pod.name_any(), ?killed, ?unmounted, "clean up");
                    if self.updates.borrow().shutdown {
                        return;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Lets the object go, after what was kept for it: nothing of the pod is left when it is gone.
    async fn finish(&mut self) {
        if self.updates.borrow().shutdown {
            return;
        }
        let (namespace, name) = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let logs = logs::directory(&self.node.options.state, &namespace, &name, &self.uid());
        let _ = std::fs::remove_dir_all(logs);
        let pods: Api<Pod> = Api::namespaced(
            self.node.client.clone(),
            &self.pod.namespace().unwrap_or_default(),
        );
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        loop {
            let (removed, shutdown) = {
                let update = self.updates.borrow();
                (update.removed, update.shutdown)
            };
            if shutdown {
                return;
            }
            if removed {
                break;
            }
            match pods.delete(&self.pod.name_any(), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => break,
                Err(error) => tracing::warn!(pod = self.pod.name_any(), %error, "delete"),
            }
            let _ = tokio::time::timeout(
                RETRY,
                self.updates.wait_for(|update| update.removed || update.shutdown),
            )
            .await;
        }
    }
}

/// Says when the pod is to be gone: a deletion with its grace, an object that went, the end of the kubelet.
async fn watch_for_stop(mut updates: watch::Receiver<Update>, stop: watch::Sender<Option<Instant>>) {
    let mut seen = None;
    let begin = Instant::now();
    loop {
        let update = updates.borrow_and_update().clone();
        let now = Instant::now();
        let deletion = update.pod.metadata.deletion_timestamp.is_some();
        let grace = update.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        let limit = update
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.active_deadline_seconds);
        let limit = limit.map(|seconds| begin + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let deadline = if update.shutdown {
            Some(now)
        } else if update.removed {
            Some(now + Duration::from_secs(1))
        } else if deletion && seen != Some(grace) {
            seen = Some(grace);
            Some(now + Duration::from_secs(u64::try_from(grace).unwrap_or(0).max(1)))
        } else if limit.is_some_and(|limit| limit <= now) {
            Some(now)
        } else {
            None
        };
        stop.send_if_modified(|have| {
            let sooner = deadline.is_some_and(|new| have.is_none_or(|old| new < old));
            if sooner {
                *have = deadline;
            }
            sooner
        });
        let wait = limit
            .filter(|limit| *limit > now)
            .map_or(Duration::from_secs(3600), |limit| limit - now);
        if let Ok(Err(_)) = tokio::time::timeout(wait, updates.changed()).await {
            return;
        }
    }
}

/// Keeps the volumes made of files up to date: objects that change, tokens that grow old, labels of the pod.
async fn refresh(
    node: Arc<Node>,
    mut updates: watch::Receiver<Update>,
    facts: PodFacts,
    tokens: Arc<Tokens>,
) {
    let mut changes = node.changes.subscribe();
    let mut failed = false;
    loop {
        let pod = Arc::clone(&updates.borrow_and_update().pod);
        let due = if failed {
            Some(Instant::now() + RETRY)
        } else {
            tokens.next_renewal().await
        };
        let renewal = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            object = changes.recv() => if let Ok(object) = object && !object.concerns(&pod) { continue },
            seen = updates.changed() => {
                let new = Arc::clone(&updates.borrow().pod);
                let downward = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                if seen.is_err() { return }
                if downward(&new) == downward(&pod) { continue }
            }
            () = renewal => {}
        }
        let pod = Arc::clone(&updates.borrow().pod);
        let result = node.volumes.refresh(&pod, &facts, &tokens).await;
        if let Err(error) = &result {
            tracing::warn!(pod = pod.name_any(), %error, "refresh volumes");
        }
        failed = result.is_err();
    }
}

/// When the kubelet took up the pod, for its status.
pub fn start_time(pod: &Pod) -> Timestamp {
    pod.status
        .as_ref()
        .and_then(|status| status.start_time.as_ref())
        .map_or_else(Timestamp::now, |time| time.0)
}
