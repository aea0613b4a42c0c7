//! The columns of pods: the status of a pod is told by its containers.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, created, items, name, number, or_none};
use crate::object::{self, text};

/// The columns of pods.
pub(super) fn columns() -> Vec<Column> {
    let col = |name, wide, cell| Column { name, wide, cell };
    vec![
        col("Name", false, name),
        col("Ready", false, |o, _| {
            let ready = items(o, &["status", "containerStatuses"])
                .iter()
                .filter(|c| c["ready"] == true)
                .count();
            format!("{ready}/{}", items(o, &["spec", "containers"]).len()).into()
        }),
        col("Status", false, |o, _| reason(o).into()),
        col("Restarts", false, restarts),
        col("Age", false, created),
        col("IP", true, |o, _| or_none(o, &["status", "podIP"])),
        col("Node", true, |o, _| or_none(o, &["spec", "nodeName"])),
        col("Nominated Node", true, |o, _| {
            or_none(o, &["status", "nominatedNodeName"])
        }),
        col("Readiness Gates", true, |_, _| "<none>".into()),
    ]
}

fn restarts(pod: &Value, now: Timestamp) -> Value {
    let statuses = items(pod, &["status", "containerStatuses"]);
    let count: i64 = statuses.iter().map(|c| number(c, &["restartCount"])).sum();
    let last = statuses
        .iter()
        .map(|c| text(c, &["lastState", "terminated", "finishedAt"]))
        .max()
        .unwrap_or_default();
    if count == 0 || last.is_empty() {
        return count.to_string().into();
    }
    format!("{count} ({} ago)", age(last, now)).into()
}

/// `Running`, `Init:0/1`, `CrashLoopBackOff`, `Terminating` and so on.
fn reason(pod: &Value) -> String {
    let mut reason = text(pod, &["status", "reason"]).to_owned();
    if reason.is_empty() {
        text(pod, &["status", "phase"]).clone_into(&mut reason);
    }
    if let Some(init) = init_reason(pod) {
        reason = init;
    } else {
        let mut running = false;
        for status in items(pod, &["status", "containerStatuses"]).iter().rev() {
            let waiting = text(status, &["state", "waiting", "reason"]);
            let ended = status["state"].get("terminated").filter(|t| t.is_object());
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if let Some(ended) = ended {
                reason = end_reason(ended);
            } else if status["ready"] == true {
                running = true;
            }
        }
        if reason == "Completed" && running {
            reason = "Running".into();
        }
    }
    if object::terminating(pod) {
        "Terminating".into()
    } else {
        reason
    }
}

fn end_reason(ended: &Value) -> String {
    let told = text(ended, &["reason"]);
    if !told.is_empty() {
        return told.to_owned();
    }
    match number(ended, &["signal"]) {
        0 => format!("ExitCode:{}", number(ended, &["exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}

fn init_reason(pod: &Value) -> Option<String> {
    let declared = items(pod, &["spec", "initContainers"]);
    let sidecar = |name: &str| {
        declared
            .iter()
            .any(|c| text(c, &["name"]) == name && c["restartPolicy"] == "Always")
    };
    for (i, status) in items(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        let ended = status["state"].get("terminated").filter(|t| t.is_object());
        if ended.is_some_and(|t| number(t, &["exitCode"]) == 0) {
            continue;
        }
        if sidecar(text(status, &["name"])) && status["started"] == true {
            continue;
        }
        if let Some(ended) = ended {
            return Some(format!("Init:{}", end_reason(ended)));
        }
        let waiting = text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{i}/{}", declared.len()));
    }
    None
}
