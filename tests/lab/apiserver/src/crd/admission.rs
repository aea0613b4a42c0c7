//! What the server adds to a CustomResourceDefinition and what it refuses.

use serde_json::{Value, json};

use crate::object::{self, entry, text};

/// Keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in names and the `Established` condition: a definition is served as soon as it is stored.
pub(crate) fn admit(definition: &mut Value, now: &str) {
    let kind = text(definition, &["spec", "names", "kind"]).to_owned();
    let spec = entry(definition, "spec");
    spec.entry("conversion")
        .or_insert_with(|| json!({"strategy": "None"}));
    if let Some(Value::Object(names)) = spec.get_mut("names") {
        object::default(names, "singular", kind.to_lowercase());
        object::default(names, "listKind", format!("{kind}List"));
    }
    let accepted = definition["spec"]["names"].clone();
    let storage: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    let status = entry(definition, "status");
    status.insert("acceptedNames".into(), accepted);
    object::default(status, "storedVersions", storage);
    if status
        .get("conditions")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
                   "lastTransitionTime": now})
        };
        status.insert(
            "conditions".into(),
            json!([
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition(
                    "Established",
                    "InitialNamesAccepted",
                    "the initial names have been accepted"
                ),
            ]),
        );
    }
    if !object::terminating(definition) {
        let mut finalizers = object::finalizers(definition);
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            object::set_finalizers(definition, finalizers);
        }
    }
}

/// The rules a definition breaks.
pub(crate) fn check(definition: &Value) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, message: String| wrong.push((field.to_owned(), message));
    for field in [
        &["spec", "group"][..],
        &["spec", "names", "plural"],
        &["spec", "names", "kind"],
    ] {
        if text(definition, field).is_empty() {
            refuse(&field.join("."), "Required value".into());
        }
    }
    if !super::named_right(definition) {
        refuse(
            "metadata.name",
            format!(
                "Invalid value: must be spec.names.plural+\".\"+spec.group = {}",
                super::expected_name(definition)
            ),
        );
    }
    let scope = text(definition, &["spec", "scope"]);
    if !["Namespaced", "Cluster"].contains(&scope) {
        refuse(
            "spec.scope",
            format!("Unsupported value: \"{scope}\": supported values: \"Cluster\", \"Namespaced\""),
        );
    }
    let versions = definition["spec"]["versions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        refuse(
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version".into(),
        );
    }
    for (i, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            refuse(
                &format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "Required value: schemas are required".into(),
            );
        }
    }
    wrong
}
