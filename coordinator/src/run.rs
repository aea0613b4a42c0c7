//! Puts the coordinator together and runs it until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use hasteward_proto::channel::settings::ChannelSettings;
use hasteward_proto::primitive::NodeName;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::api::{
    Authenticator, BuildInfo, Gate, Limits, Listener, PeoplePolicy, ServerIdentity, StewardService,
};
use crate::args::{Args, LogFormat};
use crate::clock::{Clock, SystemClock};
use crate::engine::cnpg::CnpgEngine;
use crate::engine::{Engines, FleetAgents};
use crate::fleet::enrolment::EnrolmentRate;
use crate::fleet::expected::follow_agent_pods;
use crate::fleet::{
    AdmissionPolicy, AgentState, AuthorityStore, EnrolmentService, FileAuthorityStore, Fleet, FleetEvents,
    KubeTokenReviewer, SecretAuthorityStore, TokenReviewer, load_or_create,
};
use crate::http::{self, Metrics, NotReady, Readiness};
use crate::kubernetes::Caches;

/// How often gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(5);

/// Runs the coordinator until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    logging(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(args))
}

fn logging(args: &Args) -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(&args.log).with_context(|| format!("--log `{}`", args.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.init(),
    }
    Ok(())
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let shutdown = stop_on_signal()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")).context("registering metrics")?);
    let client = kubernetes_client().await?;

    let caches = Caches::start(&client, &args.own_namespace, &clock, &shutdown);
    let state = Arc::new(State {
        caches: caches.clone(),
        ca_loaded: AtomicBool::new(false),
        listening: AtomicBool::new(false),
    });
    let probes = TcpListener::bind(args.http_listen)
        .await
        .with_context(|| format!("--http-listen {}", args.http_listen))?;
    let probes = tokio::spawn(http::serve(
        probes,
        Arc::clone(&metrics),
        Arc::clone(&state) as Arc<dyn Readiness>,
        shutdown.clone(),
    ));

    let store = authority_store(&args, &client);
    let authority = Arc::new(
        load_or_create(&*store, &*clock)
            .await
            .context("loading the certificate authority")?,
    );
    state.ca_loaded.store(true, Ordering::Relaxed);

    let fleet = Fleet::new(
        ChannelSettings::default(),
        Arc::clone(&clock),
        Arc::new(Counted(Arc::clone(&metrics))),
    );
    let reviewer: Arc<dyn TokenReviewer> = Arc::new(KubeTokenReviewer::new(client.clone()));
    let admission = AdmissionPolicy::new(&args.own_namespace);
    let enrolment = EnrolmentService::new(
        Arc::clone(&authority),
        Arc::clone(&reviewer),
        admission.clone(),
        Arc::clone(&clock),
        fleet.clone(),
        EnrolmentRate::default(),
    );
    let agents = Arc::new(FleetAgents::new(fleet.clone()));
    let cnpg = CnpgEngine::new(caches.clone(), client.clone(), agents, Arc::clone(&clock));
    let build = BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("HASTEWARD_COMMIT").unwrap_or_default().to_owned(),
        started_at: clock.now(),
    };
    let steward = StewardService::new(
        Arc::new(Engines::new(cnpg.clone(), Arc::clone(&metrics))),
        fleet.clone(),
        build,
    );
    let routes = Routes::new(enrolment.into_server()).add_service(steward.into_server());
    let authenticator = Authenticator::new(
        reviewer,
        PeoplePolicy::new(&args.own_namespace),
        Arc::clone(&clock),
    );
    let identity = ServerIdentity::new(authority, names(&args), Vec::new(), Arc::clone(&clock))
        .context("making the server certificate")?;
    let listener = Listener::new(
        identity.configs(),
        fleet.clone(),
        Gate::new(authenticator, routes),
        Limits::default(),
    );
    let socket = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    tracing::info!(address = %args.listen, "serving agents, enrolment and people");
    state.listening.store(true, Ordering::Relaxed);

    tokio::spawn(identity.maintain(shutdown.clone()));
    tokio::spawn(follow_agent_pods(
        client,
        admission,
        fleet.clone(),
        shutdown.clone(),
    ));
    spawn_sampler(cnpg, args.sample_every, &shutdown);
    tokio::spawn(
        shutdown
            .clone()
            .run_until_cancelled_owned(gauges(metrics, fleet, caches)),
    );

    listener.serve(socket, shutdown.clone()).await;
    shutdown.cancel();
    probes
        .await
        .context("the HTTP server")?
        .context("the HTTP server")
}

