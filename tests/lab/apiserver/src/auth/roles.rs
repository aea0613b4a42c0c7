//! The roles and bindings that are there from the start.

use serde_json::{Value, json};

fn role(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules})
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Value {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|g| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": g}))
        .collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects})
}

/// Default ClusterRoles. `view`, `edit` and `admin` are written out instead of aggregated.
pub fn cluster_roles() -> Vec<Value> {
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "patch", "update"]);
    let workloads = json!([
        {"apiGroups": [""], "verbs": read, "resources": ["configmaps", "endpoints", "events", "limitranges",
            "namespaces", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "pods/log",
            "pods/status", "replicationcontrollers", "resourcequotas", "serviceaccounts", "services"]},
        {"apiGroups": ["apps", "batch", "policy", "networking.k8s.io", "discovery.k8s.io", "events.k8s.io"],
            "verbs": read, "resources": ["*"]},
    ]);
    let mut edit = workloads.as_array().cloned().unwrap_or_default();
    edit.push(json!({"apiGroups": [""], "verbs": ["get", "list", "watch"], "resources": ["secrets"]}));
    edit.push(json!({"apiGroups": [""], "verbs": write, "resources": ["configmaps", "endpoints", "events",
        "persistentvolumeclaims", "pods", "replicationcontrollers", "secrets", "serviceaccounts", "services"]}));
    edit.push(json!({"apiGroups": [""], "verbs": ["create"],
        "resources": ["pods/eviction", "pods/portforward", "serviceaccounts/token"]}));
    edit.push(json!({"apiGroups": [""], "verbs": ["get"], "resources": ["pods/portforward"]}));
    edit.push(json!({"apiGroups": ["apps", "batch", "policy", "networking.k8s.io"], "verbs": write, "resources": ["*"]}));
    edit.push(json!({"apiGroups": ["coordination.k8s.io"], "verbs": ["*"], "resources": ["leases"]}));
    let mut admin = edit.clone();
    admin.push(json!({"apiGroups": ["rbac.authorization.k8s.io"], "verbs": ["*"], "resources": ["roles", "rolebindings"]}));
    admin.push(json!({"apiGroups": ["authorization.k8s.io"], "verbs": ["create"], "resources": ["localsubjectaccessreviews"]}));
    vec![
        role(
            "cluster-admin",
            &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                    {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        role("view", &workloads),
        role("edit", &edit.into()),
        role("admin", &admin.into()),
        role(
            "system:discovery",
            &json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz",
                "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}]),
        ),
        role(
            "system:public-info-viewer",
            &json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]}]),
        ),
        role(
            "system:basic-user",
            &json!([
                {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
                 "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["selfsubjectreviews"]},
            ]),
        ),
        role(
            "system:auth-delegator",
            &json!([
                {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["tokenreviews"]},
                {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"], "resources": ["subjectaccessreviews"]},
            ]),
        ),
        role("system:node", &node_rules()),
    ]
}

/// What a kubelet needs. The real server narrows this to the node's own objects; the lab does not.
fn node_rules() -> Value {
    json!([
        {"apiGroups": [""], "verbs": ["create", "get", "list", "watch", "update", "patch", "delete"], "resources": ["nodes"]},
        {"apiGroups": [""], "verbs": ["update", "patch", "get"], "resources": ["nodes/status", "pods/status"]},
        {"apiGroups": [""], "verbs": ["get", "list", "watch", "create", "delete"], "resources": ["pods"]},
        {"apiGroups": [""], "verbs": ["get", "list", "watch"], "resources": ["configmaps", "secrets", "services",
            "endpoints", "namespaces", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts"]},
        {"apiGroups": [""], "verbs": ["create"], "resources": ["serviceaccounts/token", "pods/eviction"]},
        {"apiGroups": ["", "events.k8s.io"], "verbs": ["create", "update", "patch"], "resources": ["events"]},
        {"apiGroups": ["coordination.k8s.io"], "verbs": ["create", "get", "list", "watch", "update", "patch", "delete"],
            "resources": ["leases"]},
        {"apiGroups": ["storage.k8s.io"], "verbs": ["get", "list", "watch", "create", "update", "patch"],
            "resources": ["csinodes", "csidrivers", "volumeattachments", "storageclasses"]},
        {"apiGroups": ["discovery.k8s.io"], "verbs": ["get", "list", "watch"], "resources": ["endpointslices"]},
        {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["tokenreviews"]},
        {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"], "resources": ["subjectaccessreviews"]},
    ])
}

/// Default ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    vec![
        binding("cluster-admin", "cluster-admin", &["system:masters"]),
        binding("system:discovery", "system:discovery", &["system:authenticated"]),
        binding(
            "system:basic-user",
            "system:basic-user",
            &["system:authenticated"],
        ),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
        binding("system:node", "system:node", &["system:nodes"]),
    ]
}
