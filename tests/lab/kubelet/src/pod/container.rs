//! One container of a pod: started, probed, restarted, stopped.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::env::{self, PodFacts, References};
use super::plan::{self, MountedVolumes, Place, qos};
use super::record::{Board, State, Terminated};
use super::watchdog;
use crate::image::Image;
use crate::kubelet::Node;
use crate::runtime::cgroup::Cgroups;
use crate::runtime::spec::{Bind, ContainerSpec};
use crate::runtime::{Container as Running, Exit, RuntimeError};
use crate::volume::sub_path;
use crate::{fault, logs};

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// An init container that stays.
    Sidecar,
    /// The first of the ordinary ones.
    Main,
    /// An ordinary one.
    Other,
}

/// When to be gone: a moment after which SIGKILL follows SIGTERM.
pub type Stop = watch::Receiver<Option<Instant>>;

/// What all containers of a pod share.
#[derive(Clone)]
pub struct Shared {
    /// The node.
    pub node: Arc<Node>,
    /// The pod as first seen; its specification does not change.
    pub pod: Arc<Pod>,
    /// Its addresses.
    pub facts: PodFacts,
    /// Pid of its sandbox.
    pub sandbox: i32,
    /// Its volumes.
    pub volumes: Arc<MountedVolumes>,
    /// Its records.
    pub board: Board,
}

/// Keeps one container running until it shall not run any more.
pub struct Runner {
    /// The pod.
    pub shared: Shared,
    /// The container.
    pub container: Container,
    /// What it is.
    pub role: Role,
    /// When to be gone.
    pub stop: Stop,
}

