//! Services, the managers' permissions and the claims of an instance.

use super::claims::ClaimRole;
use crate::cnpg::{Cluster, Scope, Storage, names};
use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Creates an object unless it exists; `true` when it was created.
pub(crate) async fn ensure<K>(scope: &Scope, object: Value) -> anyhow::Result<bool>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).context("building an object")?;
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let name = object.name_any();
    match scope.api::<K>().create(&PostParams::default(), &object).await {
        Ok(_) => {
            tracing::info!("created {kind} {name}");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error).with_context(|| format!("creating {kind} {name}")),
    }
}

/// Metadata of an object owned by the cluster.
pub(super) fn metadata(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    Ok(json!({
        "name": name,
        "labels": {
            names::CLUSTER: cluster.name_any(),
            "app.kubernetes.io/managed-by": "cloudnative-pg",
            "app.kubernetes.io/name": "postgresql",
            "app.kubernetes.io/instance": cluster.name_any(),
            "app.kubernetes.io/component": "database",
        },
        "annotations": {names::OPERATOR_VERSION: names::VERSION},
        "ownerReferences": [cluster.controller_owner_ref(&()).context("the Cluster has no uid")?],
    }))
}

/// Everything a cluster needs besides Secrets, claims and pods.
pub(super) async fn ensure_all(scope: &Scope, cluster: &Cluster) -> anyhow::Result<()> {
    let name = cluster.name_any();
    for (suffix, role) in [("rw", Some("primary")), ("ro", Some("replica")), ("r", None)] {
        let service = format!("{name}-{suffix}");
        if scope.api::<Service>().get_opt(&service).await?.is_some() {
            continue;
        }
        let mut selector = json!({ names::CLUSTER: name });
        match role {
            Some(role) => selector[names::INSTANCE_ROLE] = json!(role),
            None => selector[names::POD_ROLE] = json!("instance"),
        }
        ensure::<Service>(
            scope,
            json!({
                "metadata": metadata(cluster, &service)?,
                "spec": {
                    "type": "ClusterIP", "selector": selector,
                    "ports": [{"name": "postgres", "port": 5432, "targetPort": 5432, "protocol": "TCP"}],
                },
            }),
        )
        .await?;
    }
    if scope.api::<ServiceAccount>().get_opt(&name).await?.is_none() {
        ensure::<ServiceAccount>(scope, json!({"metadata": metadata(cluster, &name)?})).await?;
        ensure::<Role>(scope, role(cluster)?).await?;
        ensure::<RoleBinding>(
            scope,
            json!({
                "metadata": metadata(cluster, &name)?,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": scope.namespace}],
            }),
        )
        .await?;
        ensure_disruption_budgets(scope, cluster).await?;
    }
    Ok(())
}

async fn ensure_disruption_budgets(scope: &Scope, cluster: &Cluster) -> anyhow::Result<()> {
    let name = cluster.name_any();
    for (budget, role) in [(format!("{name}-primary"), "primary"), (name.clone(), "replica")] {
        let object = json!({
            "metadata": metadata(cluster, &budget)?,
            "spec": {
                "minAvailable": 1,
                "selector": {"matchLabels": {names::CLUSTER: name, names::INSTANCE_ROLE: role}},
            },
        });
        // A small API server may not know the kind; nothing in the lab evicts pods.
        if let Err(error) = ensure::<PodDisruptionBudget>(scope, object).await {
            tracing::debug!("{error:#}");
        }
    }
    Ok(())
}

fn role(cluster: &Cluster) -> anyhow::Result<Value> {
    let name = cluster.name_any();
    let secrets: Vec<String> = ["server", "replication", "ca", "app"]
        .iter()
        .map(|suffix| format!("{name}-{suffix}"))
        .collect();
    Ok(json!({
        "metadata": metadata(cluster, &name)?,
        "rules": [
            {"apiGroups": ["postgresql.cnpg.io"], "resources": ["clusters"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["postgresql.cnpg.io"], "resources": ["clusters/status"],
             "verbs": ["get", "patch", "update", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get", "watch"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
             "verbs": ["get", "create", "update", "patch"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ],
    }))
}

/// The API server's CA where pods look for it. A real cluster publishes it in every namespace.
pub(crate) async fn ensure_root_ca(scope: &Scope) -> anyhow::Result<()> {
    const NAME: &str = "kube-root-ca.crt";
    if scope.api::<ConfigMap>().get_opt(NAME).await?.is_some() {
        return Ok(());
    }
    let config = kube::Config::infer()
        .await
        .context("reading our own configuration")?;
    let ca = config
        .root_cert
        .unwrap_or_default()
        .iter()
        .map(|der| pem(der))
        .collect::<String>();
    ensure::<ConfigMap>(scope, json!({"metadata": {"name": NAME}, "data": {"ca.crt": ca}}))
        .await
        .map(drop)
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// The claims of an instance: name, purpose and size.
pub(super) fn claims_of(cluster: &Cluster, instance: &str) -> Vec<(String, ClaimRole, Storage)> {
    let mut claims = vec![(instance.to_owned(), ClaimRole::Data, cluster.spec.storage.clone())];
    if let Some(storage) = &cluster.spec.wal_storage {
        claims.push((format!("{instance}-wal"), ClaimRole::Wal, storage.clone()));
    }
    for tablespace in &cluster.spec.tablespaces {
        claims.push((
            names::tablespace_claim(instance, &tablespace.name),
            ClaimRole::Tablespace(tablespace.name.clone()),
            tablespace.storage.clone(),
        ));
    }
    claims
}

/// Creates the missing claims of an instance. Only PGDATA starts as `initializing`.
pub(super) async fn ensure_claims(scope: &Scope, cluster: &Cluster, serial: u32) -> anyhow::Result<()> {
    let instance = names::instance(&cluster.name_any(), serial);
    for (name, role, storage) in claims_of(cluster, &instance) {
        let mut metadata = metadata(cluster, &name)?;
        metadata["labels"][names::INSTANCE_NAME] = json!(instance);
        metadata["annotations"][names::NODE_SERIAL] = json!(serial.to_string());
        let status = if role == ClaimRole::Data {
            "initializing"
        } else {
            "ready"
        };
        metadata["annotations"][names::PVC_STATUS] = json!(status);
        metadata["labels"][names::PVC_ROLE] = json!(match &role {
            ClaimRole::Data => "PG_DATA",
            ClaimRole::Wal => "PG_WAL",
            ClaimRole::Tablespace(tablespace) => {
                metadata["labels"][names::TABLESPACE_NAME] = json!(tablespace);
                "PG_TABLESPACE"
            }
        });
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage.size}},
            "volumeMode": "Filesystem",
        });
        if let Some(class) = &storage.storage_class {
            spec["storageClassName"] = json!(class);
        }
        if let (Some(Value::Object(template)), Some(spec)) = (storage.pvc_template, spec.as_object_mut()) {
            spec.extend(template);
        }
        ensure::<PersistentVolumeClaim>(scope, json!({"metadata": metadata, "spec": spec})).await?;
    }
    Ok(())
}
