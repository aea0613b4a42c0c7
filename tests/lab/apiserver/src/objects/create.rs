//! New objects.

use std::sync::Arc;

use serde_json::Value;

use super::{WriteOptions, admit, namespaces, suffix, typed};
use crate::error::ApiError;
use crate::object::{self, metadata_mut};
use crate::patch::apply::{Writer, track};
use crate::resource::{Generation, Resource};
use crate::store::{Key, Txn};

/// Creates an object in a namespace (empty: cluster-wide). `body` is of the served version, the answer as stored.
pub fn create(
    txn: &mut Txn<'_>,
    resource: &Resource,
    namespace: &str,
    mut body: Value,
    options: &WriteOptions,
) -> Result<Arc<Value>, ApiError> {
    typed(resource, &mut body)?;
    let owned = object::metadata(&body).contains_key("managedFields");
    let mut object = resource.to_stored(body);
    name(resource, namespace, &mut object)?;
    place(txn, resource, namespace, &object)?;
    let key = Key::of(&object);
    if txn.get(&resource.drawer, &key).is_some() {
        return Err(ApiError::already_exists(
            &resource.group,
            &resource.plural,
            &key.name,
        ));
    }
    let now = object::time(options.now);
    let metadata = metadata_mut(&mut object);
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        if field == "resourceVersion"
            && metadata
                .get(field)
                .is_some_and(|v| v.as_str().is_some_and(|s| !s.is_empty()))
        {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now.clone().into());
    if resource.generation == Generation::Counted {
        metadata.insert("generation".into(), 1.into());
    }
    // A kubelet registers its node with its status; every other status is written by its own door only.
    if resource.status
        && !resource.is("", "nodes")
        && let Value::Object(map) = &mut object
    {
        map.remove("status");
    }
    admit(resource, &mut object, true, options, txn)?;
    if !owned {
        let writer = Writer {
            manager: &options.manager,
            subresource: "",
            api_version: resource.api_version(),
            now,
        };
        track(None, &mut object, &writer, resource.shape());
    }
    if options.dry_run {
        return Ok(Arc::new(object));
    }
    Ok(txn.put(&resource.drawer, object))
}

fn name(resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    let prefix = object::meta(object, "generateName").to_owned();
    if object::name(object).is_empty() {
        if prefix.is_empty() {
            return Err(ApiError::invalid(
                &resource.group,
                &resource.kind,
                "",
                &[(
                    "metadata.name".into(),
                    "Required value: name or generateName is required".into(),
                )],
            ));
        }
        let kept: String = prefix.chars().take(58).collect();
        metadata_mut(object).insert("name".into(), format!("{kept}{}", suffix()).into());
    }
    let given = object::namespace(object);
    if resource.namespaced() {
        if !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given} != {namespace})"
            )));
        }
        metadata_mut(object).insert("namespace".into(), namespace.into());
    } else {
        metadata_mut(object).remove("namespace");
    }
    Ok(())
}

/// The namespace must be there and stay.
fn place(txn: &Txn<'_>, resource: &Resource, namespace: &str, object: &Value) -> Result<(), ApiError> {
    if !resource.namespaced() {
        return Ok(());
    }
    let found = txn
        .get(&namespaces(), &Key::new("", namespace))
        .ok_or_else(|| ApiError::not_found("", "namespaces", namespace))?;
    if object::terminating(&found) {
        let what = &resource.plural;
        return Err(ApiError::forbidden(format!(
            "{what} \"{}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            object::name(object)
        )));
    }
    Ok(())
}
