//! A coordinator: authority, fleet, gate and listener on a loopback port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hasteward_coordinator::api::requirement::{METHODS, Table};
use hasteward_coordinator::api::{
    Authenticator, BuildInfo, ClusterQuery, Gate, Limits, Listener, PeoplePolicy, ServerIdentity,
    StewardService, TriageEngine, TriageQuery,
};
use hasteward_coordinator::fleet::enrolment::EnrolmentRate;
use hasteward_coordinator::fleet::{
    AdmissionPolicy, AgentState, AgentStatus, CertificateAuthority, EnrolmentService, Fleet, FleetEvents,
    SystemClock, TokenReviewer,
};
use hasteward_proto::channel::tls::{Protocol, client_config, connect};
use hasteward_proto::channel::{CertifiedIdentity, ReverseConnection, ServerName};
use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{ClusterRef, NodeName, UnixMillis};
use hasteward_verdict::report::{ClusterList, ClusterRow, TriageReport};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;

use super::reviewer::{FakeReviewer, NAMESPACE};
use super::{NAME, node, quick, until};

/// Everything that the fleet told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Told {
    fn add(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|told| *told == text).count()
    }
}

impl FleetEvents for Told {
    fn connected(&self, node: &NodeName) {
        self.add(format!("connected {node}"));
    }
    fn lost(&self, node: &NodeName) {
        self.add(format!("lost {node}"));
    }
    fn identity_conflict(&self, node: &NodeName) {
        self.add(format!("conflict {node}"));
    }
    fn refused(&self, code: &'static str) {
        self.add(format!("refused {code}"));
    }
    fn enrolled(&self, node: &NodeName) {
        self.add(format!("enrolled {node}"));
    }
    fn enrolment_refused(&self, code: &'static str) {
        self.add(format!("enrolment refused {code}"));
    }
}

/// An engine that knows one cluster.
pub(crate) struct OneCluster;

#[tonic::async_trait]
impl TriageEngine for OneCluster {
    async fn triage(&self, query: TriageQuery, deadline: Instant) -> Result<TriageReport, Failure> {
        if query.cluster.name == "slow" {
            tokio::time::sleep_until(deadline + Duration::from_secs(60)).await;
        }
        Err(Failure::new(
            "no-such-cluster",
            FailureKind::NotFound,
            format!("no cluster {}", query.cluster),
        ))
    }

    async fn list_clusters(&self, _: ClusterQuery) -> Result<ClusterList, Failure> {
        let row = ClusterRow {
            engine: hasteward_proto::primitive::Engine::Cnpg,
            cluster: ClusterRef {
                namespace: "db".into(),
                name: "one".into(),
            },
            wanted_instances: 3,
            ready_instances: 3,
            primary: None,
            phase: None,
            seen_at: UnixMillis(1),
        };
        Ok(ClusterList { clusters: vec![row] })
    }
}

pub(crate) struct Coordinator {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) fleet: Fleet,
    pub(crate) told: Arc<Told>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Coordinator {
    pub(crate) async fn start(authority: Arc<CertificateAuthority>, reviewer: &Arc<FakeReviewer>) -> Self {
        Self::start_with(authority, reviewer, METHODS, EnrolmentRate::default()).await
    }

    pub(crate) async fn start_with(
        authority: Arc<CertificateAuthority>,
        reviewer: &Arc<FakeReviewer>,
        table: Table,
        rate: EnrolmentRate,
    ) -> Self {
        Self::assemble(authority, reviewer.clone(), NAMESPACE, table, rate).await
    }

    /// With another source of facts, in another namespace.
    pub(crate) async fn start_in(
        authority: Arc<CertificateAuthority>,
        reviewer: Arc<dyn TokenReviewer>,
        namespace: &str,
    ) -> Self {
        Self::assemble(authority, reviewer, namespace, METHODS, EnrolmentRate::default()).await
    }

    async fn assemble(
        authority: Arc<CertificateAuthority>,
        reviewer: Arc<dyn TokenReviewer>,
        namespace: &str,
        table: Table,
        rate: EnrolmentRate,
    ) -> Self {
        let clock = Arc::new(SystemClock);
        let told = Arc::new(Told::default());
        let fleet = Fleet::new(quick(), clock.clone(), told.clone());
        let policy = AdmissionPolicy::new(namespace);
        let enrolment = EnrolmentService::new(
            authority.clone(),
            reviewer.clone(),
            policy,
            clock.clone(),
            fleet.clone(),
            rate,
        );
        let build = BuildInfo {
            version: "9.9.9".into(),
            commit: "abc".into(),
            started_at: UnixMillis(5),
        };
        let steward = StewardService::new(Arc::new(OneCluster), fleet.clone(), build);
        let routes = Routes::new(enrolment.into_server()).add_service(steward.into_server());
        let authenticator = Authenticator::new(reviewer.clone(), PeoplePolicy::new(namespace), clock.clone());
        let gate = Gate::with_table(authenticator, routes, table);
        let identity = ServerIdentity::new(authority.clone(), vec![NAME.into()], vec![], clock).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let limits = Limits {
            first_call: Duration::from_secs(1),
            ..Limits::default()
        };
        let listener = Listener::new(identity.configs(), fleet.clone(), gate, limits);
        let task = tokio::spawn(listener.serve(socket, shutdown.clone()));
        Self {
            address,
            authority,
            fleet,
            told,
            shutdown,
            task,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }

    /// A connection as people make it.
    pub(crate) async fn dial(&self, identity: Option<&CertifiedIdentity>) -> Channel {
        let config = client_config(
            &self.authority.trust_bundle().unwrap(),
            identity,
            Protocol::People,
        )
        .unwrap();
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = connect(Arc::new(config), name, socket, super::LONG)
            .await
            .unwrap();
        ReverseConnection::open(stream, &quick()).await.unwrap().channel()
    }

    pub(crate) fn status(&self, name: &str) -> Option<AgentStatus> {
        self.fleet
            .list()
            .into_iter()
            .find(|status| status.node == node(name))
    }

    pub(crate) async fn connected(&self, name: &str) {
        until(&format!("{name} is connected"), async || {
            self.status(name)
                .is_some_and(|status| status.state == AgentState::Connected)
        })
        .await;
    }

    pub(crate) async fn lost(&self, name: &str) {
        until(&format!("{name} is lost"), async || {
            self.status(name)
                .is_some_and(|status| status.state == AgentState::Lost)
        })
        .await;
    }

    pub(crate) async fn told(&self, text: &str) {
        until(text, async || self.told.count(text) > 0).await;
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
