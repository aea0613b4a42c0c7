//! [`CertificateAuthority`]: signs who agents, coordinators and people are.

use std::net::IpAddr;
use std::time::Duration;

use hasteward_proto::channel::{CertifiedIdentity, MaterialError, PeerIdentity, PersonName, TrustBundle};
use hasteward_proto::primitive::{NodeName, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::{earlier, later};

/// How long a certificate of an agent or of the coordinator is valid.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// How far clocks may differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// How long the authority itself is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// No certificate request of ours is larger.
pub const MAX_REQUEST_BYTES: usize = 8 << 10;

/// The authority cannot be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No random bytes.
    #[error("certificate authority: no random bytes for a serial number")]
    Randomness,
    /// The library refused to make it.
    #[error("certificate authority: cannot make a certificate: {0}")]
    Make(rcgen::Error),
    /// The kept key or certificate cannot be used.
    #[error("certificate authority: the kept {what} cannot be used: {detail}")]
    Load {
        /// `key` or `certificate`.
        what: &'static str,
        /// Why not; never a byte of the key.
        detail: String,
    },
    /// The kept key is not the kept certificate's.
    #[error("certificate authority: the kept key does not belong to the kept certificate")]
    Mismatch,
    /// The authority has expired or is not valid yet.
    #[error("certificate authority: not valid now (valid {from} to {to}, milliseconds since 1970)", from = .not_before.0, to = .not_after.0)]
    NotValid {
        /// Start of its validity.
        not_before: UnixMillis,
        /// End of its validity.
        not_after: UnixMillis,
    },
    /// The certificate request is larger than 8 KiB.
    #[error("certificate request: larger than {MAX_REQUEST_BYTES} bytes")]
    RequestTooLarge,
    /// The certificate request cannot be read, or its own signature is wrong.
    #[error("certificate request: {0}")]
    Request(rcgen::Error),
    /// The key in the request is of another kind.
    #[error("certificate request: the key must be ECDSA P-256")]
    RequestKey,
    /// What was signed cannot be used.
    #[error("certificate authority: {0}")]
    Material(#[from] MaterialError),
}

/// Role of a person as it stands in the subject's O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May read.
    Viewer,
    /// May read and change.
    Operator,
}

impl Role {
    /// The O of the certificate's subject.
    #[must_use]
    pub const fn organisation(self) -> &'static str {
        match self {
            Self::Viewer => "hasteward:viewer",
            Self::Operator => "hasteward:operator",
        }
    }
}

/// Whom a certificate is for. Everything in it comes from here, nothing from the request but its public key.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The agent of a node.
    Node(NodeName),
    /// A replica of the coordinator.
    Coordinator {
        /// Names by which it is dialled.
        names: Vec<String>,
        /// Addresses by which it is dialled.
        addresses: Vec<IpAddr>,
    },
    /// A person.
    Person {
        /// Who.
        name: PersonName,
        /// What they may do.
        role: Role,
    },
}

/// The authority as it is kept.
#[derive(Debug, Clone)]
pub struct AuthorityPem {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: SecretString,
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate and the authority's, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it expires.
    pub not_after: UnixMillis,
}

/// Signs certificates. ECDSA P-256.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: AuthorityPem,
    leaf_validity: Duration,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

/// The time as rcgen takes it, cut to seconds as certificates are.
macro_rules! moment {
    ($at:expr) => {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from($at.0 / 1000).unwrap_or_default())
    };
}

/// A random serial number: 16 bytes, positive.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Randomness)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A text for a certificate (IA5).
fn ia5(text: &str) -> Result<rcgen::string::Ia5String, AuthorityError> {
    text.try_into().map_err(AuthorityError::Make)
}

