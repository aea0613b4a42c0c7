//! Deployments, StatefulSets, DaemonSets, Jobs.

use serde_json::{Map, Value, json};

use crate::object::{default, entry};

/// Fills in an object of the groups apps and batch.
pub(super) fn fill(plural: &str, object: &mut Value) {
    if plural == "controllerrevisions" {
        return;
    }
    let spec = entry(object, "spec");
    match plural {
        "deployments" => {
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "progressDeadlineSeconds", 600);
            strategy(
                spec,
                "strategy",
                &json!({"maxSurge": "25%", "maxUnavailable": "25%"}),
            );
        }
        "replicasets" => default(spec, "replicas", 1),
        "statefulsets" => {
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "podManagementPolicy", "OrderedReady");
            default(
                spec,
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            );
            strategy(spec, "updateStrategy", &json!({"partition": 0}));
        }
        "daemonsets" => {
            default(spec, "revisionHistoryLimit", 10);
            strategy(
                spec,
                "updateStrategy",
                &json!({"maxSurge": 0, "maxUnavailable": 1}),
            );
        }
        "jobs" => job(spec),
        "cronjobs" => {
            default(spec, "concurrencyPolicy", "Allow");
            default(spec, "suspend", false);
            default(spec, "successfulJobsHistoryLimit", 3);
            default(spec, "failedJobsHistoryLimit", 1);
            return;
        }
        _ => return,
    }
    if let Some(template) = spec.get_mut("template") {
        super::pod::template(template);
    }
    if plural == "jobs" {
        job_labels(object);
    }
}

fn strategy(spec: &mut Map<String, Value>, field: &str, rolling: &Value) {
    let strategy = spec.entry(field).or_insert_with(|| json!({}));
    if let Value::Object(strategy) = strategy {
        default(strategy, "type", "RollingUpdate");
        if strategy.get("type").is_some_and(|t| t == "RollingUpdate") {
            let found = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            if let (Value::Object(found), Some(rolling)) = (found, rolling.as_object()) {
                for (key, value) in rolling {
                    default(found, key, value.clone());
                }
            }
        }
    }
}

fn job(spec: &mut Map<String, Value>) {
    if !spec.contains_key("parallelism") && !spec.contains_key("completions") {
        spec.insert("completions".into(), 1.into());
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", 6);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "podReplacementPolicy", "TerminatingOrFailed");
}

/// A Job selects its pods by its own uid, unless `manualSelector`.
fn job_labels(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (
        crate::object::uid(job).to_owned(),
        crate::object::name(job).to_owned(),
    );
    let spec = entry(job, "spec");
    spec.insert(
        "selector".into(),
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let labels = entry(template, "metadata")
        .entry("labels")
        .or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        for prefix in ["", "batch.kubernetes.io/"] {
            labels.insert(format!("{prefix}controller-uid"), uid.clone().into());
            labels.insert(format!("{prefix}job-name"), name.clone().into());
        }
    }
}
