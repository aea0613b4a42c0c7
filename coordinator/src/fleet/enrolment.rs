//! [`EnrolmentService`]: a token and a certificate request against a certificate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::enrol::enrolment_server::{Enrolment, EnrolmentServer};
use hasteward_proto::wire::enrol::{EnrolReply, EnrolRequest};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::admission::{AdmissionPolicy, Refusal, admit, has_token_form};
use super::authority::{AuthorityError, CertificateAuthority, Subject};
use super::registry::Fleet;
use super::reviewer::TokenReviewer;
use crate::clock::Clock;

/// Largest request, bytes: token, certificate request and name.
const MAX_MESSAGE: usize = 32 << 10;
/// Questions to the API server at once.
const CONCURRENT: usize = 16;
/// How long a request may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests per second in the long run, and at once.
#[derive(Debug, Clone, Copy)]
pub struct EnrolmentRate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Default for EnrolmentRate {
    /// A fleet of 1,000 enrols within 20 s of its installation.
    fn default() -> Self {
        Self {
            per_second: 50,
            burst: 100,
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    rate: EnrolmentRate,
    level: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let gained =
            now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(self.rate.per_second);
        self.level = (self.level + gained).min(f64::from(self.rate.burst));
        self.filled = now;
        let enough = self.level >= 1.0;
        if enough {
            self.level -= 1.0;
        }
        enough
    }
}

/// The gRPC service `hasteward.enrol.v1.Enrolment`.
pub struct EnrolmentService {
    authority: Arc<CertificateAuthority>,
    reviewer: Arc<dyn TokenReviewer>,
    policy: AdmissionPolicy,
    clock: Arc<dyn Clock>,
    fleet: Fleet,
    turns: Semaphore,
    bucket: Mutex<Bucket>,
}

impl EnrolmentService {
    /// Signs for agents that `policy` admits.
    #[must_use]
    pub fn new(
        authority: Arc<CertificateAuthority>,
        reviewer: Arc<dyn TokenReviewer>,
        policy: AdmissionPolicy,
        clock: Arc<dyn Clock>,
        fleet: Fleet,
        rate: EnrolmentRate,
    ) -> Self {
        let bucket = Bucket {
            rate,
            level: f64::from(rate.burst),
            filled: Instant::now(),
        };
        Self {
            authority,
            reviewer,
            policy,
            clock,
            fleet,
            turns: Semaphore::new(CONCURRENT),
            bucket: Mutex::new(bucket),
        }
    }

    /// As a tonic service with its message bound.
    #[must_use]
    pub fn into_server(self) -> EnrolmentServer<Self> {
        EnrolmentServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn decide(&self, request: EnrolRequest) -> Result<(NodeName, EnrolReply), (&'static str, Failure)> {
        let busy = |message: &str| {
            (
                "enrol-busy",
                Failure::new("enrol-busy", FailureKind::Busy, message).retryable(),
            )
        };
        // What costs nothing to see is seen first: junk must not use up the turns of real agents.
        let node = NodeName::new(&request.node).map_err(|e| {
            (
                "enrol-node",
                Failure::new("enrol-node", FailureKind::Input, e.to_string()),
            )
        })?;
        let token = SecretString::from(request.token);
        if !has_token_form(&token) {
            let refusal = Refusal::MalformedToken;
            return Err((refusal.code(), Failure::from(&refusal)));
        }
        if !self
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now())
        {
            return Err(busy("too many enrolments at once"));
        }
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(busy("too many enrolments are waiting for the API server"));
        };
        let pod = admit(&*self.reviewer, &self.policy, &token, &node)
            .await
            .map_err(|refusal: Refusal| (refusal.code(), Failure::from(&refusal)))?;
        let subject = Subject::Node(node.clone());
        let signed = self
            .authority
            .sign(&request.certificate_request, &subject, self.clock.now())
            .map_err(|error| {
                let (code, kind) = match error {
                    AuthorityError::RequestTooLarge
                    | AuthorityError::Request(_)
                    | AuthorityError::RequestKey => ("enrol-request", FailureKind::Input),
                    _ => ("enrol-authority", FailureKind::Internal),
                };
                (code, Failure::new(code, kind, error.to_string()))
            })?;
        info!(%node, pod, "certificate given");
        let chain = signed.chain.iter().map(|der| der.to_vec().into()).collect();
        Ok((
            node,
            EnrolReply {
                chain,
                expires_at_ms: signed.not_after.0,
            },
        ))
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        let claimed = request.node.clone();
        match self.decide(request).await {
            Ok((node, reply)) => {
                self.fleet.events().enrolled(&node);
                Ok(Response::new(reply))
            }
            Err((code, failure)) => {
                let node: String = claimed.chars().take(80).collect();
                warn!(node, code, reason = %failure.message, "enrolment refused");
                self.fleet.events().enrolment_refused(code);
                Err(Status::from(failure))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_holds_its_rate() {
        let start = Instant::now();
        let rate = EnrolmentRate {
            per_second: 10,
            burst: 3,
        };
        let mut bucket = Bucket {
            rate,
            level: 3.0,
            filled: start,
        };
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert_eq!(
            (0..5)
                .filter(|_| bucket.take(start + Duration::from_millis(200)))
                .count(),
            2
        );
        assert_eq!(
            (0..9)
                .filter(|_| bucket.take(start + Duration::from_secs(60)))
                .count(),
            3
        );
    }
}
