//! From a request to an answer.

mod read;
mod reviews;
mod subresources;
mod watch;
mod write;

use std::sync::Arc;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::answer::{self, Answer, Format};
use crate::api::Api;
use crate::auth::{Attributes, User, rbac};
use crate::error::ApiError;
use crate::faults::Asked;
use crate::objects::Part;
use crate::request::{Query, ResourcePath};
use crate::resource::{Resource, Verbs};

/// As etcd and the real server limit it.
const MOST_BODY: usize = 3 * 1024 * 1024;

/// A request for a resource, after it was let in.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) user: User,
    pub(crate) path: ResourcePath,
    pub(crate) query: Query,
    pub(crate) resource: Arc<Resource>,
    pub(crate) format: Format,
    /// Field manager: as asked, else the first word of the user agent.
    pub(crate) manager: String,
}

impl Call {
    /// How the caller's writes are noted.
    fn options(&self) -> crate::objects::WriteOptions {
        crate::objects::WriteOptions {
            manager: self.manager.clone(),
            dry_run: self.query.all("dryRun").any(|d| d == "All"),
            strict: self.query.get("fieldValidation") == Some("Strict"),
            now: self.api.clock.now(),
        }
    }
}

fn manager(query: &Query, request: &Request<Incoming>) -> String {
    let agent = request
        .headers()
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok());
    let own = agent
        .and_then(|a| a.split(['/', ' ']).next())
        .filter(|a| !a.is_empty())
        .unwrap_or("unknown");
    query.get("fieldManager").unwrap_or(own).to_owned()
}

/// Answers a request of `peer`, the user of the connection's certificate if it has one.
pub(crate) async fn handle(api: Arc<Api>, peer: Option<User>, request: Request<Incoming>) -> Answer {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = request.uri().path().to_owned();
    let resource_path = ResourcePath::parse(&path);
    let asked = match &resource_path {
        Some(resource) => resource.attributes(request.method(), &query),
        None => Attributes {
            verb: request.method().as_str().to_lowercase(),
            path,
            ..Attributes::default()
        },
    };
    let user = match authenticate(&api, peer, &request) {
        Ok(user) => user,
        Err(error) => {
            api.audit.note(&User::anonymous(), &asked, false, error.code);
            return answer::error(&error);
        }
    };
    let dry_run = query.get("dryRun").is_some();
    let result = admitted(api.clone(), &user, &asked, resource_path, query, request).await;
    let answer = result.unwrap_or_else(|error| answer::error(&error));
    api.audit.note(&user, &asked, dry_run, answer.status().as_u16());
    answer
}

async fn admitted(
    api: Arc<Api>,
    user: &User,
    asked: &Attributes,
    path: Option<ResourcePath>,
    query: Query,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    let fault = api.faults.check(
        &api.store,
        Asked {
            method: request.method(),
            path: request.uri().path(),
            user: &user.name,
            watch: asked.verb == "watch",
        },
    );
    if !fault.delay.is_zero() {
        tokio::time::sleep(fault.delay).await;
    }
    if let Some(error) = fault.error {
        return Err(error);
    }
    if !rbac::allowed(&api.store, user, asked) {
        return Err(ApiError::forbidden(rbac::refusal(user, asked)));
    }
    let Some(path) = path else {
        return crate::discovery::answer(&api, &request);
    };
    let resource = api
        .catalog
        .find(&path.group, &path.version, &path.plural)
        .ok_or_else(ApiError::no_such_path)?;
    if resource.namespaced() && path.namespace.is_empty() && !path.name.is_empty() {
        return Err(ApiError::no_such_path());
    }
    // What is no JSON (logs, upgrades) is not negotiated.
    let format = if matches!(path.subresource.as_str(), "log" | "portforward") {
        Format::Plain
    } else {
        answer::negotiate(request.headers())?
    };
    let manager = manager(&query, &request);
    dispatch(
        Call {
            api,
            user: user.clone(),
            path,
            query,
            resource,
            format,
            manager,
        },
        request,
    )
    .await
}

