//! The built-in types: what members they have. For reading protobuf, and for treating unknown members and wrong types
//! as a server with Go types does.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

/// Message by message: `<message> <number>:<JSON name>[?]:[<[]|{}>]<type> …`. `?`: a pointer in the Go type, so an
/// empty value means something; without it an empty value is an absent one. `^` for a name: the members of the message
/// are members of the outer one. `[]` repeated, `{}` a map from strings. Field numbers are part of the API's promise.
const FIELDS: &str = include_str!("types/fields.txt");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Pointer,
    Inline,
    List,
    Map,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) kind: &'static str,
}

/// The members of a type.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) by_number: HashMap<u64, Field>,
    by_name: HashMap<&'static str, Field>,
    inline: Vec<&'static str>,
}

/// The types by `<package>.<name>`.
pub(crate) static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let message = |line: &'static str| {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        let by_number: HashMap<u64, Field> = fields.split(' ').filter_map(field).collect();
        let own = by_number.values().filter(|f| f.shape != Shape::Inline);
        let by_name = own.map(|f| (f.name, *f)).collect();
        let inline = by_number
            .values()
            .filter(|f| f.shape == Shape::Inline)
            .map(|f| f.kind)
            .collect();
        (
            name,
            Message {
                by_number,
                by_name,
                inline,
            },
        )
    };
    FIELDS.lines().map(message).collect()
});

fn field(text: &'static str) -> Option<(u64, Field)> {
    let mut parts = text.splitn(3, ':');
    let number = parts.next()?.parse().ok()?;
    let (name, kind) = (parts.next()?, parts.next()?);
    let (shape, name, kind) = if name == "^" {
        (Shape::Inline, name, kind)
    } else if let Some(kind) = kind.strip_prefix("[]") {
        (Shape::List, name, kind)
    } else if let Some(kind) = kind.strip_prefix("{}") {
        (Shape::Map, name, kind)
    } else if let Some(name) = name.strip_suffix('?') {
        (Shape::Pointer, name, kind)
    } else {
        (Shape::One, name, kind)
    };
    Some((number, Field { name, shape, kind }))
}

impl Message {
    /// A member by its JSON name, also one of an embedded type.
    fn member(&self, name: &str) -> Option<Field> {
        let embedded = || {
            self.inline
                .iter()
                .find_map(|kind| MESSAGES.get(kind)?.member(name))
        };
        self.by_name.get(name).copied().or_else(embedded)
    }
}

/// The name of a built-in kind in the table: the first word of its group and the kind.
pub(crate) fn name(group: &str, kind: &str) -> String {
    let package = if group.is_empty() {
        "core"
    } else {
        group.split('.').next().unwrap_or_default()
    };
    format!("{package}.{kind}")
}

/// Removes the members that a kind does not have; their paths. An error tells of a member of the wrong type.
pub(crate) fn prune(kind: &str, object: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    if let (Some(message), Value::Object(members)) = (MESSAGES.get(kind), object) {
        walk(message, members, "", &mut unknown)?;
    }
    Ok(unknown)
}

fn walk(
    message: &Message,
    members: &mut serde_json::Map<String, Value>,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let mut gone = Vec::new();
    for (name, value) in members.iter_mut() {
        let at = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let Some(field) = message.member(name) else {
            if !(path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind")) {
                gone.push(name.clone());
                unknown.push(at);
            }
            continue;
        };
        let wrong = |what: &str, value: &Value| Err(format!("{at}: cannot read {value} as {what}"));
        match (field.shape, value) {
            (Shape::List, Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    one(field.kind, item, &format!("{at}[{i}]"), unknown)?;
                }
            }
            (Shape::Map, Value::Object(entries)) => {
                for (key, entry) in entries {
                    one(field.kind, entry, &format!("{at}.{key}"), unknown)?;
                }
            }
            (Shape::List, value) => return wrong("a list", value),
            (Shape::Map, value) => return wrong("a map", value),
            (_, value) => one(field.kind, value, &at, unknown)?,
        }
    }
    for name in gone {
        members.remove(&name);
    }
    Ok(())
}

fn one(kind: &str, value: &mut Value, at: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    let fits = match kind {
        "string" | "bytes" => value.is_string(),
        "bool" => value.is_boolean(),
        "int32" | "int64" | "uint32" | "uint64" => value.is_i64() || value.is_u64(),
        "double" => value.is_number(),
        "meta.Time" | "meta.MicroTime" => value
            .as_str()
            .is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok()),
        "intstr.IntOrString" => value.is_string() || value.is_i64(),
        "resource.Quantity" => {
            if value.is_number() {
                *value = value.to_string().into();
            }
            value.is_string()
        }
        "meta.FieldsV1" | "runtime.RawExtension" => true,
        "meta.Verbs" => value.is_array(),
        extra if extra.ends_with(".ExtraValue") => value.is_array(),
        other => match (MESSAGES.get(other), &mut *value) {
            (Some(message), Value::Object(members)) => {
                walk(message, members, at, unknown)?;
                true
            }
            (Some(_), _) => false,
            (None, _) => true,
        },
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{at}: cannot read {value} as {kind}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_members_go_and_wrong_types_are_told() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "nonsense": 1},
            "spec": {"containers": [{"name": "c", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}, "oops": 1},
                "resources": {"limits": {"cpu": 1}}}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        let mut unknown = prune("core.Pod", &mut pod).unwrap();
        unknown.sort();
        assert_eq!(
            unknown,
            ["metadata.nonsense", "spec.containers[0].livenessProbe.oops"]
        );
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1");
        assert_eq!(pod["spec"]["volumes"][0], json!({"name": "v", "emptyDir": {}}));
        for wrong in [
            json!({"spec": {"containers": {}}}),
            json!({"spec": {"hostNetwork": "yes"}}),
            json!({"metadata": {"labels": {"a": 1}}}),
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
        ] {
            assert!(prune("core.Pod", &mut wrong.clone()).is_err(), "{wrong}");
        }
    }
}
