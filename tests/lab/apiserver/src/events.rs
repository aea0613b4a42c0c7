//! Events are one store with two shapes: core/v1 and events.k8s.io/v1.

use serde_json::Value;

/// Core name, events.k8s.io name.
const NAMES: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

fn renamed(
    mut event: Value,
    pick: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Value::Object(map) = &mut event {
        for pair in &NAMES {
            let (from, to) = pick(pair);
            if from != to
                && let Some(value) = map.remove(from)
            {
                map.insert(to.to_owned(), value);
            }
        }
    }
    event
}

/// An events.k8s.io/v1 event as core/v1.
pub(crate) fn to_core(event: Value) -> Value {
    let mut event = renamed(event, |&(core, new)| (new, core));
    event["apiVersion"] = "v1".into();
    event
}

/// A core/v1 event as events.k8s.io/v1.
pub(crate) fn to_new(event: Value) -> Value {
    renamed(event, |&(core, new)| (core, new))
}
