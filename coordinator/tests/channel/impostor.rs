//! Somebody who pretends to be the coordinator never sees a token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hasteward_coordinator::fleet::{CertificateAuthority, Subject};
use hasteward_proto::channel::{CertifiedIdentity, TrustBundle};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::support::agent::{Addresses, RunningAgent, TestAgent, config, token_files};
use crate::support::{NAME, authority, now, until};

const TOKEN: &str = "header.very-secret-token.signature";

/// What an impostor got to see.
#[derive(Default)]
struct Seen {
    connections: usize,
    handshakes: usize,
    bytes: Vec<u8>,
}

struct Impostor {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Impostor {
    /// Listens, with TLS where there is a certificate, and keeps every byte that it can read.
    async fn start(tls: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> Self {
        let acceptor = tls.map(|(chain, key)| {
            let mut config =
                rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(chain, key)
                    .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec(), b"hasteward-reverse/1".to_vec()];
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                kept.lock().unwrap().connections += 1;
                let (kept, acceptor) = (kept.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    if let Some(acceptor) = acceptor {
                        if let Ok(mut stream) = acceptor.accept(stream).await {
                            // A client that trusts nobody here sends an alert at once; a read says whether it went on.
                            let read = tokio::time::timeout(
                                Duration::from_millis(300),
                                stream.read_to_end(&mut bytes),
                            );
                            if !matches!(read.await, Ok(Err(_))) || !bytes.is_empty() {
                                kept.lock().unwrap().handshakes += 1;
                            }
                        }
                    } else {
                        let _ =
                            tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut bytes))
                                .await;
                    }
                    kept.lock().unwrap().bytes.extend(bytes);
                });
            }
        });
        Self { address, seen, task }
    }
}

/// A certificate of the real authority with everything a coordinator's has, but for its identity.
fn signed_by(
    authority: &CertificateAuthority,
    uri: Option<&str>,
    name: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pem = authority.pem();
    let ca_key = KeyPair::from_pem(pem.key.expose_secret()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&pem.certificate, ca_key).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
        .subject_alt_names
        .extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let ca = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
    (vec![leaf.der().clone(), ca], PrivateKeyDer::from(key))
}

/// The agent comes back again and again, and the impostor learns nothing.
async fn learns_nothing(what: &str, trusted: &CertificateAuthority, impostor: Impostor) {
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(dir.path(), TOKEN, trusted.bundle_pem());
    let addresses = Addresses::of(impostor.address);
    let mut config = config("n1", &addresses, credentials);
    config.settings.handshake_timeout = Duration::from_millis(400);
    let running = RunningAgent::start(config, &TestAgent::new("n1"));
    until(what, async || impostor.seen.lock().unwrap().connections >= 4).await;
    drop(running);
    let seen = impostor.seen.lock().unwrap();
    assert_eq!(seen.handshakes, 0, "{what}: a handshake was completed");
    let text = String::from_utf8_lossy(&seen.bytes);
    assert!(!text.contains("very-secret"), "{what}: the token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_coordinator_never_sees_the_token() {
    let real = authority();
    let coordinator = "spiffe://hasteward/coordinator";

    let plain = Impostor::start(None).await;
    learns_nothing("no TLS", &real, plain).await;

    let foreign = Impostor::start(Some(signed_by(&authority(), Some(coordinator), NAME))).await;
    learns_nothing("another authority", &real, foreign).await;

    let elsewhere = Impostor::start(Some(signed_by(&real, Some(coordinator), "elsewhere.test"))).await;
    learns_nothing("another server name", &real, elsewhere).await;

    for uri in [
        Some("spiffe://hasteward/node/n2"),
        Some("spiffe://hasteward/person/eve"),
        None,
    ] {
        let other = Impostor::start(Some(signed_by(&real, uri, NAME))).await;
        learns_nothing(&format!("identity {uri:?}"), &real, other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_harness_would_see_a_token() {
    // The same impostor with what a real coordinator has: the agent does talk, so the test above can fail.
    let real = authority();
    let (chain, key) = signed_by(&real, Some("spiffe://hasteward/coordinator"), NAME);
    let convincing = Impostor::start(Some((chain, key))).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(dir.path(), TOKEN, real.bundle_pem());
    let running = RunningAgent::start(
        config("n1", &Addresses::of(convincing.address), credentials),
        &TestAgent::new("n1"),
    );
    until("the token arrives", async || {
        String::from_utf8_lossy(&convincing.seen.lock().unwrap().bytes).contains("very-secret")
    })
    .await;
    drop(running);
}

#[test]
fn an_agents_certificate_cannot_serve() {
    // Not even by its usage: what enrolment signs is for clients.
    let real = authority();
    let identity: CertifiedIdentity = real
        .issue(&Subject::Node(crate::support::node("n1")), now())
        .unwrap();
    let _: TrustBundle = real.trust_bundle().unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&identity.certified_key().cert[0]).unwrap();
    assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
}
