//! The status of a pod, from its records: pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::qos;
use super::record::{Record, State, Terminated};

/// What the status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// The pod as the API server has it.
    pub pod: &'a Pod,
    /// Its containers.
    pub records: &'a BTreeMap<String, Record>,
    /// Its address, once it has one.
    pub pod_ip: Option<String>,
    /// The node's address.
    pub host_ip: String,
    /// When the kubelet took it up.
    pub start_time: Timestamp,
    /// `containerd` or `cri-o`.
    pub scheme: &'static str,
    /// All init containers have done their work.
    pub initialized: bool,
    /// The conditions of the status before: for the times of transition.
    pub before: &'a [PodCondition],
    /// Set when the kubelet itself has given the pod up: reason and message.
    pub failed: Option<(&'a str, &'a str)>,
    /// Now.
    pub now: Timestamp,
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The status.
pub fn status(view: &View<'_>) -> PodStatus {
    let spec = view.pod.spec.clone().unwrap_or_default();
    let phase = phase(view, &spec);
    let statuses = |containers: &[Container]| -> Vec<ContainerStatus> {
        containers
            .iter()
            .filter_map(|c| Some(container_status(c, view.records.get(&c.name)?, view.scheme)))
            .collect()
    };
    let init = spec.init_containers.as_deref().map(statuses);
    let pod_ips = view
        .pod_ip
        .iter()
        .map(|ip| PodIP { ip: ip.clone() })
        .collect::<Vec<_>>();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(view, &spec, phase)),
        container_statuses: Some(statuses(&spec.containers)),
        init_container_statuses: init,
        pod_ip: view.pod_ip.clone(),
        pod_ips: Some(pod_ips).filter(|ips| !ips.is_empty()),
        host_ip: Some(view.host_ip.clone()),
        host_ips: Some(vec![HostIP {
            ip: view.host_ip.clone(),
        }]),
        start_time: Some(Time(view.start_time)),
        qos_class: Some(format!("{:?}", qos(view.pod))),
        reason: view.failed.map(|(reason, _)| reason.to_owned()),
        message: view.failed.map(|(_, message)| message.to_owned()),
        ..PodStatus::default()
    }
}

/// The phase, as kubelet derives it.
fn phase(view: &View<'_>, spec: &PodSpec) -> &'static str {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    if view.failed.is_some() {
        return "Failed";
    }
    let ended = |record: &Record| match (&record.state, &record.last) {
        (State::Terminated(end), _) | (State::Waiting { .. }, Some(end)) => Some(end.exit_code),
        _ => None,
    };
    let record = |container: &Container| view.records.get(&container.name);
    if !view.initialized {
        let init = spec.init_containers.iter().flatten().filter(|c| !is_sidecar(c));
        let failed = init
            .filter_map(record)
            .any(|record| matches!(&record.state, State::Terminated(end) if end.exit_code != 0));
        return if failed && policy == "Never" {
            "Failed"
        } else {
            "Pending"
        };
    }
    let records: Vec<Option<&Record>> = spec.containers.iter().map(record).collect();
    let runs = records
        .iter()
        .flatten()
        .any(|record| matches!(record.state, State::Running { .. }));
    // Sidecars end after the containers, and before the pod.
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let runs = runs
        || sidecars
            .filter_map(record)
            .any(|r| matches!(r.state, State::Running { .. }));
    let ends: Vec<i32> = records
        .iter()
        .flatten()
        .filter_map(|record| ended(record))
        .collect();
    if records
        .iter()
        .any(|record| record.is_none_or(|r| matches!(r.state, State::Waiting { .. }) && r.last.is_none()))
    {
        return "Pending";
    }
    if runs || policy == "Always" && view.pod.metadata.deletion_timestamp.is_none() {
        return "Running";
    }
    let failed = ends.iter().any(|code| *code != 0);
    match (policy, failed) {
        (_, false) => "Succeeded",
        ("OnFailure", true) if view.pod.metadata.deletion_timestamp.is_none() => "Running",
        _ => "Failed",
    }
}

fn container_status(container: &Container, record: &Record, scheme: &str) -> ContainerStatus {
    let id = |id: &str| format!("{scheme}://{id}");
    let terminated = |end: &Terminated| ContainerStateTerminated {
        exit_code: end.exit_code,
        signal: None,
        reason: Some(end.reason.clone()),
        message: end.message.clone(),
        started_at: Some(Time(end.started_at)),
        finished_at: Some(Time(end.finished_at)),
        container_id: Some(id(&end.container_id)),
    };
    let state = match &record.state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            }),
            ..ContainerState::default()
        },
        State::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*started_at)),
            }),
            ..ContainerState::default()
        },
        State::Terminated(end) => ContainerState {
            terminated: Some(terminated(end)),
            ..ContainerState::default()
        },
    };
    let last = record.last.as_ref().map(terminated);
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state: Some(ContainerState {
            terminated: last,
            ..ContainerState::default()
        }),
        ready: record.ready,
        started: Some(record.started),
        restart_count: record.restarts.cast_signed(),
        image_id: record
            .container_id
            .as_ref()
            .map(|_| image.clone())
            .unwrap_or_default(),
        image,
        container_id: record.container_id.as_deref().map(id),
        ..ContainerStatus::default()
    }
}

