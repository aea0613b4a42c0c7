//! Structural schemas: pruning, defaults and validation. CEL rules are stored, not evaluated.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use crate::object::text;

/// Schemas nest; objects that nest deeper than this are refused rather than walked.
const DEPTH: usize = 128;

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The schema of a member of an object, if the schema names one.
pub(crate) fn member<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|p| p.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
}

fn always_kept(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

/// Removes what the schema does not know; the paths of what went. The object is a whole one, with `apiVersion`, `kind`
/// and `metadata`.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    cut(schema, object, true, "", &mut unknown);
    unknown
}

fn cut(schema: &Value, value: &mut Value, root: bool, path: &str, unknown: &mut Vec<String>) {
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let embedded = root || flag(schema, "x-kubernetes-embedded-resource");
    match value {
        Value::Object(map) => {
            let open = schema
                .get("additionalProperties")
                .is_some_and(|a| *a != Value::Bool(false));
            map.retain(|key, inner_value| {
                if embedded && always_kept(key) {
                    return true;
                }
                let at = field(path, key);
                let Some(inner) = member(schema, key) else {
                    if !preserve && !open {
                        unknown.push(at);
                    }
                    return preserve || open;
                };
                if inner_value.is_null() && !flag(inner, "nullable") {
                    return false;
                }
                cut(inner, inner_value, false, &at, unknown);
                true
            });
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    cut(inner, item, false, &format!("{path}[{i}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in `default`s.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => default_members(schema, map),
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for item in items {
                    default(inner, item);
                }
            }
        }
        _ => {}
    }
}

fn default_members(schema: &Value, map: &mut Map<String, Value>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, inner) in properties {
            if let Some(preset) = inner.get("default")
                && !map.contains_key(key)
            {
                map.insert(key.clone(), preset.clone());
            }
            if let Some(value) = map.get_mut(key) {
                default(inner, value);
            }
        }
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|a| a.is_object()) {
        let known = schema.get("properties").and_then(Value::as_object);
        for (key, value) in map.iter_mut() {
            if known.is_none_or(|k| !k.contains_key(key)) {
                default(inner, value);
            }
        }
    }
}

/// The rules that a value breaks, as (field, message).
pub fn validate(schema: &Value, value: &Value) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    walk(schema, value, "", true, DEPTH, &mut wrong);
    wrong
}

fn field(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn walk(
    schema: &Value,
    value: &Value,
    path: &str,
    root: bool,
    depth: usize,
    wrong: &mut Vec<(String, String)>,
) {
    let at = || {
        if path.is_empty() {
            "<nil>".to_owned()
        } else {
            path.to_owned()
        }
    };
    if depth == 0 {
        wrong.push((at(), "Invalid value: nested too deeply".into()));
        return;
    }
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    if !typed(schema, value) {
        let want = text(schema, &["type"]);
        wrong.push((
            at(),
            format!(
                "Invalid value: \"{}\": {} in body must be of type {want}: \"{}\"",
                kind(value),
                at(),
                kind(value)
            ),
        ));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names = allowed
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        wrong.push((
            at(),
            format!("Unsupported value: {value}: supported values: {names}"),
        ));
    }
    match value {
        Value::Object(map) => object(schema, map, path, root, depth, wrong),
        Value::Array(items) => array(schema, items, path, depth, wrong),
        Value::String(s) => string(schema, s, &at(), wrong),
        Value::Number(n) => number(schema, n.as_f64().unwrap_or(f64::NAN), &at(), wrong),
        _ => {}
    }
    combined(schema, value, path, depth, wrong);
}

fn combined(schema: &Value, value: &Value, path: &str, depth: usize, wrong: &mut Vec<(String, String)>) {
    let list = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    let holds = |inner: &Value| {
        let mut found = Vec::new();
        walk(inner, value, path, false, depth - 1, &mut found);
        found.is_empty()
    };
    for inner in list("allOf") {
        walk(inner, value, path, false, depth - 1, wrong);
    }
    let any = list("anyOf");
    if !any.is_empty() && !any.iter().any(holds) {
        wrong.push((
            path.to_owned(),
            "Invalid value: must validate at least one schema (anyOf)".into(),
        ));
    }
    let one = list("oneOf");
    if !one.is_empty() && one.iter().filter(|s| holds(s)).count() != 1 {
        wrong.push((
            path.to_owned(),
            "Invalid value: must validate one and only one schema (oneOf)".into(),
        ));
    }
    if schema.get("not").is_some_and(holds) {
        wrong.push((
            path.to_owned(),
            "Invalid value: must not validate the schema (not)".into(),
        ));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn typed(schema: &Value, value: &Value) -> bool {
    if flag(schema, "x-kubernetes-int-or-string") {
        return matches!(kind(value), "integer" | "string");
    }
    match text(schema, &["type"]) {
        "" => true,
        "number" => matches!(kind(value), "integer" | "number"),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        want => want == kind(value),
    }
}

fn bound(schema: &Value, name: &str) -> Option<usize> {
    schema
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|n| usize::try_from(n).ok())
}

fn counted(
    schema: &Value,
    count: usize,
    names: (&str, &str),
    what: &str,
    at: &str,
    wrong: &mut Vec<(String, String)>,
) {
    if let Some(least) = bound(schema, names.0).filter(|least| count < *least) {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: {count}: must have at least {least} {what}"),
        ));
    }
    if let Some(most) = bound(schema, names.1).filter(|most| count > *most) {
        wrong.push((
            at.to_owned(),
            format!("Too many: {count}: must have at most {most} {what}"),
        ));
    }
}

