//! OpenAPI, as much as kubectl needs: which verbs take which parameters (server-side validation and dry run),
//! and the schemas of custom resources. Built-in types have no schema here: kubectl carries their Go types.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer};
use crate::api::Api;
use crate::error::ApiError;
use crate::resource::{Resource, Verbs, group_version};

mod proto;

pub(crate) fn answer(api: &Api, path: &str, headers: &HeaderMap) -> Result<Answer, ApiError> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    match path {
        "/openapi/v2" if accept.contains("com.github.proto-openapi.spec.v2") => Ok(answer::bytes(
            StatusCode::OK,
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            proto::document(&api.catalog.all()),
        )),
        "/openapi/v2" => Ok(answer::json(
            StatusCode::OK,
            &json!({"swagger": "2.0", "info": info(), "paths": {}, "definitions": {}}),
        )),
        "/openapi/v3" => Ok(answer::json(StatusCode::OK, &index(api))),
        _ => {
            let rest = path
                .strip_prefix("/openapi/v3/")
                .ok_or_else(ApiError::no_such_path)?;
            let segments: Vec<&str> = rest.split('/').collect();
            match segments.as_slice() {
                ["api", version] => group(api, "", version),
                ["apis", name, version] => group(api, name, version),
                _ => Err(ApiError::no_such_path()),
            }
        }
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.33.0"})
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn index(api: &Api) -> Value {
    let mut paths = Map::new();
    for (group, versions) in api.catalog.groups() {
        for version in versions {
            let path = root(&group, &version);
            let url = format!("/openapi/v3/{path}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// The path of one object.
fn object_path(resource: &Resource) -> String {
    let scope = if resource.namespaced() {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    format!(
        "/{}{scope}/{}/{{name}}",
        root(&resource.group, &resource.version),
        resource.plural
    )
}

fn kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn schema_name(resource: &Resource) -> String {
    let group: Vec<&str> = resource
        .group
        .split('.')
        .rev()
        .filter(|s| !s.is_empty())
        .collect();
    let group = if group.is_empty() {
        "io.k8s.api.core".to_owned()
    } else {
        group.join(".")
    };
    format!("{group}.{}.{}", resource.version, resource.kind)
}

fn group(api: &Api, group: &str, version: &str) -> Result<Answer, ApiError> {
    let all = api.catalog.all();
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in all.iter().filter(|r| r.group == group && r.version == version) {
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let operation = |action: &str| {
            json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind(resource),
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
                "responses": {"200": {"description": "OK"}}})
        };
        if resource.verbs == Verbs::All {
            paths.insert(
                object_path(resource),
                json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"),
                    "delete": operation("delete")}),
            );
        }
        let mut schema = resource.custom.as_ref().map_or_else(
            || json!({"x-kubernetes-preserve-unknown-fields": true}),
            |c| c.schema.clone(),
        );
        if let Value::Object(schema) = &mut schema {
            schema.entry("type").or_insert_with(|| "object".into());
            schema.insert("x-kubernetes-group-version-kind".into(), json!([kind(resource)]));
        }
        schemas.insert(schema_name(resource), schema);
    }
    if schemas.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let title =
        json!({"title": format!("Kubernetes {}", group_version(group, version)), "version": "v1.33.0"});
    Ok(answer::json(
        StatusCode::OK,
        &json!({"openapi": "3.0.0", "info": title, "paths": paths, "components": {"schemas": schemas}}),
    ))
}
