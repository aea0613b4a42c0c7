//! Rules that a written object must keep: names, and what may not change.

use serde_json::Value;

use crate::object::{self, at};
use crate::resource::Resource;

type Wrong = Vec<(String, String)>;

fn subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|part| {
            let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        })
}

/// The rules that an object breaks.
pub(crate) fn check(resource: &Resource, value: &Value) -> Wrong {
    let mut wrong = Vec::new();
    let name = object::name(value);
    // Names of RBAC objects are path segments, not host names.
    let path_segment = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    let fine = if resource.group == "rbac.authorization.k8s.io" {
        path_segment
    } else {
        subdomain(name)
    };
    if !fine {
        wrong.push((
            "metadata.name".into(),
            format!("Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"),
        ));
    }
    if resource.is("", "pods") {
        let containers = at(value, &["spec", "containers"]).and_then(Value::as_array);
        match containers {
            Some(all) if !all.is_empty() => {
                for (i, container) in all.iter().enumerate() {
                    for field in ["name", "image"] {
                        if object::text(container, &[field]).is_empty() {
                            wrong.push((format!("spec.containers[{i}].{field}"), "Required value".into()));
                        }
                    }
                }
            }
            _ => wrong.push(("spec.containers".into(), "Required value".into())),
        }
    }
    if resource.is("apps", "deployments")
        || resource.is("apps", "statefulsets")
        || resource.is("apps", "daemonsets")
    {
        let selector = crate::selector::Labels::from_object(&value["spec"]["selector"]);
        if !selector.matches(&value["spec"]["template"]) {
            wrong.push((
                "spec.template.metadata.labels".into(),
                "Invalid value: `selector` does not match template `labels`".into(),
            ));
        }
    }
    if resource.is("", "configmaps") || resource.is("", "secrets") {
        let data = value["data"].as_object();
        for (key, entry) in data.into_iter().flatten() {
            if !entry.is_string() {
                wrong.push((format!("data[{key}]"), "Invalid value: must be a string".into()));
            }
        }
    }
    wrong
}

/// The rules that a change breaks.
pub(crate) fn unchanged(resource: &Resource, old: &Value, new: &Value) -> Wrong {
    let mut wrong = Vec::new();
    let mut same = |path: &[&str]| {
        if at(old, path) != at(new, path) {
            wrong.push((path.join("."), "Invalid value: field is immutable".into()));
        }
    };
    match (resource.drawer.group.as_str(), resource.drawer.plural.as_str()) {
        ("apps", "deployments" | "daemonsets" | "replicasets") => same(&["spec", "selector"]),
        ("apps", "statefulsets") => {
            for field in [
                "selector",
                "serviceName",
                "podManagementPolicy",
                "volumeClaimTemplates",
            ] {
                same(&["spec", field]);
            }
        }
        ("batch", "jobs") => {
            same(&["spec", "selector"]);
            same(&["spec", "template"]);
            same(&["spec", "completions"]);
        }
        ("", "persistentvolumeclaims") => {
            // A claim without a class gets the default one later (KEP-3333).
            let classless = old["spec"]["storageClassName"].is_null();
            let class = if classless { None } else { Some("storageClassName") };
            for field in ["accessModes", "volumeMode", "selector"].into_iter().chain(class) {
                same(&["spec", field]);
            }
            if !object::text(old, &["spec", "volumeName"]).is_empty() {
                same(&["spec", "volumeName"]);
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => same(&["roleRef"]),
        ("storage.k8s.io", "storageclasses") => {
            for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
                same(&[field]);
            }
        }
        ("", "configmaps" | "secrets") => {
            if old["immutable"] == true {
                same(&["data"]);
                same(&["immutable"]);
            }
            same(&["type"]);
        }
        ("", "pods") => pod(old, new, &mut wrong),
        _ => {}
    }
    wrong
}

/// A pod's spec is fixed but for images, deadlines and additional tolerations.
fn pod(old: &Value, new: &Value, wrong: &mut Wrong) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Value::Object(map) = &mut spec {
            for field in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
                "schedulingGates",
            ] {
                map.remove(field);
            }
            map.remove("ephemeralContainers");
            for field in ["containers", "initContainers"] {
                let containers = map.get_mut(field).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                    container.remove("image");
                }
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        wrong.push((
            "spec".into(),
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)".into(),
        ));
    }
}
