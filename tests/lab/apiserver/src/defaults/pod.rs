//! Pods: what the server and its ServiceAccount admission fill in.

use serde_json::{Map, Value, json};

use crate::object::{self, at, default, entry, text};
use crate::store::{GroupResource, Key, Txn};

const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Fills in a pod.
pub(super) fn fill(pod: &mut Value, fresh: bool, txn: &Txn<'_>) {
    template(pod);
    let namespace = object::namespace(pod).to_owned();
    let spec = entry(pod, "spec");
    default(spec, "enableServiceLinks", true);
    default(spec, "priority", 0);
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    account(spec);
    if !fresh {
        return;
    }
    tolerate(spec);
    mount_token(pod, &namespace, txn);
    let class = quality(&pod["spec"]);
    let status = entry(pod, "status");
    status.insert("phase".into(), "Pending".into());
    status.insert("qosClass".into(), class.into());
}

fn account(spec: &mut Map<String, Value>) {
    for (from, to) in [
        ("serviceAccount", "serviceAccountName"),
        ("serviceAccountName", "serviceAccount"),
    ] {
        if spec.get(to).and_then(Value::as_str).is_none_or(str::is_empty)
            && let Some(name) = spec.get(from).cloned()
        {
            spec.insert(to.into(), name);
        }
    }
    for field in ["serviceAccountName", "serviceAccount"] {
        if spec.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            spec.insert(field.into(), "default".into());
        }
    }
}

/// Fills in what pods and pod templates share. `object` has the `spec`.
pub(super) fn template(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    for field in ["containers", "initContainers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
            .for_each(container);
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter_map(Value::as_object_mut) {
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if let Some(Value::Object(source)) = volume.get_mut(source) {
                default(source, "defaultMode", 420);
            }
        }
        if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
            default(path, "type", "");
        }
        let sources = volume
            .get_mut("projected")
            .and_then(|p| p.get_mut("sources"))
            .and_then(Value::as_array_mut);
        for source in sources.into_iter().flatten() {
            if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let latest =
        image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
    default(
        container,
        "imagePullPolicy",
        if latest { "Always" } else { "IfNotPresent" },
    );
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    let ports = container.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        default(port, "protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(probe) {
            default(probe, "timeoutSeconds", 1);
            default(probe, "periodSeconds", 10);
            default(probe, "successThreshold", 1);
            default(probe, "failureThreshold", 3);
            if let Some(Value::Object(http)) = probe.get_mut("httpGet") {
                default(http, "path", "/");
                default(http, "scheme", "HTTP");
            }
        }
    }
    // A limit without a request is a request, too.
    if let Some(Value::Object(resources)) = container.get_mut("resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        if let Value::Object(requests) = requests {
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
    let env = container.get_mut("env").and_then(Value::as_array_mut);
    for variable in env.into_iter().flatten() {
        if let Some(Value::Object(reference)) =
            variable.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef"))
        {
            default(reference, "apiVersion", "v1");
        }
    }
}

fn tolerate(spec: &mut Map<String, Value>) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = tolerations else {
        return;
    };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|t| {
            let named = text(t, &["key"]);
            (named == key || (named.is_empty() && text(t, &["operator"]) == "Exists"))
                && matches!(text(t, &["effect"]), "" | "NoExecute")
        });
        if !covered {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

/// Mounts the token that `automountServiceAccountToken` asks for.
fn mount_token(pod: &mut Value, namespace: &str, txn: &Txn<'_>) {
    let name = text(pod, &["spec", "serviceAccountName"]);
    let account = txn.get(
        &GroupResource::new("", "serviceaccounts"),
        &Key::new(namespace, name),
    );
    let flag = |v: Option<&Value>| v.and_then(Value::as_bool);
    let wanted = flag(at(pod, &["spec", "automountServiceAccountToken"]))
        .or_else(|| {
            flag(
                account
                    .as_ref()
                    .and_then(|a| a.get("automountServiceAccountToken")),
            )
        })
        .unwrap_or(true);
    if !wanted {
        return;
    }
    let has_token = |mounts: &Value| {
        let mounts = mounts.as_array();
        mounts
            .into_iter()
            .flatten()
            .any(|m| m["mountPath"] == TOKEN_DIRECTORY)
    };
    let volume = format!("kube-api-access-{}", crate::objects::suffix());
    let spec = entry(pod, "spec");
    let mut used = false;
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if has_token(mounts) {
                continue;
            }
            if let Value::Array(mounts) = mounts {
                mounts.push(json!({"name": volume, "mountPath": TOKEN_DIRECTORY, "readOnly": true}));
                used = true;
            }
        }
    }
    if used && let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([])) {
        volumes.push(
            json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}),
        );
    }
}

/// `status.qosClass`.
fn quality(spec: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    let containers = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|f| spec[f].as_array())
        .flatten();
    for container in containers {
        let of = |kind: &str, what: &str| at(container, &["resources", kind, what]).filter(|v| !v.is_null());
        for what in ["cpu", "memory"] {
            let (request, limit) = (of("requests", what), of("limits", what));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && request == limit;
        }
    }
    match (any, all) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        _ => "BestEffort",
    }
}
