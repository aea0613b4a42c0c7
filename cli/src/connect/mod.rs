//! From a kubeconfig to a verified channel to the coordinator.
//!
//! A person needs only a kubeconfig: a token of the viewer's ServiceAccount (so Kubernetes RBAC says who may read), a
//! port-forward to the coordinator's pod, and TLS inside it, verified against the CA that the coordinator published.

mod kubernetes;
mod steward;

use std::time::Duration;

use hasteward_proto::channel::material::{CertifiedIdentity, TrustBundle};
use hasteward_proto::channel::reverse::{ReverseConnection, prepare_socket};
use hasteward_proto::channel::settings::ChannelSettings;
use hasteward_proto::channel::tls::{self, Protocol};
use hasteward_proto::failure::{Failure, FailureKind};
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub(crate) use self::steward::Steward;
use crate::args::Global;

/// The part of the time limit that connecting may take at the most.
const CONNECT: Duration = Duration::from_secs(10);

/// Who we say that we are.
enum Credential {
    /// A ServiceAccount token for the coordinator's audience.
    Token(SecretString),
    /// A client certificate, shown in the handshake.
    Certificate(Box<CertifiedIdentity>),
}

/// A client of the coordinator.
pub(crate) async fn steward(global: &Global) -> Result<Steward, Failure> {
    let limit = global.timeout.min(CONNECT);
    match tokio::time::timeout(limit, connect(global)).await {
        Ok(connected) => connected,
        Err(_) => Err(Failure::new(
            "coordinator-timeout",
            FailureKind::Timeout,
            format!("the coordinator was not reached within {} s", limit.as_secs()),
        )
        .retryable()
        .hint(format!(
            "kubectl get pods -n {} -l app.kubernetes.io/component=coordinator",
            global.system_namespace
        ))),
    }
}

async fn connect(global: &Global) -> Result<Steward, Failure> {
    if let (Some(cert), Some(key), Some(address)) = (&global.cert, &global.key, &global.coordinator) {
        let identity = CertifiedIdentity::from_files(cert, key).map_err(|e| material(&e))?;
        let stream = dial(address).await?;
        return handshake(
            global,
            stream,
            &bundle(global, None).await?,
            Credential::Certificate(Box::new(identity)),
        )
        .await;
    }
    let cluster = kubernetes::Cluster::from(global).await?;
    let bundle = bundle(global, Some(&cluster)).await?;
    let token = Credential::Token(cluster.viewer_token().await?);
    match &global.coordinator {
        Some(address) => handshake(global, dial(address).await?, &bundle, token).await,
        None => handshake(global, cluster.forward().await?, &bundle, token).await,
    }
}

/// The CA bundle: a file, else the one that the coordinator published.
async fn bundle(global: &Global, cluster: Option<&kubernetes::Cluster>) -> Result<TrustBundle, Failure> {
    match (&global.ca, cluster) {
        (Some(file), _) => TrustBundle::from_file(file).map_err(|e| material(&e)),
        (None, Some(cluster)) => TrustBundle::from_pem(
            "ConfigMap hasteward-ca, key ca.crt",
            cluster.ca().await?.as_bytes(),
        )
        .map_err(|e| material(&e)),
        (None, None) => Err(Failure::new(
            "missing-argument",
            FailureKind::Input,
            "--ca is missing: give the coordinator's CA bundle",
        )),
    }
}

async fn dial(address: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|e| {
        Failure::new(
            "coordinator-unreachable",
            FailureKind::Unreachable,
            format!("--coordinator {address}: {e}"),
        )
        .retryable()
    })?;
    prepare_socket(&stream).map_err(|e| crate::command::environment("the socket could not be set up", &e))?;
    Ok(stream)
}

async fn handshake<S>(
    global: &Global,
    stream: S,
    bundle: &TrustBundle,
    credential: Credential,
) -> Result<Steward, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (identity, token) = match credential {
        Credential::Certificate(identity) => (Some(identity), None),
        Credential::Token(token) => (None, Some(token)),
    };
    let failed = |what: &dyn std::fmt::Display| {
        Failure::new(
            "coordinator-unverified",
            FailureKind::Unreachable,
            format!("the coordinator could not be verified: {what}"),
        )
        .hint("nothing was sent to it; compare ConfigMap hasteward-ca with the coordinator's certificate")
    };
    let config = tls::client_config(bundle, identity.as_deref(), Protocol::People).map_err(|e| failed(&e))?;
    let name = format!("hasteward-coordinator.{}.svc", global.system_namespace);
    let name = rustls::pki_types::ServerName::try_from(name).map_err(|e| {
        Failure::new(
            "system-namespace",
            FailureKind::Input,
            format!("--system-namespace {}: {e}", global.system_namespace),
        )
    })?;
    let settings = ChannelSettings::default();
    let stream = tls::connect(config.into(), name, stream, settings.handshake_timeout)
        .await
        .map_err(|e| failed(&e))?;
    let connection = ReverseConnection::open(stream, &settings)
        .await
        .map_err(|e| failed(&e))?;
    Steward::new(connection, token, global.timeout)
}

fn material(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("bad-certificate", FailureKind::Input, error.to_string())
}
