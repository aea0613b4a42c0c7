//! RFC 6902.

use serde_json::Value;

use super::PatchError;

/// More operations than this in one patch are refused, as the real server does.
const MOST_OPERATIONS: usize = 10_000;

fn malformed(what: &str) -> PatchError {
    PatchError::Malformed(format!("invalid JSON patch: {what}"))
}

fn unfit(what: String) -> PatchError {
    PatchError::Unfit(what)
}

fn tokens(pointer: &str) -> Result<Vec<String>, PatchError> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer
        .strip_prefix('/')
        .ok_or_else(|| malformed("a pointer starts with /"))?;
    Ok(rest
        .split('/')
        .map(|t| t.replace("~1", "/").replace("~0", "~"))
        .collect())
}

fn index(token: &str, len: usize) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    token.parse().ok().filter(|i| plain && *i < len)
}

fn find<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, token| match value {
        Value::Object(map) => map.get_mut(token),
        Value::Array(items) => {
            let at = index(token, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn parent<'a, 'b>(
    target: &'a mut Value,
    path: &'b [String],
    pointer: &str,
) -> Result<(&'a mut Value, &'b str), PatchError> {
    let (last, before) = path
        .split_last()
        .ok_or_else(|| unfit("the whole document".into()))?;
    let parent = find(target, before).ok_or_else(|| unfit(format!("doc is missing path: {pointer}")))?;
    Ok((parent, last))
}

fn add(target: &mut Value, pointer: &str, value: Value) -> Result<(), PatchError> {
    let path = tokens(pointer)?;
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, &path, pointer)? {
        (Value::Object(map), key) => {
            map.insert(key.to_owned(), value);
        }
        (Value::Array(items), "-") => items.push(value),
        (Value::Array(items), key) => {
            let at = index(key, items.len() + 1).ok_or_else(|| {
                unfit(format!(
                    "add operation does not apply: index out of bounds: {pointer}"
                ))
            })?;
            items.insert(at, value);
        }
        _ => {
            return Err(unfit(format!(
                "add operation does not apply: doc is missing path: {pointer}"
            )));
        }
    }
    Ok(())
}

fn remove(target: &mut Value, pointer: &str) -> Result<Value, PatchError> {
    let path = tokens(pointer)?;
    let missing = || {
        unfit(format!(
            "remove operation does not apply: doc is missing path: {pointer}"
        ))
    };
    match parent(target, &path, pointer)? {
        (Value::Object(map), key) => map.remove(key).ok_or_else(missing),
        (Value::Array(items), key) => {
            let at = index(key, items.len()).ok_or_else(missing)?;
            Ok(items.remove(at))
        }
        _ => Err(missing()),
    }
}

/// Applies the operations to `target`; on an error `target` may be half changed.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().ok_or_else(|| malformed("not a list"))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(malformed("too many operations"));
    }
    operations
        .iter()
        .try_for_each(|operation| step(target, operation))
}

fn step(target: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let word = |key: &str| {
        operation
            .get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| malformed(key))
    };
    let value = || operation.get("value").cloned().ok_or_else(|| malformed("value"));
    let path = word("path")?;
    let read = |target: &mut Value, pointer: &str| -> Result<Value, PatchError> {
        find(target, &tokens(pointer)?)
            .cloned()
            .ok_or_else(|| unfit(format!("doc is missing path: {pointer}")))
    };
    match word("op")? {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            let value = value()?;
            let found = find(target, &tokens(path)?).ok_or_else(|| {
                unfit(format!(
                    "replace operation does not apply: doc is missing key: {path}"
                ))
            })?;
            *found = value;
            Ok(())
        }
        "move" => {
            let from = word("from")?;
            if path.starts_with(&format!("{from}/")) {
                return Err(unfit("a value cannot be moved into itself".into()));
            }
            let value = remove(target, from)?;
            add(target, path, value)
        }
        "copy" => {
            let value = read(target, word("from")?)?;
            add(target, path, value)
        }
        "test" => {
            let wanted = value()?;
            // A missing value equals null, as in the library that the real server uses.
            let found = find(target, &tokens(path)?).cloned().unwrap_or(Value::Null);
            if found == wanted {
                Ok(())
            } else {
                Err(unfit(format!("testing value {path} failed")))
            }
        }
        other => Err(malformed(&format!("unknown operation {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_operation() {
        let mut target = json!({"a": [1, 2], "b": {"c": "x"}, "m~/n": 1});
        apply(
            &mut target,
            &json!([
                {"op": "test", "path": "/b/c", "value": "x"},
                {"op": "add", "path": "/a/-", "value": 4},
                {"op": "add", "path": "/a/0", "value": 0},
                {"op": "remove", "path": "/a/1"},
                {"op": "replace", "path": "/b/c", "value": "y"},
                {"op": "copy", "from": "/b/c", "path": "/d"},
                {"op": "move", "from": "/m~0~1n", "path": "/e"},
            ]),
        )
        .unwrap();
        assert_eq!(target, json!({"a": [0, 2, 4], "b": {"c": "y"}, "d": "y", "e": 1}));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for patch in [
            json!({}),
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "replace", "path": "/x", "value": 1}]),
            json!([{"op": "remove", "path": ""}]),
        ] {
            assert!(apply(&mut json!({"a": 1}), &patch).is_err(), "{patch}");
        }
    }
}
