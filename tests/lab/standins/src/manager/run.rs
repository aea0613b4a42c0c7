//! `instance run`: PID 1 of the container `postgres`.

use super::lease::{Claim, PrimaryLease};
use super::postmaster::{Postmaster, Shutdown};
use super::role::{self, Duty, Promotion};
use super::sql::Session;
use super::startup::{self, StartError};
use super::state::Shared;
use super::{Place, certificates, configuration, local, programs, reaper, web};
use crate::cnpg::{Cluster, Fences, Scope, names};
use anyhow::Context;
use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two rounds without a Cluster event.
const TICK: Duration = Duration::from_secs(1);
/// Rounds after which files and certificates are looked at again without an event.
const RESYNC_ROUNDS: u32 = 30;

/// Runs the instance until the server leaves, the role ends or the kubelet asks it to stop.
pub(super) async fn run(place: Place) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(reaper::run());
    let shared = tokio::select! {
        shared = begin(place) => shared?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    tokio::spawn(watch(shared.clone()));
    let prepared = tokio::select! {
        prepared = startup::prepare(&shared) => prepared,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    match prepared {
        Ok(()) => {}
        Err(StartError::NoSpace) => {
            tracing::error!("{}", StartError::NoSpace);
            return Ok(ExitCode::from(names::EXIT_NO_SPACE));
        }
        Err(StartError::Failed(error)) => return Err(error),
    }
    Keeper {
        shared,
        postmaster: None,
        lease: PrimaryLease::default(),
        fenced: false,
        rounds: 0,
    }
    .keep(&mut terminate)
    .await
}

/// Waits for the API server, writes certificates and starts the servers.
async fn begin(place: Place) -> anyhow::Result<Arc<Shared>> {
    let client = kube::Client::try_default()
        .await
        .context("finding the API server")?;
    let scope = Scope {
        client,
        namespace: place.namespace.clone(),
    };
    for directory in [
        place.sockets(),
        place.controller.join("log"),
        place.controller.join("tmp"),
    ] {
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let cluster = loop {
        let got = async {
            let cluster = scope
                .api::<Cluster>()
                .get(&place.cluster)
                .await
                .context("reading the Cluster")?;
            certificates::refresh(&place, &scope).await?;
            anyhow::Ok(cluster)
        };
        match got.await {
            Ok(cluster) => break cluster,
            Err(error) => tracing::warn!("{error:#}"),
        }
        tokio::time::sleep(TICK).await;
    };
    let shared = Arc::new(Shared::new(place, scope, cluster));
    local::serve(shared.clone()).await?;
    web::serve(shared.clone()).await?;
    Ok(shared)
}

/// Keeps the Cluster current.
async fn watch(shared: Arc<Shared>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", shared.place.cluster));
    let mut pause = Duration::from_millis(200);
    loop {
        let mut events = std::pin::pin!(kube::runtime::watcher(
            shared.scope.api::<Cluster>(),
            config.clone()
        ));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(cluster) | Event::InitApply(cluster)) => {
                    if cluster.metadata.name.as_deref() == Some(&shared.place.cluster) {
                        pause = Duration::from_millis(200);
                        shared.observe(cluster);
                    }
                }
                Ok(_) => shared.reached_api(),
                Err(error) => {
                    tracing::warn!("watching the Cluster: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

/// What follows a round of reconciliation.
enum Next {
    /// Another round, at the latest after this time.
    Again(Duration),
    /// The container ends.
    Leave(ExitCode),
}

struct Keeper {
    shared: Arc<Shared>,
    postmaster: Option<Postmaster>,
    lease: PrimaryLease,
    fenced: bool,
    rounds: u32,
}

impl Keeper {
    async fn keep(mut self, terminate: &mut Signal) -> anyhow::Result<ExitCode> {
        let shared = self.shared.clone();
        let mut event = true;
        loop {
            let next = tokio::select! {
                next = self.reconcile(event) => next,
                _ = terminate.recv() => return Ok(self.terminate().await),
            };
            let pause = match next {
                Ok(Next::Again(pause)) => pause,
                Ok(Next::Leave(code)) => return Ok(code),
                Err(error) => {
                    tracing::warn!("{error:#}");
                    TICK
                }
            };
            event = tokio::select! {
                () = shared.changed.notified() => true,
                () = tokio::time::sleep(pause) => false,
                status = gone(self.postmaster.as_mut()) => return Ok(self.died(status).await),
                _ = terminate.recv() => return Ok(self.terminate().await),
            };
        }
    }

    async fn reconcile(&mut self, event: bool) -> anyhow::Result<Next> {
        let shared = self.shared.clone();
        let place = &shared.place;
        let cluster = shared.cluster();
        self.rounds += 1;
        if event || self.rounds.is_multiple_of(RESYNC_ROUNDS) {
            // Files come first, and are written under a fence too. A failure here keeps a fence from being honoured.
            let certificates = certificates::refresh(place, &shared.scope).await?;
            let control = programs::output(place, "pg_controldata", &[&place.pgdata])
                .await
                .ok();
            let files = configuration::refresh(place, &cluster, control.as_deref())
                .context("writing the configuration")?;
            if let Some(postmaster) = &self.postmaster
                && (certificates || files)
            {
                postmaster.reload();
            }
        }
        if Fences::of(&cluster).hold(&place.instance) {
            self.hold(&cluster).await;
            return Ok(Next::Again(TICK));
        }
        if self.fenced {
            self.fenced = false;
            tokio::spawn(unmask(
                shared.clone(),
                shared.fence_changes.fetch_add(1, Ordering::SeqCst) + 1,
            ));
        }
        let duty = role::duty(&cluster, &place.instance, place.is_primary());
        if duty == Duty::StepDown {
            return Ok(self.step_down(&cluster).await);
        }
        if duty == Duty::Lead
            && let Some(next) = self.renew_lease(&cluster).await?
        {
            return Ok(next);
        }
        if self.postmaster.is_none() {
            super::postmaster::remove_stale_pid(place)?;
            self.postmaster = Some(Postmaster::start(place, &[])?);
        }
        if !programs::accepts_connections(place, place.sockets().as_os_str()).await {
            return Ok(Next::Again(Duration::from_millis(250)));
        }
        let work = async {
            match duty {
                Duty::Lead => role::lead(&shared).await.map(|()| TICK),
                Duty::Promote => match role::promote(&shared, &mut self.lease).await? {
                    Promotion::Done => Ok(Duration::ZERO),
                    Promotion::NotYet => Ok(Duration::from_millis(250)),
                },
                Duty::Follow | Duty::StepDown => Ok(TICK),
            }
        };
        let pause = tokio::time::timeout(Duration::from_secs(90), work)
            .await
            .context("the server hangs")??;
        Ok(Next::Again(pause))
    }

    /// Honours a fence: the server is stopped, the container lives on.
    async fn hold(&mut self, cluster: &Cluster) {
        let shared = &self.shared;
        if !self.fenced {
            self.fenced = true;
            shared.fence_changes.fetch_add(1, Ordering::SeqCst);
            shared.unavailable.store(true, Ordering::SeqCst);
        }
        let Some(postmaster) = &mut self.postmaster else {
            return;
        };
        tracing::info!("fenced, stopping the server");
        if shared.place.is_primary() {
            let checkpoint = async {
                Session::open(&shared.place, "postgres")
                    .await?
                    .execute("CHECKPOINT")
                    .await
            };
            if let Err(error) = checkpoint.await {
                tracing::warn!("no checkpoint before the shutdown: {error:#}");
            }
        }
        postmaster.stop_fast(switchover_delay(cluster)).await;
        self.postmaster = None;
    }

    /// Ends a primary that is not meant to be one: the container restarts into the start-up path.
    async fn step_down(&mut self, cluster: &Cluster) -> Next {
        tracing::info!("another primary is wanted, shutting down");
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.stop_fast(switchover_delay(cluster)).await;
        }
        self.lease.release(&self.shared).await;
        Next::Leave(ExitCode::SUCCESS)
    }

    /// Claims or renews the Lease. A primary that finds it in other hands stops.
    async fn renew_lease(&mut self, cluster: &Cluster) -> anyhow::Result<Option<Next>> {
        let retry = Duration::from_secs(u64::from(cluster.spec.primary_lease.retry_period_seconds));
        if !self.lease.due(retry) {
            return Ok(None);
        }
        match self.lease.claim(&self.shared).await {
            Ok(Claim::Ours) => Ok(None),
            Ok(Claim::Others(holder)) if self.lease.was_held() => {
                tracing::error!(holder, "the Lease was taken away, stopping");
                if let Some(postmaster) = &mut self.postmaster {
                    postmaster.stop_fast(switchover_delay(cluster)).await;
                }
                Ok(Some(Next::Leave(ExitCode::FAILURE)))
            }
            Ok(Claim::Others(holder)) => {
                tracing::info!(holder, "waiting for the Lease");
                Ok(Some(Next::Again(TICK)))
            }
            // The Lease does not fence writes: a running primary goes on when the API server is away.
            Err(error) if self.postmaster.is_some() => {
                tracing::warn!("the Lease was not renewed: {error}");
                Ok(None)
            }
            Err(error) => Err(error).context("claiming the Lease"),
        }
    }

    /// The server left on its own: so does the container.
    async fn died(&mut self, status: std::io::Result<ExitStatus>) -> ExitCode {
        tracing::error!(?status, "postgres left unexpectedly");
        let place = &self.shared.place;
        let control = programs::output(place, "pg_controldata", &[&place.pgdata])
            .await
            .unwrap_or_default();
        if startup::has_room(place, &control).await {
            ExitCode::FAILURE
        } else {
            tracing::error!("not enough disk space for a WAL segment");
            ExitCode::from(names::EXIT_NO_SPACE)
        }
    }

    /// The kubelet asks: smart shutdown for a while, then fast.
    async fn terminate(&mut self) -> ExitCode {
        let cluster = self.shared.cluster();
        if let Some(postmaster) = &mut self.postmaster {
            let smart = Duration::from_secs(cluster.spec.smart_shutdown_timeout.unwrap_or(180));
            let stopped = !smart.is_zero() && postmaster.stop(Shutdown::Smart, smart).await;
            if !stopped {
                let total = Duration::from_secs(cluster.spec.stop_delay.unwrap_or(1800));
                postmaster
                    .stop_fast(total.saturating_sub(smart).max(Duration::from_secs(1)))
                    .await;
            }
            self.postmaster = None;
        }
        self.lease.release(&self.shared).await;
        ExitCode::SUCCESS
    }
}

/// After a fence was lifted errors stay masked until the server answered and two readiness periods went by.
async fn unmask(shared: Arc<Shared>, change: u64) {
    while !programs::accepts_connections(&shared.place, shared.place.sockets().as_os_str()).await {
        if shared.fence_changes.load(Ordering::SeqCst) != change {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let period = std::env::var("READINESS_PERIOD_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_u64);
    tokio::time::sleep(Duration::from_secs(2 * period)).await;
    if shared.fence_changes.load(Ordering::SeqCst) == change {
        shared.unavailable.store(false, Ordering::SeqCst);
    }
}

fn switchover_delay(cluster: &Cluster) -> Duration {
    Duration::from_secs(cluster.spec.switchover_delay.unwrap_or(3600))
}

async fn gone(postmaster: Option<&mut Postmaster>) -> std::io::Result<ExitStatus> {
    match postmaster {
        Some(postmaster) => postmaster.gone().await,
        None => std::future::pending().await,
    }
}
