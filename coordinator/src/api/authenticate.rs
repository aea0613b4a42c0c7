//! [`Authenticator`]: who makes a call.

use std::sync::Arc;

use hasteward_proto::channel::{PeerCertificate, PeerIdentity};
use hasteward_proto::failure::{Failure, FailureKind};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::SecretString;

use super::caller::{Caller, Role};
use super::review_cache::ReviewCache;
use crate::fleet::admission::has_token_form;
use crate::fleet::{Clock, ReviewedToken, TokenReviewer};

/// Audience of the tokens of people.
pub const PEOPLE_AUDIENCE: &str = "hasteward-cli";

/// Which ServiceAccount people read with.
#[derive(Debug, Clone)]
pub struct PeoplePolicy {
    /// The namespace that hasteward runs in.
    pub namespace: String,
    /// The readers' ServiceAccount.
    pub viewer: String,
}

impl PeoplePolicy {
    /// ServiceAccount `hasteward-viewer` in this namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            viewer: "hasteward-viewer".to_owned(),
        }
    }
}

/// Finds out who makes a call: by client certificate, else by the token in `authorization`.
pub struct Authenticator {
    reviewer: Arc<dyn TokenReviewer>,
    policy: PeoplePolicy,
    clock: Arc<dyn Clock>,
    cache: ReviewCache,
}

/// Not who they must be.
fn unauthenticated(code: &str, message: impl Into<String>) -> Failure {
    Failure::new(code, FailureKind::Unauthenticated, message)
}

/// Known, and not a person who may call.
fn forbidden(code: &str, message: impl Into<String>) -> Failure {
    Failure::new(code, FailureKind::Forbidden, message)
}

impl Authenticator {
    /// Asks `reviewer` for tokens.
    #[must_use]
    pub fn new(reviewer: Arc<dyn TokenReviewer>, policy: PeoplePolicy, clock: Arc<dyn Clock>) -> Self {
        Self {
            reviewer,
            policy,
            clock,
            cache: ReviewCache::default(),
        }
    }

    /// Who makes the call. A certificate decides alone: one of an agent is refused whatever token comes with it.
    ///
    /// # Errors
    /// No credentials, bad ones, or those of somebody who is no person.
    pub async fn authenticate(
        &self,
        peer: Option<&PeerCertificate>,
        headers: &HeaderMap,
    ) -> Result<Caller, Failure> {
        if let Some(certificate) = peer {
            return self.by_certificate(certificate);
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Err(unauthenticated("no-credentials", "neither a client certificate nor a token was given").hint(
                format!(
                    "use a client certificate, or a token: kubectl -n {} create token {} --audience {PEOPLE_AUDIENCE}",
                    self.policy.namespace, self.policy.viewer
                ),
            ));
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| SecretString::from(token.trim()));
        match token {
            Some(token) if values.next().is_none() && has_token_form(&token) => self.by_token(&token).await,
            _ => Err(unauthenticated(
                "bad-credentials",
                "authorization: expected exactly one `Bearer <ServiceAccount token>`",
            )),
        }
    }

    fn by_certificate(&self, certificate: &PeerCertificate) -> Result<Caller, Failure> {
        let PeerIdentity::Person(name) = &certificate.identity else {
            let message = format!("{} is no person", certificate.identity);
            return Err(forbidden("not-a-person", message));
        };
        // The handshake checked this once; a connection can outlive the certificate.
        if self.clock.now() >= certificate.not_after {
            return Err(unauthenticated(
                "certificate-expired",
                format!("the certificate of {name} has expired"),
            ));
        }
        let has = |role: Role| certificate.organisations.iter().any(|o| o == role.organisation());
        let role = [Role::Operator, Role::Viewer].into_iter().find(|role| has(*role));
        let role = role.ok_or_else(|| {
            forbidden(
                "no-role",
                format!("the certificate of {name} carries no role: expected O=hasteward:viewer or O=hasteward:operator"),
            )
        })?;
        Ok(Caller {
            name: name.as_str().to_owned(),
            role,
        })
    }

    async fn by_token(&self, token: &SecretString) -> Result<Caller, Failure> {
        let now = self.clock.now();
        let word = if let Some(word) = self.cache.get(token, now) {
            word
        } else {
            let word = self
                .reviewer
                .review(token, PEOPLE_AUDIENCE)
                .await
                .map_err(|error| {
                    Failure::new("token-review", FailureKind::Unreachable, error.to_string()).retryable()
                })?;
            self.cache.put(token, word.clone(), now);
            word
        };
        let ReviewedToken::Authenticated(claims) = word else {
            let message =
                format!("the API server does not accept the token for audience `{PEOPLE_AUDIENCE}`");
            return Err(unauthenticated("token-rejected", message));
        };
        if !claims
            .audiences
            .iter()
            .any(|audience| audience == PEOPLE_AUDIENCE)
        {
            let message = format!("the token was not confirmed for audience `{PEOPLE_AUDIENCE}`");
            return Err(unauthenticated("token-audience", message));
        }
        let wanted = format!(
            "system:serviceaccount:{}:{}",
            self.policy.namespace, self.policy.viewer
        );
        if claims.username != wanted {
            let message = format!("the token belongs to `{}`, not to `{wanted}`", claims.username);
            return Err(forbidden("token-service-account", message));
        }
        Ok(Caller {
            name: claims.username,
            role: Role::Viewer,
        })
    }
}
