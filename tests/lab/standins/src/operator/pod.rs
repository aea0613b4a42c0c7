//! The pod of an instance.

use super::{Args, resources};
use crate::cnpg::{Cluster, names};
use kube::ResourceExt;
use serde_json::{Value, json};

/// How a pod's data comes to be before the server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The claim is `ready`.
    Existing,
    /// The first instance.
    Init,
    /// A clone of the primary.
    Join,
}

/// The pod, ready to be created.
pub(super) fn build(args: &Args, cluster: &Cluster, serial: u32, origin: Origin) -> anyhow::Result<Value> {
    let cluster_name = cluster.name_any();
    let name = names::instance(&cluster_name, serial);
    let role = if cluster.current_primary().or(cluster.target_primary()) == Some(&name) {
        "primary"
    } else {
        "replica"
    };
    let spec = spec(args, cluster, &name, origin);
    let mut metadata = resources::metadata(cluster, &name)?;
    for (label, value) in [
        (names::INSTANCE_NAME, name.as_str()),
        (names::POD_ROLE, "instance"),
        (names::INSTANCE_ROLE, role),
        (names::ROLE, role),
    ] {
        metadata["labels"][label] = json!(value);
    }
    metadata["annotations"][names::NODE_SERIAL] = json!(serial.to_string());
    metadata["annotations"][names::POD_SPEC] = json!(spec.to_string());
    Ok(json!({"metadata": metadata, "spec": spec}))
}

fn image<'a>(args: &'a Args, cluster: &'a Cluster) -> &'a str {
    cluster.spec.image_name.as_deref().unwrap_or(&args.image)
}

fn spec(args: &Args, cluster: &Cluster, name: &str, origin: Origin) -> Value {
    let image = image(args, cluster);
    let security = json!({
        "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
        "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let mounts = mounts(cluster);
    let environment = environment(args, cluster, name);
    let mut init = vec![json!({
        "name": "bootstrap-controller", "image": image,
        "command": [args.manager_path, "bootstrap", "/controller/manager"],
        "securityContext": security, "volumeMounts": mounts,
    })];
    let bootstrap = match origin {
        Origin::Existing => None,
        Origin::Init => Some(json!(["/controller/manager", "instance", "init"])),
        Origin::Join => {
            let parent = format!("{}-rw", cluster.name_any());
            Some(json!([
                "/controller/manager",
                "instance",
                "join",
                "--parent-node",
                parent
            ]))
        }
    };
    if let Some(command) = bootstrap {
        init.push(json!({
            "name": "bootstrap-instance", "image": image, "command": command, "env": environment,
            "securityContext": security, "volumeMounts": mounts,
        }));
    }
    let mut container = json!({
        "name": "postgres", "image": image, "command": ["/controller/manager", "instance", "run"],
        "env": environment, "securityContext": security, "volumeMounts": mounts,
        "ports": [
            {"name": "postgresql", "containerPort": 5432, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9187, "protocol": "TCP"},
            {"name": "status", "containerPort": 8000, "protocol": "TCP"},
        ],
    });
    if let Some(resources) = &cluster.spec.resources {
        container["resources"] = resources.clone();
    }
    let period = args.probe_period_seconds;
    let start_delay = u32::try_from(cluster.spec.start_delay.unwrap_or(3600)).unwrap_or(3600);
    for (probe, path, failures) in [
        ("startupProbe", "/startupz", start_delay.div_ceil(period.max(1))),
        ("readinessProbe", "/readyz", 3),
        ("livenessProbe", "/healthz", 30_u32.div_ceil(period.max(1))),
    ] {
        container[probe] = json!({
            "httpGet": {"path": path, "port": 8000, "scheme": "HTTPS"},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures, "successThreshold": 1,
        });
    }
    json!({
        "hostname": name,
        "initContainers": init,
        "containers": [container],
        "volumes": volumes(cluster, name),
        "restartPolicy": "Always",
        "serviceAccountName": cluster.name_any(),
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": cluster.spec.stop_delay.unwrap_or(1800),
        "securityContext": {
            "runAsUser": 26, "runAsGroup": 26, "fsGroup": 26, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchExpressions": [
                    {"key": names::CLUSTER, "operator": "In", "values": [cluster.name_any()]},
                    {"key": names::POD_ROLE, "operator": "In", "values": ["instance"]},
                ]},
            },
        }]}},
    })
}

fn environment(args: &Args, cluster: &Cluster, name: &str) -> Value {
    json!([
        {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
        {"name": "POD_NAME", "value": name},
        {"name": "NAMESPACE", "value": cluster.namespace().unwrap_or_default()},
        {"name": "CLUSTER_NAME", "value": cluster.name_any()},
        {"name": "PGPORT", "value": "5432"},
        {"name": "PGHOST", "value": "/controller/run"},
        {"name": "TMPDIR", "value": "/controller/tmp"},
        {"name": "READINESS_PERIOD_SECONDS", "value": args.probe_period_seconds.to_string()},
    ])
}

/// The directory a `file://` archive lives in, the same on every node.
fn archive(cluster: &Cluster) -> Option<&str> {
    cluster
        .spec
        .backup
        .as_ref()?
        .barman_object_store
        .as_ref()?
        .directory()
}

fn mounts(cluster: &Cluster) -> Value {
    let mut mounts = vec![
        json!({"name": "pgdata", "mountPath": "/var/lib/postgresql/data"}),
        json!({"name": "scratch-data", "mountPath": "/run"}),
        json!({"name": "scratch-data", "mountPath": "/controller"}),
        json!({"name": "shm", "mountPath": "/dev/shm"}),
        json!({
            "name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": true,
        }),
    ];
    if cluster.spec.wal_storage.is_some() {
        mounts.push(json!({"name": "pg-wal", "mountPath": "/var/lib/postgresql/wal"}));
    }
    for tablespace in &cluster.spec.tablespaces {
        mounts.push(json!({
            "name": names::tablespace_volume(&tablespace.name),
            "mountPath": format!("/var/lib/postgresql/tablespaces/{}", tablespace.name),
        }));
    }
    if let Some(directory) = archive(cluster) {
        mounts.push(json!({"name": "lab-archive", "mountPath": directory}));
    }
    json!(mounts)
}

fn volumes(cluster: &Cluster, name: &str) -> Value {
    let claim = |name: &str| json!({"claimName": name});
    let mut volumes = vec![
        json!({"name": "pgdata", "persistentVolumeClaim": claim(name)}),
        json!({"name": "scratch-data", "emptyDir": {}}),
        json!({"name": "shm", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {
                "apiVersion": "v1", "fieldPath": "metadata.namespace",
            }}]}},
        ]}}),
    ];
    if cluster.spec.wal_storage.is_some() {
        volumes.push(json!({"name": "pg-wal", "persistentVolumeClaim": claim(&format!("{name}-wal"))}));
    }
    for tablespace in &cluster.spec.tablespaces {
        volumes.push(json!({
            "name": names::tablespace_volume(&tablespace.name),
            "persistentVolumeClaim": claim(&names::tablespace_claim(name, &tablespace.name)),
        }));
    }
    if let Some(directory) = archive(cluster) {
        volumes.push(json!({
            "name": "lab-archive", "hostPath": {"path": directory, "type": "DirectoryOrCreate"},
        }));
    }
    json!(volumes)
}
