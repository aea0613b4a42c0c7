//! Where the authority is kept: exactly one, however many replicas start at once.

use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::authority::{AuthorityError, AuthorityPem, CertificateAuthority};
use crate::clock::Clock;

/// How often two replicas may cross before one gives up.
const ATTEMPTS: u32 = 5;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed.
    #[error("certificate authority: cannot read {place}: {detail}")]
    Load {
        /// The object or file.
        place: String,
        /// Why.
        detail: String,
    },
    /// Writing failed.
    #[error("certificate authority: cannot create {place}: {detail}")]
    Create {
        /// The object or file.
        place: String,
        /// Why.
        detail: String,
    },
    /// Publishing the trust bundle failed.
    #[error("certificate authority: cannot publish {place}: {detail}")]
    Publish {
        /// The object or file.
        place: String,
        /// Why.
        detail: String,
    },
    /// What is kept cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Others kept creating and removing it.
    #[error("certificate authority: it is neither there nor can be created, after {ATTEMPTS} attempts")]
    Contended,
}

/// Keeps the authority.
#[tonic::async_trait]
pub trait AuthorityStore: Send + Sync {
    /// What is kept; `None` = nothing yet.
    async fn load(&self) -> Result<Option<AuthorityPem>, StoreError>;
    /// Keeps this one if there is none. `false`: another was first, and nothing was changed.
    async fn create(&self, authority: &AuthorityPem) -> Result<bool, StoreError>;
    /// Puts the certificates to trust where the agents find them.
    async fn publish(&self, bundle_pem: &str) -> Result<(), StoreError>;
}

/// The authority that is kept, or a new one, and its bundle published. Replicas that start together end with the same one.
///
/// # Errors
/// The store failed, or what is kept cannot be used. A broken authority is never replaced: every certificate would die with it.
pub async fn load_or_create(
    store: &dyn AuthorityStore,
    clock: &dyn Clock,
) -> Result<CertificateAuthority, StoreError> {
    for _ in 0..ATTEMPTS {
        let authority = if let Some(kept) = store.load().await? {
            CertificateAuthority::from_pem(&kept, clock.now())?
        } else {
            let new = CertificateAuthority::create(clock.now())?;
            if !store.create(new.pem()).await? {
                continue;
            }
            new
        };
        store.publish(authority.bundle_pem()).await?;
        return Ok(authority);
    }
    Err(StoreError::Contended)
}

/// Keeps the authority in a directory: `ca.pem` (certificate and key, mode 0600) and `ca.crt` (public).
#[derive(Debug, Clone)]
pub struct FileAuthorityStore {
    directory: PathBuf,
}

impl FileAuthorityStore {
    /// In this directory, which exists.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn kept(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A file of our own beside the final one, complete and synced.
    fn write_new(&self, name: &str, mode: u32, text: &str) -> io::Result<PathBuf> {
        let path = self
            .directory
            .join(format!("{name}.{}", uuid::Uuid::new_v4().simple()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(path)
    }
}

#[tonic::async_trait]
impl AuthorityStore for FileAuthorityStore {
    async fn load(&self) -> Result<Option<AuthorityPem>, StoreError> {
        let path = self.kept();
        let failed = |detail: String| StoreError::Load {
            place: path.display().to_string(),
            detail,
        };
        let text = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let at = text
            .find("-----BEGIN PRIVATE KEY-----")
            .ok_or_else(|| failed("no private key in it".to_owned()))?;
        let (certificate, key) = text.split_at(at);
        Ok(Some(AuthorityPem {
            certificate: certificate.to_owned(),
            key: key.into(),
        }))
    }

    async fn create(&self, authority: &AuthorityPem) -> Result<bool, StoreError> {
        let path = self.kept();
        let failed = |error: io::Error| StoreError::Create {
            place: path.display().to_string(),
            detail: error.to_string(),
        };
        let text = format!("{}{}", authority.certificate, authority.key.expose_secret());
        let new = self.write_new("ca.pem", 0o600, &text).map_err(failed)?;
        // A hard link is made whole or not at all, and never over another file.
        let linked = std::fs::hard_link(&new, &path);
        std::fs::remove_file(&new).map_err(failed)?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn publish(&self, bundle_pem: &str) -> Result<(), StoreError> {
        let path = self.directory.join("ca.crt");
        let failed = |error: io::Error| StoreError::Publish {
            place: path.display().to_string(),
            detail: error.to_string(),
        };
        if tokio::fs::read_to_string(&path)
            .await
            .is_ok_and(|kept| kept == bundle_pem)
        {
            return Ok(());
        }
        let new = self.write_new("ca.crt", 0o644, bundle_pem).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)
    }
}
