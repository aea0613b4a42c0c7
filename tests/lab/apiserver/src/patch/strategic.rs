//! Strategic merge patches of built-in types.

use serde_json::{Map, Value};

use super::shape::{ListKind, Shape};
use super::{DEPTH, PatchError};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `target`.
pub fn merge(target: &mut Value, patch: &Value, shape: Shape<'_>) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed(
            "a strategic merge patch is an object".into(),
        ));
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        unreachable!("made an object above")
    };
    object(target, patch, shape, DEPTH)
}

fn object(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape<'_>,
    depth: usize,
) -> Result<(), PatchError> {
    if depth == 0 {
        return Err(PatchError::Malformed("nested too deeply".into()));
    }
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("replace") => {
            target.clear();
            target.extend(
                patch
                    .iter()
                    .filter(|(k, _)| *k != DIRECTIVE)
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(PatchError::Malformed(format!("unknown patch type {other}"))),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        target.retain(|key, _| kept.iter().any(|k| k == key));
    }
    let directives = patch;
    for (key, value) in patch {
        if key == DIRECTIVE
            || key == RETAIN_KEYS
            || key.starts_with(ORDER)
            || key.starts_with(DELETE_PRIMITIVE)
        {
            continue;
        }
        let inner = shape.member(key);
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) if patch.get(DIRECTIVE).is_some_and(|d| d == "delete") => {
                target.remove(key);
            }
            Value::Object(patch) => {
                let slot = target.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(slot) = slot {
                    object(slot, patch, inner, depth - 1)?;
                }
            }
            Value::Array(patch) => {
                let slot = target.entry(key.clone()).or_insert(Value::Null);
                let mut items = match slot.take() {
                    Value::Array(items) => items,
                    _ => Vec::new(),
                };
                let before = items.clone();
                list(&mut items, patch, inner, depth - 1)?;
                let kind = inner.list();
                if kind != ListKind::Atomic {
                    let order = directives.get(&format!("{ORDER}{key}")).and_then(Value::as_array);
                    reorder(&mut items, order.unwrap_or(patch), &before, &kind);
                }
                *slot = Value::Array(items);
            }
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
    for (key, value) in patch {
        if let (Some(field), Some(gone)) = (key.strip_prefix(DELETE_PRIMITIVE), value.as_array())
            && let Some(Value::Array(items)) = target.get_mut(field)
        {
            items.retain(|item| !gone.contains(item));
        }
    }
    // An order without a list: nothing is merged, only sorted.
    for (key, value) in patch {
        if let (Some(field), Some(order)) = (key.strip_prefix(ORDER), value.as_array())
            && !patch.contains_key(field)
            && let Some(Value::Array(items)) = target.get_mut(field)
        {
            let before = items.clone();
            reorder(items, order, &before, &shape.member(field).list());
        }
    }
    Ok(())
}

/// The key of an element in a list that merges by key.
fn key_of<'a>(item: &'a Value, kind: &ListKind) -> Option<&'a Value> {
    match kind {
        ListKind::Map(keys) => item.get(keys.first()?),
        _ => Some(item),
    }
}

