//! status, scale, token, binding, eviction, finalize, log, portforward.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::write::Patch;
use super::{Call, body, read, write};
use crate::answer::{self, Answer};
use crate::error::ApiError;
use crate::object::{at, text};
use crate::objects::{self, DeleteOptions, Owners, Part};
use crate::resource::{Resource, ScalePaths};
use crate::selector::Labels;
use crate::store::Key;

pub(super) async fn answer(call: Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let method = request.method().clone();
    match (call.path.subresource.as_str(), &method) {
        ("status", _) if call.resource.status => match method {
            Method::GET => read::get(&call),
            Method::PUT => write::replace(&call, request, Part::Status).await,
            Method::PATCH => write::patch(&call, request, Part::Status).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        ("scale", _) => match call.resource.scale.clone() {
            Some(paths) => scale(&call, &paths, request).await,
            None => Err(ApiError::no_such_path()),
        },
        ("token", &Method::POST) if call.resource.is("", "serviceaccounts") => token(&call, request).await,
        ("binding", &Method::POST) if call.resource.is("", "pods") => {
            let binding = body(request).await?;
            bind(&call, &call.path.name, &binding)
        }
        ("eviction", &Method::POST) if call.resource.is("", "pods") => evict(&call, request).await,
        ("finalize", &Method::PUT) if call.resource.is("", "namespaces") => {
            write::replace(&call, request, Part::Main).await
        }
        ("log", &Method::GET) if call.resource.is("", "pods") => crate::kubelet::log(&call).await,
        ("portforward", &Method::GET | &Method::POST) if call.resource.is("", "pods") => {
            crate::portforward::answer(&call, request)
        }
        _ => Err(ApiError::no_such_path()),
    }
}

fn found(call: &Call) -> Result<Arc<Value>, ApiError> {
    let key = Key::new(&call.path.namespace, &call.path.name);
    call.api
        .store
        .get(&call.resource.drawer, &key)
        .ok_or_else(|| ApiError::not_found(&call.resource.group, &call.resource.plural, &key.name))
}

async fn token(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let request = body(request).await?;
    let account = found(call)?;
    let issued = call.api.tokens.issue(&call.api.store, &account, &request)?;
    Ok(answer::json(StatusCode::CREATED, &issued))
}

/// Assigns a pod to a node.
pub(super) fn bind(call: &Call, name: &str, binding: &Value) -> Result<Answer, ApiError> {
    let pods = call
        .api
        .catalog
        .find("", "v1", "pods")
        .ok_or_else(ApiError::no_such_path)?;
    let node = text(binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        return Err(ApiError::bad_request("target.name is required"));
    }
    let now = crate::object::time(call.api.clock.now());
    call.api.write_as(&pods, &call.options(), |txn, options| {
        let key = Key::new(&call.path.namespace, name);
        let current = txn.get(&pods.drawer, &key).ok_or_else(|| ApiError::not_found("", "pods", name))?;
        let uid = crate::object::uid(binding);
        if !uid.is_empty() && uid != crate::object::uid(&current) {
            return Err(ApiError::conflict("", "pods", name, "the UID in the binding does not match"));
        }
        if crate::object::terminating(&current) {
            return Err(ApiError::conflict("", "pods", name, &format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let bound = text(&current, &["spec", "nodeName"]);
        if !bound.is_empty() {
            let why = format!("pod {name} is already assigned to node \"{bound}\"");
            return Err(ApiError::conflict("", "pods", name, &why));
        }
        // Not an update: a pod's node is fixed for everybody else.
        let mut pod = (*current).clone();
        pod["spec"]["nodeName"] = node.into();
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        let conditions = crate::object::entry(&mut pod, "status").entry("conditions").or_insert_with(|| json!([]));
        if let Value::Array(conditions) = conditions {
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        if !options.dry_run {
            txn.put(&pods.drawer, pod);
        }
        Ok(())
    })?;
    Ok(success())
}

fn success() -> Answer {
    answer::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// Deletes a pod unless a disruption budget forbids it.
async fn evict(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let eviction = body(request).await?;
    let asked = DeleteOptions::read(&eviction["deleteOptions"], &call.query)?;
    let budgets = call
        .api
        .catalog
        .find("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(ApiError::no_such_path)?;
    call.api
        .write_as(&call.resource, &call.options(), |txn, options| {
            let key = Key::new(&call.path.namespace, &call.path.name);
            let pod = txn
                .get(&call.resource.drawer, &key)
                .ok_or_else(|| ApiError::not_found("", "pods", &key.name))?;
            let pending = matches!(
                text(&pod, &["status", "phase"]),
                "Pending" | "Succeeded" | "Failed"
            );
            if !pending && !crate::object::terminating(&pod) {
                for budget in txn.list(&budgets.drawer, &key.namespace) {
                    let selector = &budget["spec"]["selector"];
                    let allowed = at(&budget, &["status", "disruptionsAllowed"])
                        .and_then(Value::as_i64)
                        .unwrap_or(0);
                    if !selector.is_null() && Labels::from_object(selector).matches(&pod) && allowed <= 0 {
                        return Err(ApiError::too_many_requests(
                            "Cannot evict pod as it would violate the pod's disruption budget.",
                        ));
                    }
                }
            }
            objects::delete(txn, &call.resource, &key, &asked, options)
        })?;
    Ok(success())
}

fn scale_of(resource: &Resource, paths: &ScalePaths, stored: &Value) -> Value {
    let get = |path: &[String]| path.iter().try_fold(stored, |v, k| v.get(k));
    let count = |path: &[String]| get(path).and_then(Value::as_i64).unwrap_or(0);
    let selector = paths
        .selector
        .as_deref()
        .and_then(get)
        .map(|selector| match selector {
            Value::String(text) => text.clone(),
            other => Labels::from_object(other).to_string(),
        });
    let meta = |field: &str| {
        crate::object::metadata(stored)
            .get(field)
            .cloned()
            .unwrap_or(Value::Null)
    };
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta("name"), "uid": meta("uid"), "resourceVersion": meta("resourceVersion"),
            "creationTimestamp": meta("creationTimestamp")},
        "spec": {"replicas": count(&paths.replicas)}, "status": {"replicas": count(&paths.status)}});
    if resource.namespaced() {
        scale["metadata"]["namespace"] = meta("namespace");
    }
    if let Some(selector) = selector.filter(|s| !s.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// Writes the replicas of a Scale into the object it scales.
fn scaled(paths: &ScalePaths, object: &Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = at(scale, &["spec", "replicas"])
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if replicas < 0 {
        return Err(ApiError::bad_request(
            "spec.replicas: must be greater than or equal to 0",
        ));
    }
    let mut object = object.clone();
    if let Some((last, before)) = paths.replicas.split_last() {
        let parent = before.iter().fold(&mut object, |value, key| {
            crate::object::entry(value, key);
            &mut value[key.as_str()]
        });
        parent[last.as_str()] = replicas.into();
    }
    let version = crate::object::meta(scale, "resourceVersion");
    if version.is_empty() {
        crate::object::metadata_mut(&mut object).remove("resourceVersion");
    } else {
        crate::object::metadata_mut(&mut object).insert("resourceVersion".into(), version.into());
    }
    Ok(object)
}

async fn scale(call: &Call, paths: &ScalePaths, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let resource = &call.resource;
    let shown = |stored: &Value| answer::json(StatusCode::OK, &scale_of(resource, paths, stored));
    let key = Key::new(&call.path.namespace, &call.path.name);
    let scale_type = Resource {
        group: "autoscaling".into(),
        version: "v1".into(),
        kind: "Scale".into(),
        custom: None,
        ..(**resource).clone()
    };
    let new = match *request.method() {
        Method::GET => found(call)?,
        Method::PUT => {
            let scale = body(request).await?;
            call.api.write_as(resource, &call.options(), |txn, options| {
                objects::update(txn, resource, &key, Part::Scale, options, |current| {
                    Ok((scaled(paths, current, &scale)?, Owners::Track))
                })
            })?
        }
        Method::PATCH => {
            let patch = Patch::read(call, request).await?;
            call.api.write_as(resource, &call.options(), |txn, options| {
                objects::update(txn, resource, &key, Part::Scale, options, |current| {
                    let now = scale_of(resource, paths, current);
                    let (scale, _) = patch.onto(&scale_type, &now, Part::Scale, options)?;
                    Ok((scaled(paths, current, &scale)?, Owners::Track))
                })
            })?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(shown(&new))
}
