//! Agents: the real dial loop under a small service.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hasteward_agent::service::dial::{CoordinatorAddress, DialConfig, Pauses, Resolver, run};
use hasteward_agent::service::enrol::Credentials;
use hasteward_coordinator::fleet::CertificateAuthority;
use hasteward_proto::channel::KeyRequest;
use hasteward_proto::wire::agent::agent_server::{Agent, AgentServer};
use hasteward_proto::wire::agent::{
    CountCommitsReply, CountCommitsRequest, DescribeReply, DescribeRequest, InspectGaleraReply,
    InspectGaleraRequest, InspectPostgresReply, InspectPostgresRequest,
};
use rcgen::KeyPair;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{NAME, node, quick};

/// Answers `Describe` at once and `CountCommits` when the test lets it.
#[derive(Clone)]
pub(crate) struct TestAgent {
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) waiting: Arc<Semaphore>,
}

impl TestAgent {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            version: "1.2.3".to_owned(),
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(AgentServer::new(self.clone()))
    }
}

#[tonic::async_trait]
impl Agent for TestAgent {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        Ok(Response::new(DescribeReply {
            node: self.node.clone(),
            version: self.version.clone(),
            ..DescribeReply::default()
        }))
    }

    async fn inspect_postgres(
        &self,
        _: Request<InspectPostgresRequest>,
    ) -> Result<Response<InspectPostgresReply>, Status> {
        Ok(Response::new(InspectPostgresReply::default()))
    }

    async fn count_commits(
        &self,
        _: Request<CountCommitsRequest>,
    ) -> Result<Response<CountCommitsReply>, Status> {
        self.waiting.add_permits(1);
        self.gate
            .acquire()
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .forget();
        Ok(Response::new(CountCommitsReply::default()))
    }

    async fn inspect_galera(
        &self,
        _: Request<InspectGaleraRequest>,
    ) -> Result<Response<InspectGaleraReply>, Status> {
        Ok(Response::new(InspectGaleraReply::default()))
    }
}

/// Where the coordinator is, changed by the test.
#[derive(Clone, Default)]
pub(crate) struct Addresses(pub(crate) Arc<Mutex<Vec<SocketAddr>>>);

#[tonic::async_trait]
impl Resolver for Addresses {
    async fn resolve(&self, _: &CoordinatorAddress) -> io::Result<Vec<SocketAddr>> {
        let known = self.0.lock().unwrap().clone();
        if known.is_empty() {
            Err(io::Error::other("no such name yet"))
        } else {
            Ok(known)
        }
    }
}

impl Addresses {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let addresses = Self::default();
        addresses.set(address);
        addresses
    }

    pub(crate) fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap() = vec![address];
    }
}

/// Pauses short enough for tests.
pub(crate) fn brisk() -> Pauses {
    Pauses {
        min: Duration::from_millis(20),
        max: Duration::from_millis(200),
        healthy_after: Duration::from_secs(60),
        resolve_every: Duration::from_millis(100),
    }
}

pub(crate) fn config(name: &str, addresses: &Addresses, credentials: Credentials) -> DialConfig {
    let coordinator = CoordinatorAddress {
        host: NAME.to_owned(),
        port: 8443,
    };
    let mut config = DialConfig::new(coordinator, node(name), credentials);
    config.settings = quick();
    config.pauses = brisk();
    config.resolver = Arc::new(addresses.clone());
    config
}

/// Credentials with a token, as kubelet lays them out.
pub(crate) fn token_files(directory: &Path, token: &str, bundle_pem: &str) -> Credentials {
    let (token_file, ca) = (directory.join("token"), directory.join("ca.crt"));
    std::fs::write(&token_file, token).unwrap();
    std::fs::write(&ca, bundle_pem).unwrap();
    Credentials::Token {
        token: token_file,
        ca,
    }
}

/// Credentials from files, signed by `authority` for `name`, that trust `bundle_pem`.
pub(crate) fn certificate_files(
    directory: &Path,
    authority: &CertificateAuthority,
    name: &str,
    at: hasteward_proto::primitive::UnixMillis,
    bundle_pem: &str,
) -> Credentials {
    let subject = hasteward_coordinator::fleet::Subject::Node(node(name));
    let key = KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let signed = authority.sign(request.der(), &subject, at).unwrap();
    let file = |what: &str, text: String| -> PathBuf {
        let path = directory.join(format!("{name}.{what}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let pem = |der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    Credentials::Files {
        cert: file("crt", signed.chain.iter().map(|der| pem(der)).collect()),
        key: file("key", key.serialize_pem()),
        ca: file("ca", bundle_pem.to_owned()),
    }
}

/// A running agent; dropping it kills it without a good-bye.
pub(crate) struct RunningAgent {
    pub(crate) shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl RunningAgent {
    /// On a runtime of its own, so that all of it can be killed.
    pub(crate) fn start(config: DialConfig, agent: &TestAgent) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        runtime.spawn(run(config, agent.routes(), shutdown.clone()));
        Self {
            shutdown,
            runtime: Some(runtime),
        }
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A certificate request as an agent makes it.
pub(crate) fn request() -> Vec<u8> {
    KeyRequest::new().unwrap().request().to_vec()
}
