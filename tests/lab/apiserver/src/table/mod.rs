//! Tables and metadata-only forms, for people and for cheap clients.

mod columns;
mod columns_pod;
mod custom;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{at, meta, text};
use crate::request::Query;
use crate::resource::Resource;

/// A column: name, type, whether only `-o wide` shows it, and its value for an object.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) wide: bool,
    pub(crate) cell: fn(&Value, Timestamp) -> Value,
}

/// The metadata of an object alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The objects as rows.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Value],
    version: &str,
    query: &Query,
    now: Timestamp,
) -> Value {
    let (definitions, cells): (Vec<Value>, Vec<Vec<Value>>) = if let Some(custom) = &resource.custom {
        let definitions = custom::definitions(&custom.columns);
        let cells = objects
            .iter()
            .map(|o| custom::cells(&custom.columns, o, now))
            .collect();
        (definitions, cells)
    } else {
        let columns = columns::of(resource);
        let definitions = columns
            .iter()
            .map(|c| definition(c.name, "string", i32::from(c.wide), ""))
            .collect();
        let cells = objects
            .iter()
            .map(|o| columns.iter().map(|c| (c.cell)(o, now)).collect())
            .collect();
        (definitions, cells)
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(object, cells)| {
            let shown = match query.get("includeObject") {
                Some("Object") => object.clone(),
                Some("None") => Value::Null,
                _ => partial(object),
            };
            json!({"cells": cells, "object": shown})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": definitions, "rows": rows})
}

pub(crate) fn definition(name: &str, kind: &str, priority: i32, description: &str) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// How long ago, in the short form of kubectl: `5s`, `3m20s`, `4h`, `3d`.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else {
        return "<unknown>".into();
    };
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 => pair(minutes, "m", seconds % 60, "s"),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => pair(hours, "h", minutes % 60, "m"),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ => pair(days / 365, "y", days % 365, "d"),
    }
}

/// `metadata.name` as a cell.
pub(crate) fn name(object: &Value, _: Timestamp) -> Value {
    meta(object, "name").into()
}

/// The age as a cell.
pub(crate) fn created(object: &Value, now: Timestamp) -> Value {
    age(meta(object, "creationTimestamp"), now).into()
}

/// A string at a path, `<none>` if missing.
pub(crate) fn or_none(object: &Value, path: &[&str]) -> Value {
    let found = text(object, path);
    if found.is_empty() {
        "<none>".into()
    } else {
        found.into()
    }
}

/// A number at a path, 0 if missing.
pub(crate) fn number(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// The members of a list at a path.
pub(crate) fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A map as `a=b,c=d`.
pub(crate) fn pairs(map: Option<&Value>) -> Value {
    let Some(map) = map.and_then(Value::as_object).filter(|m| !m.is_empty()) else {
        return "<none>".into();
    };
    map.iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ages_are_short() {
        let now = "2026-01-10T00:00:00Z".parse().unwrap();
        for (since, text) in [
            ("2026-01-09T23:59:55Z", "5s"),
            ("2026-01-09T23:56:40Z", "3m20s"),
            ("2026-01-09T23:30:00Z", "30m"),
            ("2026-01-09T20:30:00Z", "3h30m"),
            ("2026-01-06T23:00:00Z", "3d1h"),
            ("2025-12-01T00:00:00Z", "40d"),
            ("nonsense", "<unknown>"),
        ] {
            assert_eq!(super::age(since, now), text);
        }
    }
}
