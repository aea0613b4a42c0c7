//! [`PeerIdentity`]: who a certificate names.
//!
//! The name stands in exactly one URI subject alternative name of the form of SPIFFE (`spiffe://<trust domain>/<path>`,
//! SPIFFE-ID specification 2); the subject's common name is never looked at.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::primitive::{NameError, NodeName, UnixMillis};

/// Everything before the path of our identities.
const TRUST_DOMAIN: &str = "spiffe://hasteward/";

/// A certificate or an identity in it that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a DER-encoded X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// No URI subject alternative name, or more than one.
    #[error("a certificate must carry exactly one URI subject alternative name, this one carries {0}")]
    UriCount(usize),
    /// The URI is none of ours.
    #[error(
        "`{0}` is no identity of hasteward: expected spiffe://hasteward/node/<node>, spiffe://hasteward/coordinator or spiffe://hasteward/person/<name>"
    )]
    Foreign(String),
    /// The node's name is no node name.
    #[error("node identity: {0}")]
    Node(#[from] NameError),
    /// The person's name is not of the allowed form.
    #[error(
        "person identity: `{0}` is not a valid name: expected 1 to 128 of A-Z, a-z, 0-9 and `.`, `_`, `-`, `@`, `+`"
    )]
    Person(String),
}

/// The name of a person, as it stands in logs and in the history of operations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonName(String);

impl PersonName {
    /// The checked name.
    ///
    /// # Errors
    /// Not 1 to 128 of `A-Z a-z 0-9 . _ - @ +`.
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::Person(text.chars().take(80).collect()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerIdentity {
    /// The agent of one node.
    Node(NodeName),
    /// A replica of the coordinator.
    Coordinator,
    /// A person.
    Person(PersonName),
}

impl PeerIdentity {
    /// Reads `spiffe://hasteward/…`.
    ///
    /// # Errors
    /// Another trust domain, another path, or a name that is not of its form.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let foreign = || IdentityError::Foreign(uri.chars().take(120).collect());
        let path = uri.strip_prefix(TRUST_DOMAIN).ok_or_else(foreign)?;
        match path.split_once('/') {
            None if path == "coordinator" => Ok(Self::Coordinator),
            Some(("node", node)) => Ok(Self::Node(NodeName::new(node)?)),
            Some(("person", name)) => Ok(Self::Person(PersonName::new(name)?)),
            _ => Err(foreign()),
        }
    }

    /// The URI that stands in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Node(node) => format!("{TRUST_DOMAIN}node/{node}"),
            Self::Coordinator => format!("{TRUST_DOMAIN}coordinator"),
            Self::Person(name) => format!("{TRUST_DOMAIN}person/{name}"),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

/// What is used of a peer's certificate. That it chains to our CA is TLS's business and is not checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names.
    pub identity: PeerIdentity,
    /// The organisations (O) of the subject: roles of a person.
    pub organisations: Vec<String>,
    /// When it becomes valid.
    pub not_before: UnixMillis,
    /// When it expires.
    pub not_after: UnixMillis,
}

impl PeerCertificate {
    /// Reads a DER-encoded certificate.
    ///
    /// # Errors
    /// Not a certificate, not exactly one URI subject alternative name, or not an identity of ours.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |detail: String| IdentityError::Malformed(detail);
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow the certificate", rest.len())));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| malformed(e.to_string()))?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else {
            return Err(IdentityError::UriCount(uris.len()));
        };
        let organisations = certificate
            .subject()
            .iter_organization()
            .filter_map(|attribute| attribute.as_str().ok().map(str::to_owned))
            .collect();
        let validity = certificate.validity();
        let millis = |seconds: i64| UnixMillis(seconds.saturating_mul(1000));
        Ok(Self {
            identity: PeerIdentity::parse(uri)?,
            organisations,
            not_before: millis(validity.not_before.timestamp()),
            not_after: millis(validity.not_after.timestamp()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identities_round_trip() {
        for uri in [
            "spiffe://hasteward/node/n1.example",
            "spiffe://hasteward/coordinator",
            "spiffe://hasteward/person/a.b@c",
        ] {
            assert_eq!(PeerIdentity::parse(uri).unwrap().uri(), uri);
        }
    }

    #[test]
    fn foreign_and_broken_identities_are_refused() {
        for uri in [
            "",
            "spiffe://hasteward/",
            "spiffe://hasteward/node/",
            "spiffe://hasteward/node/a/b",
            "spiffe://hasteward/node/A",
            "spiffe://hasteward/coordinator/",
            "spiffe://hasteward/coordinator/x",
            "spiffe://hasteward.example/coordinator",
            "SPIFFE://hasteward/coordinator",
            "spiffe://hasteward/person/",
            "spiffe://hasteward/person/a b",
            "spiffe://hasteward/person/a\nb",
            "https://hasteward/coordinator",
        ] {
            assert!(PeerIdentity::parse(uri).is_err(), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = PeerCertificate::from_der(&bytes);
        }

        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..4096, value: u8) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://hasteward/node/n1".try_into().unwrap())];
            let mut der = params.self_signed(&key).unwrap().der().to_vec();
            let at = at % der.len();
            der[at] = value;
            let _ = PeerCertificate::from_der(&der);
        }

        #[test]
        fn arbitrary_uris_never_panic(uri in ".*") {
            if let Ok(identity) = PeerIdentity::parse(&uri) {
                prop_assert_eq!(identity.uri(), uri);
            }
        }
    }
}
