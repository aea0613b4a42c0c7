//! CustomResourceDefinitions: what they make the server serve.

mod admission;
pub mod schema;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use admission::{FINALIZER, admit, check};

use crate::object::{at, name, text};
use crate::resource::{Generation, Resource, ScalePaths, Scope, Verbs};
use crate::store::GroupResource;

/// One served version of a custom resource.
#[derive(Debug)]
pub struct CustomVersion {
    /// `openAPIV3Schema`.
    pub schema: Value,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
}

/// The resources that a definition makes, one for each served version.
pub fn resources(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    versions
        .iter()
        .filter(|version| version["served"].as_bool().unwrap_or(false))
        .filter_map(|version| resource(spec, version))
        .collect()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn path(value: &Value, key: &str) -> Option<Vec<String>> {
    let path = text(value, &[key]).strip_prefix('.')?;
    Some(path.split('.').map(str::to_owned).collect())
}

fn resource(spec: &Value, version: &Value) -> Option<Resource> {
    let names = spec.get("names")?;
    let (group, plural, kind) = (
        text(spec, &["group"]),
        text(names, &["plural"]),
        text(names, &["kind"]),
    );
    if group.is_empty() || plural.is_empty() || kind.is_empty() {
        return None;
    }
    let or = |given: &str, other: String| if given.is_empty() { other } else { given.to_owned() };
    let sub = |what| at(version, &["subresources", what]).filter(|v| !v.is_null());
    Some(Resource {
        group: group.to_owned(),
        version: text(version, &["name"]).to_owned(),
        plural: plural.to_owned(),
        singular: or(text(names, &["singular"]), kind.to_lowercase()),
        kind: kind.to_owned(),
        list_kind: or(text(names, &["listKind"]), format!("{kind}List")),
        short: strings(names.get("shortNames")),
        categories: strings(names.get("categories")),
        scope: if text(spec, &["scope"]) == "Namespaced" {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
        status: sub("status").is_some(),
        scale: sub("scale").and_then(|scale| {
            Some(ScalePaths {
                replicas: path(scale, "specReplicasPath")?,
                status: path(scale, "statusReplicasPath")?,
                selector: path(scale, "labelSelectorPath"),
            })
        }),
        generation: Generation::Counted,
        verbs: Verbs::All,
        others: &[],
        drawer: GroupResource::new(group, plural),
        custom: Some(Arc::new(CustomVersion {
            schema: at(version, &["schema", "openAPIV3Schema"])
                .cloned()
                .unwrap_or(Value::Null),
            columns: version["additionalPrinterColumns"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        })),
    })
}

/// Where the objects of a definition are kept.
pub(crate) fn drawer(definition: &Value) -> GroupResource {
    let spec = &definition["spec"];
    GroupResource::new(text(spec, &["group"]), text(spec, &["names", "plural"]))
}

/// The name that a definition must have.
fn expected_name(definition: &Value) -> String {
    let drawer = drawer(definition);
    format!("{}.{}", drawer.plural, drawer.group)
}

/// Whether the name of a definition matches what it defines.
fn named_right(definition: &Value) -> bool {
    name(definition) == expected_name(definition)
}
