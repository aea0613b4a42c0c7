//! Server-side apply, and who owns which field.

use serde_json::{Value, json};

use super::fields::{self, FieldSet};
use super::shape::{ListKind, Shape};
use crate::error::ApiError;
use crate::object::{self, text};

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// By apply patches.
    Apply,
    /// By anything else.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, through which door, when.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// Subresource, empty for the object itself.
    pub subresource: &'a str,
    /// `group/version` that the writer speaks.
    pub api_version: String,
    /// Now, as metadata writes it.
    pub now: String,
}

/// One entry of `managedFields`.
#[derive(Debug, Clone)]
struct Entry {
    raw: Value,
    fields: FieldSet,
}

impl Entry {
    fn is(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        text(&self.raw, &["manager"]) == writer.manager
            && text(&self.raw, &["operation"]) == operation.name()
            && text(&self.raw, &["subresource"]) == writer.subresource
    }

    fn new(writer: &Writer<'_>, operation: Operation, fields: FieldSet) -> Self {
        let mut raw = json!({"manager": writer.manager, "operation": operation.name(),
            "apiVersion": writer.api_version, "time": writer.now, "fieldsType": "FieldsV1"});
        if !writer.subresource.is_empty() {
            raw["subresource"] = writer.subresource.into();
        }
        Self { raw, fields }
    }
}

fn read(object: &Value) -> Vec<Entry> {
    let entries = object::metadata(object)
        .get("managedFields")
        .and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|raw| raw.get("fieldsV1").is_some())
        .map(|raw| Entry {
            fields: FieldSet::read(&raw["fieldsV1"]),
            raw: raw.clone(),
        })
        .collect()
}

fn write(object: &mut Value, entries: Vec<Entry>) {
    let entries: Vec<Value> = entries
        .into_iter()
        .filter(|e| !e.fields.is_empty())
        .map(|mut e| {
            e.raw["fieldsV1"] = e.fields.write();
            e.raw
        })
        .collect();
    let metadata = object::metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.into());
    }
}

/// Whether a client asks for `managedFields` to be forgotten: an empty list, or one of one empty entry.
fn resets(object: &Value) -> bool {
    object::metadata(object)
        .get("managedFields")
        .and_then(Value::as_array)
        .is_some_and(|all| {
            all.is_empty() || (all.len() == 1 && all[0].as_object().is_some_and(serde_json::Map::is_empty))
        })
}

/// Notes in `new` who owns what after a write that was no apply.
pub fn track(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>, shape: Shape<'_>) {
    if old.is_some() && resets(new) {
        write(new, Vec::new());
        return;
    }
    let changed = FieldSet::changed(old, new, shape);
    let mut entries = old.map(read).unwrap_or_default();
    if let Some(old) = old {
        let gone = FieldSet::of(old, shape).minus(&FieldSet::of(new, shape));
        for entry in &mut entries {
            entry.fields = entry.fields.minus(&gone);
            if !entry.is(writer, Operation::Update) {
                entry.fields = entry.fields.minus(&changed);
            }
        }
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| e.is(writer, Operation::Update)) {
            Some(own) => {
                let fields = std::mem::take(&mut own.fields).union(&changed);
                *own = Entry::new(writer, Operation::Update, fields);
            }
            None => entries.push(Entry::new(writer, Operation::Update, changed)),
        }
    }
    write(new, entries);
}

/// `applied` over `live`, lists by their kind.
pub fn merged(live: &Value, applied: &Value, shape: Shape<'_>) -> Value {
    match (live, applied) {
        (Value::Object(before), Value::Object(after)) if !shape.atomic_object() => {
            let mut out = before.clone();
            for (name, value) in after {
                let value = merged(
                    before.get(name).unwrap_or(&Value::Null),
                    value,
                    shape.member(name),
                );
                out.insert(name.clone(), value);
            }
            Value::Object(out)
        }
        (Value::Array(before), Value::Array(after)) => match shape.list() {
            ListKind::Atomic => applied.clone(),
            ListKind::Set => {
                let mut out = before.clone();
                out.extend(after.iter().filter(|item| !before.contains(item)).cloned());
                Value::Array(out)
            }
            ListKind::Map(keys) => {
                let mut out = before.clone();
                for item in after {
                    let name = fields::key(item, &keys);
                    match out.iter_mut().find(|found| fields::key(found, &keys) == name) {
                        Some(found) => *found = merged(found, item, shape.item()),
                        None => out.push(item.clone()),
                    }
                }
                Value::Array(out)
            }
        },
        _ => applied.clone(),
    }
}

