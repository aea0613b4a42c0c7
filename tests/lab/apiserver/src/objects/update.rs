//! Changed objects, whole or in part.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{WriteOptions, admit, find, invalid, typed};
use crate::error::ApiError;
use crate::object::{self, metadata_mut};
use crate::patch::apply::{Writer, track};
use crate::resource::{Generation, Resource};
use crate::store::{Key, Txn};

/// Which door a write comes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The object itself: its status stays.
    Main,
    /// The status alone.
    Status,
    /// The replicas of scale.
    Scale,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// Whose fields a change notes.
#[derive(Debug)]
pub enum Owners {
    /// The change is an update: what differs is the writer's.
    Track,
    /// The change noted its owners itself (apply).
    Noted,
}

/// Changes an object: `change` makes the new one from the current one, both in the served version.
pub fn update(
    txn: &mut Txn<'_>,
    resource: &Resource,
    key: &Key,
    part: Part,
    options: &WriteOptions,
    change: impl FnOnce(&Value) -> Result<(Value, Owners), ApiError>,
) -> Result<Arc<Value>, ApiError> {
    let current = find(txn, resource, key)?;
    let (mut new, owners) = change(&resource.to_served(&current))?;
    typed(resource, &mut new)?;
    let mut new = resource.to_stored(new);
    identity(resource, &current, &mut new)?;
    separate(resource, part, &current, &mut new);
    let now = object::time(options.now);
    admit(resource, &mut new, false, options, txn)?;
    if part == Part::Main {
        invalid(
            resource,
            &new,
            &crate::defaults::unchanged(resource, &current, &new),
        )?;
    }
    finalizers(resource, &current, &new)?;
    let metadata = metadata_mut(&mut new);
    if resource.generation == Generation::Counted {
        let old = object::metadata(&current)
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        metadata.insert("generation".into(), old.into());
        if generation_moves(resource, &current, &new) {
            metadata_mut(&mut new).insert("generation".into(), (old + 1).into());
        }
    }
    if matches!(owners, Owners::Track) {
        let writer = Writer {
            manager: &options.manager,
            subresource: part.name(),
            api_version: resource.api_version(),
            now,
        };
        track(Some(&current), &mut new, &writer, resource.shape());
    }
    if unchanged(&current, &new) {
        return Ok(current);
    }
    if options.dry_run {
        return Ok(Arc::new(new));
    }
    if finished(&new) {
        return Ok(txn.remove(&resource.drawer, new));
    }
    Ok(txn.put(&resource.drawer, new))
}

/// Whether a deleted object has nothing left that keeps it.
fn finished(object: &Value) -> bool {
    let grace = object::metadata(object)
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let emptied = object::at(object, &["spec", "finalizers"])
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    let namespace = object.get("kind").is_some_and(|k| k == "Namespace");
    object::terminating(object)
        && object::finalizers(object).is_empty()
        && grace == 0
        && (!namespace || emptied)
}

/// Names, uid and versions must be those of the current object.
fn identity(resource: &Resource, current: &Value, new: &mut Value) -> Result<(), ApiError> {
    let name = object::name(current);
    let given = object::name(new);
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let uid = object::uid(new);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(current)
        );
        return Err(ApiError::conflict(&resource.group, &resource.plural, name, &why));
    }
    let version = object::meta(new, "resourceVersion");
    if !version.is_empty() && version != "0" && version != object::meta(current, "resourceVersion") {
        return Err(ApiError::conflict(
            &resource.group,
            &resource.plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    let old = object::metadata(current);
    let metadata = metadata_mut(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

/// Keeps what this door does not write.
fn separate(resource: &Resource, part: Part, current: &Value, new: &mut Value) {
    let keep = |new: &mut Value, field: &str| {
        if let Value::Object(map) = new {
            match current.get(field) {
                Some(value) => map.insert(field.to_owned(), value.clone()),
                None => map.remove(field),
            };
        }
    };
    match part {
        Part::Main if resource.status => keep(new, "status"),
        Part::Main | Part::Scale => {}
        Part::Status => {
            let status = new.get("status").cloned();
            let metadata = new.get("metadata").cloned();
            *new = current.clone();
            if let Value::Object(map) = new {
                match status {
                    Some(status) => map.insert("status".into(), status),
                    None => map.remove("status"),
                };
                // Built-in types take labels and the like through the status, too; custom resources do not.
                match metadata {
                    Some(metadata) if !resource.is_custom() => {
                        map.insert("metadata".into(), metadata);
                    }
                    Some(Value::Object(mut metadata)) => {
                        if let Some(fields) = metadata.remove("managedFields") {
                            metadata_mut(new).insert("managedFields".into(), fields);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Nothing may be made to wait for once an object is being deleted.
fn finalizers(resource: &Resource, current: &Value, new: &Value) -> Result<(), ApiError> {
    if !object::terminating(current) {
        return Ok(());
    }
    let before = object::finalizers(current);
    let added: Vec<String> = object::finalizers(new)
        .into_iter()
        .filter(|f| !before.contains(f))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    invalid(
        resource,
        new,
        &[(
            "metadata.finalizers".into(),
            format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            ),
        )],
    )
}

fn generation_moves(resource: &Resource, old: &Value, new: &Value) -> bool {
    let counted = |object: &Value| {
        let mut map = object.as_object().cloned().unwrap_or_default();
        map.remove("metadata");
        map.remove("apiVersion");
        if resource.status {
            map.remove("status");
        }
        map
    };
    counted(old) != counted(new)
}

/// Whether a write would change nothing but the times of managers.
fn unchanged(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut map: Map<String, Value> = object.as_object().cloned().unwrap_or_default();
        map.remove("apiVersion");
        let entries = map
            .get_mut("metadata")
            .and_then(|m| m.get_mut("managedFields"))
            .and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        map
    };
    timeless(old) == timeless(new)
}
