//! Carrying a probe out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::runtime::Runtime;
use crate::runtime::spec::{Command, ExecSpec};

/// What a probe of one container needs.
#[derive(Clone, Debug)]
pub struct Target {
    /// The runtime.
    pub runtime: Arc<Runtime>,
    /// Address of the pod (of the node with hostNetwork).
    pub address: IpAddr,
    /// The container: names of its ports.
    pub container: Container,
    /// How to execute in it; the program is the probe's.
    pub exec: ExecSpec,
}

/// Why a probe did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It took too long.
    #[error("timeout")]
    Timeout,
    /// The connection.
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    /// HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Its own words are no request.
    #[error("bad request: {0}")]
    Request(#[from] http::Error),
    /// The answer.
    #[error("HTTP probe failed with statuscode: {0}")]
    Status(u16),
    /// The program.
    #[error("exit code {0}")]
    Exit(i32),
    /// The program did not run.
    #[error("{0}")]
    Runtime(#[from] crate::runtime::RuntimeError),
    /// A port that the container does not have.
    #[error("no port named {0:?}")]
    Port(String),
    /// grpc, or nothing.
    #[error("the probe has no handler that is supported")]
    Unsupported,
}

impl Target {
    /// Runs `probe` once.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn run(&self, probe: &Probe, limit: Duration) -> Result<(), ProbeError> {
        if let Some(action) = &probe.exec {
            let argv = action.command.clone().unwrap_or_default();
            let spec = ExecSpec {
                command: Command {
                    argv,
                    ..self.exec.command.clone()
                },
                ..self.exec.clone()
            };
            return match self.runtime.exec(&spec, limit).await? {
                Some(0) => Ok(()),
                Some(code) => Err(ProbeError::Exit(code)),
                None => Err(ProbeError::Timeout),
            };
        }
        let network = async {
            if let Some(action) = &probe.tcp_socket {
                let port = self.port(&action.port)?;
                TcpStream::connect((self.host(action.host.as_deref()), port)).await?;
                Ok(())
            } else if let Some(action) = &probe.http_get {
                self.http(action).await
            } else {
                Err(ProbeError::Unsupported)
            }
        };
        tokio::time::timeout(limit, network)
            .await
            .map_err(|_| ProbeError::Timeout)?
    }

    fn host(&self, host: Option<&str>) -> String {
        host.filter(|host| !host.is_empty())
            .map_or_else(|| self.address.to_string(), str::to_owned)
    }

    fn port(&self, port: &IntOrString) -> Result<u16, ProbeError> {
        let bad = || ProbeError::Port(format!("{port:?}"));
        match port {
            IntOrString::Int(number) => u16::try_from(*number).map_err(|_| bad()),
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                let named = ports
                    .find(|port| port.name.as_ref() == Some(name))
                    .map(|port| port.container_port);
                named
                    .or_else(|| name.parse().ok())
                    .and_then(|number| u16::try_from(number).ok())
                    .ok_or_else(bad)
            }
        }
    }

    async fn http(&self, action: &HTTPGetAction) -> Result<(), ProbeError> {
        let (host, port) = (self.host(action.host.as_deref()), self.port(&action.port)?);
        let path = action.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let mut request = http::Request::get(path)
            .header("User-Agent", "kube-probe/1.33")
            .header("Accept", "*/*");
        let headers = action.http_headers.iter().flatten();
        if !headers
            .clone()
            .any(|header| header.name.eq_ignore_ascii_case("host"))
        {
            request = request.header("Host", format!("{host}:{port}"));
        }
        for header in headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let status = if action
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        {
            let name = ServerName::from(self.address);
            let connector = tokio_rustls::TlsConnector::from(trusting()?);
            send(connector.connect(name, stream).await?, request).await?
        } else {
            send(stream, request).await?
        };
        if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(ProbeError::Status(status))
        }
    }
}

async fn send<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<u16, ProbeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    drop(connection);
    Ok(answer.status().as_u16())
}

/// kubelet does not verify the certificates of probed servers.
fn trusting() -> std::io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
