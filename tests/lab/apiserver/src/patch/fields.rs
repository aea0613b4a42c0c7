//! Sets of fields, as `managedFields[].fieldsV1` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::DEPTH;
use super::shape::{ListKind, Shape};

/// A tree of fields. A node is in the set itself, holds others, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// Members of `metadata` that belong to the server.
const SERVER_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// The path element of a list element: `k:{…}` by its keys.
pub(super) fn key(item: &Value, keys: &[String]) -> String {
    let mut map = Map::new();
    for key in keys {
        match item.get(key) {
            Some(value) => map.insert(key.clone(), value.clone()),
            // The one key with a default in the core types.
            None if key == "protocol" => map.insert(key.clone(), "TCP".into()),
            None => map.insert(key.clone(), Value::Null),
        };
    }
    format!("k:{}", Value::Object(map))
}

impl FieldSet {
    fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// The fields of a whole object, without those of the server.
    pub fn of(object: &Value, shape: Shape<'_>) -> Self {
        let mut set = Self::node(object, shape, DEPTH);
        set.member = false;
        set.forget_server_fields();
        set
    }

    fn forget_server_fields(&mut self) {
        self.children.remove("f:apiVersion");
        self.children.remove("f:kind");
        if let Some(metadata) = self.children.get_mut("f:metadata") {
            metadata.member = false;
            for field in SERVER_METADATA {
                metadata.children.remove(&format!("f:{field}"));
            }
            if metadata.is_empty() {
                self.children.remove("f:metadata");
            }
        }
    }

    fn node(value: &Value, shape: Shape<'_>, depth: usize) -> Self {
        let mut set = Self::default();
        if depth > 0 {
            match value {
                Value::Object(map) if !shape.atomic_object() => {
                    for (name, inner) in map {
                        set.children.insert(
                            format!("f:{name}"),
                            Self::node(inner, shape.member(name), depth - 1),
                        );
                    }
                }
                Value::Array(items) => match shape.list() {
                    ListKind::Map(keys) => {
                        for item in items {
                            let mut inner = Self::node(item, shape.item(), depth - 1);
                            inner.member = true;
                            set.children.insert(key(item, &keys), inner);
                        }
                    }
                    ListKind::Set => {
                        set.children
                            .extend(items.iter().map(|item| (format!("v:{item}"), Self::leaf())));
                    }
                    ListKind::Atomic => {}
                },
                _ => {}
            }
        }
        if set.children.is_empty() {
            set.member = true;
        }
        set
    }

    /// The fields of `new` that `old` has not, or has with another value.
    pub fn changed(old: Option<&Value>, new: &Value, shape: Shape<'_>) -> Self {
        let mut set = Self::diff(old, new, shape, DEPTH);
        set.member = false;
        set.forget_server_fields();
        set
    }

    fn diff(old: Option<&Value>, new: &Value, shape: Shape<'_>, depth: usize) -> Self {
        if old == Some(new) {
            return Self::default();
        }
        let mut set = Self::default();
        if depth == 0 {
            return Self::leaf();
        }
        match new {
            Value::Object(map) if !map.is_empty() && !shape.atomic_object() => {
                for (name, inner) in map {
                    let before = old.and_then(|o| o.get(name));
                    set.child(
                        format!("f:{name}"),
                        Self::diff(before, inner, shape.member(name), depth - 1),
                    );
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                match shape.list() {
                    ListKind::Map(keys) => {
                        for item in items {
                            let name = key(item, &keys);
                            let found = before.iter().find(|b| key(b, &keys) == name);
                            let mut inner = Self::diff(found, item, shape.item(), depth - 1);
                            inner.member = found.is_none();
                            set.child(name, inner);
                        }
                    }
                    ListKind::Set => {
                        for item in items.iter().filter(|item| !before.contains(item)) {
                            set.child(format!("v:{item}"), Self::leaf());
                        }
                    }
                    ListKind::Atomic => set.member = true,
                }
            }
            _ => set.member = true,
        }
        set
    }

    fn child(&mut self, name: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(name, child);
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (name, theirs) in &other.children {
            let mine = self.children.remove(name).unwrap_or_default();
            self.children.insert(name.clone(), mine.union(theirs));
        }
        self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut set = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (name, mine) in &self.children {
            if let Some(theirs) = other.children.get(name) {
                set.child(name.clone(), mine.intersection(theirs));
            }
        }
        set
    }

    /// What is in this one only.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut set = Self {
            member: self.member && !other.member,
            children: BTreeMap::new(),
        };
        for (name, mine) in &self.children {
            let rest = other
                .children
                .get(name)
                .map_or_else(|| mine.clone(), |theirs| mine.minus(theirs));
            set.child(name.clone(), rest);
        }
        set
    }

    /// `fieldsV1`.
    pub fn write(&self) -> Value {
        let mut map: Map<String, Value> = self
            .children
            .iter()
            .map(|(name, child)| (name.clone(), child.write()))
            .collect();
        if self.member && !map.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`.
    pub fn read(value: &Value) -> Self {
        Self::read_node(value, DEPTH)
    }

    fn read_node(value: &Value, depth: usize) -> Self {
        let Some(map) = value.as_object().filter(|m| !m.is_empty() && depth > 0) else {
            return Self::leaf();
        };
        let children = map
            .iter()
            .filter(|(name, _)| *name != ".")
            .map(|(name, inner)| (name.clone(), Self::read_node(inner, depth - 1)))
            .collect();
        Self {
            member: map.contains_key("."),
            children,
        }
    }

    /// The fields as dotted paths, for messages.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, at: &str, out: &mut Vec<String>) {
        if self.member && !at.is_empty() {
            out.push(at.to_owned());
        }
        for (name, child) in &self.children {
            let step = match name.split_once(':') {
                Some(("f", field)) => format!("{at}.{field}"),
                Some(("k", keys)) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("{at}[{}]", keys.join(","))
                }
                Some((_, value)) => format!("{at}[={value}]"),
                None => format!("{at}.{name}"),
            };
            child.collect(&step, out);
        }
    }

    /// The children, for walking an object along the set.
    pub(super) fn children(&self) -> &BTreeMap<String, Self> {
        &self.children
    }

    /// Whether this node itself is in the set.
    pub(super) fn is_member(&self) -> bool {
        self.member
    }
}
