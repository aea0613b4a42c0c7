//! What kind of list a list is: the facts that merging needs and JSON does not carry.
//!
//! Core types: the `patchMergeKey` and `x-kubernetes-list-map-keys` of the Kubernetes API types. Custom resources:
//! their schema.

use serde_json::Value;

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// As one value.
    Atomic,
    /// By value.
    Set,
    /// By these members of its elements; the first is the key of strategic merges.
    Map(Vec<String>),
}

impl ListKind {
    fn map(keys: &[&str]) -> Self {
        Self::Map(keys.iter().map(|k| (*k).to_owned()).collect())
    }
}

/// A place in an object of some type.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// In a built-in type: the two nearest member names. Lists do not count as members.
    Core {
        /// Kind of the whole object.
        kind: &'a str,
        /// The member that holds this one's object.
        parent: &'a str,
        /// The member.
        field: &'a str,
    },
    /// In a custom resource: its schema here, if there is one. `root` is the whole object.
    Custom {
        /// The schema.
        schema: Option<&'a Value>,
        /// Whether this is the whole object.
        root: bool,
    },
}

impl<'a> Shape<'a> {
    /// A whole object of a built-in kind.
    pub fn core(kind: &'a str) -> Self {
        Self::Core {
            kind,
            parent: "",
            field: "",
        }
    }

    /// A whole custom resource.
    pub fn custom(schema: &'a Value) -> Self {
        Self::Custom {
            schema: Some(schema),
            root: true,
        }
    }

    /// The member `name` of an object here.
    #[must_use]
    pub fn member(self, name: &'a str) -> Self {
        match self {
            Self::Core { kind, field, .. } => Self::Core {
                kind,
                parent: field,
                field: name,
            },
            Self::Custom { root: true, .. } if name == "metadata" => Self::Core {
                kind: "",
                parent: "",
                field: "metadata",
            },
            Self::Custom { schema, .. } => Self::Custom {
                schema: schema.and_then(|s| crate::crd::schema::member(s, name)),
                root: false,
            },
        }
    }

    /// An element of a list here.
    #[must_use]
    pub fn item(self) -> Self {
        match self {
            Self::Core { .. } => self,
            Self::Custom { schema, .. } => Self::Custom {
                schema: schema.and_then(|s| s.get("items")),
                root: false,
            },
        }
    }

    /// Whether an object here is one value.
    pub fn atomic_object(self) -> bool {
        match self {
            // Selectors of core types are structType=atomic or mapType=atomic.
            Self::Core { field, parent, .. } => {
                matches!(
                    field,
                    "labelSelector" | "namespaceSelector" | "podSelector" | "objectSelector"
                ) || (field == "selector" && parent == "spec")
                    || matches!(
                        field,
                        "fieldRef"
                            | "secretKeyRef"
                            | "configMapKeyRef"
                            | "resourceFieldRef"
                            | "roleRef"
                            | "claimRef"
                    )
            }
            Self::Custom { schema, .. } => schema
                .and_then(|s| s.get("x-kubernetes-map-type"))
                .is_some_and(|t| t == "atomic"),
        }
    }

    /// What kind of list is here.
    pub fn list(self) -> ListKind {
        match self {
            Self::Custom { schema, .. } => custom_list(schema),
            Self::Core { kind, parent, field } => core_list(kind, parent, field),
        }
    }
}

fn custom_list(schema: Option<&Value>) -> ListKind {
    let Some(schema) = schema else {
        return ListKind::Atomic;
    };
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListKind::Map(
                keys.into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            )
        }
        _ => ListKind::Atomic,
    }
}

fn core_list(kind: &str, parent: &str, field: &str) -> ListKind {
    let container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match (parent, field) {
        ("metadata", "ownerReferences") => ListKind::map(&["uid"]),
        ("metadata", "finalizers") | ("spec", "podCIDRs") => ListKind::Set,
        (_, "containers" | "initContainers" | "ephemeralContainers")
        | ("spec", "volumes" | "imagePullSecrets" | "resourceClaims")
        | ("", "webhooks") => ListKind::map(&["name"]),
        ("", "secrets" | "imagePullSecrets") if kind == "ServiceAccount" => ListKind::map(&["name"]),
        (_, "env") if container => ListKind::map(&["name"]),
        (_, "volumeMounts") if container => ListKind::map(&["mountPath"]),
        (_, "volumeDevices") if container => ListKind::map(&["devicePath"]),
        (_, "ports") if container => ListKind::map(&["containerPort", "protocol"]),
        ("spec", "ports") if kind == "Service" => ListKind::map(&["port", "protocol"]),
        ("spec", "hostAliases") | ("status", "podIPs" | "hostIPs") => ListKind::map(&["ip"]),
        ("spec", "topologySpreadConstraints") => ListKind::map(&["topologyKey", "whenUnsatisfiable"]),
        ("spec", "taints") if kind == "Node" => ListKind::map(&["key", "effect"]),
        (_, "conditions") => ListKind::map(&["type"]),
        ("status", "addresses") if kind == "Node" => ListKind::map(&["type"]),
        _ => ListKind::Atomic,
    }
}
