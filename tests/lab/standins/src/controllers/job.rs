//! Job: pods until enough have succeeded or too many have failed.

use anyhow::Context as _;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::daemon_set::includes;
use super::pod::{self, from_template, owned_by, short_hash};
use super::world::{World, create, delete};

/// Brings every Job nearer to its end.
pub(super) async fn reconcile(world: &World) -> anyhow::Result<()> {
    for job in world.jobs.state() {
        if job.metadata.deletion_timestamp.is_none() {
            one(world, &job).await.with_context(|| job.name_any())?;
        }
    }
    Ok(())
}

async fn one(world: &World, job: &Job) -> anyhow::Result<()> {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    if conditions
        .iter()
        .any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
    {
        return Ok(());
    }
    let namespace = job.namespace().unwrap_or_default();
    let uid = job.uid().unwrap_or_default();
    let spec = job.spec.as_ref().context("no spec")?;
    let completions = usize::try_from(spec.completions.unwrap_or(1)).unwrap_or(1);
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(1);
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(6);
    let pods = world.pods_of(&uid);
    let count = |phase: &str| pods.iter().filter(|pod| pod::phase(pod) == phase).count();
    let (succeeded, failed) = (count("Succeeded"), count("Failed"));
    let active: Vec<_> = pods.iter().filter(|pod| !pod::is_finished(pod)).collect();
    let gave_up = failed > limit;
    let complete = succeeded >= completions;

    if gave_up || complete {
        for pod in active.iter().filter(|pod| !pod::is_terminating(pod)) {
            delete(&world.client, pod.as_ref()).await?;
        }
    } else if spec.suspend != Some(true) {
        let wanted = parallelism.min(completions - succeeded);
        let taken = |name: &str| pods.iter().any(|pod| pod.name_any() == name);
        let free = (0_u32..)
            .map(|n| format!("{}-{}", job.name_any(), short_hash(&(&uid, n), 5)))
            .filter(|name| !taken(name));
        for name in free.take(wanted.saturating_sub(active.len())) {
            let owner = owned_by(job).context("no owner reference")?;
            let mut pod = from_template(&spec.template, name, owner);
            let labels = pod.metadata.labels.get_or_insert_default();
            for (key, value) in [("job-name", job.name_any()), ("controller-uid", uid.clone())] {
                labels.insert(format!("batch.kubernetes.io/{key}"), value.clone());
                labels.insert(key.to_owned(), value);
            }
            create(&world.client, &namespace, &pod).await?;
        }
    }

    let ready = active.iter().filter(|pod| pod::is_ready(pod)).count();
    let ended = gave_up || complete;
    let mut status = json!({
        "active": if ended { 0 } else { active.len() }, "ready": ready, "succeeded": succeeded, "failed": failed,
    });
    let now = format!("{:.0}", jiff::Timestamp::now());
    if job
        .status
        .as_ref()
        .is_none_or(|status| status.start_time.is_none())
        && spec.suspend != Some(true)
    {
        status["startTime"] = json!(now);
    }
    if ended {
        let (kind, reason) = if complete {
            ("Complete", "CompletionsReached")
        } else {
            ("Failed", "BackoffLimitExceeded")
        };
        status["conditions"] = json!([{
            "type": kind, "status": "True", "reason": reason, "lastTransitionTime": now, "lastProbeTime": now,
        }]);
        if complete {
            status["completionTime"] = json!(now);
        }
    }
    if !includes(&serde_json::to_value(&job.status)?, &status) {
        let api: Api<Job> = Api::namespaced(world.client.clone(), &namespace);
        api.patch_status(
            &job.name_any(),
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await?;
    }
    Ok(())
}
