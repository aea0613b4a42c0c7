//! The listening end: TLS, HTTP/1.1 and HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::api::{Api, Config, SetupError};
use crate::auth::User;
use crate::pki::PkiError;

/// Clients that do not finish the TLS handshake in this time are dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its parts could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A certificate could not be made.
    #[error("server certificate")]
    Certificate(#[from] PkiError),
    /// TLS could not be set up.
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    /// The certificate authority is not usable for TLS.
    #[error("client verifier: {0}")]
    Verifier(String),
    /// A socket has no address.
    #[error("listening socket")]
    Socket(#[from] std::io::Error),
}

/// A running server. Dropping it stops it; [`Server::stop`] also waits.
pub struct Server {
    api: Arc<Api>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Serves on sockets that were bound by the caller.
    pub fn start(config: &Config, listeners: Vec<TcpListener>) -> Result<Self, ServeError> {
        let api = Api::new(config)?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let acceptor = acceptor(&api, &addresses)?;
        let changes = api.store.tap();
        api.background.spawn(crate::gc::run(api.clone(), changes));
        for listener in listeners {
            api.background
                .spawn(accept(api.clone(), listener, acceptor.clone()));
        }
        Ok(Self { api, addresses })
    }

    /// The parts, for what runs in the same process.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `https://` and the first address.
    pub fn url(&self) -> String {
        self.addresses
            .first()
            .map(|a| format!("https://{a}"))
            .unwrap_or_default()
    }

    /// Ends every connection and waits until all is quiet.
    pub async fn stop(self) {
        self.api.background.stop().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.background.cancel();
    }
}

fn acceptor(api: &Api, addresses: &[SocketAddr]) -> Result<TlsAcceptor, ServeError> {
    let mut ips: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), [10, 96, 0, 1].into()];
    ips.extend(
        addresses
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_unspecified()),
    );
    ips.sort();
    ips.dedup();
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    let credential = api.authority.server(&names, &ips)?;
    let wrong = |what: &str, e: &dyn std::fmt::Display| ServeError::Verifier(format!("{what}: {e}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(api.authority.certificate().as_bytes())
        .map_err(|e| wrong("CA", &e))?;
    roots.add(ca)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong("client certificates", &e))?;
    let certificate = CertificateDer::from_pem_slice(credential.certificate.as_bytes())
        .map_err(|e| wrong("certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).map_err(|e| wrong("key", &e))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

async fn accept(api: Arc<Api>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                api.background
                    .spawn(connection(api.clone(), stream, acceptor.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(api: Arc<Api>, stream: TcpStream, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return,
    };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|c| c.first())
        .and_then(|c| User::from_certificate(c));
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(crate::routes::handle(api, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1000);
    builder.http1().timer(TokioTimer::new());
    if let Err(error) = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "connection");
    }
}

/// Writes a kubeconfig of the administrator (`system:masters`).
pub fn write_admin_kubeconfig(api: &Api, server: &str, path: &Path) -> Result<(), PkiError> {
    let text = api
        .authority
        .kubeconfig("kubernetes-admin", &["system:masters"], server)?;
    crate::pki::write_private(path, text.as_bytes())
}
