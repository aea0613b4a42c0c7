//! Secrets, ConfigMaps, permissions and Services of a MariaDB resource.

use crate::cnpg::Scope;
use crate::mariadb::resource::MariaDB;
use crate::mariadb::{names, server_config};
use crate::operator::{ensure, ensure_root_ca};
use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::io::Read as _;

/// Labels of everything that belongs to a resource.
pub(super) fn labels(mariadb: &str) -> Value {
    json!({ names::NAME: "mariadb", names::INSTANCE: mariadb })
}

/// Metadata of an object owned by the resource.
pub(super) fn metadata(mariadb: &MariaDB, name: &str) -> anyhow::Result<Value> {
    Ok(json!({
        "name": name,
        "labels": labels(&mariadb.name_any()),
        "ownerReferences": [mariadb.controller_owner_ref(&()).context("the resource has no uid")?],
    }))
}

/// Name of the Secret with the agents' password.
pub(super) fn agent_auth(mariadb: &str) -> String {
    format!("{mariadb}-agent-auth")
}

/// Makes everything that is missing besides Jobs, claims and the StatefulSet. Returns root's password.
pub(super) async fn ensure_all(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<String> {
    let name = mariadb.name_any();
    ensure_root_ca(scope).await?;
    let root = mariadb.root_password(&name);
    let password = ensure_password(scope, mariadb, &root.name, &root.key).await?;
    ensure_password(scope, mariadb, &agent_auth(&name), "password").await?;
    let mut configuration = json!({
        "metadata": metadata(mariadb, &format!("{name}-config-default"))?,
        "data": {"0-default.cnf": server_config::DEFAULT},
    });
    keep::<ConfigMap>(scope, &configuration).await?;
    configuration["metadata"] = metadata(mariadb, &format!("{name}-config"))?;
    configuration["data"] = json!({"my.cnf": mariadb.spec.my_cnf.clone().unwrap_or_default()});
    keep::<ConfigMap>(scope, &configuration).await?;
    ensure_permissions(scope, mariadb).await?;
    ensure_services(scope, mariadb).await?;
    Ok(password)
}

/// Creates an object unless it is there. Looked up first: a round that changes nothing must write nothing.
async fn keep<K>(scope: &Scope, object: &Value) -> anyhow::Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
    K::DynamicType: Default,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if scope.api::<K>().get_opt(name).await?.is_none() {
        ensure::<K>(scope, object.clone()).await?;
    }
    Ok(())
}

/// A password in a Secret, made when there is none.
async fn ensure_password(
    scope: &Scope,
    mariadb: &MariaDB,
    secret: &str,
    key: &str,
) -> anyhow::Result<String> {
    if let Some(found) = read_password(scope, secret, key).await? {
        return Ok(found);
    }
    let fresh = random_password()?;
    let metadata = metadata(mariadb, secret)?;
    ensure::<Secret>(
        scope,
        json!({"metadata": metadata, "type": "Opaque", "stringData": {key: fresh}}),
    )
    .await?;
    read_password(scope, secret, key)
        .await?
        .with_context(|| format!("Secret {secret} has no key {key}"))
}

/// A password out of a Secret.
pub(super) async fn read_password(scope: &Scope, secret: &str, key: &str) -> anyhow::Result<Option<String>> {
    let Some(secret) = scope.api::<Secret>().get_opt(secret).await? else {
        return Ok(None);
    };
    let value = secret.data.unwrap_or_default().remove(key);
    value
        .map(|value| String::from_utf8(value.0).context("a password that is no text"))
        .transpose()
}

fn random_password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
        .collect())
}

async fn ensure_permissions(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    if scope.api::<RoleBinding>().get_opt(&name).await?.is_some() {
        return Ok(());
    }
    keep::<ServiceAccount>(scope, &json!({"metadata": metadata(mariadb, &name)?})).await?;
    let rules = json!([
        {"apiGroups": ["k8s.mariadb.com"], "resources": ["mariadbs"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    ]);
    keep::<Role>(
        scope,
        &json!({"metadata": metadata(mariadb, &name)?, "rules": rules}),
    )
    .await?;
    let binding = json!({
        "metadata": metadata(mariadb, &name)?,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": scope.namespace}],
    });
    keep::<RoleBinding>(scope, &binding).await
}

/// `<m>` all ready pods, `<m>-internal` headless, `<m>-primary` one pod, `<m>-secondary` without selector.
async fn ensure_services(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    let sql = json!([{"name": "mariadb", "port": names::SQL_PORT, "targetPort": names::SQL_PORT}]);
    let primary = mariadb
        .observed()
        .current_primary
        .unwrap_or_else(|| names::pod(&name, mariadb.galera().primary.pod_index));
    let mut towards_primary = labels(&name);
    towards_primary[names::POD_NAME] = json!(primary);
    let internal = json!({
        "clusterIP": "None", "publishNotReadyAddresses": true, "selector": labels(&name),
        "ports": [
            {"name": "mariadb", "port": names::SQL_PORT, "targetPort": names::SQL_PORT},
            {"name": "cluster", "port": names::CLUSTER_PORT, "targetPort": names::CLUSTER_PORT},
            {"name": "ist", "port": names::IST_PORT, "targetPort": names::IST_PORT},
            {"name": "sst", "port": names::SST_PORT, "targetPort": names::SST_PORT},
            {"name": "agent", "port": names::AGENT_PORT, "targetPort": names::AGENT_PORT},
        ],
    });
    for (service, spec) in [
        (name.clone(), json!({"ports": sql, "selector": labels(&name)})),
        (names::internal(&name), internal),
        (
            format!("{name}-primary"),
            json!({"ports": sql, "selector": towards_primary}),
        ),
        (format!("{name}-secondary"), json!({"ports": sql})),
    ] {
        keep::<Service>(
            scope,
            &json!({"metadata": metadata(mariadb, &service)?, "spec": spec}),
        )
        .await?;
    }
    let budget = json!({
        "metadata": metadata(mariadb, &name)?,
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": labels(&name)}},
    });
    keep::<PodDisruptionBudget>(scope, &budget).await
}

/// Points the Service for writes to another pod.
pub(super) async fn point_primary(scope: &Scope, mariadb: &str, pod: &str) -> anyhow::Result<()> {
    let service = format!("{mariadb}-primary");
    let found = scope.api::<Service>().get(&service).await?;
    let selected = found
        .spec
        .and_then(|spec| spec.selector)
        .and_then(|mut selector| selector.remove(names::POD_NAME));
    if selected.as_deref() != Some(pod) {
        let patch = json!({"spec": {"selector": {names::POD_NAME: pod}}});
        scope
            .api::<Service>()
            .patch(&service, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("pointing the primary Service")?;
    }
    Ok(())
}
