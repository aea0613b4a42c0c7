//! The columns of built-in types, as kubectl shows them.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, created, items, name, number, or_none, pairs};
use crate::object::{at, meta, text};
use crate::resource::Resource;

const NAME: Column = Column {
    name: "Name",
    wide: false,
    cell: name,
};
const AGE: Column = Column {
    name: "Age",
    wide: false,
    cell: created,
};

const fn col(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        wide: false,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        wide: true,
        cell,
    }
}

const CONTAINERS: Column = wide("Containers", |o, _| {
    joined(items(o, &["spec", "template", "spec", "containers"]), "name")
});
const IMAGES: Column = wide("Images", |o, _| {
    joined(items(o, &["spec", "template", "spec", "containers"]), "image")
});
const SELECTOR: Column = wide("Selector", |o, _| {
    pairs(at(o, &["spec", "selector", "matchLabels"]))
});

/// The columns of a resource.
pub(super) fn of(resource: &Resource) -> Vec<Column> {
    match (resource.drawer.group.as_str(), resource.drawer.plural.as_str()) {
        ("", "pods") => super::columns_pod::columns(),
        ("", "nodes") => nodes(),
        ("", "persistentvolumeclaims") => claims(),
        ("", "persistentvolumes") => volumes(),
        ("", "events") => events(),
        ("", "services") => services(),
        ("", "secrets") => vec![
            NAME,
            col("Type", |o, _| or_none(o, &["type"])),
            col("Data", |o, _| size(o, &["data"])),
            AGE,
        ],
        ("", "configmaps") => vec![
            NAME,
            col("Data", |o, _| (count(o, "data") + count(o, "binaryData")).into()),
            AGE,
        ],
        ("", "namespaces") => vec![NAME, col("Status", |o, _| or_none(o, &["status", "phase"])), AGE],
        ("", "serviceaccounts") => vec![
            NAME,
            col("Secrets", |o, _| items(o, &["secrets"]).len().into()),
            AGE,
        ],
        ("coordination.k8s.io", "leases") => {
            vec![
                NAME,
                col("Holder", |o, _| text(o, &["spec", "holderIdentity"]).into()),
                AGE,
            ]
        }
        ("apps", plural) => workloads(plural),
        ("batch", "jobs") => jobs(),
        ("storage.k8s.io", "storageclasses") => vec![
            NAME,
            col("Provisioner", |o, _| text(o, &["provisioner"]).into()),
            col("ReclaimPolicy", |o, _| text(o, &["reclaimPolicy"]).into()),
            col("VolumeBindingMode", |o, _| text(o, &["volumeBindingMode"]).into()),
            AGE,
        ],
        ("apiextensions.k8s.io", _) => vec![
            NAME,
            col("Created At", |o, _| meta(o, "creationTimestamp").into()),
        ],
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => vec![
            NAME,
            col("Role", |o, _| {
                format!(
                    "{}/{}",
                    text(o, &["roleRef", "kind"]),
                    text(o, &["roleRef", "name"])
                )
                .into()
            }),
            AGE,
        ],
        _ => vec![NAME, AGE],
    }
}