/// Why a container was not even started: a waiting reason and its message.
struct NotCreated(&'static str, String);

const RETRY: Duration = Duration::from_secs(1);

impl Runner {
    /// Runs the container, again and again as its policy says. Gives the last exit code, if it ran at all.
    pub async fn run(mut self) -> Option<i32> {
        let mut backoff = Backoff::new(self.shared.node.options.backoff_base());
        let name = self.container.name.clone();
        let board = self.shared.board.clone();
        let mut first = true;
        loop {
            if self.stop.borrow().is_some() {
                return board
                    .get(&name)
                    .and_then(|record| record.last)
                    .map(|end| end.exit_code);
            }
            let end = match self.attempt(first).await {
                Ok(end) => end,
                Err(NotCreated(reason, message)) => {
                    board.update(&name, |record| {
                        record.state = State::waiting_with(reason, message);
                    });
                    self.pause(RETRY).await;
                    continue;
                }
            };
            first = false;
            let code = end.exit_code;
            let done = self.role == Role::Init && code == 0;
            board.update(&name, |record| {
                record.state = State::Terminated(end.clone());
                (record.ready, record.started, record.pid) = (done, false, None);
            });
            if self.stop.borrow().is_some() || !self.restarts_after(code) {
                return Some(code);
            }
            let delay = backoff.next(Instant::now());
            board.update(&name, |record| {
                record.last = Some(end.clone());
                if !delay.is_zero() {
                    let text = format!("back-off {delay:?} restarting failed container={name}");
                    record.state = State::waiting_with("CrashLoopBackOff", text);
                }
            });
            self.pause(delay).await;
            if self.stop.borrow().is_some() {
                board.update(&name, |record| record.state = State::Terminated(end));
                return Some(code);
            }
        }
    }

    fn restarts_after(&self, code: i32) -> bool {
        let policy = self
            .shared
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref())
            .unwrap_or("Always");
        match (self.role, policy) {
            (Role::Sidecar, _) => true,
            (_, "Never") => false,
            (Role::Init, _) | (_, "OnFailure") => code != 0,
            _ => true,
        }
    }

    /// Waits, but not past an order to stop.
    async fn pause(&mut self, delay: Duration) {
        let _ = tokio::time::timeout(delay, self.stop.wait_for(Option::is_some)).await;
    }

    /// One run from start to end.
    async fn attempt(&mut self, first: bool) -> Result<Terminated, NotCreated> {
        let name = self.container.name.clone();
        let board = self.shared.board.clone();
        let ran_before = board
            .get(&name)
            .is_some_and(|record| record.container_id.is_some());
        let attempt = board
            .get(&name)
            .map_or(0, |record| record.restarts + u32::from(!first && ran_before));
        let id = container_id().map_err(|error| NotCreated("CreateContainerError", error.to_string()))?;
        let (spec, message) = self.specification(&id, attempt).await?;
        let started_at = Timestamp::now();
        let begin = Instant::now();
        let started = self.start(&spec, attempt).await;
        board.update(&name, |record| {
            record.restarts = attempt;
            record.container_id = Some(id.clone());
        });
        let ended = |exit: Exit, reason: &str, message: Option<String>| Terminated {
            exit_code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message,
            started_at,
            finished_at: Timestamp::now(),
            container_id: id.clone(),
        };
        let (running, _log) = match started {
            Ok(running) => running,
            Err(RuntimeError::Setup(text)) => {
                return Ok(ended(
                    Exit {
                        code: 128,
                        signal: None,
                    },
                    "StartError",
                    Some(text),
                ));
            }
            Err(other) => return Err(NotCreated("CreateContainerError", other.to_string())),
        };
        tracing::debug!(container = name, pid = running.pid, took = ?begin.elapsed(), "started");
        let (has_startup, has_readiness) = (
            self.container.startup_probe.is_some(),
            self.container.readiness_probe.is_some(),
        );
        board.update(&name, |record| {
            record.state = State::Running { started_at };
            record.pid = Some(running.pid);
            record.started = !has_startup;
            record.ready = !has_startup && !has_readiness && self.role != Role::Init;
        });
        let exit = self.watch(&running, &spec).await;
        Self::forget(&spec.cgroup);
        if let Some(monitor) = &spec.monitor_cgroup {
            Self::forget(monitor);
        }
        let text = std::fs::read(&message).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned();
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        Ok(ended(exit, reason, Some(text).filter(|text| !text.is_empty())))
    }

    fn forget(cgroup: &std::path::Path) {
        let cgroup = cgroup.to_owned();
        // The runtime has killed what was in it; the directory goes with the pod at the latest.
        drop(tokio::task::spawn_blocking(move || Cgroups::destroy(&cgroup)));
    }

    /// Everything about the container, and the file of its termination message.
    async fn specification(&self, id: &str, attempt: u32) -> Result<(ContainerSpec, PathBuf), NotCreated> {
        let Shared {
            node,
            pod,
            facts,
            sandbox,
            volumes,
            ..
        } = &self.shared;
        let config =
            |error: &dyn std::fmt::Display| NotCreated("CreateContainerConfigError", error.to_string());
        let image = Image::find(
            &node.options.images,
            self.container.image.as_deref().unwrap_or_default(),
        )
        .map_err(|error| NotCreated("ErrImagePull", error.to_string()))?;
        let mut base = image.env.clone();
        let (host, port) = node.options.api_address();
        base.insert("KUBERNETES_SERVICE_HOST".to_owned(), host);
        base.insert("KUBERNETES_SERVICE_PORT".to_owned(), port.to_string());
        let objects = self.references().await.map_err(|error| config(&error))?;
        let env =
            env::resolve(pod, &self.container, facts, &objects, &base).map_err(|error| config(&error))?;
        let uid = pod.uid().unwrap_or_default();
        let layout = &node.volumes.layout;
        let wanted = plan::mounts(&self.container, volumes, &env).map_err(|error| config(&error))?;
        let mut mounts = Vec::new();
        for mount in wanted {
            let from = match &mount.sub_path {
                None => mount.bind.from.clone(),
                Some(path) => {
                    let target = layout.sub_path(&uid, &mount.volume, &self.container.name, mount.index);
                    sub_path::put(&mount.bind.from, path, &target).map_err(|error| config(&error))?
                }
            };
            mounts.push(Bind { from, ..mount.bind });
        }
        let message = layout.termination_log(&uid, &self.container.name, attempt);
        write_message_file(&message).map_err(|error| config(&error))?;
        let cgroups = &node.runtime.cgroups;
        let directory = cgroups.pod(qos(pod), &uid);
        let place = Place {
            sandbox: *sandbox,
            cgroup: directory.join(cgroups.names.container(id)),
            monitor_cgroup: cgroups.names.monitor(id).map(|name| directory.join(name)),
            scratch: node.options.own().join("rootfs"),
            hosts: node
                .cluster
                .hosts_file(&node.options, &pod.namespace().unwrap_or_default())
                .map_err(|error| config(&error))?,
            termination_log: message.clone(),
        };
        let spec = plan::container(pod, &self.container, &image, env, mounts, &place)
            .map_err(|error| config(&error))?;
        Ok((spec, message))
    }

    /// The objects that the environment refers to, read now.
    async fn references(&self) -> Result<References, kube::Error> {
        let (config_maps, secrets) = env::references(&self.container);
        let namespace = self.shared.pod.namespace().unwrap_or_default();
        let client = &self.shared.node.client;
        let mut objects = References::default();
        for name in config_maps {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
            objects
                .config_maps
                .extend(api.get_opt(&name).await?.map(|found| (name, found)));
        }
        for name in secrets {
            let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
            objects
                .secrets
                .extend(api.get_opt(&name).await?.map(|found| (name, found)));
        }
        Ok(objects)
    }

    async fn start(
        &self,
        spec: &ContainerSpec,
        attempt: u32,
    ) -> Result<(Running, tokio::task::JoinHandle<()>), RuntimeError> {
        let pod = &self.shared.pod;
        let (namespace, uid) = (pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default());
        let directory = logs::directory(&self.shared.node.options.state, &namespace, &pod.name_any(), &uid);
        let path = logs::file(&directory, &self.container.name, attempt);
        let (out, stdout) = output()?;
        let (err, stderr) = output()?;
        let log = tokio::spawn(async move {
            if let Err(error) = logs::copy(&path, out, err).await {
                tracing::warn!(%error, path = %path.display(), "log");
            }
        });
        Ok((
            self.shared
                .node
                .runtime
                .start_container(spec, stdout, stderr)
                .await?,
            log,
        ))
    }

    /// Probes the running container until it ends, is to stop, or fails a probe.
    async fn watch(&mut self, running: &Running, spec: &ContainerSpec) -> Exit {
        let (kill, mut killed) = mpsc::channel(1);
        let mut probes = JoinSet::new();
        watchdog::start(
            &mut probes,
            &self.shared,
            &self.container,
            running.pid,
            spec,
            &kill,
        );
        let namespace = self.shared.pod.namespace().unwrap_or_default();
        let order = fault::file(
            &self.shared.node.options.state,
            &namespace,
            &self.shared.pod.name_any(),
        );
        // The pod's main container: the first one, as kubectl sees it. Others (an agent beside a server) live on.
        let main = self
            .shared
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers.first())
            .is_some_and(|first| first.name == self.container.name);
        let crash = async {
            if self.role == Role::Main && main {
                fault::crash_ordered(&order).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let own = tokio::select! {
            exit = running.ended() => return exit,
            () = crash => Some(Instant::now()),
            Some(grace) = killed.recv() => Some(Instant::now() + grace),
            _ = self.stop.wait_for(Option::is_some) => None,
        };
        // Readiness is still looked at while the container ends.
        self.stop_in_time(running, own).await
    }

    /// SIGTERM; SIGKILL at `own` or at the pod's deadline, which may come closer.
    async fn stop_in_time(&mut self, running: &Running, own: Option<Instant>) -> Exit {
        let mut asked = false;
        loop {
            let pod = *self.stop.borrow_and_update();
            let deadline = [own, pod]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or_else(Instant::now);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return running.stop(Duration::ZERO).await;
            }
            if !asked {
                running.signal(nix::sys::signal::Signal::SIGTERM).await;
                asked = true;
            }
            tokio::select! {
                exit = running.ended() => return exit,
                () = tokio::time::sleep(left) => {}
                changed = self.stop.changed() => if changed.is_err() {
                    return running.stop(Duration::ZERO).await;
                },
            }
        }
    }
}

fn write_message_file(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

fn output() -> std::io::Result<(tokio::net::unix::pipe::Receiver, OwnedFd)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((
        tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?,
        writer.into(),
    ))
}

/// 64 hex digits, as runtimes name their containers.
pub fn container_id() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(crate::hex(&bytes))
}

/// Runs before this kubelet, from the status the API server has.
pub fn restarts_before(pod: &Pod) -> BTreeMap<String, u32> {
    let status = pod.status.clone().unwrap_or_default();
    let all = status
        .container_statuses
        .into_iter()
        .chain(status.init_container_statuses)
        .flatten();
    all.filter(|status| status.container_id.is_some())
        .map(|status| (status.name, u32::try_from(status.restart_count).unwrap_or(0) + 1))
        .collect()
}
