//! Role-based access control over the stored roles and bindings.

use serde_json::Value;

use super::identity::User;
use crate::object::text;
use crate::store::{GroupResource, Key, Store};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Verb: get, list, watch, create, update, patch, delete, deletecollection, or a lower-case HTTP method.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural resource; empty for a path that is none.
    pub resource: String,
    /// Subresource, empty for none.
    pub subresource: String,
    /// Namespace, empty for all or for cluster-wide objects.
    pub namespace: String,
    /// Object name, empty for collections.
    pub name: String,
    /// The path, for what is no resource.
    pub path: String,
}

const GROUP: &str = "rbac.authorization.k8s.io";

fn strings<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    rule.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether a rule allows what is asked for.
fn allows(rule: &Value, asked: &Attributes) -> bool {
    if !strings(rule, "verbs").any(|v| v == "*" || v == asked.verb) {
        return false;
    }
    if asked.resource.is_empty() {
        return strings(rule, "nonResourceURLs").any(|url| match url.strip_suffix('*') {
            Some(prefix) => asked.path.starts_with(prefix),
            None => asked.path == url,
        });
    }
    let full = if asked.subresource.is_empty() {
        asked.resource.clone()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let any_of = format!("*/{}", asked.subresource);
    let mut names = strings(rule, "resourceNames").peekable();
    strings(rule, "apiGroups").any(|g| g == "*" || g == asked.group)
        && strings(rule, "resources")
            .any(|r| r == "*" || r == full || (!asked.subresource.is_empty() && r == any_of))
        && (names.peek().is_none() || names.any(|n| n == asked.name))
}

fn binds(binding: &Value, user: &User) -> bool {
    let subjects = binding.get("subjects").and_then(Value::as_array);
    subjects.into_iter().flatten().any(|subject| {
        let name = text(subject, &["name"]);
        match text(subject, &["kind"]) {
            "User" => name == user.name,
            "Group" => user.in_group(name),
            "ServiceAccount" => {
                let mut namespace = text(subject, &["namespace"]);
                if namespace.is_empty() {
                    namespace = text(binding, &["metadata", "namespace"]);
                }
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
        }
    })
}

/// The rules that a user has: those everywhere, and those in `namespace` if one is given.
pub fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut take = |role: Option<std::sync::Arc<Value>>| {
        if let Some(rules) = role.as_ref().and_then(|r| r["rules"].as_array()) {
            found.extend(rules.iter().cloned());
        }
    };
    let cluster_role =
        |name: &str| store.get(&GroupResource::new(GROUP, "clusterroles"), &Key::new("", name));
    for binding in store
        .list(&GroupResource::new(GROUP, "clusterrolebindings"), "")
        .0
    {
        if binds(&binding, user) {
            take(cluster_role(text(&binding, &["roleRef", "name"])));
        }
    }
    if !namespace.is_empty() {
        for binding in store
            .list(&GroupResource::new(GROUP, "rolebindings"), namespace)
            .0
        {
            if binds(&binding, user) {
                let name = text(&binding, &["roleRef", "name"]);
                take(match text(&binding, &["roleRef", "kind"]) {
                    "ClusterRole" => cluster_role(name),
                    _ => store.get(&GroupResource::new(GROUP, "roles"), &Key::new(namespace, name)),
                });
            }
        }
    }
    found
}

/// Whether a user may do what is asked for.
pub fn allowed(store: &Store, user: &User, asked: &Attributes) -> bool {
    user.in_group("system:masters")
        || rules(store, user, &asked.namespace)
            .iter()
            .any(|rule| allows(rule, asked))
}

/// The sentence of a refusal, as the real server words it.
pub fn refusal(user: &User, asked: &Attributes) -> String {
    if asked.resource.is_empty() {
        return format!(
            "forbidden: User \"{}\" cannot {} path \"{}\"",
            user.name, asked.verb, asked.path
        );
    }
    let resource = if asked.subresource.is_empty() {
        asked.resource.clone()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let qualified = if asked.group.is_empty() {
        asked.resource.clone()
    } else {
        format!("{}.{}", asked.resource, asked.group)
    };
    let object = if asked.name.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", asked.name)
    };
    let place = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", asked.namespace)
    };
    format!(
        "{qualified}{object} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, asked.verb, asked.group
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_match_by_verb_resource_subresource_name_and_path() {
        let asked = |verb: &str, resource: &str, subresource: &str, name: &str| Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        };
        let rule = json!({"apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["get"], "resourceNames": ["a"]});
        assert!(allows(&rule, &asked("get", "pods", "", "a")));
        assert!(!allows(&rule, &asked("get", "pods", "", "b")));
        assert!(!allows(&rule, &asked("get", "pods", "log", "a")));
        assert!(allows(&rule, &asked("get", "nodes", "status", "a")));
        assert!(!allows(&rule, &asked("list", "pods", "", "")));
        let rule = json!({"nonResourceURLs": ["/api*", "/version"], "verbs": ["get"]});
        let path = |p: &str| Attributes {
            verb: "get".into(),
            path: p.into(),
            ..Attributes::default()
        };
        assert!(allows(&rule, &path("/apis/x")));
        assert!(allows(&rule, &path("/version")));
        assert!(!allows(&rule, &path("/version/x")));
    }
}
