//! create, replace, patch, delete.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::read::Selection;
use super::{Call, body, bytes, media_type, object, parse};
use crate::answer::{self, Answer};
use crate::error::ApiError;
use crate::objects::{self, DeleteOptions, Deleted, Owners, Part, WriteOptions};
use crate::patch::apply::{self, Writer};
use crate::patch::{PatchError, json as json_patch, merge, strategic};
use crate::resource::Resource;
use crate::store::Key;

pub(super) async fn create(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let body = body(request).await?;
    if call.resource.namespaced() && call.path.namespace.is_empty() {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    let made = call
        .api
        .write_as(&call.resource, &call.options(), |txn, options| {
            objects::create(txn, &call.resource, &call.path.namespace, body, options)
        })?;
    Ok(object(call, StatusCode::CREATED, &made))
}

fn key(call: &Call) -> Key {
    Key::new(&call.path.namespace, &call.path.name)
}

pub(super) async fn replace(call: &Call, request: Request<Incoming>, part: Part) -> Result<Answer, ApiError> {
    let body = body(request).await?;
    let new = call
        .api
        .write_as(&call.resource, &call.options(), |txn, options| {
            objects::update(txn, &call.resource, &key(call), part, options, |_| {
                Ok((body, Owners::Track))
            })
        })?;
    Ok(object(call, StatusCode::OK, &new))
}

/// A patch by its media type.
#[derive(Debug)]
pub(super) enum Patch {
    Merge(Value),
    Strategic(Value),
    Json(Value),
    Apply { configuration: Value, force: bool },
}

impl Patch {
    pub(super) async fn read(call: &Call, request: Request<Incoming>) -> Result<Self, ApiError> {
        let kind = media_type(&request);
        let body = bytes(request).await?;
        match kind.as_str() {
            "application/merge-patch+json" => parse("application/json", &body).map(Self::Merge),
            "application/json-patch+json" => parse("application/json", &body).map(Self::Json),
            "application/strategic-merge-patch+json" if call.resource.is_custom() => {
                Err(ApiError::unsupported_media_type(&kind))
            }
            "application/strategic-merge-patch+json" => parse("application/json", &body).map(Self::Strategic),
            "application/apply-patch+yaml" => {
                if call.query.get("fieldManager").is_none() {
                    return Err(ApiError::bad_request(
                        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                    ));
                }
                Ok(Self::Apply {
                    configuration: parse(&kind, &body)?,
                    force: call.query.flag("force"),
                })
            }
            other => Err(ApiError::unsupported_media_type(other)),
        }
    }

    /// The patched object.
    pub(super) fn onto(
        &self,
        resource: &Resource,
        current: &Value,
        part: Part,
        options: &WriteOptions,
    ) -> Result<(Value, Owners), ApiError> {
        let refused = |error: PatchError| match error {
            PatchError::Malformed(why) => ApiError::bad_request(why),
            PatchError::Unfit(why) => ApiError {
                code: 422,
                reason: "Invalid",
                ..ApiError::bad_request(format!(
                    "the server rejected our request due to an error in our request: {why}"
                ))
            },
        };
        let mut new = current.clone();
        match self {
            Self::Merge(patch) => merge::merge(&mut new, patch),
            Self::Strategic(patch) => strategic::merge(&mut new, patch, resource.shape()).map_err(refused)?,
            Self::Json(patch) => json_patch::apply(&mut new, patch).map_err(refused)?,
            Self::Apply { configuration, force } => {
                let mut configuration = configuration.clone();
                objects::typed(resource, &mut configuration)?;
                let writer = Writer {
                    manager: &options.manager,
                    subresource: part.name(),
                    api_version: resource.api_version(),
                    now: crate::object::time(options.now),
                };
                let applied = apply::apply(current, &configuration, &writer, *force, resource.shape())?;
                return Ok((applied, Owners::Noted));
            }
        }
        Ok((new, Owners::Track))
    }
}

pub(super) async fn patch(call: &Call, request: Request<Incoming>, part: Part) -> Result<Answer, ApiError> {
    let patch = Patch::read(call, request).await?;
    let (resource, key) = (&call.resource, key(call));
    let (code, new) = call.api.write_as(resource, &call.options(), |txn, options| {
        // An apply of what is not there makes it.
        if let Patch::Apply { configuration, .. } = &patch
            && part == Part::Main
            && txn.get(&resource.drawer, &key).is_none()
        {
            let mut empty = json!({"metadata": {"name": key.name}});
            if resource.namespaced() {
                empty["metadata"]["namespace"] = key.namespace.clone().into();
            }
            let named = crate::object::name(configuration);
            if !named.is_empty() && named != key.name {
                return Err(ApiError::bad_request(
                    "metadata.name does not match the name on the URL",
                ));
            }
            let (fresh, _) = patch.onto(resource, &empty, part, options)?;
            return objects::create(txn, resource, &key.namespace, fresh, options)
                .map(|o| (StatusCode::CREATED, o));
        }
        objects::update(txn, resource, &key, part, options, |current| {
            patch.onto(resource, current, part, options)
        })
        .map(|o| (StatusCode::OK, o))
    })?;
    Ok(object(call, code, &new))
}

pub(super) async fn delete(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let body = body(request).await?;
    let asked = DeleteOptions::read(&body, &call.query)?;
    let options = dry_run(call, &body);
    let deleted = call.api.write_as(&call.resource, &options, |txn, options| {
        objects::delete(txn, &call.resource, &key(call), &asked, options)
    })?;
    Ok(match deleted {
        Deleted::Waiting(value) => object(call, StatusCode::OK, &value),
        // Pods answer with themselves, everything else with a Status, as in the real server.
        Deleted::Gone(value) if call.resource.is("", "pods") => object(call, StatusCode::OK, &value),
        Deleted::Gone(value) => answer::json(
            StatusCode::OK,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {
                "name": call.path.name, "group": call.resource.group, "kind": call.resource.plural,
                "uid": crate::object::uid(&value)}}),
        ),
    })
}

/// Options of a delete: dryRun may be in the body, too.
fn dry_run(call: &Call, body: &Value) -> WriteOptions {
    let mut options = call.options();
    options.dry_run |= body["dryRun"]
        .as_array()
        .is_some_and(|all| all.iter().any(|d| d == "All"));
    options
}

pub(super) async fn delete_collection(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let body = body(request).await?;
    let asked = DeleteOptions::read(&body, &call.query)?;
    let selection = Selection::read(call)?;
    let options = dry_run(call, &body);
    let items = call.api.write_as(&call.resource, &options, |txn, options| {
        let all = txn.list(&call.resource.drawer, &call.path.namespace);
        all.iter()
            .filter(|value| selection.matches(value))
            .map(|value| {
                objects::delete_in(txn, &call.resource.drawer, value, &asked, options)
                    .map(|(Deleted::Gone(v) | Deleted::Waiting(v))| call.resource.to_served(&v))
            })
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(answer::json(
        StatusCode::OK,
        &json!({"kind": call.resource.list_kind, "apiVersion": call.resource.api_version(),
            "metadata": {"resourceVersion": call.api.store.version().to_string()}, "items": items}),
    ))
}