/// The user: by token, by certificate, or nobody; then whom they impersonate.
fn authenticate(api: &Api, peer: Option<User>, request: &Request<Incoming>) -> Result<User, ApiError> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let bearer = header("authorization").map(|value| {
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            token.trim()
        } else {
            ""
        }
    });
    let user = match (peer, bearer) {
        (Some(user), _) => user,
        (None, Some(token)) => {
            api.tokens
                .check(&api.store, token, &[])
                .map_err(|refused| {
                    tracing::debug!(%refused, "bearer token");
                    ApiError::unauthorized()
                })?
                .user
        }
        (None, None) => User::anonymous(),
    };
    let Some(name) = header("impersonate-user") else {
        return Ok(user);
    };
    let groups = request.headers().get_all("impersonate-group").iter();
    let mut groups: Vec<String> = groups
        .filter_map(|v| v.to_str().ok())
        .map(str::to_owned)
        .collect();
    let asked = Attributes {
        verb: "impersonate".into(),
        resource: "users".into(),
        name: name.into(),
        ..Attributes::default()
    };
    if !rbac::allowed(&api.store, &user, &asked) {
        return Err(ApiError::forbidden(rbac::refusal(&user, &asked)));
    }
    groups.push("system:authenticated".into());
    Ok(User {
        name: name.to_owned(),
        groups,
        ..User::default()
    })
}

async fn dispatch(call: Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    if call.resource.verbs == Verbs::CreateOnly {
        return match *request.method() {
            Method::POST => reviews::create(&call, request).await,
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    if !call.path.subresource.is_empty() {
        return subresources::answer(call, request).await;
    }
    let collection = call.path.name.is_empty();
    match *request.method() {
        Method::GET if call.query.flag("watch") => watch::watch(call),
        Method::GET if collection => read::list(&call),
        Method::GET => read::get(&call),
        Method::POST if collection => write::create(&call, request).await,
        Method::PUT if !collection => write::replace(&call, request, Part::Main).await,
        Method::PATCH if !collection => write::patch(&call, request, Part::Main).await,
        Method::DELETE if collection => write::delete_collection(&call, request).await,
        Method::DELETE => write::delete(&call, request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// The bytes of a body, bounded.
async fn bytes(request: Request<Incoming>) -> Result<bytes::Bytes, ApiError> {
    match Limited::new(request.into_body(), MOST_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large_body()),
        Err(error) => Err(ApiError::bad_request(format!("read the body: {error}"))),
    }
}

/// The media type of a body, without parameters.
fn media_type(request: &Request<Incoming>) -> String {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// A body as a value; YAML where it says so.
async fn body(request: Request<Incoming>) -> Result<Value, ApiError> {
    let kind = media_type(&request);
    let bytes = bytes(request).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    parse(&kind, &bytes)
}

/// Reads JSON or YAML by its media type.
fn parse(kind: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    match kind {
        "" | "application/json" | "*/*" => {
            serde_json::from_slice(bytes).map_err(|e| ApiError::bad_request(format!("invalid JSON: {e}")))
        }
        "application/yaml" | "application/apply-patch+yaml" => {
            if let Ok(value) = serde_json::from_slice(bytes) {
                return Ok(value);
            }
            let text = std::str::from_utf8(bytes)
                .map_err(|e| ApiError::bad_request(format!("invalid YAML: {e}")))?;
            serde_saphyr::from_str(text).map_err(|e| ApiError::bad_request(format!("invalid YAML: {e}")))
        }
        crate::protobuf::MEDIA_TYPE => crate::protobuf::read(bytes)
            .map_err(|e| ApiError::unsupported_media_type(&format!("{kind}: {e}"))),
        other => Err(ApiError::unsupported_media_type(other)),
    }
}

/// An object in the form that the client wants.
fn object(call: &Call, code: StatusCode, stored: &Value) -> Answer {
    let served = call.resource.to_served(stored);
    match &call.format {
        Format::Table(version) => {
            let table = crate::table::table(
                &call.resource,
                &[served],
                version,
                &call.query,
                call.api.clock.now(),
            );
            answer::json(code, &table)
        }
        Format::Metadata => answer::json(code, &crate::table::partial(&served)),
        _ => answer::json(code, &served),
    }
}
