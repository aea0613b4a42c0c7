//! Jobs of the operator: the first volume's initialisation, and the recovery of positions.

use super::{Args, objects, workload};
use crate::cnpg::Scope;
use crate::mariadb::names;
use crate::mariadb::resource::MariaDB;
use anyhow::{Context, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, LogParams, PropagationPolicy};
use serde_json::{Value, json};

/// Whether a first volume can be initialised, or must be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstVolume {
    /// The Job has not ended yet.
    Initialising,
    /// The Job has ended well.
    Initialised,
    /// There were volumes before this resource: whatever is on them is to be recovered.
    Existing,
}

/// Runs `<m>-init` on `storage-<m>-0`, or finds that volumes of an earlier resource are there.
pub(super) async fn initialise(args: &Args, scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<FirstVolume> {
    let name = mariadb.name_any();
    let job = format!("{name}-init");
    let claim = format!("storage-{name}-0");
    if let Some(found) = scope.api::<Job>().get_opt(&job).await? {
        return Ok(match ended(&found) {
            Some(true) => FirstVolume::Initialised,
            Some(false) => bail!("Job {job} failed"),
            None => FirstVolume::Initialising,
        });
    }
    if scope
        .api::<PersistentVolumeClaim>()
        .get_opt(&claim)
        .await?
        .is_some()
    {
        return Ok(FirstVolume::Existing);
    }
    let mut template = workload::claims(mariadb).swap_remove(0);
    template["metadata"]["name"] = json!(claim);
    crate::operator::ensure::<PersistentVolumeClaim>(scope, template).await?;
    let mut container = server(args, mariadb);
    container["command"] = json!([args.program, "mariadb-entrypoint", "--init-only"]);
    let mut mounts = vec![workload::volume_mounts(mariadb).swap_remove(0)];
    mounts.extend(workload::server_mounts());
    container["volumeMounts"] = json!(mounts);
    let volumes = [json!({"name": "storage", "persistentVolumeClaim": {"claimName": claim}})];
    create(scope, mariadb, &job, &container, &volumes, None).await?;
    Ok(FirstVolume::Initialising)
}

/// Creates `<pod>-recovery` on a pod's volumes, on the node where they are.
pub(super) async fn recover(
    args: &Args,
    scope: &Scope,
    mariadb: &MariaDB,
    pod: &str,
    node: Option<&str>,
) -> anyhow::Result<String> {
    let job = format!("{pod}-recovery");
    let mut container = server(args, mariadb);
    // The original also gives --log-error=/dev/stderr; without it the log goes there as well.
    container["command"] = json!(["mariadbd", "--wsrep-recover"]);
    let mut mounts = workload::volume_mounts(mariadb);
    mounts.extend(workload::server_mounts());
    container["volumeMounts"] = json!(mounts);
    let volumes: Vec<Value> = workload::claims(mariadb)
        .iter()
        .filter_map(|claim| claim["metadata"]["name"].as_str())
        .map(|volume| json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{pod}")}}))
        .collect();
    create(scope, mariadb, &job, &container, &volumes, node).await?;
    Ok(job)
}

fn server(args: &Args, mariadb: &MariaDB) -> Value {
    json!({
        "name": "mariadb", "image": mariadb.spec.image.as_deref().unwrap_or(&args.image),
        "env": workload::environment(mariadb),
    })
}

async fn create(
    scope: &Scope,
    mariadb: &MariaDB,
    job: &str,
    container: &Value,
    claims: &[Value],
    node: Option<&str>,
) -> anyhow::Result<()> {
    let name = mariadb.name_any();
    let mut volumes = workload::volumes(&name);
    volumes.extend_from_slice(claims);
    let mut spec = json!({
        "restartPolicy": "Never", "automountServiceAccountToken": false, "serviceAccountName": name,
        "securityContext": workload::security(), "containers": [container], "volumes": volumes,
    });
    if let Some(node) = node {
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    }
    let mut metadata = objects::metadata(mariadb, job)?;
    // Not the pods' own labels: Services and the monitor select by those.
    metadata["labels"] = json!({names::INSTANCE: name});
    let object = json!({
        "metadata": metadata,
        "spec": {"backoffLimit": 5, "template": {"metadata": {"labels": {names::INSTANCE: name}}, "spec": spec}},
    });
    crate::operator::ensure::<Job>(scope, object).await.map(drop)
}

/// `Some(well)` when it is over.
pub(super) fn ended(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some(condition.type_ == "Complete")
}

/// What the pods of a Job have logged.
pub(super) async fn log(scope: &Scope, job: &str) -> anyhow::Result<String> {
    let pods = scope.api::<Pod>();
    let of_job = ListParams::default().labels(&format!("job-name={job}"));
    let mut text = String::new();
    for pod in pods.list(&of_job).await? {
        text += &pods
            .logs(&pod.name_any(), &LogParams::default())
            .await
            .context("reading a log")?;
    }
    Ok(text)
}

/// Deletes a Job with its pods.
pub(super) async fn delete(scope: &Scope, job: &str) -> anyhow::Result<()> {
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match scope.api::<Job>().delete(job, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("deleting a Job"),
    }
}
