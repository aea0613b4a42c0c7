//! [`KeyRequest`]: a new key and the request for its certificate.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::material::{CertifiedIdentity, MaterialError};

/// A key or a request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key and a certificate request: {0}")]
pub struct KeyRequestError(#[from] rcgen::Error);

/// A new ECDSA P-256 key that never leaves memory, and a PKCS#10 request that carries its public half and nothing else: whom
/// the certificate names is the signer's decision.
pub struct KeyRequest {
    key: KeyPair,
    request: Vec<u8>,
}

impl KeyRequest {
    /// A new key.
    ///
    /// # Errors
    /// No random bytes.
    pub fn new() -> Result<Self, KeyRequestError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, request })
    }

    /// The request, DER.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Joins the key with the certificate that was signed for it (DER, leaf first).
    ///
    /// # Errors
    /// The certificate is another key's, or names nobody of ours.
    pub fn certified(self, chain: Vec<Vec<u8>>) -> Result<CertifiedIdentity, MaterialError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        CertifiedIdentity::new("enrolment", chain, &PrivateKeyDer::from(self.key))
    }
}