fn list(target: &mut Vec<Value>, patch: &[Value], shape: Shape<'_>, depth: usize) -> Result<(), PatchError> {
    let replaces = |item: &Value| item.get(DIRECTIVE).is_some_and(|d| d == "replace");
    if patch
        .iter()
        .any(|item| replaces(item) && item.as_object().is_some_and(|m| m.len() == 1))
    {
        *target = patch
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    let kind = shape.list();
    match kind {
        ListKind::Atomic => {
            *target = patch
                .iter()
                .filter(|i| i.get(DIRECTIVE).is_none())
                .cloned()
                .collect();
        }
        ListKind::Set => {
            for item in patch {
                if !target.contains(item) {
                    target.push(item.clone());
                }
            }
        }
        ListKind::Map(_) => {
            for item in patch {
                element(target, item, shape, &kind, depth)?;
            }
        }
    }
    Ok(())
}

fn element(
    target: &mut Vec<Value>,
    item: &Value,
    shape: Shape<'_>,
    kind: &ListKind,
    depth: usize,
) -> Result<(), PatchError> {
    let Value::Object(patch) = item else {
        return Err(PatchError::Malformed(
            "an element of a list that merges by key is an object".into(),
        ));
    };
    let key = key_of(item, kind)
        .ok_or_else(|| PatchError::Malformed(format!("map: {item} does not contain declared merge key")))?;
    let at = target.iter().position(|t| key_of(t, kind) == Some(key));
    if patch.get(DIRECTIVE).is_some_and(|d| d == "delete") {
        target.retain(|t| key_of(t, kind) != Some(key));
        return Ok(());
    }
    if let Some(Value::Object(found)) = at.and_then(|at| target.get_mut(at)) {
        return object(found, patch, shape.item(), depth);
    }
    let mut fresh = Map::new();
    object(&mut fresh, patch, shape.item(), depth)?;
    target.push(Value::Object(fresh));
    Ok(())
}

/// Orders a merged list as the real server does: the elements that `order` names in that order, the others as they
/// were before, and of one of each the one that was behind before comes second. A new element has no place before and
/// so comes first.
fn reorder(items: &mut Vec<Value>, order: &[Value], before: &[Value], kind: &ListKind) {
    let place = |list: &[Value], item: &Value| {
        let key = key_of(item, kind)?;
        list.iter().position(|other| key_of(other, kind) == Some(key))
    };
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) = std::mem::take(items)
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    rest.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(of_patch), Some(other)) = (named.peek(), rest.peek()) {
        let first = match (place(before, other), place(before, of_patch)) {
            (Some(other), Some(of_patch)) => other < of_patch,
            _ => false,
        };
        items.extend(if first { rest.next() } else { named.next() });
    }
    items.extend(named);
    items.extend(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(kind: &str, mut target: Value, patch: &Value) -> Value {
        merge(&mut target, patch, Shape::core(kind)).unwrap();
        target
    }

    #[test]
    fn containers_merge_by_name_and_env_by_name() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}],
            "tolerations": [{"key": "old"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [
                {"name": "a", "env": [{"name": "L", "value": "2"}]},
                {"name": "b", "$patch": "delete"}, {"name": "c"}],
            "tolerations": [{"key": "new"}]}});
        assert_eq!(
            patched("Pod", pod, &patch),
            json!({"spec": {"containers": [
                {"name": "c"},
                {"name": "a", "image": "x", "env": [{"name": "L", "value": "2"}, {"name": "K", "value": "1"}]}],
                "tolerations": [{"key": "new"}]}})
        );
    }

    #[test]
    fn finalizers_conditions_and_replacement() {
        let object = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "r"}]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
            "labels": {"$patch": "replace", "y": "2"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            patched("Node", object, &patch),
            json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2"}},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r"}]}})
        );
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("$patch".to_owned()),
            Just("$retainKeys".to_owned()),
            Just("$setElementOrder/containers".to_owned()),
            Just("$deleteFromPrimitiveList/finalizers".to_owned()),
            Just("containers".to_owned()),
            Just("metadata".to_owned()),
            Just("spec".to_owned()),
            Just("finalizers".to_owned()),
            Just("name".to_owned()),
            Just("op".to_owned()),
            Just("path".to_owned()),
            Just("value".to_owned()),
            "[a-z]{0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z/~0-9$-]{0,8}".prop_map(Value::from),
            Just(json!("delete")),
            Just(json!("replace")),
            Just(json!("add")),
            Just(json!("move")),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn patches_never_panic(target in any_json(), patch in any_json()) {
            let mut copy = target.clone();
            let _ = merge(&mut copy, &patch, Shape::core("Pod"));
            let mut copy = target.clone();
            crate::patch::merge::merge(&mut copy, &patch);
            let mut copy = target.clone();
            let _ = crate::patch::json::apply(&mut copy, &patch);
            let set = crate::patch::fields::FieldSet::of(&target, Shape::core("Pod"));
            let _ = crate::patch::fields::FieldSet::read(&patch);
            let merged = crate::patch::apply::merged(&target, &patch, Shape::core("Pod"));
            let _ = crate::patch::apply::without(&merged, &set, Shape::core("Pod"));
        }
    }
}
