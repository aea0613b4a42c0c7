//! The StatefulSet, and the claims it shares with Jobs.

use super::{Args, objects};
use crate::cnpg::Scope;
use crate::mariadb::names;
use crate::mariadb::resource::{MariaDB, Threshold};
use anyhow::Context;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// uid and gid of the server in its image.
pub(super) const UID: i64 = 999;

/// Creates the StatefulSet, or writes the number of replicas back.
pub(super) async fn ensure(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<StatefulSet> {
    let name = mariadb.name_any();
    let api = scope.api::<StatefulSet>();
    let Some(found) = api.get_opt(&name).await? else {
        crate::operator::ensure::<StatefulSet>(scope, build(args, scope, mariadb)?).await?;
        return api.get(&name).await.context("reading the StatefulSet");
    };
    let replicas = i32::try_from(mariadb.spec.replicas).unwrap_or(i32::MAX);
    if found.spec.as_ref().and_then(|spec| spec.replicas) != Some(replicas) {
        return scale(scope, &name, mariadb.spec.replicas).await;
    }
    Ok(found)
}

/// Sets the number of replicas.
pub(super) async fn scale(scope: &Scope, name: &str, replicas: u32) -> anyhow::Result<StatefulSet> {
    tracing::info!(mariadb = name, replicas, "scaling the StatefulSet");
    let patch = json!({"spec": {"replicas": replicas}});
    scope
        .api::<StatefulSet>()
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .context("scaling the StatefulSet")
}

/// Ready pods, as the StatefulSet says.
pub(super) fn ready(set: &StatefulSet) -> u32 {
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas);
    u32::try_from(ready.unwrap_or(0)).unwrap_or(0)
}

/// The claims of the StatefulSet, as templates: data, and configuration unless both share a volume.
pub(super) fn claims(mariadb: &MariaDB) -> Vec<Value> {
    let claim = |name: &str, role: &str, size: &str| {
        let mut labels = objects::labels(&mariadb.name_any());
        labels[names::PVC_ROLE] = json!(role);
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
        });
        if let Some(class) = &mariadb.spec.storage.storage_class_name {
            spec["storageClassName"] = json!(class);
        }
        json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
    };
    let mut claims = vec![claim("storage", "storage", &mariadb.spec.storage.size)];
    if !mariadb.galera().config.reuse_storage_volume {
        claims.push(claim("galera", "config", "100Mi"));
    }
    claims
}

/// Mounts of the data and configuration volumes.
pub(super) fn volume_mounts(mariadb: &MariaDB) -> Vec<Value> {
    if mariadb.galera().config.reuse_storage_volume {
        vec![
            json!({"name": "storage", "mountPath": names::DATA, "subPath": "storage"}),
            json!({"name": "storage", "mountPath": names::CONFIG, "subPath": "galera"}),
        ]
    } else {
        vec![
            json!({"name": "storage", "mountPath": names::DATA}),
            json!({"name": "galera", "mountPath": names::CONFIG}),
        ]
    }
}

/// Mounts that every container with a server needs. The image's own `/run/mysqld` and `/tmp` are writable in the
/// original; here they are volumes.
pub(super) fn server_mounts() -> Vec<Value> {
    vec![
        json!({"name": "config", "mountPath": names::CONF_D}),
        json!({"name": "run", "mountPath": names::RUN}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ]
}

/// Volumes besides the claims.
pub(super) fn volumes(name: &str) -> Vec<Value> {
    vec![
        json!({"name": "config", "projected": {"sources": [
            {"configMap": {"name": format!("{name}-config-default")}},
            {"configMap": {"name": format!("{name}-config")}},
        ]}}),
        json!({"name": "run", "emptyDir": {}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ]
}

/// The server's environment.
pub(super) fn environment(mariadb: &MariaDB) -> Value {
    let name = mariadb.name_any();
    let password = mariadb.root_password(&name);
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        {"name": "MYSQL_TCP_PORT", "value": names::SQL_PORT.to_string()},
        {"name": "MARIADB_ROOT_HOST", "value": "%"},
        {"name": "MYSQL_INITDB_SKIP_TZINFO", "value": "1"},
        {"name": "CLUSTER_NAME", "value": "cluster.local"},
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        {"name": "MARIADB_NAME", "value": name},
        {"name": "MARIADB_ROOT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": password.name, "key": password.key}}},
    ])
}

