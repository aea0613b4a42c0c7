//! Projected ServiceAccount tokens: asked for by TokenRequest, bound to the pod, renewed at 80 % of their life.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Mutex;

/// A token and when to ask for the next one.
#[derive(Clone, Debug)]
struct Held {
    token: String,
    renew: Instant,
}

/// Tokens of one pod, by audience and life.
#[derive(Debug, Default)]
pub struct Tokens {
    held: Mutex<HashMap<(String, i64), Held>>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The API server refused.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// The answer holds none.
    #[error("the answer to a TokenRequest has no status")]
    Empty,
}

/// What kubelet asks for when nothing is said.
const DEFAULT_LIFE: i64 = 3600;

impl Tokens {
    /// A token in force.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, TokenError> {
        let life = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFE);
        let key = (wanted.audience.clone().unwrap_or_default(), life);
        let mut held = self.held.lock().await;
        if let Some(have) = held.get(&key).filter(|have| have.renew > Instant::now()) {
            return Ok(have.token.clone());
        }
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let accounts: Api<ServiceAccount> =
            Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: wanted.audience.iter().cloned().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(life),
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await?;
        let status = answer.status.ok_or(TokenError::Empty)?;
        // The server may have given less or more than was asked.
        let given = status
            .expiration_timestamp
            .0
            .duration_since(jiff::Timestamp::now())
            .as_secs();
        let renew = Instant::now() + renew_after(Duration::from_secs(u64::try_from(given).unwrap_or(0)));
        held.insert(
            key,
            Held {
                token: status.token.clone(),
                renew,
            },
        );
        Ok(status.token)
    }

    /// When the next token is due.
    pub async fn next_renewal(&self) -> Option<Instant> {
        self.held.lock().await.values().map(|held| held.renew).min()
    }
}

/// 80 % of the life, at most 24 h.
fn renew_after(life: Duration) -> Duration {
    (life * 4 / 5).min(Duration::from_secs(24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_at_four_fifths_or_a_day() {
        assert_eq!(renew_after(Duration::from_secs(600)).as_secs(), 480);
        assert_eq!(renew_after(Duration::from_secs(1_000_000)).as_secs(), 86_400);
    }
}
