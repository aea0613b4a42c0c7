//! The HTTPS client for an instance's status port: addressed by pod IP, verified by the cluster's CA against the
//! name of the write Service.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer that are read at most.
const MAX_BODY: usize = 4 << 20;

/// Client for the instances of one cluster.
#[derive(Clone)]
pub struct StatusClient {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl StatusClient {
    /// Trusts one CA (PEM) and expects certificates for one name.
    pub fn new(ca: &str, name: &str) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots
                .add(certificate.context("reading the CA")?)
                .context("trusting the CA")?;
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name.to_owned()).context("the name to verify")?,
        })
    }

    /// Body of a GET that was answered with 200, within the limit.
    pub async fn get(&self, ip: &str, port: u16, path: &str, limit: Duration) -> anyhow::Result<Bytes> {
        tokio::time::timeout(limit, self.exchange(ip, port, path))
            .await
            .context("no answer in time")?
    }

    async fn exchange(&self, ip: &str, port: u16, path: &str) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect((ip, port)).await.context("connecting")?;
        let stream = self
            .connector
            .connect(self.name.clone(), stream)
            .await
            .context("TLS")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("HTTP")?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header("host", ip)
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await.context("asking")?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?
            .to_bytes();
        connection.abort();
        if !code.is_success() {
            bail!("{code}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    }
}