impl CertificateAuthority {
    /// A new authority, valid for ten years.
    ///
    /// # Errors
    /// The library cannot make a key or a certificate.
    pub fn create(now: UnixMillis) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "hasteward certificate authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = moment!(earlier(now, BACKDATE));
        params.not_after = moment!(later(now, AUTHORITY_VALIDITY));
        params.serial_number = Some(serial()?);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?.pem();
        let pem = AuthorityPem {
            certificate,
            key: key.serialize_pem().into(),
        };
        Self::from_pem(&pem, now)
    }

    /// The authority that was kept.
    ///
    /// # Errors
    /// Not PEM, not an authority, key and certificate do not belong together, or not valid at `now`.
    pub fn from_pem(pem: &AuthorityPem, now: UnixMillis) -> Result<Self, AuthorityError> {
        let load = |what| move |detail: String| AuthorityError::Load { what, detail };
        // A parse error of a key never carries its bytes.
        let key = KeyPair::from_pem_and_sign_algo(pem.key.expose_secret(), &PKCS_ECDSA_P256_SHA256)
            .map_err(|e| load("key")(e.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes())
            .map_err(|e| load("certificate")(e.to_string()))?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|e| load("certificate")(e.to_string()))?;
        if !parsed.is_ca() {
            return Err(load("certificate")("it is no certificate authority's".to_owned()));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(AuthorityError::Mismatch);
        }
        let millis = |seconds: i64| UnixMillis(seconds.saturating_mul(1000));
        let not_before = millis(parsed.validity().not_before.timestamp());
        let not_after = millis(parsed.validity().not_after.timestamp());
        if now < not_before || now >= not_after {
            return Err(AuthorityError::NotValid {
                not_before,
                not_after,
            });
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|e| load("certificate")(e.to_string()))?;
        Ok(Self {
            issuer,
            certificate,
            pem: pem.clone(),
            leaf_validity: LEAF_VALIDITY,
        })
    }

    /// The same authority, signing for another time than 24 h.
    #[must_use]
    pub fn with_leaf_validity(mut self, validity: Duration) -> Self {
        self.leaf_validity = validity;
        self
    }

    /// For how long certificates are signed.
    #[must_use]
    pub const fn leaf_validity(&self) -> Duration {
        self.leaf_validity
    }

    /// The authority as it is kept: secret.
    #[must_use]
    pub fn pem(&self) -> &AuthorityPem {
        &self.pem
    }

    /// The certificate that others trust, PEM: public.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.pem.certificate
    }

    /// What trusts this authority.
    ///
    /// # Errors
    /// The library refuses the certificate as an anchor of trust.
    pub fn trust_bundle(&self) -> Result<TrustBundle, AuthorityError> {
        Ok(TrustBundle::from_pem(
            "certificate authority",
            self.bundle_pem().as_bytes(),
        )?)
    }

    /// Signs the public key of a PKCS#10 request (DER) for `subject`, valid for 24 h and back-dated by five minutes. Names,
    /// usages and extensions that the request asks for are not looked at.
    ///
    /// # Errors
    /// The request is too large, cannot be read, is not signed by its own key, or holds another kind of key.
    pub fn sign(&self, request: &[u8], subject: &Subject, now: UnixMillis) -> Result<Signed, AuthorityError> {
        if request.len() > MAX_REQUEST_BYTES {
            return Err(AuthorityError::RequestTooLarge);
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(AuthorityError::Request)?;
        let key = request.public_key;
        // An uncompressed point: 0x04 and two coordinates of 32 bytes (SEC 1, 2.3.3).
        let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256
            && key.der_bytes().len() == 65
            && key.der_bytes()[0] == 4;
        if !is_p256 {
            return Err(AuthorityError::RequestKey);
        }
        self.sign_key(&key, subject, now, self.leaf_validity)
    }

    /// A certificate with a new key, in memory.
    ///
    /// # Errors
    /// The library cannot make a key or a certificate.
    pub fn issue(&self, subject: &Subject, now: UnixMillis) -> Result<CertifiedIdentity, AuthorityError> {
        self.issue_for(subject, now, self.leaf_validity)
    }

    /// The same, valid for another time.
    ///
    /// # Errors
    /// The library cannot make a key or a certificate.
    pub fn issue_for(
        &self,
        subject: &Subject,
        now: UnixMillis,
        validity: Duration,
    ) -> Result<CertifiedIdentity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let signed = self.sign_key(&key, subject, now, validity)?;
        let key = PrivateKeyDer::from(key);
        Ok(CertifiedIdentity::new("issued certificate", signed.chain, &key)?)
    }

    /// Signs a key.
    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        now: UnixMillis,
        validity: Duration,
    ) -> Result<Signed, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after = later(now, validity);
        params.not_before = moment!(earlier(now, BACKDATE));
        params.not_after = moment!(not_after);
        params.serial_number = Some(serial()?);
        let identity = match subject {
            Subject::Node(node) => {
                params
                    .distinguished_name
                    .push(DnType::CommonName, "hasteward agent");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                PeerIdentity::Node(node.clone())
            }
            Subject::Coordinator { names, addresses } => {
                params
                    .distinguished_name
                    .push(DnType::CommonName, "hasteward coordinator");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in names {
                    params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
                }
                params
                    .subject_alt_names
                    .extend(addresses.iter().copied().map(SanType::IpAddress));
                PeerIdentity::Coordinator
            }
            Subject::Person { name, role } => {
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, role.organisation());
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                PeerIdentity::Person(name.clone())
            }
        };
        params.subject_alt_names.push(SanType::URI(ia5(&identity.uri())?));
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(AuthorityError::Make)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Signed {
            chain,
            not_after: UnixMillis(not_after.0 / 1000 * 1000),
        })
    }
}

