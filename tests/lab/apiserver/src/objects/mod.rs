//! Creating, changing and deleting objects: everything between a request and the store.

mod create;
mod delete;
mod update;

pub use create::create;
pub use delete::{DeleteOptions, Deleted, Propagation, delete, delete_in};
pub use update::{Owners, Part, update};

use serde_json::Value;

use crate::error::ApiError;
use crate::object;
use crate::resource::Resource;
use crate::store::{GroupResource, Key, Txn};

/// How an object is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Field manager.
    pub manager: String,
    /// Whether nothing is stored.
    pub dry_run: bool,
    /// Whether unknown members are refused (`fieldValidation=Strict`) instead of dropped.
    pub strict: bool,
    /// Now.
    pub now: jiff::Timestamp,
}

impl WriteOptions {
    /// The server's own writes.
    pub fn server(now: jiff::Timestamp) -> Self {
        Self {
            manager: "hasteward-lab-apiserver".into(),
            dry_run: false,
            strict: false,
            now,
        }
    }
}

/// Five random letters and digits, as `generateName` appends them.
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random
        .as_bytes()
        .iter()
        .take(5)
        .map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]))
        .collect()
}

/// The drawer of CustomResourceDefinitions.
pub(crate) fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// The drawer of Namespaces.
pub(crate) fn namespaces() -> GroupResource {
    GroupResource::new("", "namespaces")
}

fn not_found(resource: &Resource, name: &str) -> ApiError {
    ApiError::not_found(&resource.group, &resource.plural, name)
}

fn find(txn: &Txn<'_>, resource: &Resource, key: &Key) -> Result<std::sync::Arc<Value>, ApiError> {
    txn.get(&resource.drawer, key)
        .ok_or_else(|| not_found(resource, &key.name))
}

fn invalid(resource: &Resource, object: &Value, wrong: &[(String, String)]) -> Result<(), ApiError> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &resource.group,
        &resource.kind,
        object::name(object),
        wrong,
    ))
}

/// Prunes, defaults and validates a custom resource; checks a built-in one.
fn admit(
    resource: &Resource,
    object: &mut Value,
    fresh: bool,
    options: &WriteOptions,
    txn: &Txn<'_>,
) -> Result<(), ApiError> {
    let unreadable = |why: String| {
        let (kind, version) = (&resource.kind, &resource.version);
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    let unknown = if let Some(custom) = &resource.custom {
        crate::crd::schema::prune(&custom.schema, object)
    } else {
        object::drop_nulls(object);
        let name = crate::types::name(&resource.drawer.group, &resource.kind);
        crate::types::prune(&name, object).map_err(unreadable)?
    };
    if options.strict && !unknown.is_empty() {
        let unknown: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
        return Err(unreadable(format!(
            "strict decoding error: {}",
            unknown.join(", ")
        )));
    }
    if let Some(custom) = &resource.custom {
        crate::crd::schema::default(&custom.schema, object);
        let wrong = crate::crd::schema::validate(&custom.schema, object);
        invalid(resource, object, &wrong)?;
    } else {
        crate::defaults::fill(resource, object, fresh, txn);
    }
    if resource.drawer == definitions() {
        crate::crd::admit(object, &object::time(options.now));
        invalid(resource, object, &crate::crd::check(object))?;
    }
    invalid(resource, object, &crate::defaults::check(resource, object))
}

/// A body must be of the kind that its path says; a missing kind is filled in.
pub(crate) fn typed(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let Value::Object(map) = object else {
        return Err(ApiError::bad_request("the body of the request is no object"));
    };
    let wanted = [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind.clone()),
    ];
    for (field, wanted) in wanted {
        match map.get(field).and_then(Value::as_str) {
            None | Some("") => {
                map.insert(field.into(), wanted.into());
            }
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the data ({found}) does not match the expected {field} ({wanted})"
                )));
            }
        }
    }
    Ok(())
}
