//! The Node object and its Lease.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::options::Options;

const LEASES: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
/// Renewals between two looks at the Node object.
const CHECK: u32 = 6;

fn labels(options: &Options) -> Value {
    json!({
        "kubernetes.io/hostname": options.node,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    })
}

fn status(options: &Options) -> Value {
    let now = Timestamp::now();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let cpus = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .to_string();
    let resources = json!({"cpu": cpus, "memory": memory(), "pods": "110", "ephemeral-storage": "100Gi"});
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": options.node_ip.to_string()},
            {"type": "Hostname", "address": options.node},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": options.port}},
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "machineID": options.node, "systemUUID": options.node, "bootID": uuid.trim(), "kernelVersion": kernel.trim(),
            "osImage": "hasteward lab", "containerRuntimeVersion": format!("{}://lab", options.runtime.scheme()),
            "kubeletVersion": "v1.33.0-lab", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    format!("{}Ki", total.unwrap_or("0"))
}

/// Whether the API server answered with this HTTP status.
pub fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(answer) if answer.code == code)
}

/// Makes or updates the Node object.
///
/// # Errors
/// What the API server says.
pub async fn register(client: &Client, options: &Options) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let meta = json!({"name": options.node, "labels": labels(options)});
    let node: Node = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": meta,
        "spec": {"podCIDR": options.pod_cidr.to_string(), "podCIDRs": [options.pod_cidr.to_string()]},
    }))
    .map_err(Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(error) if is_status(&error, 409) => {
            let patch = json!({"metadata": {"labels": labels(options)}});
            nodes
                .patch(&options.node, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        other => drop(other?),
    }
    let patch = Patch::Strategic(json!({"status": status(options)}));
    nodes
        .patch_status(&options.node, &PatchParams::default(), &patch)
        .await?;
    tracing::info!(node = options.node, "registered");
    Ok(())
}

/// Registers the node and keeps its Lease, for ever.
pub async fn keep(client: Client, options: Options) {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut beat = 0_u32;
    let mut registered = false;
    loop {
        if registered && beat.is_multiple_of(CHECK) {
            registered = !nodes
                .get_opt(&options.node)
                .await
                .is_ok_and(|node| node.is_none());
        }
        if !registered {
            match register(&client, &options).await {
                Ok(()) => registered = true,
                Err(error) => tracing::warn!(%error, "register"),
            }
        }
        let renewed = renew(&client, &options.node).await;
        if let Err(error) = &renewed {
            tracing::warn!(%error, "lease");
        }
        beat = beat.wrapping_add(1);
        let calm = registered && renewed.is_ok();
        tokio::time::sleep(if calm { RENEW } else { Duration::from_millis(500) }).await;
    }
}

async fn renew(client: &Client, node: &str) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match leases.patch(node, &PatchParams::default(), &patch).await {
        Err(error) if is_status(&error, 404) => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(LEASES.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(40),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    match leases.create(&PostParams::default(), &lease).await {
        Err(error) if is_status(&error, 404) => {
            let meta = ObjectMeta {
                name: Some(LEASES.to_owned()),
                ..ObjectMeta::default()
            };
            let namespace = Namespace {
                metadata: meta,
                ..Namespace::default()
            };
            let namespaces: Api<Namespace> = Api::all(client.clone());
            namespaces.create(&PostParams::default(), &namespace).await?;
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}
