//! What the server knows of one served resource.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::crd::CustomVersion;
use crate::patch::shape::Shape;
use crate::store::GroupResource;

/// What may be done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Everything.
    All,
    /// Created and answered, never stored (reviews).
    CreateOnly,
}

/// When `metadata.generation` is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Never.
    None,
    /// On every change outside of metadata and status.
    Counted,
}

/// Where the scale subresource finds its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Members that lead to the wanted count.
    pub replicas: Vec<String>,
    /// Members that lead to the present count.
    pub status: Vec<String>,
    /// Members that lead to the selector, as a string or a label selector.
    pub selector: Option<Vec<String>>,
}

/// Where an object lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Cluster-wide.
    Cluster,
}

/// One resource in one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name, as in the path.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its list.
    pub list_kind: String,
    /// Short names.
    pub short: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Namespaced or not.
    pub scope: Scope,
    /// Whether it has a status subresource.
    pub status: bool,
    /// Its scale subresource.
    pub scale: Option<ScalePaths>,
    /// Whether its generation is counted.
    pub generation: Generation,
    /// What may be done with it.
    pub verbs: Verbs,
    /// Other subresources that discovery lists, with the kind they speak.
    pub others: &'static [(&'static str, &'static str)],
    /// The drawer it is kept in.
    pub drawer: GroupResource,
    /// Set for resources that a CustomResourceDefinition made.
    pub custom: Option<Arc<CustomVersion>>,
}

impl Resource {
    /// `group/version`, or the version alone for core.
    pub fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether this is the resource `plural` of `group`.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.drawer.group == group && self.drawer.plural == plural
    }

    /// Whether a CustomResourceDefinition made it.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// How its lists merge.
    pub fn shape(&self) -> Shape<'_> {
        match &self.custom {
            Some(custom) => Shape::custom(&custom.schema),
            None => Shape::core(&self.kind),
        }
    }

    /// The verbs as discovery lists them.
    pub fn verb_names(&self) -> Value {
        match self.verbs {
            Verbs::All => json!([
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch"
            ]),
            Verbs::CreateOnly => json!(["create"]),
        }
    }

    /// A stored object as this version shows it.
    pub fn to_served(&self, stored: &Value) -> Value {
        let mut value = stored.clone();
        if self.group == "events.k8s.io" {
            value = crate::events::to_new(value);
        }
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".into(), self.api_version().into());
            map.insert("kind".into(), self.kind.clone().into());
        }
        value
    }

    /// An object of this version as it is stored.
    pub fn to_stored(&self, served: Value) -> Value {
        if self.group == "events.k8s.io" {
            crate::events::to_core(served)
        } else {
            served
        }
    }
}

/// `group/version`, or the version alone for core.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
