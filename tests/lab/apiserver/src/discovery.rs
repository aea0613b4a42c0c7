//! What the server serves, as clients ask for it; and the paths that are no resources at all.

use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Format};
use crate::api::Api;
use crate::error::ApiError;
use crate::resource::{Resource, group_version};

/// The version that the server says it is.
const VERSION: &str = "v1.33.0-hasteward-lab";

pub(crate) fn answer(api: &Api, request: &Request<Incoming>) -> Result<Answer, ApiError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let path = request.uri().path();
    if path.starts_with("/openapi/") {
        return crate::openapi::answer(api, path, request.headers());
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let format = answer::negotiate(request.headers())?;
    let value = match (segments.as_slice(), &format) {
        (["version"], _) => version(),
        (["healthz" | "livez" | "readyz", ..], _) => return Ok(answer::text(StatusCode::OK, "ok")),
        (["api"], Format::Discovery(version)) => return Ok(aggregated(api, version, true)),
        (["apis"], Format::Discovery(version)) => return Ok(aggregated(api, version, false)),
        (["api"], _) => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        (["apis"], _) => {
            let groups: Vec<Value> = named(api)
                .iter()
                .map(|(name, versions)| group(name, versions))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (["api", version], _) => resources(api, "", version)?,
        (["apis", name], _) => {
            let groups = named(api);
            let (name, versions) = groups
                .iter()
                .find(|(n, _)| n == name)
                .ok_or_else(ApiError::no_such_path)?;
            let mut group = group(name, versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        (["apis", name, version], _) => resources(api, name, version)?,
        ([], _) => {
            json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]})
        }
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(answer::json(StatusCode::OK, &value))
}

fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)})
}

/// The groups but for core.
fn named(api: &Api) -> Vec<(String, Vec<String>)> {
    api.catalog
        .groups()
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": group_version(name, v), "version": v}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// A subresource in discovery: its name, its kind with group and version if those differ, its verbs.
type Subresource = (String, Option<(&'static str, &'static str)>, String, Value);

fn subresources(resource: &Resource) -> Vec<Subresource> {
    let mut all = Vec::new();
    let kept = json!(["get", "patch", "update"]);
    if resource.status {
        all.push(("status".to_owned(), None, resource.kind.clone(), kept.clone()));
    }
    if resource.scale.is_some() {
        all.push((
            "scale".to_owned(),
            Some(("autoscaling", "v1")),
            "Scale".to_owned(),
            kept,
        ));
    }
    for (name, kind) in resource.others {
        let foreign = match *kind {
            "Eviction" => Some(("policy", "v1")),
            "TokenRequest" => Some(("authentication.k8s.io", "v1")),
            _ => None,
        };
        let verbs = match *name {
            "log" => json!(["get"]),
            "portforward" => json!(["create", "get"]),
            "finalize" => json!(["update"]),
            _ => json!(["create"]),
        };
        all.push(((*name).to_owned(), foreign, (*kind).to_owned(), verbs));
    }
    all
}

fn resources(api: &Api, group: &str, version: &str) -> Result<Value, ApiError> {
    let all: Vec<_> = api
        .catalog
        .all()
        .into_iter()
        .filter(|r| r.group == group && r.version == version)
        .collect();
    if all.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let mut list = Vec::new();
    for resource in &all {
        let mut entry = json!({"name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced(), "kind": resource.kind, "verbs": resource.verb_names()});
        if !resource.short.is_empty() {
            entry["shortNames"] = json!(resource.short);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, foreign, kind, verbs) in subresources(resource) {
            let mut entry = json!({"name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced(), "kind": kind, "verbs": verbs});
            if let Some((group, version)) = foreign {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version),
        "resources": list}),
    )
}

/// Aggregated discovery: everything in one answer.
fn aggregated(api: &Api, version: &str, core: bool) -> Answer {
    let all = api.catalog.all();
    let groups = api.catalog.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    let resources: Vec<Value> = all
                        .iter()
                        .filter(|r| r.group == *name && r.version == *v)
                        .map(|r| aggregated_one(r))
                        .collect();
                    json!({"version": v, "freshness": "Current", "resources": resources})
                })
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let value = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let mut answer = answer::json(StatusCode::OK, &value);
    // Clients look at the content type to learn which of the two forms they were given.
    let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(kind) = kind.parse() {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    answer
}

fn aggregated_one(resource: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, foreign, its_kind, verbs)| {
            let (group, version) = foreign.unwrap_or((&resource.group, &resource.version));
            json!({"subresource": name, "responseKind": kind(group, version, &its_kind), "verbs": verbs})
        })
        .collect();
    let mut entry = json!({"resource": resource.plural,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verb_names()});
    if !resource.short.is_empty() {
        entry["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
