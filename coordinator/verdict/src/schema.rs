//! [`schema`]: the JSON Schema of what is printed.

use std::collections::BTreeMap;

use schemars::{Schema, schema_for};

use crate::report::{ClusterList, TriageReport};

/// The JSON Schema of every model that people and programs read, by its name.
#[must_use]
pub fn schema() -> BTreeMap<&'static str, Schema> {
    BTreeMap::from([
        ("ClusterList", schema_for!(ClusterList)),
        ("TriageReport", schema_for!(TriageReport)),
    ])
}