fn workloads(plural: &str) -> Vec<Column> {
    match plural {
        "deployments" => vec![
            NAME,
            col("Ready", |o, _| of_replicas(o, "readyReplicas")),
            col("Up-to-date", |o, _| {
                number(o, &["status", "updatedReplicas"]).into()
            }),
            col("Available", |o, _| {
                number(o, &["status", "availableReplicas"]).into()
            }),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        "statefulsets" => {
            vec![
                NAME,
                col("Ready", |o, _| of_replicas(o, "readyReplicas")),
                AGE,
                CONTAINERS,
                IMAGES,
            ]
        }
        "replicasets" => vec![
            NAME,
            col("Desired", |o, _| number(o, &["spec", "replicas"]).into()),
            col("Current", |o, _| number(o, &["status", "replicas"]).into()),
            col("Ready", |o, _| number(o, &["status", "readyReplicas"]).into()),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        "daemonsets" => vec![
            NAME,
            col("Desired", |o, _| {
                number(o, &["status", "desiredNumberScheduled"]).into()
            }),
            col("Current", |o, _| {
                number(o, &["status", "currentNumberScheduled"]).into()
            }),
            col("Ready", |o, _| number(o, &["status", "numberReady"]).into()),
            col("Up-to-date", |o, _| {
                number(o, &["status", "updatedNumberScheduled"]).into()
            }),
            col("Available", |o, _| {
                number(o, &["status", "numberAvailable"]).into()
            }),
            col("Node Selector", |o, _| {
                pairs(at(o, &["spec", "template", "spec", "nodeSelector"]))
            }),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        _ => vec![NAME, AGE],
    }
}

fn joined(list: &[Value], field: &str) -> Value {
    list.iter()
        .map(|i| text(i, &[field]))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

fn count(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn size(object: &Value, path: &[&str]) -> Value {
    at(object, path)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
        .into()
}

fn of_replicas(object: &Value, ready: &str) -> Value {
    format!(
        "{}/{}",
        number(object, &["status", ready]),
        number(object, &["spec", "replicas"])
    )
    .into()
}

fn nodes() -> Vec<Column> {
    vec![
        NAME,
        col("Status", |o, _| {
            let ready = items(o, &["status", "conditions"])
                .iter()
                .find(|c| c["type"] == "Ready");
            let mut status = match ready.map(|c| text(c, &["status"])) {
                Some("True") => "Ready".to_owned(),
                Some(_) => "NotReady".to_owned(),
                None => "Unknown".to_owned(),
            };
            if at(o, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
                status.push_str(",SchedulingDisabled");
            }
            status.into()
        }),
        col("Roles", |o, _| {
            let labels = at(o, &["metadata", "labels"]).and_then(Value::as_object);
            let roles: Vec<&str> = labels
                .into_iter()
                .flat_map(serde_json::Map::keys)
                .filter_map(|k| k.strip_prefix("node-role.kubernetes.io/"))
                .collect();
            if roles.is_empty() {
                "<none>".into()
            } else {
                roles.join(",").into()
            }
        }),
        AGE,
        col("Version", |o, _| {
            text(o, &["status", "nodeInfo", "kubeletVersion"]).into()
        }),
        wide("Internal-IP", |o, _| {
            let found = items(o, &["status", "addresses"])
                .iter()
                .find(|a| a["type"] == "InternalIP");
            found.map_or("<none>".into(), |a| text(a, &["address"]).into())
        }),
        wide("OS-Image", |o, _| or_none(o, &["status", "nodeInfo", "osImage"])),
        wide("Kernel-Version", |o, _| {
            or_none(o, &["status", "nodeInfo", "kernelVersion"])
        }),
        wide("Container-Runtime", |o, _| {
            or_none(o, &["status", "nodeInfo", "containerRuntimeVersion"])
        }),
    ]
}

fn modes(modes: &[Value]) -> Value {
    let short = modes.iter().filter_map(Value::as_str).map(|m| match m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",").into()
}

fn phase(object: &Value) -> Value {
    if crate::object::terminating(object) {
        "Terminating".into()
    } else {
        text(object, &["status", "phase"]).into()
    }
}

fn claims() -> Vec<Column> {
    vec![
        NAME,
        col("Status", |o, _| phase(o)),
        col("Volume", |o, _| text(o, &["spec", "volumeName"]).into()),
        col("Capacity", |o, _| {
            text(o, &["status", "capacity", "storage"]).into()
        }),
        col("Access Modes", |o, _| modes(items(o, &["status", "accessModes"]))),
        col("StorageClass", |o, _| {
            text(o, &["spec", "storageClassName"]).into()
        }),
        AGE,
        wide("VolumeMode", |o, _| text(o, &["spec", "volumeMode"]).into()),
    ]
}

fn volumes() -> Vec<Column> {
    vec![
        NAME,
        col("Capacity", |o, _| {
            text(o, &["spec", "capacity", "storage"]).into()
        }),
        col("Access Modes", |o, _| modes(items(o, &["spec", "accessModes"]))),
        col("Reclaim Policy", |o, _| {
            text(o, &["spec", "persistentVolumeReclaimPolicy"]).into()
        }),
        col("Status", |o, _| phase(o)),
        col("Claim", |o, _| {
            let claim = text(o, &["spec", "claimRef", "name"]);
            if claim.is_empty() {
                "".into()
            } else {
                format!("{}/{claim}", text(o, &["spec", "claimRef", "namespace"])).into()
            }
        }),
        col("StorageClass", |o, _| {
            text(o, &["spec", "storageClassName"]).into()
        }),
        col("Reason", |o, _| text(o, &["status", "reason"]).into()),
        AGE,
    ]
}

fn events() -> Vec<Column> {
    // Events come in the shape of either group.
    fn either<'a>(event: &'a Value, core: &[&str], new: &[&str]) -> &'a str {
        let found = text(event, core);
        if found.is_empty() { text(event, new) } else { found }
    }
    vec![
        col("Last Seen", |o, now| {
            let last = either(o, &["lastTimestamp"], &["deprecatedLastTimestamp"]);
            let series = either(o, &["series", "lastObservedTime"], &["eventTime"]);
            age(
                [series, last]
                    .into_iter()
                    .find(|t| !t.is_empty())
                    .unwrap_or(meta(o, "creationTimestamp")),
                now,
            )
            .into()
        }),
        col("Type", |o, _| text(o, &["type"]).into()),
        col("Reason", |o, _| text(o, &["reason"]).into()),
        col("Object", |o, _| {
            let kind = either(o, &["involvedObject", "kind"], &["regarding", "kind"]);
            let name = either(o, &["involvedObject", "name"], &["regarding", "name"]);
            format!("{}/{name}", kind.to_lowercase()).into()
        }),
        col("Message", |o, _| either(o, &["message"], &["note"]).trim().into()),
        wide("Name", name),
    ]
}

fn services() -> Vec<Column> {
    vec![
        NAME,
        col("Type", |o, _| text(o, &["spec", "type"]).into()),
        col("Cluster-IP", |o, _| or_none(o, &["spec", "clusterIP"])),
        col("External-IP", |o, _| or_none(o, &["spec", "externalName"])),
        col("Port(s)", |o, _| {
            let ports = items(o, &["spec", "ports"]);
            if ports.is_empty() {
                return "<none>".into();
            }
            let one = |p: &Value| format!("{}/{}", number(p, &["port"]), text(p, &["protocol"]));
            ports.iter().map(one).collect::<Vec<_>>().join(",").into()
        }),
        AGE,
        wide("Selector", |o, _| pairs(at(o, &["spec", "selector"]))),
    ]
}

fn jobs() -> Vec<Column> {
    vec![
        NAME,
        col("Status", |o, _| {
            let holds = |kind: &str| {
                items(o, &["status", "conditions"])
                    .iter()
                    .any(|c| c["type"] == kind && c["status"] == "True")
            };
            let found = ["Complete", "Failed", "Suspended"].into_iter().find(|k| holds(k));
            found.unwrap_or("Running").into()
        }),
        col("Completions", |o, _| {
            let wanted = at(o, &["spec", "completions"])
                .and_then(Value::as_i64)
                .unwrap_or(1);
            format!("{}/{wanted}", number(o, &["status", "succeeded"])).into()
        }),
        col("Duration", |o, now| {
            let start = text(o, &["status", "startTime"]);
            if start.is_empty() {
                return "".into();
            }
            let end = text(o, &["status", "completionTime"]).parse().unwrap_or(now);
            age(start, end).into()
        }),
        AGE,
        CONTAINERS,
        IMAGES,
    ]
}
