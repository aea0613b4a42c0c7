//! [`KubeTokenReviewer`]: asks a real API server.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretString};

use super::reviewer::{
    ControllerRef, PodFacts, ReviewUnavailable, ReviewedToken, TokenClaims, TokenReviewer,
};

/// Asks the API server through kube.
#[derive(Clone)]
pub struct KubeTokenReviewer {
    client: Client,
}

impl KubeTokenReviewer {
    /// With the coordinator's own client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

/// Wraps an error of kube. Its text carries the server's message, never the request.
fn unavailable(step: &'static str) -> impl FnOnce(kube::Error) -> ReviewUnavailable {
    move |error| ReviewUnavailable {
        step,
        detail: error.to_string(),
    }
}

/// What counts of a pod.
pub(super) fn facts(pod: &Pod) -> PodFacts {
    let controller = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    PodFacts {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        finished: pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")),
        controller: controller.map(|owner| ControllerRef {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    }
}

#[tonic::async_trait]
impl TokenReviewer for KubeTokenReviewer {
    async fn review(&self, token: &SecretString, audience: &str) -> Result<ReviewedToken, ReviewUnavailable> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.expose_secret().to_owned()),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(unavailable("TokenReview"))?;
        let status = reviewed.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(ReviewedToken::Rejected);
        }
        let user = status.user.unwrap_or_default();
        let extra = user.extra.unwrap_or_default();
        let one = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
        Ok(ReviewedToken::Authenticated(TokenClaims {
            username: user.username.unwrap_or_default(),
            audiences: status.audiences.unwrap_or_default(),
            pod_name: one("authentication.kubernetes.io/pod-name"),
            pod_uid: one("authentication.kubernetes.io/pod-uid"),
            node_name: one("authentication.kubernetes.io/node-name"),
        }))
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ReviewUnavailable> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        Ok(pods
            .get_opt(name)
            .await
            .map_err(unavailable("get pod"))?
            .as_ref()
            .map(facts))
    }

    async fn daemon_set_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, ReviewUnavailable> {
        let sets = Api::<DaemonSet>::namespaced(self.client.clone(), namespace);
        let found = sets.get_opt(name).await.map_err(unavailable("get daemonset"))?;
        Ok(found.and_then(|set| set.metadata.uid))
    }
}