fn object(
    schema: &Value,
    map: &Map<String, Value>,
    path: &str,
    root: bool,
    depth: usize,
    wrong: &mut Vec<(String, String)>,
) {
    for needed in schema
        .get("required")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
    {
        if let Some(key) = needed.as_str()
            && !map.contains_key(key)
        {
            wrong.push((field(path, key), "Required value".into()));
        }
    }
    counted(
        schema,
        map.len(),
        ("minProperties", "maxProperties"),
        "properties",
        path,
        wrong,
    );
    for (key, value) in map {
        if root && always_kept(key) {
            continue;
        }
        if let Some(inner) = member(schema, key) {
            walk(inner, value, &field(path, key), false, depth - 1, wrong);
        }
    }
}

fn array(schema: &Value, items: &[Value], path: &str, depth: usize, wrong: &mut Vec<(String, String)>) {
    counted(
        schema,
        items.len(),
        ("minItems", "maxItems"),
        "items",
        path,
        wrong,
    );
    if let Some(inner) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            walk(inner, item, &format!("{path}[{i}]"), false, depth - 1, wrong);
        }
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let unique = match text(schema, &["x-kubernetes-list-type"]) {
        "map" | "set" => true,
        _ => flag(schema, "uniqueItems"),
    };
    if !unique {
        return;
    }
    let identity = |item: &Value| -> String {
        if keys.is_empty() {
            item.to_string()
        } else {
            keys.iter()
                .map(|k| item.get(k).unwrap_or(&Value::Null).to_string())
                .collect::<Vec<_>>()
                .join(",")
        }
    };
    let mut seen = std::collections::HashSet::new();
    for (i, item) in items.iter().enumerate() {
        if !seen.insert(identity(item)) {
            wrong.push((format!("{path}[{i}]"), format!("Duplicate value: {item}")));
        }
    }
}

/// A compiled pattern, kept; none if the pattern does not compile (RE2 that this library lacks).
fn pattern(source: &str) -> Option<Regex> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled
        .entry(source.to_owned())
        .or_insert_with(|| Regex::new(source).ok())
        .clone()
}

fn string(schema: &Value, value: &str, at: &str, wrong: &mut Vec<(String, String)>) {
    let length = value.chars().count();
    if let Some(least) = bound(schema, "minLength").filter(|least| length < *least) {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: \"{value}\": {at} in body should be at least {least} chars long"),
        ));
    }
    if let Some(most) = bound(schema, "maxLength").filter(|most| length > *most) {
        wrong.push((
            at.to_owned(),
            format!("Too long: may not be more than {most} bytes"),
        ));
    }
    let source = text(schema, &["pattern"]);
    if !source.is_empty() && pattern(source).is_some_and(|p| !p.is_match(value)) {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: \"{value}\": {at} in body should match '{source}'"),
        ));
    }
    if text(schema, &["format"]) == "date-time" && value.parse::<jiff::Timestamp>().is_err() {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: \"{value}\": {at} in body must be of type date-time: \"{value}\""),
        ));
    }
}

fn number(schema: &Value, value: f64, at: &str, wrong: &mut Vec<(String, String)>) {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(least) = limit("minimum") {
        let exclusive = flag(schema, "exclusiveMinimum");
        if value < least || (exclusive && value <= least) {
            wrong.push((
                at.to_owned(),
                format!("Invalid value: {value}: {at} in body should be greater than or equal to {least}"),
            ));
        }
    }
    if let Some(most) = limit("maximum") {
        let exclusive = flag(schema, "exclusiveMaximum");
        if value > most || (exclusive && value >= most) {
            wrong.push((
                at.to_owned(),
                format!("Invalid value: {value}: {at} in body should be less than or equal to {most}"),
            ));
        }
    }
    if let Some(step) = limit("multipleOf").filter(|step| *step > 0.0)
        && (value / step).fract() != 0.0
    {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: {value}: {at} in body should be a multiple of {step}"),
        ));
    }
    if text(schema, &["format"]) == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value) {
        wrong.push((
            at.to_owned(),
            format!("Invalid value: {value}: {at} in body must be of type int32"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 5},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "name": {"type": "string", "pattern": "^[a-z]+$"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "port": {"x-kubernetes-int-or-string": true},
        }}}})
    }

    #[test]
    fn prunes_defaults_and_validates() {
        let mut value = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "junk": 1,
            "spec": {"size": 3, "junk": 1, "free": {"any": 1}, "labels": {"a": "b"}, "port": "x"}});
        assert_eq!(prune(&schema(), &mut value), ["junk", "spec.junk"]);
        default(&schema(), &mut value);
        assert_eq!(
            value,
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"},
                "spec": {"size": 3, "mode": "a", "free": {"any": 1}, "labels": {"a": "b"}, "port": "x"}})
        );
        assert_eq!(validate(&schema(), &value), []);
    }

    #[test]
    fn names_each_broken_rule() {
        for (spec, at) in [
            (json!({}), "spec.size"),
            (json!({"size": 9}), "spec.size"),
            (json!({"size": "3"}), "spec.size"),
            (json!({"size": 1, "mode": "c"}), "spec.mode"),
            (json!({"size": 1, "name": "A"}), "spec.name"),
            (json!({"size": 1, "labels": {"a": 1}}), "spec.labels.a"),
            (json!({"size": 1, "port": 1.5}), "spec.port"),
        ] {
            let wrong = validate(&schema(), &json!({"spec": spec}));
            assert_eq!(
                wrong.iter().map(|w| w.0.as_str()).collect::<Vec<_>>(),
                [at],
                "{spec}"
            );
        }
    }
}
