//! The API server's word on tokens and pods, from memory.

use std::collections::HashMap;
use std::sync::Mutex;

use hasteward_coordinator::fleet::{
    ControllerRef, PodFacts, ReviewUnavailable, ReviewedToken, TokenClaims, TokenReviewer,
};
use secrecy::{ExposeSecret, SecretString};

pub(crate) const NAMESPACE: &str = "hasteward";
pub(crate) const DAEMON_SET_UID: &str = "ds-uid";

struct Token {
    audience: String,
    claims: TokenClaims,
}

#[derive(Default)]
struct State {
    tokens: HashMap<String, Token>,
    pods: HashMap<String, PodFacts>,
    reviews: usize,
    down: bool,
}

#[derive(Default)]
pub(crate) struct FakeReviewer {
    state: Mutex<State>,
}

pub(crate) fn agent_user() -> String {
    format!("system:serviceaccount:{NAMESPACE}:hasteward-agent")
}

pub(crate) fn viewer_user() -> String {
    format!("system:serviceaccount:{NAMESPACE}:hasteward-viewer")
}

/// A pod of the DaemonSet on a node.
pub(crate) fn agent_pod(node: &str) -> PodFacts {
    PodFacts {
        uid: format!("uid-{node}"),
        terminating: false,
        finished: false,
        controller: Some(ControllerRef {
            api_version: "apps/v1".into(),
            kind: "DaemonSet".into(),
            name: "hasteward-agent".into(),
            uid: DAEMON_SET_UID.into(),
        }),
        node: Some(node.into()),
    }
}

/// What a token says that is bound to the pod of [`agent_pod`].
pub(crate) fn agent_claims(node: &str) -> TokenClaims {
    TokenClaims {
        username: agent_user(),
        audiences: Vec::new(),
        pod_name: Some(format!("agent-{node}")),
        pod_uid: Some(format!("uid-{node}")),
        node_name: Some(node.into()),
    }
}

impl FakeReviewer {
    /// An agent's token and its pod; the answer is the token.
    pub(crate) fn add_agent(&self, node: &str) -> String {
        self.set_pod(&format!("agent-{node}"), Some(agent_pod(node)));
        self.add_token(&format!("agent-{node}"), "hasteward-agent", agent_claims(node))
    }

    /// A reader's token.
    pub(crate) fn add_viewer(&self) -> String {
        let claims = TokenClaims {
            username: viewer_user(),
            ..TokenClaims::default()
        };
        self.add_token("viewer", "hasteward-cli", claims)
    }

    pub(crate) fn add_token(&self, name: &str, audience: &str, claims: TokenClaims) -> String {
        let token = format!("header.{name}-{audience}.signature");
        let entry = Token {
            audience: audience.to_owned(),
            claims,
        };
        self.state.lock().unwrap().tokens.insert(token.clone(), entry);
        token
    }

    pub(crate) fn set_pod(&self, name: &str, pod: Option<PodFacts>) {
        let mut state = self.state.lock().unwrap();
        match pod {
            Some(pod) => state.pods.insert(name.to_owned(), pod),
            None => state.pods.remove(name),
        };
    }

    pub(crate) fn revoke_all(&self) {
        self.state.lock().unwrap().tokens.clear();
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    /// How many tokens were asked about.
    pub(crate) fn reviews(&self) -> usize {
        self.state.lock().unwrap().reviews
    }

    fn up(&self, step: &'static str) -> Result<std::sync::MutexGuard<'_, State>, ReviewUnavailable> {
        let state = self.state.lock().unwrap();
        if state.down {
            Err(ReviewUnavailable {
                step,
                detail: "connection refused".into(),
            })
        } else {
            Ok(state)
        }
    }
}

#[tonic::async_trait]
impl TokenReviewer for FakeReviewer {
    async fn review(&self, token: &SecretString, audience: &str) -> Result<ReviewedToken, ReviewUnavailable> {
        let mut state = self.up("TokenReview")?;
        state.reviews += 1;
        Ok(match state.tokens.get(token.expose_secret()) {
            Some(known) if known.audience == audience => {
                let mut claims = known.claims.clone();
                if claims.audiences.is_empty() {
                    claims.audiences = vec![audience.to_owned()];
                }
                ReviewedToken::Authenticated(claims)
            }
            _ => ReviewedToken::Rejected,
        })
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ReviewUnavailable> {
        let state = self.up("get pod")?;
        Ok(if namespace == NAMESPACE {
            state.pods.get(name).cloned()
        } else {
            None
        })
    }

    async fn daemon_set_uid(&self, namespace: &str, name: &str) -> Result<Option<String>, ReviewUnavailable> {
        drop(self.up("get daemonset")?);
        Ok((namespace == NAMESPACE && name == "hasteward-agent").then(|| DAEMON_SET_UID.to_owned()))
    }
}