/// A client that does not retry on its own: its default repeats a 503 for many minutes, while triage must say within its
/// limit what could not be read.
async fn kubernetes_client() -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer()
        .await
        .context("no kubeconfig and no pod account to reach the API server with")?;
    config.default_retry = false;
    kube::Client::try_from(config).context("setting up the client of the API server")
}

fn authority_store(args: &Args, client: &kube::Client) -> Arc<dyn AuthorityStore> {
    match &args.ca_directory {
        Some(directory) => Arc::new(FileAuthorityStore::new(directory)),
        None => Arc::new(SecretAuthorityStore::new(client, &args.own_namespace)),
    }
}

/// Looks at every primary now and then, once the caches are complete.
fn spawn_sampler(cnpg: CnpgEngine, every: Duration, shutdown: &CancellationToken) {
    let sampling = async move {
        cnpg.synced().await;
        cnpg.sample(every).await;
    };
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(sampling));
}

/// The names in the coordinator's certificate: its Service, as agents and people dial it.
fn names(args: &Args) -> Vec<String> {
    let service = format!("hasteward-coordinator.{}.svc", args.own_namespace);
    let mut names = vec![
        service.clone(),
        format!("{service}.cluster.local"),
        "hasteward-coordinator".to_owned(),
        "localhost".to_owned(),
    ];
    names.extend(args.server_names.iter().cloned());
    names
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(shutdown)
}

/// Brings gauges up to date, for ever.
async fn gauges(metrics: Arc<Metrics>, fleet: Fleet, caches: Caches) {
    let mut ticks = tokio::time::interval(GAUGES);
    loop {
        ticks.tick().await;
        let agents = fleet.list();
        let count = |state: AgentState| agents.iter().filter(|agent| agent.state == state).count();
        metrics.agents("connected", count(AgentState::Connected));
        metrics.agents("lost", count(AgentState::Lost));
        metrics.agents("never_seen", count(AgentState::NeverSeen));
        for (kind, state) in caches.states() {
            metrics.watch(kind, state.synced && state.interrupted.is_none());
        }
        if let Some(bytes) = resident_bytes() {
            metrics.resident(bytes);
        }
    }
}

/// `VmRSS` of this process (proc(5)).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// What readiness looks at.
struct State {
    caches: Caches,
    ca_loaded: AtomicBool,
    listening: AtomicBool,
}

impl Readiness for State {
    fn missing(&self) -> Vec<NotReady> {
        let mut missing = Vec::new();
        if !self.ca_loaded.load(Ordering::Relaxed) {
            missing.push(NotReady::Ca);
        }
        if !self.listening.load(Ordering::Relaxed) {
            missing.push(NotReady::Listener);
        }
        for (kind, state) in self.caches.states() {
            if !state.synced {
                let why = state
                    .interrupted
                    .unwrap_or_else(|| "the first list is not complete".to_owned());
                missing.push(NotReady::Watch { kind, why });
            }
        }
        missing
    }
}

/// The fleet's events as metrics.
struct Counted(Arc<Metrics>);

impl FleetEvents for Counted {
    fn identity_conflict(&self, _: &NodeName) {
        self.0.identity_conflict();
    }

    fn refused(&self, code: &'static str) {
        self.0.connection_refused(code);
    }

    fn enrolled(&self, _: &NodeName) {
        self.0.enrolment("issued");
    }

    fn enrolment_refused(&self, code: &'static str) {
        self.0.enrolment(code);
    }
}
