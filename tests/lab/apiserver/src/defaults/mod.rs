//! What the server fills in, and the few rules of built-in types that clients of the lab rely on.

mod pod;
mod rules;
mod service;
mod workload;

use serde_json::{Map, Value, json};

pub(crate) use rules::{check, unchanged};

use crate::object::{default, entry, text};
use crate::resource::Resource;
use crate::store::{GroupResource, Txn};

/// Fills in a new or written object. `fresh` is true on creation.
pub(crate) fn fill(resource: &Resource, object: &mut Value, fresh: bool, txn: &Txn<'_>) {
    match (resource.drawer.group.as_str(), resource.drawer.plural.as_str()) {
        ("", "pods") => pod::fill(object, fresh, txn),
        ("", "services") => service::fill(object, txn),
        ("", "secrets") => secret(object),
        ("", "namespaces") => namespace(object, fresh),
        ("", "persistentvolumeclaims") => claim(object, fresh, txn),
        ("", "persistentvolumes") => volume(object, fresh),
        ("", "events") => event(object),
        ("storage.k8s.io", "storageclasses") => {
            if let Value::Object(map) = object {
                default(map, "reclaimPolicy", "Delete");
                default(map, "volumeBindingMode", "Immediate");
            }
        }
        ("rbac.authorization.k8s.io", plural) => roles(plural, object),
        ("apps" | "batch", plural) => workload::fill(plural, object),
        _ => {}
    }
}

fn namespace(object: &mut Value, fresh: bool) {
    let name = crate::object::name(object).to_owned();
    let metadata = crate::object::metadata_mut(object);
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
    if fresh {
        entry(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
        entry(object, "status").insert("phase".into(), "Active".into());
    }
}

fn secret(object: &mut Value) {
    use base64::Engine;
    let Value::Object(map) = object else { return };
    default(map, "type", "Opaque");
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(data) = data {
            for (key, value) in plain {
                let text = value.as_str().unwrap_or_default();
                data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
            }
        }
    }
}

fn claim(object: &mut Value, fresh: bool, txn: &Txn<'_>) {
    let chosen = crate::object::at(object, &["spec", "storageClassName"]).is_some();
    if fresh && !chosen {
        let classes = txn.list(&GroupResource::new("storage.k8s.io", "storageclasses"), "");
        let is_default = |class: &&std::sync::Arc<Value>| {
            text(
                class,
                &[
                    "metadata",
                    "annotations",
                    "storageclass.kubernetes.io/is-default-class",
                ],
            ) == "true"
        };
        if let Some(class) = classes.iter().find(is_default) {
            entry(object, "spec").insert("storageClassName".into(), crate::object::name(class).into());
        }
    }
    default(entry(object, "spec"), "volumeMode", "Filesystem");
    if fresh {
        entry(object, "status").insert("phase".into(), "Pending".into());
        protect(object, "kubernetes.io/pvc-protection");
    }
}

fn volume(object: &mut Value, fresh: bool) {
    let spec = entry(object, "spec");
    default(spec, "volumeMode", "Filesystem");
    default(spec, "persistentVolumeReclaimPolicy", "Retain");
    if fresh {
        let phase = if text(object, &["spec", "claimRef", "uid"]).is_empty() {
            "Available"
        } else {
            "Bound"
        };
        entry(object, "status").insert("phase".into(), phase.into());
    }
}

/// Adds a protection finalizer; `gc` lifts it when nothing uses the object any more.
fn protect(object: &mut Value, finalizer: &str) {
    let mut finalizers = crate::object::finalizers(object);
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
        crate::object::set_finalizers(object, finalizers);
    }
}

fn event(object: &mut Value) {
    if let Value::Object(map) = object {
        default(map, "type", "Normal");
        for field in ["reportingComponent", "reportingInstance"] {
            default(map, field, "");
        }
        default(map, "source", json!({}));
    }
}

fn roles(plural: &str, object: &mut Value) {
    if !plural.ends_with("bindings") {
        return;
    }
    default(entry(object, "roleRef"), "apiGroup", "rbac.authorization.k8s.io");
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten().filter_map(Value::as_object_mut) {
        if subject.get("kind").is_some_and(|k| k == "User" || k == "Group") {
            default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}
