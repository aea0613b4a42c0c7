//! JSON merge patches (RFC 7386) from the difference of two documents.

use serde_json::{Map, Value};

/// The merge patch that turns `before` into `after`; none when they are equal.
#[must_use]
pub fn difference(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return Some(after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let changed = old
            .get(key)
            .map_or_else(|| Some(value.clone()), |had| difference(had, value));
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_only_what_changed() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1, 2], "d": 4});
        let after = json!({"a": 1, "b": {"x": 3, "z": 5}, "c": [2], "e": 6});
        assert_eq!(
            difference(&before, &after),
            Some(json!({"b": {"x": 3, "y": null, "z": 5}, "c": [2], "d": null, "e": 6}))
        );
        assert_eq!(difference(&before, &before), None);
    }
}
