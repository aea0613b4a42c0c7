//! [`SecretAuthorityStore`]: the authority in a Secret, its certificate in a ConfigMap.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use secrecy::ExposeSecret;

use super::authority::AuthorityPem;
use super::authority_store::{AuthorityStore, StoreError};

/// The name of both objects.
pub const NAME: &str = "hasteward-ca";
/// The keys of a `kubernetes.io/tls` Secret.
const CERTIFICATE_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// The key in the ConfigMap, which agents mount.
pub const BUNDLE_KEY: &str = "ca.crt";
/// How often a publication may be overtaken.
const ATTEMPTS: u32 = 5;

/// Keeps the authority in Secret `hasteward-ca` (type `kubernetes.io/tls`) and publishes ConfigMap `hasteward-ca`.
#[derive(Clone)]
pub struct SecretAuthorityStore {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
}

/// The API server says that another was first.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

impl SecretAuthorityStore {
    /// In the coordinator's own namespace.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    fn place(&self, kind: &str) -> String {
        format!("{kind} {}/{NAME}", self.namespace)
    }

    fn metadata(resource_version: Option<String>) -> ObjectMeta {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "hasteward".to_owned())]);
        ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(labels),
            resource_version,
            ..ObjectMeta::default()
        }
    }
}

#[tonic::async_trait]
impl AuthorityStore for SecretAuthorityStore {
    async fn load(&self) -> Result<Option<AuthorityPem>, StoreError> {
        let failed = |detail: String| StoreError::Load {
            place: self.place("Secret"),
            detail,
        };
        let Some(secret) = self
            .secrets
            .get_opt(NAME)
            .await
            .map_err(|e| failed(e.to_string()))?
        else {
            return Ok(None);
        };
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| match data.get(key) {
            Some(ByteString(bytes)) if !bytes.is_empty() => String::from_utf8(bytes.clone())
                .map(Some)
                .map_err(|_| failed(format!("{key} is not text"))),
            _ => Ok(None),
        };
        match (text(CERTIFICATE_KEY)?, text(PRIVATE_KEY)?) {
            (Some(certificate), Some(key)) => Ok(Some(AuthorityPem {
                certificate,
                key: key.into(),
            })),
            // A Secret laid out empty by a manifest.
            (None, None) => Ok(None),
            _ => Err(failed(format!(
                "only one of {CERTIFICATE_KEY} and {PRIVATE_KEY} is set"
            ))),
        }
    }

    async fn create(&self, authority: &AuthorityPem) -> Result<bool, StoreError> {
        let failed = |error: &kube::Error| StoreError::Create {
            place: self.place("Secret"),
            detail: error.to_string(),
        };
        let secret = |resource_version| Secret {
            metadata: Self::metadata(resource_version),
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from([
                (
                    CERTIFICATE_KEY.to_owned(),
                    ByteString(authority.certificate.clone().into_bytes()),
                ),
                (
                    PRIVATE_KEY.to_owned(),
                    ByteString(authority.key.expose_secret().as_bytes().to_vec()),
                ),
            ])),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret(None)).await {
            Ok(_) => return Ok(true),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(failed(&error)),
        }
        let Some(found) = self.secrets.get_opt(NAME).await.map_err(|e| failed(&e))? else {
            return Ok(false);
        };
        if found
            .data
            .unwrap_or_default()
            .values()
            .any(|value| !value.0.is_empty())
        {
            return Ok(false);
        }
        // Filled only if nobody touched it since: the resource version is the compare of compare-and-swap. The type of a
        // Secret is immutable.
        let filled = Secret {
            type_: found.type_,
            ..secret(found.metadata.resource_version)
        };
        match self.secrets.replace(NAME, &PostParams::default(), &filled).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn publish(&self, bundle_pem: &str) -> Result<(), StoreError> {
        let failed = |detail: String| StoreError::Publish {
            place: self.place("ConfigMap"),
            detail,
        };
        for _ in 0..ATTEMPTS {
            let found = self
                .config_maps
                .get_opt(NAME)
                .await
                .map_err(|e| failed(e.to_string()))?;
            let written = if let Some(mut found) = found {
                let data = found.data.get_or_insert_default();
                if data.get(BUNDLE_KEY).is_some_and(|kept| kept == bundle_pem) {
                    return Ok(());
                }
                data.insert(BUNDLE_KEY.to_owned(), bundle_pem.to_owned());
                self.config_maps
                    .replace(NAME, &PostParams::default(), &found)
                    .await
            } else {
                let new = ConfigMap {
                    metadata: Self::metadata(None),
                    data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle_pem.to_owned())])),
                    ..ConfigMap::default()
                };
                self.config_maps.create(&PostParams::default(), &new).await
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Err(failed(format!("overtaken {ATTEMPTS} times")))
    }
}
