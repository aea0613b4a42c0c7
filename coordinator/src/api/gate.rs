//! [`Gate`]: every call of people and of enrolment passes here before it reaches a service.

use std::convert::Infallible;
use std::sync::Arc;

use hasteward_proto::channel::PeerCertificate;
use hasteward_proto::failure::{Failure, FailureKind};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;
use tracing::debug;

use super::authenticate::Authenticator;
use super::caller::Caller;
use super::requirement::{METHODS, Requirement, Table, requirement};

/// Lets a call through to its service, or answers it with a refusal. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    authenticator: Arc<Authenticator>,
    table: Table,
    routes: Routes,
}

impl Gate {
    /// Before `routes`, with the product's table of methods.
    #[must_use]
    pub fn new(authenticator: Authenticator, routes: Routes) -> Self {
        Self::with_table(authenticator, routes, METHODS)
    }

    /// The same, with another table.
    #[must_use]
    pub fn with_table(authenticator: Authenticator, routes: Routes, table: Table) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            table,
            routes,
        }
    }

    /// Who makes the call, if they may; `None` for enrolment, which asks for itself.
    ///
    /// # Errors
    /// The method is not listed, the caller is not known, or their role is too low.
    pub async fn admit(
        &self,
        path: &str,
        peer: Option<&PeerCertificate>,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Failure> {
        let forbidden =
            |code: &str, message: String| Err(Failure::new(code, FailureKind::Forbidden, message));
        let role = match requirement(self.table, path) {
            None => {
                let shown: String = path.chars().take(120).collect();
                return forbidden(
                    "method-unknown",
                    format!("`{shown}` is no method of this coordinator"),
                );
            }
            Some(Requirement::Enrolment) => return Ok(None),
            Some(Requirement::Person(role)) => role,
        };
        let caller = self.authenticator.authenticate(peer, headers).await?;
        if caller.role < role {
            let message = format!(
                "{} may only read; `{path}` needs O={}",
                caller.name,
                role.organisation()
            );
            return forbidden("role-too-low", message);
        }
        Ok(Some(caller))
    }

    /// Answers one call.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Option<&PeerCertificate>,
    ) -> Result<Response<Body>, Infallible> {
        match self.admit(request.uri().path(), peer, request.headers()).await {
            Ok(caller) => {
                // Services see who calls, and not with what.
                request.headers_mut().remove(http::header::AUTHORIZATION);
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                self.routes.clone().call(request).await
            }
            Err(failure) => {
                debug!(code = failure.code, "call refused");
                Ok(Status::from(failure).into_http())
            }
        }
    }
}
