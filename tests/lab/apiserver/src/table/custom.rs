//! `additionalPrinterColumns`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, created, definition, name};
use crate::object::text;

/// The column definitions: the name first; the age if the definition names no column.
pub(super) fn definitions(columns: &[Value]) -> Vec<Value> {
    let mut all = vec![definition("Name", "string", 0, "")];
    if columns.is_empty() {
        all.push(definition("Age", "date", 0, ""));
    }
    for column in columns {
        let priority = column["priority"]
            .as_i64()
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0);
        let word = |key: &str| text(column, &[key]);
        all.push(definition(
            word("name"),
            word("type"),
            priority,
            word("description"),
        ));
    }
    all
}

/// The cells of one object.
pub(super) fn cells(columns: &[Value], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = vec![name(object, now)];
    if columns.is_empty() {
        all.push(created(object, now));
    }
    for column in columns {
        let found = lookup(object, text(column, &["jsonPath"]));
        all.push(match (text(column, &["type"]), found) {
            (_, None | Some(Value::Null)) => Value::Null,
            ("date", Some(Value::String(since))) => age(&since, now).into(),
            ("string", Some(value @ (Value::Object(_) | Value::Array(_)))) => value.to_string().into(),
            ("string", Some(Value::Bool(b))) => b.to_string().into(),
            ("string", Some(Value::Number(n))) => n.to_string().into(),
            (_, Some(value)) => value,
        });
    }
    all
}

/// The JSONPath of printer columns: members, indices, and `[?(@.key=="value")]`.
fn lookup(object: &Value, path: &str) -> Option<Value> {
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    let mut value = object;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']')?;
            value = if let Some(filter) = inside.strip_prefix("?(@.") {
                let (key, wanted) = filter.trim_end_matches(')').split_once("==")?;
                let wanted = wanted.trim().trim_matches(['"', '\'']);
                let fits = |item: &&Value| item.get(key.trim()).and_then(Value::as_str) == Some(wanted);
                value.as_array()?.iter().find(fits)?
            } else if let Ok(index) = inside.parse::<usize>() {
                value.get(index)?
            } else {
                value.get(inside.trim_matches(['"', '\'']))?
            };
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('.').unwrap_or(rest);
        // A dot in a key is written `\.`, as in annotation names.
        let (mut key, mut end) = (String::new(), inner.len());
        let mut letters = inner.char_indices();
        while let Some((i, letter)) = letters.next() {
            match letter {
                '\\' => key.extend(letters.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = i;
                    break;
                }
                other => key.push(other),
            }
        }
        if key.is_empty() {
            return None;
        }
        value = value.get(key.as_str())?;
        rest = &inner[end..];
    }
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "n": 3}});
        assert_eq!(lookup(&object, ".status.n"), Some(json!(3)));
        assert_eq!(
            lookup(&object, ".status.conditions[?(@.type==\"Ready\")].status"),
            Some(json!("True"))
        );
        assert_eq!(
            lookup(&object, ".status.conditions[0].type"),
            Some(json!("Ready"))
        );
        assert_eq!(lookup(&object, ".metadata.annotations.a\\.b/c"), Some(json!("x")));
        assert_eq!(lookup(&object, ".status.x.y"), None);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in "[a-z.\\[\\]?@()=\"\\\\ 0-9é]{0,30}") {
            let _ = lookup(&json!({"a": [{"b": "c"}]}), &path);
        }
    }
}
