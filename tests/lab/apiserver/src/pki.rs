//! The lab's certificate authority: server and client certificates, kubeconfigs.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority could not be read.
    #[error("read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// A file of the authority could not be written.
    #[error("write {0}")]
    Write(PathBuf, #[source] std::io::Error),
    /// A key or certificate could not be made or understood.
    #[error("certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate carries at most two groups.
    #[error("{0} groups: a certificate of the lab carries at most two")]
    TooManyGroups(usize),
    /// The kubeconfig could not be written as YAML.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// The certificate authority in `<data>/pki`.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Writes a file that only its owner reads, replacing it whole.
pub fn write_private(path: &Path, text: &[u8]) -> Result<(), PkiError> {
    let failed = |e| PkiError::Write(path.to_owned(), e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(text).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

impl Authority {
    /// The directory of keys below a data directory.
    pub fn directory(data: &Path) -> PathBuf {
        data.join("pki")
    }

    /// Reads the authority of a data directory.
    pub fn load(data: &Path) -> Result<Self, PkiError> {
        let dir = Self::directory(data);
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|e| PkiError::Read(path, e))
        };
        let certificate = read("ca.crt")?;
        let key = KeyPair::from_pem(&read("ca.key")?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }

    /// Reads the authority of a data directory, or makes one.
    pub fn open(data: &Path) -> Result<Self, PkiError> {
        let dir = Self::directory(data);
        if dir.join("ca.crt").exists() {
            return Self::load(data);
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "hasteward-lab");
        let certificate = params.self_signed(&key)?.pem();
        write_private(&dir.join("ca.key"), key.serialize_pem().as_bytes())?;
        write_private(&dir.join("ca.crt"), certificate.as_bytes())?;
        Self::load(data)
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A client certificate: CN = user, O = groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Credential, PkiError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        // rcgen keeps one value an attribute type, but knows the organisation by name and by object identifier.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > kinds.len() {
            return Err(PkiError::TooManyGroups(groups.len()));
        }
        for (kind, group) in kinds.into_iter().zip(groups) {
            params
                .distinguished_name
                .push(kind, DnValue::Utf8String((*group).to_owned()));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A server certificate for names and addresses.
    pub fn server(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Credential, PkiError> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let common = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        params
            .subject_alt_names
            .extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.distinguished_name.push(DnType::CommonName, common);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Credential, PkiError> {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credential {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// A kubeconfig with a fresh client certificate. `server` is a URL.
    pub fn kubeconfig(&self, user: &str, groups: &[&str], server: &str) -> Result<String, PkiError> {
        let credential = self.client(user, groups)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(&self.certificate),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": STANDARD.encode(&credential.certificate),
                "client-key-data": STANDARD.encode(&credential.key),
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "current-context": "lab",
        });
        serde_saphyr::to_string(&config).map_err(|e| PkiError::Kubeconfig(e.to_string()))
    }
}
