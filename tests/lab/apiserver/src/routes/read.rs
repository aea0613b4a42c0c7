//! get and list.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, object};
use crate::answer::{self, Answer, Format};
use crate::error::ApiError;
use crate::selector::{Fields, Labels, selectable};
use crate::store::Key;

/// Label and field selectors of a query.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    labels: Labels,
    fields: Fields,
    /// events.k8s.io names its fields differently from what is stored.
    renamed: bool,
}

impl Selection {
    pub(super) fn read(call: &Call) -> Result<Self, ApiError> {
        let wrong = |e: crate::selector::Unparsable| ApiError::bad_request(e.to_string());
        let labels = Labels::parse(call.query.get("labelSelector").unwrap_or_default()).map_err(wrong)?;
        let mut fields = Fields::parse(call.query.get("fieldSelector").unwrap_or_default()).map_err(wrong)?;
        if let Some(path) = fields
            .paths()
            .find(|path| !selectable(&call.resource.plural, path))
        {
            return Err(ApiError::bad_request(format!(
                "field label not supported: {path}"
            )));
        }
        // A watch of a single object, as old clients ask for it.
        if !call.path.name.is_empty() {
            fields = Fields::parse(&format!("metadata.name={}", call.path.name)).map_err(wrong)?;
        }
        Ok(Self {
            labels,
            fields,
            renamed: call.resource.group == "events.k8s.io",
        })
    }

    pub(super) fn matches(&self, stored: &Value) -> bool {
        self.labels.matches(stored)
            && if self.renamed {
                self.fields.matches(&crate::events::to_new(stored.clone()))
            } else {
                self.fields.matches(stored)
            }
    }
}

pub(super) fn get(call: &Call) -> Result<Answer, ApiError> {
    let key = Key::new(&call.path.namespace, &call.path.name);
    let found = call
        .api
        .store
        .get(&call.resource.drawer, &key)
        .ok_or_else(|| ApiError::not_found(&call.resource.group, &call.resource.plural, &key.name))?;
    Ok(object(call, StatusCode::OK, &found))
}

pub(super) fn list(call: &Call) -> Result<Answer, ApiError> {
    let selection = Selection::read(call)?;
    let (all, version) = call.api.store.list(&call.resource.drawer, &call.path.namespace);
    if let Some(asked) = call.query.get("resourceVersion") {
        let asked: u64 = asked
            .parse()
            .map_err(|_| ApiError::bad_request("resourceVersion is no number"))?;
        if asked > version {
            return Err(ApiError::too_large_version(asked, version));
        }
    }
    let chosen: Vec<Arc<Value>> = all.into_iter().filter(|value| selection.matches(value)).collect();
    let metadata = json!({"resourceVersion": version.to_string()});
    let served = || {
        chosen
            .iter()
            .map(|value| call.resource.to_served(value))
            .collect::<Vec<_>>()
    };
    let value = match &call.format {
        Format::Table(table_version) => {
            let now = call.api.clock.now();
            let mut table = crate::table::table(&call.resource, &served(), table_version, &call.query, now);
            table["metadata"] = metadata;
            table
        }
        Format::Metadata => json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata, "items": served().iter().map(crate::table::partial).collect::<Vec<_>>()}),
        _ => {
            let mut items = served();
            // Items of built-in lists carry no type, those of custom resources do.
            if !call.resource.is_custom() {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    item.remove("apiVersion");
                    item.remove("kind");
                }
            }
            json!({"kind": call.resource.list_kind, "apiVersion": call.resource.api_version(),
                "metadata": metadata, "items": items})
        }
    };
    Ok(answer::json(StatusCode::OK, &value))
}
