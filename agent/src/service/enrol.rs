//! How the agent comes by its certificate: by its projected token, or from files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hasteward_proto::channel::key_request::KeyRequestError;
use hasteward_proto::channel::tls::Protocol;
use hasteward_proto::channel::{
    CertifiedIdentity, KeyRequest, MaterialError, PeerIdentity, ReverseConnection, ReverseError, ServerName,
};
use hasteward_proto::failure::Failure;
use hasteward_proto::primitive::{NodeName, UnixMillis};
use hasteward_proto::wire::enrol::EnrolRequest;
use hasteward_proto::wire::enrol::enrolment_client::EnrolmentClient;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::{info, warn};

use super::dial::{DialConfig, DialError, addresses, dial};

/// No ServiceAccount token is longer, bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;
/// Time limit of the call itself; the coordinator asks the API server meanwhile.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// The wall clock is looked at this often: sleeping machines do not sleep through a renewal.
const LOOK: Duration = Duration::from_secs(60);

/// How this agent comes by a certificate, and whom it trusts.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// With a projected ServiceAccount token (audience `hasteward-agent`), kept fresh by kubelet.
    Token {
        /// The token's file.
        token: PathBuf,
        /// The certificates to trust, PEM (ConfigMap `hasteward-ca`).
        ca: PathBuf,
    },
    /// From files, without Kubernetes.
    Files {
        /// `--cert`: certificate chain, PEM, leaf first.
        cert: PathBuf,
        /// `--key`: private key, PEM.
        key: PathBuf,
        /// `--ca`: the certificates to trust, PEM.
        ca: PathBuf,
    },
}

impl Credentials {
    /// The certificates to trust.
    pub(super) fn trust(&self) -> &Path {
        match self {
            Self::Token { ca, .. } | Self::Files { ca, .. } => ca,
        }
    }
}

/// The agent has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The certificate names somebody else.
    #[error("the certificate names {found}, this agent speaks for node `{node}`")]
    OtherNode {
        /// Whom it names.
        found: PeerIdentity,
        /// Whom it must name.
        node: NodeName,
    },
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyRequestError),
    /// The coordinator's name has no address.
    #[error("resolve `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The coordinator's name has no address now.
    #[error("resolve `{0}`: no address")]
    NoAddress(String),
    /// The coordinator could not be reached, or is not the one that is trusted.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke at once.
    #[error(transparent)]
    Open(#[from] ReverseError),
    /// The token's file cannot be read.
    #[error("token {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The coordinator refused, or did not answer.
    #[error("enrolment refused ({}): {}", .0.code, .0.message)]
    Refused(Failure),
}

/// A certificate that this agent holds.
#[derive(Debug)]
pub(super) struct Held {
    /// Grows with every certificate.
    pub generation: u64,
    /// Certificate and key, in memory.
    pub identity: CertifiedIdentity,
}

/// Why a certificate is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// Half of its life is over.
    Due,
    /// A coordinator does not accept it.
    Refused,
}

/// Gets and renews the certificate.
pub(super) struct Keeper {
    config: DialConfig,
    name: ServerName<'static>,
    current: watch::Sender<Option<Arc<Held>>>,
    refusals: watch::Receiver<u64>,
    seed: u64,
}

/// Now, by the machine's clock.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Reads a small secret file.
async fn read_token(path: &Path) -> Result<SecretString, IdentityError> {
    let failed = |source| IdentityError::Token {
        path: path.to_owned(),
        source,
    };
    let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if length > MAX_TOKEN_BYTES {
        return Err(failed(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 16 KiB: no token",
        )));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    Ok(SecretString::from(text.trim()))
}

/// The certificate must name this agent's node.
fn of_node(identity: CertifiedIdentity, node: &NodeName) -> Result<CertifiedIdentity, IdentityError> {
    match &identity.certificate().identity {
        PeerIdentity::Node(named) if named == node => Ok(identity),
        found => Err(IdentityError::OtherNode {
            found: found.clone(),
            node: node.clone(),
        }),
    }
}

impl Keeper {
    /// Reads the files where there are any: a wrong file is said at the start.
    pub(super) fn new(
        config: DialConfig,
        name: ServerName<'static>,
        refusals: watch::Receiver<u64>,
        seed: u64,
    ) -> Result<Self, IdentityError> {
        let keeper = Self {
            config,
            name,
            current: watch::Sender::new(None),
            refusals,
            seed,
        };
        if let Credentials::Files { cert, key, .. } = &keeper.config.credentials {
            let identity = of_node(CertifiedIdentity::from_files(cert, key)?, &keeper.config.node)?;
            keeper.hold(identity);
        }
        Ok(keeper)
    }

