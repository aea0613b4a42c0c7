//! [`ServerIdentity`]: the coordinator's own certificate, renewed at half its life.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hasteward_proto::channel::tls::{TlsError, server_config};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::{AuthorityError, CertificateAuthority, Clock, Subject};

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How often the age is looked at: a machine that slept must not wake with an expired certificate for long.
const LOOK: Duration = Duration::from_secs(60);

/// The coordinator's certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerIdentityError {
    /// The authority did not sign.
    #[error(transparent)]
    Sign(#[from] AuthorityError),
    /// TLS does not take it.
    #[error(transparent)]
    Configure(#[from] TlsError),
}

/// The coordinator's own certificate as the listener uses it.
pub struct ServerIdentity {
    authority: Arc<CertificateAuthority>,
    subject: Subject,
    clock: Arc<dyn Clock>,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl ServerIdentity {
    /// A first certificate for these names and addresses.
    ///
    /// # Errors
    /// A name is no host name, or the authority cannot sign.
    pub fn new(
        authority: Arc<CertificateAuthority>,
        names: Vec<String>,
        addresses: Vec<IpAddr>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerIdentityError> {
        let subject = Subject::Coordinator { names, addresses };
        let first = Self::make(&authority, &subject, &*clock)?;
        Ok(Self {
            authority,
            subject,
            clock,
            current: watch::Sender::new(Arc::new(first)),
        })
    }

    fn make(
        authority: &CertificateAuthority,
        subject: &Subject,
        clock: &dyn Clock,
    ) -> Result<ServerConfig, ServerIdentityError> {
        let identity = authority.issue(subject, clock.now())?;
        Ok(server_config(&identity, &authority.trust_bundle()?)?)
    }

    /// What the listener takes for each new connection.
    #[must_use]
    pub fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Makes a new certificate now.
    ///
    /// # Errors
    /// The authority cannot sign.
    pub fn renew(&self) -> Result<(), ServerIdentityError> {
        self.current.send_replace(Arc::new(Self::make(
            &self.authority,
            &self.subject,
            &*self.clock,
        )?));
        Ok(())
    }

    /// Renews at half life until `shutdown`.
    pub async fn maintain(self, shutdown: CancellationToken) {
        let half = u64::try_from(self.authority.leaf_validity().as_millis() / 2).unwrap_or(u64::MAX);
        let mut made = self.clock.now();
        let mut pause = LOOK;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            pause = LOOK;
            if self.clock.now().millis_since(made) < half {
                continue;
            }
            match self.renew() {
                Ok(()) => {
                    made = self.clock.now();
                    info!("the coordinator's certificate was renewed");
                }
                Err(error) => {
                    warn!(%error, "the coordinator's certificate could not be renewed");
                    pause = RETRY;
                }
            }
        }
    }
}
