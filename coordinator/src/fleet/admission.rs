//! Who may have the certificate of a node.

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::NodeName;
use secrecy::{ExposeSecret, SecretString};

use super::reviewer::{ReviewUnavailable, ReviewedToken, TokenReviewer};

/// Audience of the projected token of an agent.
pub const AGENT_AUDIENCE: &str = "hasteward-agent";
/// No ServiceAccount token is longer, bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Who counts as an agent.
#[derive(Debug, Clone)]
pub struct AdmissionPolicy {
    /// The namespace that hasteward runs in.
    pub namespace: String,
    /// The agents' ServiceAccount.
    pub service_account: String,
    /// The agents' DaemonSet.
    pub daemon_set: String,
}

impl AdmissionPolicy {
    /// ServiceAccount and DaemonSet `hasteward-agent` in this namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: "hasteward-agent".to_owned(),
            daemon_set: "hasteward-agent".to_owned(),
        }
    }
}

/// Why a certificate was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The API server could not be asked: not known, so no.
    #[error("{0}")]
    Unavailable(#[from] ReviewUnavailable),
    /// The token is empty, too long, or has not the form of a JWT.
    #[error("the token is no ServiceAccount token")]
    MalformedToken,
    /// The API server does not accept the token for audience `hasteward-agent`.
    #[error("the API server does not accept the token for audience `{AGENT_AUDIENCE}`")]
    TokenRejected,
    /// The API server did not confirm the audience.
    #[error("the token was not confirmed for audience `{AGENT_AUDIENCE}`, but for {0:?}")]
    Audience(Vec<String>),
    /// The token is another ServiceAccount's.
    #[error("the token belongs to `{found}`, not to `{wanted}`")]
    ServiceAccount {
        /// Whose it is.
        found: String,
        /// Whose it must be.
        wanted: String,
    },
    /// The token is not bound to a pod.
    #[error("the token is not bound to a pod: use a projected token")]
    NotBoundToPod,
    /// The pod is gone.
    #[error("pod {0} does not exist any more")]
    PodGone(String),
    /// There is a pod of that name, but another one.
    #[error("pod {0} is not the pod that the token was given to")]
    PodReplaced(String),
    /// The pod is being deleted.
    #[error("pod {0} is being deleted")]
    PodTerminating(String),
    /// The pod has ended.
    #[error("pod {0} has ended")]
    PodFinished(String),
    /// Somebody else made the pod.
    #[error("pod {pod} is not controlled by DaemonSet {daemon_set}")]
    NotOurDaemonSet {
        /// The pod.
        pod: String,
        /// The DaemonSet that it must belong to.
        daemon_set: String,
    },
    /// The pod has no node yet.
    #[error("pod {0} is not bound to a node")]
    PodUnscheduled(String),
    /// The pod runs on another node than the agent says.
    #[error("pod {pod} runs on node `{found}`, not on `{claimed}`")]
    OtherNode {
        /// The pod.
        pod: String,
        /// Where it runs.
        found: String,
        /// Where the agent says it runs.
        claimed: NodeName,
    },
}

impl Refusal {
    /// Stable id, `kebab-case`: for logs, metrics and programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "enrol-unavailable",
            Self::MalformedToken => "enrol-malformed-token",
            Self::TokenRejected => "enrol-token-rejected",
            Self::Audience(_) => "enrol-audience",
            Self::ServiceAccount { .. } => "enrol-service-account",
            Self::NotBoundToPod => "enrol-not-bound",
            Self::PodGone(_) => "enrol-pod-gone",
            Self::PodReplaced(_) => "enrol-pod-replaced",
            Self::PodTerminating(_) => "enrol-pod-terminating",
            Self::PodFinished(_) => "enrol-pod-finished",
            Self::NotOurDaemonSet { .. } => "enrol-daemon-set",
            Self::PodUnscheduled(_) => "enrol-pod-unscheduled",
            Self::OtherNode { .. } => "enrol-other-node",
        }
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        let kind = match refusal {
            Refusal::Unavailable(_) => FailureKind::Unreachable,
            Refusal::MalformedToken | Refusal::TokenRejected => FailureKind::Unauthenticated,
            _ => FailureKind::Forbidden,
        };
        let failure = Self::new(refusal.code(), kind, refusal.to_string());
        if matches!(refusal, Refusal::Unavailable(_)) {
            failure.retryable()
        } else {
            failure
        }
    }
}

/// Three non-empty parts of base64url: not worth a question to the API server otherwise.
pub(crate) fn has_token_form(token: &SecretString) -> bool {
    let token = token.expose_secret();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    token.len() <= MAX_TOKEN_BYTES
        && token.split('.').count() == 3
        && token
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(plain))
}

/// Asks whether the bearer of `token` is the agent of `node`; the answer is its pod's name.
///
/// # Errors
/// Each reason to say no is its own [`Refusal`].
pub async fn admit(
    reviewer: &dyn TokenReviewer,
    policy: &AdmissionPolicy,
    token: &SecretString,
    node: &NodeName,
) -> Result<String, Refusal> {
    if !has_token_form(token) {
        return Err(Refusal::MalformedToken);
    }
    let ReviewedToken::Authenticated(claims) = reviewer.review(token, AGENT_AUDIENCE).await? else {
        return Err(Refusal::TokenRejected);
    };
    if !claims.audiences.iter().any(|audience| audience == AGENT_AUDIENCE) {
        return Err(Refusal::Audience(claims.audiences));
    }
    let wanted = format!(
        "system:serviceaccount:{}:{}",
        policy.namespace, policy.service_account
    );
    if claims.username != wanted {
        return Err(Refusal::ServiceAccount {
            found: claims.username,
            wanted,
        });
    }
    let (Some(pod), Some(uid)) = (claims.pod_name, claims.pod_uid) else {
        return Err(Refusal::NotBoundToPod);
    };
    let Some(facts) = reviewer.pod(&policy.namespace, &pod).await? else {
        return Err(Refusal::PodGone(pod));
    };
    if facts.uid.is_empty() || facts.uid != uid {
        return Err(Refusal::PodReplaced(pod));
    }
    if facts.terminating {
        return Err(Refusal::PodTerminating(pod));
    }
    if facts.finished {
        return Err(Refusal::PodFinished(pod));
    }
    let owner_uid = match &facts.controller {
        Some(owner)
            if owner.kind == "DaemonSet"
                && owner.api_version.starts_with("apps/")
                && owner.name == policy.daemon_set =>
        {
            Some(&owner.uid)
        }
        _ => None,
    };
    let ours = match owner_uid {
        Some(uid) => reviewer
            .daemon_set_uid(&policy.namespace, &policy.daemon_set)
            .await?
            .is_some_and(|ours| ours == *uid),
        None => false,
    };
    if !ours {
        return Err(Refusal::NotOurDaemonSet {
            pod,
            daemon_set: policy.daemon_set.clone(),
        });
    }
    let Some(found) = facts.node else {
        return Err(Refusal::PodUnscheduled(pod));
    };
    // The token's own node, where the API server knows it, must say the same.
    for found in [Some(found), claims.node_name].into_iter().flatten() {
        if found != node.as_str() {
            return Err(Refusal::OtherNode {
                pod,
                found,
                claimed: node.clone(),
            });
        }
    }
    Ok(pod)
}