    /// The certificate as it changes; `None` = none yet.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Held>>> {
        self.current.subscribe()
    }

    fn hold(&self, identity: CertifiedIdentity) {
        let generation = self.generation() + 1;
        self.current
            .send_replace(Some(Arc::new(Held { generation, identity })));
    }

    /// Generation of the certificate that is held; 0 = none.
    fn generation(&self) -> u64 {
        self.current.borrow().as_ref().map_or(0, |held| held.generation)
    }

    /// Keeps the certificate fresh, for ever.
    pub(super) async fn keep(mut self) {
        match self.config.credentials.clone() {
            Credentials::Token { token, .. } => self.keep_by_token(&token).await,
            Credentials::Files { cert, key, .. } => self.keep_by_files(&cert, &key).await,
        }
    }

    /// Whoever renews the files is somebody else; look whether they have.
    async fn keep_by_files(&self, cert: &Path, key: &Path) {
        loop {
            tokio::time::sleep(LOOK).await;
            let read = CertifiedIdentity::from_files(cert, key).map_err(IdentityError::from);
            match read.and_then(|identity| of_node(identity, &self.config.node)) {
                Ok(identity) => {
                    let same = self.current.borrow().as_ref().is_some_and(|held| {
                        held.identity.certified_key().cert == identity.certified_key().cert
                    });
                    if !same {
                        info!("the certificate's files have changed");
                        self.hold(identity);
                    }
                }
                // Half-written or broken: what is held stays in use.
                Err(error) => warn!(%error, "cannot read the certificate's files"),
            }
        }
    }

    async fn keep_by_token(&mut self, token: &Path) {
        let mut backoff = self.config.pauses.backoff(self.seed);
        loop {
            match self.enrol(token).await {
                Ok(identity) => {
                    let expires = identity.certificate().not_after;
                    let begun = now();
                    info!(expires_ms = expires.0, "certificate received");
                    self.hold(identity);
                    if self.wait_for_renewal(begun, expires).await == Renewal::Due {
                        backoff = self.config.pauses.backoff(self.seed);
                        continue;
                    }
                    warn!("the coordinator refuses this certificate; enrolling again");
                }
                Err(error) => warn!(%error, "no certificate"),
            }
            tokio::time::sleep(backoff.next().unwrap_or(self.config.pauses.max)).await;
        }
    }

    /// Until half life, or until a coordinator refuses the certificate (its authority was replaced).
    async fn wait_for_renewal(&mut self, begun: UnixMillis, expires: UnixMillis) -> Renewal {
        let half = expires.millis_since(begun) / 2;
        let generation = self.generation();
        loop {
            let passed = now().millis_since(begun);
            if passed >= half {
                return Renewal::Due;
            }
            let refused = self.refusals.wait_for(|refused| *refused == generation);
            let pause = LOOK.min(Duration::from_millis(half - passed));
            if tokio::time::timeout(pause, refused).await.is_ok() {
                return Renewal::Refused;
            }
        }
    }

    /// Tries every replica in turn.
    async fn enrol(&self, token: &Path) -> Result<CertifiedIdentity, IdentityError> {
        let host = || self.config.coordinator.host.clone();
        let found = addresses(&self.config)
            .await
            .map_err(|source| IdentityError::Resolve { host: host(), source })?;
        let mut failure = IdentityError::NoAddress(host());
        for address in found {
            match self.enrol_at(address, token).await {
                Ok(identity) => return Ok(identity),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn enrol_at(
        &self,
        address: std::net::SocketAddr,
        token: &Path,
    ) -> Result<CertifiedIdentity, IdentityError> {
        // The peer is proven to be the coordinator before the token is so much as read.
        let stream = dial(&self.config, &self.name, address, None, Protocol::People).await?;
        let connection = ReverseConnection::open(stream, &self.config.settings).await?;
        let request = KeyRequest::new()?;
        let token = read_token(token).await?;
        let message = EnrolRequest {
            token: token.expose_secret().to_owned(),
            certificate_request: request.request().to_vec().into(),
            node: self.config.node.as_str().to_owned(),
        };
        let mut client = EnrolmentClient::new(connection.channel()).max_decoding_message_size(64 << 10);
        let reply = tokio::time::timeout(CALL_LIMIT, client.enrol(message))
            .await
            .map_err(|_| {
                IdentityError::Refused(Failure::from(tonic::Status::deadline_exceeded("no answer")))
            })?
            .map_err(|status| IdentityError::Refused(Failure::from(&status)))?
            .into_inner();
        let chain = reply.chain.into_iter().map(|der| der.to_vec()).collect();
        of_node(request.certified(chain)?, &self.config.node)
    }
}
