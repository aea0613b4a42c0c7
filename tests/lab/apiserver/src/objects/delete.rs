//! Deletion: grace periods, finalizers, preconditions.

use std::sync::Arc;

use serde_json::Value;

use super::{WriteOptions, find};
use crate::error::ApiError;
use crate::object::{self, at, metadata_mut, text};
use crate::resource::Resource;
use crate::store::{GroupResource, Key, Txn};

/// What becomes of the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// It goes after them.
    Foreground,
    /// They stay.
    Orphan,
}

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds until a pod is killed.
    pub grace: Option<i64>,
    /// What becomes of dependents.
    pub propagation: Propagation,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this version.
    pub version: Option<String>,
}

impl DeleteOptions {
    /// Reads a body and the query of a delete request.
    pub fn read(body: &Value, query: &crate::request::Query) -> Result<Self, ApiError> {
        let word = |path: &[&str], name: &str| {
            at(body, path)
                .and_then(Value::as_str)
                .or_else(|| query.get(name))
                .map(str::to_owned)
        };
        let grace = match at(body, &["gracePeriodSeconds"]).and_then(Value::as_i64) {
            Some(seconds) => Some(seconds),
            None => query
                .get("gracePeriodSeconds")
                .map(|s| {
                    s.parse()
                        .map_err(|_| ApiError::bad_request("gracePeriodSeconds is no number"))
                })
                .transpose()?,
        };
        let orphans = at(body, &["orphanDependents"])
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let propagation = match word(&["propagationPolicy"], "propagationPolicy").as_deref() {
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            None if orphans => Propagation::Orphan,
            None | Some("Background") => Propagation::Background,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "unknown propagationPolicy {other}"
                )));
            }
        };
        Ok(Self {
            grace,
            propagation,
            uid: word(&["preconditions", "uid"], ""),
            version: word(&["preconditions", "resourceVersion"], ""),
        })
    }
}

/// What a deletion left behind.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Value>),
    /// The object waits for finalizers or for its kubelet.
    Waiting(Arc<Value>),
}

/// Deletes an object.
pub fn delete(
    txn: &mut Txn<'_>,
    resource: &Resource,
    key: &Key,
    asked: &DeleteOptions,
    options: &WriteOptions,
) -> Result<Deleted, ApiError> {
    let current = find(txn, resource, key)?;
    preconditions(resource, &current, asked)?;
    delete_in(txn, &resource.drawer, &current, asked, options)
}

fn preconditions(resource: &Resource, current: &Value, asked: &DeleteOptions) -> Result<(), ApiError> {
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        ApiError::conflict(&resource.group, &resource.plural, object::name(current), &why)
    };
    if let Some(uid) = asked.uid.as_deref().filter(|uid| *uid != object::uid(current)) {
        return Err(conflict("UID", uid, object::uid(current)));
    }
    let found = object::meta(current, "resourceVersion");
    if let Some(version) = asked.version.as_deref().filter(|v| *v != found) {
        return Err(conflict("ResourceVersion", version, found));
    }
    Ok(())
}

/// Deletes an object that was just read.
pub fn delete_in(
    txn: &mut Txn<'_>,
    drawer: &GroupResource,
    current: &Value,
    asked: &DeleteOptions,
    options: &WriteOptions,
) -> Result<Deleted, ApiError> {
    let mut object = current.clone();
    let grace = grace(drawer, current, asked);
    let mut finalizers = object::finalizers(current);
    for (policy, name) in [
        (Propagation::Foreground, "foregroundDeletion"),
        (Propagation::Orphan, "orphan"),
    ] {
        if asked.propagation == policy && !finalizers.iter().any(|f| f == name) {
            finalizers.push(name.to_owned());
        }
    }
    let namespace = drawer.group.is_empty() && drawer.plural == "namespaces";
    let waits = grace > 0 || !finalizers.is_empty() || namespace;
    let before = object::metadata(current)
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    // A pod that is being deleted already may only be deleted sooner.
    if object::terminating(current) && waits && before.is_some_and(|b| grace >= b) {
        return Ok(Deleted::Waiting(Arc::new(object)));
    }
    object::set_finalizers(&mut object, finalizers);
    let at = options
        .now
        .checked_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or(options.now);
    let metadata = metadata_mut(&mut object);
    metadata.insert("deletionTimestamp".into(), object::time(at).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    if namespace {
        object["status"]["phase"] = "Terminating".into();
    }
    if options.dry_run {
        return Ok(Deleted::Gone(Arc::new(object)));
    }
    if waits {
        return Ok(Deleted::Waiting(txn.put(drawer, object)));
    }
    Ok(Deleted::Gone(txn.remove(drawer, object)))
}

/// Seconds of grace: only pods that run somewhere have any.
fn grace(drawer: &GroupResource, object: &Value, asked: &DeleteOptions) -> i64 {
    if !(drawer.group.is_empty() && drawer.plural == "pods") {
        return 0;
    }
    let ended = matches!(text(object, &["status", "phase"]), "Failed" | "Succeeded");
    if text(object, &["spec", "nodeName"]).is_empty() || ended {
        return 0;
    }
    let own = at(object, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    asked.grace.or(own).unwrap_or(30).max(0)
}