/// `value` without the fields of `gone`.
pub fn without(value: &Value, gone: &FieldSet, shape: Shape<'_>) -> Value {
    let empty = |v: &Value| {
        v.as_object().is_some_and(serde_json::Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
    };
    match value {
        Value::Object(map) => {
            let mut out = map.clone();
            for (step, child) in gone.children() {
                let Some(name) = step.strip_prefix("f:") else {
                    continue;
                };
                let Some(inner) = map.get(name) else { continue };
                if child.is_member() && child.children().is_empty() {
                    out.remove(name);
                    continue;
                }
                let rest = without(inner, child, shape.member(name));
                if empty(&rest) && !empty(inner) {
                    out.remove(name);
                } else {
                    out.insert(name.to_owned(), rest);
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let kind = shape.list();
            let rest = items.iter().filter_map(|item| {
                let step = match &kind {
                    ListKind::Map(keys) => fields::key(item, keys),
                    _ => format!("v:{item}"),
                };
                match gone.children().get(&step) {
                    Some(child) if child.is_member() => None,
                    Some(child) => Some(without(item, child, shape.item())),
                    None => Some(item.clone()),
                }
            });
            Value::Array(rest.collect())
        }
        other => other.clone(),
    }
}

/// Applies a configuration: the new object, with its owners noted.
pub fn apply(
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    shape: Shape<'_>,
) -> Result<Value, ApiError> {
    let mut applied = applied.clone();
    object::drop_nulls(&mut applied);
    if object::metadata(&applied).contains_key("managedFields") {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let wanted = FieldSet::of(&applied, shape);
    let changed = FieldSet::changed(Some(live), &applied, shape);
    let mut entries = read(live);
    let mut before = FieldSet::default();
    let mut others = FieldSet::default();
    let mut conflicts = Vec::new();
    for entry in &mut entries {
        if entry.is(writer, Operation::Apply) {
            before = entry.fields.clone();
            continue;
        }
        let contested = entry.fields.intersection(&changed);
        if !contested.is_empty() {
            conflicts.push((entry.raw.clone(), contested.clone()));
            entry.fields = entry.fields.minus(&contested);
        }
        others = others.union(&entry.fields);
    }
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    let mut out = merged(live, &applied, shape);
    out = without(&out, &before.minus(&wanted).minus(&others), shape);
    match entries.iter_mut().find(|e| e.is(writer, Operation::Apply)) {
        Some(own) if own.fields == wanted && text(&own.raw, &["apiVersion"]) == writer.api_version => {}
        Some(own) => *own = Entry::new(writer, Operation::Apply, wanted),
        None => entries.push(Entry::new(writer, Operation::Apply, wanted)),
    }
    write(&mut out, entries);
    Ok(out)
}

fn conflict(conflicts: &[(Value, FieldSet)]) -> ApiError {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (entry, fields) in conflicts {
        let manager = text(entry, &["manager"]);
        let with = match text(entry, &["operation"]) {
            "Update" => format!("\"{manager}\" using {}", text(entry, &["apiVersion"])),
            _ => format!("\"{manager}\""),
        };
        for path in fields.paths() {
            lines.push(format!("conflict with {with}: {path}"));
            causes.push(json!({"reason": "FieldManagerConflict", "message": format!("conflict with {with}"), "field": path}));
        }
    }
    let word = if causes.len() == 1 {
        "conflict"
    } else {
        "conflicts"
    };
    ApiError::apply_conflict(
        format!("Apply failed with {} {word}: {}", causes.len(), lines.join("\n")),
        &causes,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            subresource: "",
            api_version: "v1".into(),
            now: "2026-01-01T00:00:00Z".into(),
        }
    }

    fn put(live: &Value, applied: &Value, manager: &str, force: bool) -> Result<Value, ApiError> {
        apply(live, applied, &writer(manager), force, Shape::core("Pod"))
    }

    #[test]
    fn own_fields_go_when_no_longer_applied_and_others_stay() {
        let empty = json!({"metadata": {"name": "p"}});
        let one = put(
            &empty,
            &json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            "one",
            false,
        )
        .unwrap();
        let two = put(&one, &json!({"metadata": {"labels": {"c": "3"}}}), "two", false).unwrap();
        let three = put(&two, &json!({"metadata": {"labels": {"a": "1"}}}), "one", false).unwrap();
        assert_eq!(three["metadata"]["labels"], json!({"a": "1", "c": "3"}));
    }

    #[test]
    fn another_value_conflicts_until_forced_and_the_same_value_is_shared() {
        let empty = json!({"metadata": {"name": "p"}});
        let container = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        let one = put(&empty, &container("x"), "one", false).unwrap();
        put(&one, &container("x"), "two", false).unwrap();
        let refused = put(&one, &container("y"), "two", false).unwrap_err();
        assert_eq!((refused.code, refused.reason), (409, "Conflict"));
        assert!(
            refused.message.contains(".spec.containers[name=\"c\"].image"),
            "{}",
            refused.message
        );
        let forced = put(&one, &container("y"), "two", true).unwrap();
        assert_eq!(forced["spec"]["containers"][0]["image"], "y");
        let back = put(&forced, &container("x"), "one", false).unwrap_err();
        assert!(back.message.contains("\"two\""), "{}", back.message);
    }

    #[test]
    fn an_update_takes_ownership_of_what_it_changes() {
        let empty = json!({"metadata": {"name": "p"}});
        let one = put(&empty, &json!({"data": {"a": "1", "b": "1"}}), "one", false).unwrap();
        let mut edited = one.clone();
        edited["data"]["a"] = "2".into();
        track(
            Some(&one),
            &mut edited,
            &writer("kubectl-edit"),
            Shape::core("ConfigMap"),
        );
        let refused = put(&edited, &json!({"data": {"a": "1", "b": "1"}}), "one", false).unwrap_err();
        assert!(refused.message.contains("kubectl-edit"), "{}", refused.message);
        let gone = put(&edited, &json!({"data": {"b": "1"}}), "one", false).unwrap();
        assert_eq!(gone["data"], json!({"a": "2", "b": "1"}));
    }
}