/// Security context of every pod.
pub(super) fn security() -> Value {
    json!({"runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "runAsNonRoot": true})
}

fn probe(args: &Args, path: &str, threshold: Option<Threshold>) -> Value {
    json!({
        "httpGet": {"path": path, "port": names::PROBE_PORT},
        "initialDelaySeconds": args.probe_initial_delay_seconds,
        "periodSeconds": args.probe_period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": threshold.and_then(|threshold| threshold.failure_threshold).unwrap_or(3),
    })
}

fn build(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<Value> {
    let name = mariadb.name_any();
    let labels = objects::labels(&name);
    let annotations = json!({names::MARIADB: name, names::GALERA: ""});
    let mut metadata = objects::metadata(mariadb, &name)?;
    metadata["annotations"] = annotations.clone();
    metadata["namespace"] = json!(scope.namespace);
    let environment = environment(mariadb);
    let mut server_volumes = volume_mounts(mariadb);
    server_volumes.extend(server_mounts());
    let mut data_plane = volume_mounts(mariadb);
    data_plane.push(json!({
        "name": "serviceaccount", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
    }));
    let init_mounts = data_plane.clone();
    data_plane.push(json!({"name": "agent-auth", "mountPath": names::AGENT_AUTH, "readOnly": true}));
    let mut volumes = volumes(&name);
    volumes.push(json!({"name": "agent-auth", "secret": {"secretName": objects::agent_auth(&name)}}));
    volumes.push(json!({"name": "serviceaccount", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}));
    let ports: Vec<Value> = [
        ("mariadb", names::SQL_PORT),
        ("cluster", names::CLUSTER_PORT),
        ("ist", names::IST_PORT),
        ("sst", names::SST_PORT),
    ]
    .iter()
    .map(|(name, port)| json!({"name": name, "containerPort": port}))
    .collect();
    let server = json!({
        "name": "mariadb", "image": mariadb.spec.image.as_deref().unwrap_or(&args.image),
        "env": environment, "ports": ports, "volumeMounts": server_volumes,
        "startupProbe": probe(args, "/liveness", mariadb.spec.startup_probe),
        "livenessProbe": probe(args, "/liveness", mariadb.spec.liveness_probe),
        "readinessProbe": probe(args, "/readiness", mariadb.spec.readiness_probe),
    });
    let agent = json!({
        "name": "agent", "image": args.data_plane_image,
        "command": [args.program, "mariadb-agent"],
        "args": ["--probe-budget-ms", args.probe_budget_ms.to_string()],
        "env": environment, "volumeMounts": data_plane,
        "ports": [{"name": "agent", "containerPort": names::AGENT_PORT},
                  {"name": "agent-probe", "containerPort": names::PROBE_PORT}],
    });
    let init = json!({
        "name": "init", "image": args.data_plane_image, "command": [args.program, "mariadb-init"],
        "env": environment, "volumeMounts": init_mounts,
    });
    Ok(json!({
        "metadata": metadata,
        "spec": {
            "replicas": mariadb.spec.replicas,
            "serviceName": names::internal(&name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": labels},
            "volumeClaimTemplates": claims(mariadb),
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "serviceAccountName": name,
                    "automountServiceAccountToken": false,
                    "securityContext": security(),
                    "terminationGracePeriodSeconds": 30,
                    "initContainers": [init],
                    "containers": [server, agent],
                    "volumes": volumes,
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": labels},
                        },
                    }]}},
                },
            },
        },
    }))
}
