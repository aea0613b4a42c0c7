//! The loops that probe a running container.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::container::Shared;
use super::probe::{Kind, Tally, Timing};
use super::probing::Target;
use crate::runtime::spec::{ContainerSpec, ExecSpec};

/// Starts the loops of the probes of a container that runs as `pid`; startup holds the others back. A failed startup or
/// liveness probe sends the grace that the container is to get.
pub fn start(
    probes: &mut JoinSet<()>,
    shared: &Shared,
    container: &Container,
    pid: i32,
    spec: &ContainerSpec,
    kill: &mpsc::Sender<Duration>,
) {
    let facts = &shared.facts;
    let target = Target {
        runtime: Arc::clone(&shared.node.runtime),
        address: facts.pod_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        container: container.clone(),
        exec: ExecSpec {
            pid,
            cgroup: spec.cgroup.clone(),
            command: spec.command.clone(),
            credentials: spec.credentials.clone(),
        },
    };
    let pod_grace = shared
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let (started, wait) = watch::channel(container.startup_probe.is_none());
    let started = Arc::new(started);
    let all = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Liveness, &container.liveness_probe),
        (Kind::Readiness, &container.readiness_probe),
    ];
    let has_readiness = container.readiness_probe.is_some();
    for (kind, probe) in all {
        let Some(probe) = probe.clone() else { continue };
        let (target, board, name) = (target.clone(), shared.board.clone(), container.name.clone());
        let (started, mut wait, kill) = (Arc::clone(&started), wait.clone(), kill.clone());
        let seconds = probe.termination_grace_period_seconds.or(pod_grace).unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        probes.spawn(async move {
            if kind != Kind::Startup && wait.wait_for(|started| *started).await.is_err() {
                return;
            }
            let mut results = Loop::new(kind, &probe);
            while let Some(verdict) = results.next(&target, &probe).await {
                match (kind, verdict) {
                    (Kind::Startup, true) => {
                        started.send_replace(true);
                        board.update(&name, |record| {
                            record.started = true;
                            record.ready = !has_readiness;
                        });
                        return;
                    }
                    (Kind::Readiness, ready) => board.update(&name, |record| record.ready = ready),
                    (_, true) => {}
                    (_, false) => {
                        tracing::info!(container = name, ?kind, "probe failed, restarting");
                        let _ = kill.send(grace).await;
                        return;
                    }
                }
            }
        });
    }
}

/// The results of one probe, one verdict after another.
struct Loop {
    kind: Kind,
    timing: Timing,
    tally: Tally,
    first: bool,
}

impl Loop {
    fn new(kind: Kind, probe: &Probe) -> Self {
        let timing = Timing::of(probe);
        Self {
            kind,
            timing,
            tally: Tally::new(kind, timing),
            first: true,
        }
    }

    /// Probes until the verdict changes.
    async fn next(&mut self, target: &Target, probe: &Probe) -> Option<bool> {
        loop {
            let wait = if self.first {
                self.timing.initial_delay
            } else {
                self.timing.period
            };
            self.first = false;
            tokio::time::sleep(wait).await;
            let result = target.run(probe, self.timing.timeout).await;
            if let Err(error) = &result {
                tracing::debug!(container = target.container.name, kind = ?self.kind, %error, "probe");
            }
            if let Some(verdict) = self.tally.take(result.is_ok()) {
                return Some(verdict);
            }
        }
    }
}
