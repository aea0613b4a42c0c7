//! Certificates and keys, from files or from memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{IdentityError, PeerCertificate};

/// No file of certificates or keys is larger than this.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Certificates or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The file cannot be read.
    #[error("{field}: cannot read {}: {source}", path.display())]
    Read {
        /// The flag or setting that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is larger than 1 MiB.
    #[error("{field}: {} is larger than 1 MiB: expected PEM", path.display())]
    TooLarge {
        /// The flag or setting that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Not PEM, or broken PEM.
    #[error("{field}: not readable as PEM: {detail}; expected `-----BEGIN {expected}-----`")]
    Pem {
        /// The flag, setting or object that it came from.
        field: String,
        /// What is wrong.
        detail: String,
        /// The label of the section that is needed.
        expected: &'static str,
    },
    /// The PEM holds no section of the needed kind.
    #[error("{field}: holds no `-----BEGIN {expected}-----`")]
    Missing {
        /// The flag, setting or object that it came from.
        field: String,
        /// The label of the section that is needed.
        expected: &'static str,
    },
    /// The key is of a kind that is not supported.
    #[error(
        "{field}: the key cannot be used: {detail}; expected ECDSA P-256/P-384, Ed25519 or RSA in PKCS#8, SEC1 or PKCS#1"
    )]
    Key {
        /// The flag, setting or object that it came from.
        field: String,
        /// What is wrong.
        detail: String,
    },
    /// Key and certificate do not belong together.
    #[error("{0}: the key does not belong to the certificate")]
    Mismatch(String),
    /// A certificate authority's certificate cannot be used as one.
    #[error("{field}: not usable as a certificate authority: {detail}")]
    Authority {
        /// The flag, setting or object that it came from.
        field: String,
        /// What is wrong.
        detail: String,
    },
    /// The certificate names nobody of ours.
    #[error("{field}: {source}")]
    Identity {
        /// The flag, setting or object that it came from.
        field: String,
        /// What is wrong.
        source: IdentityError,
    },
}

/// Reads a small file.
fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, MaterialError> {
    let failed = |source| MaterialError::Read {
        field,
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(MaterialError::TooLarge {
            field,
            path: path.to_owned(),
        });
    }
    std::fs::read(path).map_err(failed)
}

/// Every certificate in PEM text.
fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let expected = "CERTIFICATE";
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| MaterialError::Pem {
            field: field.to_owned(),
            detail: e.to_string(),
            expected,
        })?;
    if chain.is_empty() {
        return Err(MaterialError::Missing {
            field: field.to_owned(),
            expected,
        });
    }
    Ok(chain)
}

/// A certificate with its key: who this process is.
#[derive(Debug, Clone)]
pub struct CertifiedIdentity {
    key: Arc<CertifiedKey>,
    certificate: PeerCertificate,
}

impl CertifiedIdentity {
    /// From DER: the chain (leaf first) and the key.
    ///
    /// # Errors
    /// The key is not supported or not the leaf's; the leaf names nobody of ours.
    pub fn new(
        field: &str,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, MaterialError> {
        let leaf = chain.first().ok_or_else(|| MaterialError::Missing {
            field: field.to_owned(),
            expected: "CERTIFICATE",
        })?;
        let certificate = PeerCertificate::from_der(leaf).map_err(|source| MaterialError::Identity {
            field: field.to_owned(),
            source,
        })?;
        let signing = aws_lc_rs::sign::any_supported_type(key).map_err(|e| MaterialError::Key {
            field: field.to_owned(),
            detail: e.to_string(),
        })?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            // `Unknown`: the key type cannot tell; the first handshake will.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(MaterialError::Mismatch(field.to_owned())),
        }
        Ok(Self {
            key: Arc::new(key),
            certificate,
        })
    }

    /// From PEM text: certificates (leaf first) and a private key.
    ///
    /// # Errors
    /// As [`CertifiedIdentity::new`], or not PEM.
    pub fn from_pem(field: &str, chain: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        let chain = certificates(field, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            rustls_pki_types::pem::Error::NoItemsFound => MaterialError::Missing {
                field: field.to_owned(),
                expected: "PRIVATE KEY",
            },
            // The error's text names sections and lines, never the key's bytes.
            other => MaterialError::Pem {
                field: field.to_owned(),
                detail: other.to_string(),
                expected: "PRIVATE KEY",
            },
        })?;
        Self::new(field, chain, &key)
    }

    /// From the files that `--cert` and `--key` name.
    ///
    /// # Errors
    /// As [`CertifiedIdentity::from_pem`], or a file cannot be read.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, MaterialError> {
        let (chain, key_pem) = (read("--cert", cert)?, read("--key", key)?);
        certificates(&format!("--cert {}", cert.display()), &chain)?;
        Self::from_pem(
            &format!("--cert {}, --key {}", cert.display(), key.display()),
            &chain,
            &key_pem,
        )
    }

    /// What the certificate says.
    #[must_use]
    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }

    /// Certificate and key as rustls takes them.
    #[must_use]
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// The certificates of the authorities that are trusted. More than one while a CA is being replaced.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    roots: Arc<RootCertStore>,
}

impl TrustBundle {
    /// From PEM text.
    ///
    /// # Errors
    /// Not PEM, no certificate in it, or one that cannot be an authority.
    pub fn from_pem(field: &str, pem: &[u8]) -> Result<Self, MaterialError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(field, pem)? {
            roots.add(certificate).map_err(|e| MaterialError::Authority {
                field: field.to_owned(),
                detail: e.to_string(),
            })?;
        }
        Ok(Self {
            roots: Arc::new(roots),
        })
    }

    /// From the file that `--ca` names.
    ///
    /// # Errors
    /// As [`TrustBundle::from_pem`], or the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, MaterialError> {
        Self::from_pem(&format!("--ca {}", path.display()), &read("--ca", path)?)
    }

    /// The store as rustls takes it.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_field_path_and_form() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.pem");
        let said = TrustBundle::from_file(&missing).unwrap_err().to_string();
        assert!(said.contains("--ca") && said.contains("none.pem"), "{said}");

        let text = dir.path().join("text.pem");
        std::fs::write(&text, "hello").unwrap();
        let said = TrustBundle::from_file(&text).unwrap_err().to_string();
        assert!(
            said.contains("--ca") && said.contains("text.pem") && said.contains("BEGIN CERTIFICATE"),
            "{said}"
        );

        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let (cert, key_file) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&key_file, certificate.pem()).unwrap();
        let said = CertifiedIdentity::from_files(&cert, &key_file)
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("--key") && said.contains("k.pem") && said.contains("BEGIN PRIVATE KEY"),
            "{said}"
        );

        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let said = CertifiedIdentity::from_files(&cert, &key_file)
            .unwrap_err()
            .to_string();
        assert!(said.contains("exactly one URI"), "{said}");

        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(
            "spiffe://hasteward/node/n1".try_into().unwrap(),
        )];
        std::fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
        CertifiedIdentity::from_files(&cert, &key_file).unwrap();
        std::fs::write(&key_file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(
            CertifiedIdentity::from_files(&cert, &key_file),
            Err(MaterialError::Mismatch(_))
        ));
    }
}