type Verdict = (bool, Option<&'static str>, Option<String>);

fn conditions(view: &View<'_>, spec: &PodSpec, phase: &str) -> Vec<PodCondition> {
    let done = matches!(phase, "Succeeded" | "Failed");
    let not_ready = |containers: Vec<&Container>| -> Vec<String> {
        let unready = containers
            .into_iter()
            .filter(|c| view.records.get(&c.name).is_none_or(|record| !record.ready));
        unready.map(|c| c.name.clone()).collect()
    };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let unready = not_ready(sidecars.chain(&spec.containers).collect());
    let initialized: Verdict = if view.initialized {
        (true, (phase == "Succeeded").then_some("PodCompleted"), None)
    } else {
        let names = not_ready(spec.init_containers.iter().flatten().collect());
        let message = format!("containers with incomplete status: [{}]", names.join(" "));
        (false, Some("ContainersNotInitialized"), Some(message))
    };
    let containers: Verdict = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ if unready.is_empty() && view.initialized => (true, None, None),
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            (false, Some("ContainersNotReady"), Some(message))
        }
    };
    let gates = spec
        .readiness_gates
        .iter()
        .flatten()
        .map(|gate| gate.condition_type.as_str());
    let open: Vec<&str> = gates.filter(|gate| !has_true(view.pod, gate)).collect();
    let ready: Verdict = if containers.0 && !open.is_empty() {
        let message = format!(
            "corresponding condition of pod readiness gate {:?} does not exist.",
            open.join(", ")
        );
        (false, Some("ReadinessGatesNotReady"), Some(message))
    } else {
        containers.clone()
    };
    [
        (
            "PodReadyToStartContainers",
            (view.pod_ip.is_some() && !done, None, None),
        ),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", (true, None, None)),
    ]
    .into_iter()
    .map(|(kind, verdict)| condition(view, kind, verdict))
    .collect()
}

fn has_true(pod: &Pod, kind: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn condition(view: &View<'_>, kind: &str, (holds, reason, message): Verdict) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let same = view
        .before
        .iter()
        .find(|before| before.type_ == kind && before.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: same
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(Time(view.now))),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!() at every call")]

    use super::*;
    use serde_json::{Value, json};

    fn end(code: i32) -> Terminated {
        Terminated {
            exit_code: code,
            signal: None,
            reason: "Error".to_owned(),
            message: None,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            container_id: "f00d".to_owned(),
        }
    }

    fn record(state: State) -> Record {
        let ready = matches!(state, State::Running { .. });
        Record {
            state,
            ready,
            started: ready,
            ..Record::new(0, None)
        }
    }

    fn running() -> Record {
        record(State::Running {
            started_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn ended(code: i32) -> Record {
        record(State::Terminated(end(code)))
    }

    fn of(spec: Value, records: &[(&str, Record)], deleting: bool) -> PodStatus {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
        let mut meta = json!({"name": "p"});
        if deleting {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let pod: Pod = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
        let records = records
            .iter()
            .map(|(name, record)| ((*name).to_owned(), record.clone()))
            .collect();
        let before = [PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
            ..PodCondition::default()
        }];
        status(&View {
            pod: &pod,
            records: &records,
            pod_ip: Some("10.244.1.2".to_owned()),
            host_ip: "10.243.0.11".to_owned(),
            start_time: Timestamp::UNIX_EPOCH,
            scheme: "containerd",
            initialized: true,
            before: &before,
            failed: None,
            now: Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60),
        })
    }

    fn phase_of(policy: &str, a: Record, b: Record, deleting: bool) -> String {
        of(json!({"restartPolicy": policy}), &[("a", a), ("b", b)], deleting)
            .phase
            .unwrap()
    }

    #[test]
    fn phases() {
        let waiting = || record(State::waiting("ContainerCreating"));
        let crashing = Record {
            last: Some(end(1)),
            ..record(State::waiting("CrashLoopBackOff"))
        };
        for (policy, a, b, expected) in [
            ("Always", running(), running(), "Running"),
            ("Always", running(), waiting(), "Pending"),
            ("Always", crashing.clone(), crashing.clone(), "Running"),
            ("Never", ended(0), ended(0), "Succeeded"),
            ("Never", ended(0), ended(1), "Failed"),
            ("Never", ended(1), running(), "Running"),
            ("OnFailure", ended(1), ended(0), "Running"),
            ("OnFailure", ended(0), ended(0), "Succeeded"),
        ] {
            assert_eq!(phase_of(policy, a, b, false), expected, "{policy}");
        }
        assert_eq!(phase_of("Always", ended(143), ended(0), true), "Failed");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let ready = |status: &PodStatus| {
            let all = status.conditions.clone().unwrap();
            all.into_iter()
                .find(|condition| condition.type_ == "Ready")
                .unwrap()
        };
        let both = ready(&of(json!({}), &[("a", running()), ("b", running())], false));
        assert_eq!(
            (both.status.as_str(), both.last_transition_time),
            ("True", Some(Time(Timestamp::UNIX_EPOCH)))
        );
        let one = ready(&of(json!({}), &[("a", running()), ("b", ended(1))], false));
        assert_eq!(
            (one.status.as_str(), one.reason.as_deref()),
            ("False", Some("ContainersNotReady"))
        );
        assert_eq!(
            one.message.as_deref(),
            Some("containers with unready status: [b]")
        );
        assert_ne!(one.last_transition_time, Some(Time(Timestamp::UNIX_EPOCH)));
        let gate = json!({"readinessGates": [{"conditionType": "x/y"}]});
        let gated = ready(&of(gate, &[("a", running()), ("b", running())], false));
        assert_eq!(
            (gated.status.as_str(), gated.reason.as_deref()),
            ("False", Some("ReadinessGatesNotReady"))
        );
    }

    #[test]
    fn container_states() {
        let status = of(
            json!({}),
            &[(
                "a",
                Record {
                    container_id: Some("f00d".to_owned()),
                    ..ended(137)
                },
            )],
            false,
        );
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!(container.container_id.as_deref(), Some("containerd://f00d"));
        let state = container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .unwrap();
        assert_eq!((state.exit_code, state.reason.as_deref()), (137, Some("Error")));
    }
}
