//! rustls configurations and handshakes: TLS 1.3, aws-lc-rs given explicitly, no session resumption (a resumed session would
//! skip the check of the certificate's expiry).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, ServerConfig, SignatureScheme,
    client::Resumption,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use tokio_rustls::client::TlsStream as DialledStream;

use super::identity::{IdentityError, PeerCertificate, PeerIdentity};
use super::material::{CertifiedIdentity, TrustBundle};
use super::{ALPN_PEOPLE, ALPN_REVERSE};

/// How long a refused peer may read why.
const LINGER: Duration = Duration::from_secs(1);
/// How much a refused peer may still send.
const LINGER_BYTES: u64 = 64 << 10;

/// A configuration that cannot be built, or a handshake that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The configuration cannot be built from these certificates.
    #[error("TLS configuration: {0}")]
    Configure(String),
    /// The handshake failed: a wrong authority, an expired certificate, a wrong name.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The handshake took too long.
    #[error("TLS handshake: not finished within {0:?}")]
    Timeout(Duration),
    /// The peer chose no protocol of ours.
    #[error("TLS handshake: the peer asked for none of the protocols `h2` and `hasteward-reverse/1`")]
    Protocol,
    /// The peer's certificate chains to our authority and names nobody of ours.
    #[error("TLS handshake: {0}")]
    Identity(#[from] IdentityError),
}

impl TlsError {
    /// The peer itself refused our certificate, or found none: a fresh one may help.
    #[must_use]
    pub fn is_certificate_refused(&self) -> bool {
        matches!(self, Self::Handshake(error) if certificate_alert(error))
    }
}

/// Is this I/O error the peer's word that our certificate is not accepted (TLS alerts, RFC 8446 section 6)?
#[must_use]
pub fn certificate_alert(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired
        ))
    )
}

/// The one provider of the whole tree.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Wraps an error of rustls.
fn configure(error: impl std::fmt::Display) -> TlsError {
    TlsError::Configure(error.to_string())
}

/// The coordinator's side: shows `identity`; asks for a client certificate of `bundle`, which may be absent.
///
/// # Errors
/// The certificates cannot be used.
pub fn server_config(identity: &CertifiedIdentity, bundle: &TrustBundle) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(bundle.roots().clone(), provider())
        .allow_unauthenticated()
        .build()
        .map_err(configure)?;
    let resolver = Arc::new(SingleCertAndKey::from(identity.certified_key().clone()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(configure)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_REVERSE.to_vec(), ALPN_PEOPLE.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Which protocol is spoken after TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, the dialling side calls.
    People,
    /// HTTP/2, the accepting side calls.
    Reverse,
}

impl Protocol {
    /// The ALPN name.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::People => ALPN_PEOPLE,
            Self::Reverse => ALPN_REVERSE,
        }
    }
}

/// The dialling side: trusts only a coordinator of `bundle`, shows `identity` where there is one.
///
/// # Errors
/// The certificates cannot be used.
pub fn client_config(
    bundle: &TrustBundle,
    identity: Option<&CertifiedIdentity>,
    protocol: Protocol,
) -> Result<ClientConfig, TlsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(bundle.roots().clone(), provider())
        .build()
        .map_err(configure)?;
    let wanted = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(configure)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CoordinatorVerifier { inner }));
    let mut config = match identity {
        Some(identity) => wanted
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key().clone()))),
        None => wanted.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The usual verification by chain, validity, usage and server name, and then: the certificate names the coordinator. A
/// certificate of a node or a person of the same authority is no coordinator, whatever other names it carries.
#[derive(Debug)]
struct CoordinatorVerifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let other = |error: IdentityError| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        };
        match PeerCertificate::from_der(end_entity).map_err(other)?.identity {
            PeerIdentity::Coordinator => Ok(verified),
            identity => Err(other(IdentityError::Foreign(identity.uri()))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// An accepted connection after TLS.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The stream.
    pub stream: server::TlsStream<S>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The peer's certificate, verified against our authority.
    pub peer: Option<PeerCertificate>,
}

/// TLS on an accepted connection.
///
/// # Errors
/// No handshake within `limit`, a certificate that is not accepted, or no protocol of ours.
pub async fn accept<S>(config: Arc<ServerConfig>, stream: S, limit: Duration) -> Result<Accepted<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    let stream = match tokio::time::timeout(limit, accepting)
        .await
        .map_err(|_| TlsError::Timeout(limit))?
    {
        Ok(stream) => stream,
        Err((error, refused)) => {
            linger(refused).await;
            return Err(TlsError::Handshake(error));
        }
    };
    let (_, connection) = stream.get_ref();
    let protocol = match connection.alpn_protocol() {
        Some(alpn) if alpn == ALPN_PEOPLE => Protocol::People,
        Some(alpn) if alpn == ALPN_REVERSE => Protocol::Reverse,
        _ => return Err(TlsError::Protocol),
    };
    let peer = match connection.peer_certificates().and_then(<[_]>::first) {
        Some(leaf) => Some(PeerCertificate::from_der(leaf)?),
        None => None,
    };
    Ok(Accepted {
        stream,
        protocol,
        peer,
    })
}

/// Lets the alert reach the peer: a socket that is closed with unread bytes sends a reset, and the peer may never learn why it was
/// refused (an expired certificate, an authority that was replaced).
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut refused: S) {
    let drain = async {
        refused.shutdown().await?;
        tokio::io::copy(&mut (&mut refused).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whether the peer closed, or broke, or took too long: it had its chance.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// TLS on a dialled connection. With TLS 1.3 the coordinator judges *our* certificate only afterwards: a refusal shows in the
/// first read.
///
/// # Errors
/// No handshake within `limit`, or the peer is no coordinator of the bundle that goes by `name`.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: S,
    limit: Duration,
) -> Result<client::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let expected = config.alpn_protocols.first().cloned();
    let stream = tokio::time::timeout(limit, TlsConnector::from(config).connect(name, stream))
        .await
        .map_err(|_| TlsError::Timeout(limit))?
        .map_err(TlsError::Handshake)?;
    if stream.get_ref().1.alpn_protocol() != expected.as_deref() {
        return Err(TlsError::Protocol);
    }
    Ok(stream)
}