#[cfg(test)]
mod tests {
    use hasteward_proto::channel::PeerCertificate;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn node(name: &str) -> Subject {
        Subject::Node(NodeName::new(name).unwrap())
    }

    #[test]
    fn only_the_key_of_a_request_is_used() {
        let authority = CertificateAuthority::create(NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://hasteward/coordinator".try_into().unwrap()));
        params
            .distinguished_name
            .push(DnType::OrganizationName, "hasteward:operator");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = params.serialize_request(&key).unwrap();
        let signed = authority.sign(request.der(), &node("n1"), NOW).unwrap();

        let read = PeerCertificate::from_der(&signed.chain[0]).unwrap();
        assert_eq!(read.identity.uri(), "spiffe://hasteward/node/n1");
        assert_eq!(read.organisations, Vec::<String>::new());
        assert_eq!(read.not_before.0, NOW.0 - 300_000);
        assert_eq!(read.not_after.0, NOW.0 + 24 * 3_600_000);
        assert_eq!(read.not_after, signed.not_after);
        let (_, parsed) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(
            parsed
                .subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names
                .len(),
            1
        );
        assert_eq!(
            parsed.public_key().subject_public_key.data.as_ref(),
            key.der_bytes()
        );
    }

    #[test]
    fn other_keys_and_broken_requests_are_refused() {
        let authority = CertificateAuthority::create(NOW).unwrap();
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            let refused = authority.sign(request.der(), &node("n1"), NOW).unwrap_err();
            assert!(matches!(refused, AuthorityError::RequestKey), "{refused}");
        }
        let key = KeyPair::generate().unwrap();
        let mut der = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(
            authority.sign(&der, &node("n1"), NOW),
            Err(AuthorityError::Request(_))
        ));
        let large = vec![0; MAX_REQUEST_BYTES + 1];
        assert!(matches!(
            authority.sign(&large, &node("n1"), NOW),
            Err(AuthorityError::RequestTooLarge)
        ));
    }

    #[test]
    fn a_kept_authority_is_checked() {
        let (one, two) = (
            CertificateAuthority::create(NOW).unwrap(),
            CertificateAuthority::create(NOW).unwrap(),
        );
        let again = CertificateAuthority::from_pem(one.pem(), NOW).unwrap();
        assert_eq!(again.bundle_pem(), one.bundle_pem());
        let mixed = AuthorityPem {
            certificate: one.pem().certificate.clone(),
            key: two.pem().key.clone(),
        };
        assert!(matches!(
            CertificateAuthority::from_pem(&mixed, NOW),
            Err(AuthorityError::Mismatch)
        ));
        let far = later(NOW, AUTHORITY_VALIDITY + Duration::from_secs(1));
        assert!(matches!(
            CertificateAuthority::from_pem(one.pem(), far),
            Err(AuthorityError::NotValid { .. })
        ));
        let broken = AuthorityPem {
            certificate: "x".into(),
            key: one.pem().key.clone(),
        };
        assert!(matches!(
            CertificateAuthority::from_pem(&broken, NOW),
            Err(AuthorityError::Load {
                what: "certificate",
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_requests_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
            static AUTHORITY: std::sync::LazyLock<CertificateAuthority> =
                std::sync::LazyLock::new(|| CertificateAuthority::create(NOW).unwrap());
            prop_assert!(AUTHORITY.sign(&bytes, &node("n1"), NOW).is_err());
        }
    }
}
