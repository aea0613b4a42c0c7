//! [`TokenReviewer`]: the port to the API server's word on tokens and pods.
//!
//! It reports facts; who may enter is decided in [`super::admission`] and [`crate::api::authenticate`].

use secrecy::SecretString;

/// The API server could not be asked, or answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Kubernetes API server could not be asked ({step}): {detail}")]
pub struct ReviewUnavailable {
    /// What was asked.
    pub step: &'static str,
    /// What went wrong; never a token.
    pub detail: String,
}

/// What the API server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReviewedToken {
    /// Not valid for the audience: wrong, expired, or its pod or ServiceAccount is gone.
    Rejected,
    /// Valid.
    Authenticated(TokenClaims),
}

/// Whom a valid token names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenClaims {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// The audiences of the token among those asked for. Empty = the API server does not check audiences.
    pub audiences: Vec<String>,
    /// `authentication.kubernetes.io/pod-name`, for a token bound to a pod.
    pub pod_name: Option<String>,
    /// `authentication.kubernetes.io/pod-uid`.
    pub pod_uid: Option<String>,
    /// `authentication.kubernetes.io/node-name` (Kubernetes 1.30 and newer).
    pub node_name: Option<String>,
}

/// The controller that owns an object (`ownerReferences` with `controller: true`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerRef {
    /// `apps/v1`.
    pub api_version: String,
    /// `DaemonSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What counts of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `status.phase` is Succeeded or Failed.
    pub finished: bool,
    /// Who controls it.
    pub controller: Option<ControllerRef>,
    /// `spec.nodeName`.
    pub node: Option<String>,
}

/// Asks the API server.
#[tonic::async_trait]
pub trait TokenReviewer: Send + Sync + 'static {
    /// TokenReview with one audience.
    async fn review(&self, token: &SecretString, audience: &str) -> Result<ReviewedToken, ReviewUnavailable>;
    /// The pod as it is now; `None` = there is none of that name.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ReviewUnavailable>;
    /// UID of a DaemonSet; `None` = there is none of that name.
    async fn daemon_set_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, ReviewUnavailable>;
}
