//! What the lab applies: its storage classes and namespaces, and hasteward itself from `deploy/kustomize`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use crate::place::Place;
use crate::supervise::program;
use crate::wait::{Look, until};
use crate::{cnpg, image, kubernetes};

/// Namespace of hasteward.
pub const NAMESPACE: &str = "hasteward-system";
/// Name of the agents' DaemonSet.
pub const AGENT: &str = "hasteward-agent";
/// Name of the coordinator's Deployment.
pub const COORDINATOR: &str = "hasteward-coordinator";
/// How long agents and coordinator may take.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// The lab's own objects.
pub async fn base(client: &Client) -> anyhow::Result<()> {
    let class = |name: &str, provisioner: &str, mode: &str, default: bool, parameters: Value| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": name, "annotations": {
                "storageclass.kubernetes.io/is-default-class": default.to_string() } },
            "provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": mode,
            "allowVolumeExpansion": false, "parameters": parameters,
        })
    };
    kubernetes::apply_all(
        client,
        vec![
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": cnpg::NAMESPACE } }),
            class("lab-csi", "lab.hasteward", "Immediate", true, json!({})),
            class(
                "lab-csi-small",
                "lab.hasteward",
                "Immediate",
                false,
                json!({ "sized": "true" }),
            ),
            class(
                "lab-local",
                "lab.hasteward/local",
                "WaitForFirstConsumer",
                false,
                json!({}),
            ),
            class(
                "lab-hostpath",
                "lab.hasteward/hostpath",
                "WaitForFirstConsumer",
                false,
                json!({}),
            ),
        ],
    )
    .await
}

/// Applies `deploy/kustomize/base` with the lab's images and host paths.
pub async fn hasteward(client: &Client, place: &Place) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kustomize/base");
    let mut objects = manifests(&directory)?;
    let paths = host_paths(place);
    for object in &mut objects {
        adapt(object, &paths);
        allow_host_path_volumes(object, place);
    }
    kubernetes::apply_all(client, objects)
        .await
        .context("apply hasteward's manifests")
}

/// Waits until an agent runs on every node, the coordinator is available and every agent has connected to it.
pub async fn hasteward_ready(client: &Client, place: &Place, nodes: u8) -> anyhow::Result<()> {
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let coordinators: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    until("hasteward's agents and coordinator", READY_DEADLINE, async || {
        let ready = agents
            .get(AGENT)
            .await?
            .status
            .map_or(0, |status| status.number_ready);
        let coordinator = coordinators.get(COORDINATOR).await?;
        let wanted = coordinator.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let available = coordinator
            .status
            .and_then(|status| status.available_replicas)
            .unwrap_or(0);
        if ready != i32::from(nodes) || available < wanted {
            let seen =
                format!("{ready} of {nodes} agents ready, {available} of {wanted} coordinators available");
            return Ok(Look::NotYet(seen));
        }
        let connected = connected_agents(place).await?;
        Ok(if connected == usize::from(nodes) {
            Look::Done(())
        } else {
            Look::NotYet(format!("{connected} of {nodes} agents connected"))
        })
    })
    .await?;
    Ok(())
}

/// How many agents the coordinator has a connection of, as its own command line tells.
async fn connected_agents(place: &Place) -> anyhow::Result<usize> {
    let output = tokio::process::Command::new(program("hasteward")?)
        .args(["get", "agents", "--output", "json"])
        .env("KUBECONFIG", place.kubeconfig())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "hasteward get agents: {}", errors.trim());
    let answer: Value = serde_json::from_slice(&output.stdout).context("answer of hasteward get agents")?;
    let agents = answer["data"]["agents"].as_array().context("no list of agents")?;
    Ok(agents
        .iter()
        .filter(|agent| agent["state"] == "connected")
        .count())
}

/// Every object in the YAML files of a directory, in the order of the file names. `kustomization.yaml` is no object.
fn manifests(directory: &Path) -> anyhow::Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("read {}", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .filter(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"))
        .collect();
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("parse {}", file.display()))?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    if objects.is_empty() {
        bail!("no manifest in {}", directory.display());
    }
    Ok(objects)
}

/// Host paths of a real node, and where a node of the lab has them. A node finds its own directory at the same path on every node.
fn host_paths(place: &Place) -> BTreeMap<String, String> {
    let own = place.own_node().display().to_string();
    BTreeMap::from([
        ("/var/lib/kubelet".to_owned(), format!("{own}/kubelet")),
        ("/var/lib/hasteward".to_owned(), format!("{own}/hasteward")),
        ("/var/log/pods".to_owned(), format!("{own}/log/pods")),
    ])
}

/// Puts the lab's images and host paths into a workload.
fn adapt(object: &mut Value, paths: &BTreeMap<String, String>) {
    let Some(pod) = object.pointer_mut("/spec/template/spec") else {
        return;
    };
    for list in ["containers", "initContainers"] {
        for container in pod
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let wanted = container["image"].as_str().unwrap_or_default();
            if let Some(image) = [image::AGENT, image::COORDINATOR]
                .iter()
                .find(|i| wanted.contains(&i["lab/".len()..]))
            {
                container["image"] = json!(image);
                container["imagePullPolicy"] = json!("Never");
            }
        }
    }
    for volume in pod
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(path) = volume.pointer_mut("/hostPath/path") else {
            continue;
        };
        let real = PathBuf::from(path.as_str().unwrap_or_default());
        for (theirs, ours) in paths {
            if let Ok(below) = real.strip_prefix(theirs) {
                *path = json!(Path::new(ours).join(below).components().collect::<PathBuf>());
            }
        }
    }
}

/// Lets the agents read hostPath volumes, as an administrator with such a StorageClass would.
fn allow_host_path_volumes(object: &mut Value, place: &Place) {
    if object["kind"] != "DaemonSet" || object["metadata"]["name"] != AGENT {
        return;
    }
    let root = place.own_node().join("hostpath");
    let pod = &mut object["spec"]["template"]["spec"];
    let mut push = |pointer: &str, value: Value| {
        if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.push(value);
        }
    };
    push(
        "/containers/0/args",
        json!(format!("--allowed-volume-root={}", root.display())),
    );
    push(
        "/containers/0/volumeMounts",
        json!({ "name": "host-path-volumes", "mountPath": root, "readOnly": true, "mountPropagation": "HostToContainer" }),
    );
    push(
        "/volumes",
        json!({ "name": "host-path-volumes", "hostPath": { "path": root, "type": "DirectoryOrCreate" } }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_host_paths_become_the_labs() {
        let mut object = json!({ "kind": "DaemonSet", "spec": { "template": { "spec": {
            "containers": [{ "name": "agent", "image": "ghcr.io/prplanit/hasteward-agent:0.1.0" }],
            "volumes": [
                { "name": "kubelet", "hostPath": { "path": "/var/lib/kubelet/pods" } },
                { "name": "state", "hostPath": { "path": "/var/lib/hasteward" } },
                { "name": "proc", "hostPath": { "path": "/proc" } },
                { "name": "token", "projected": {} } ] } } } });
        let place = Place::new("/r", "a".parse().unwrap());
        adapt(&mut object, &host_paths(&place));
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "lab/hasteward-agent");
        assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/r/a/node/kubelet/pods");
        assert_eq!(pod["volumes"][1]["hostPath"]["path"], "/r/a/node/hasteward");
        assert_eq!(pod["volumes"][2]["hostPath"]["path"], "/proc");
    }

    #[test]
    fn one_file_holds_many_objects() {
        let directory = std::env::temp_dir().join(format!("hasteward-lab-manifests-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.yaml"), "kind: A\n---\nkind: B\n---\n").unwrap();
        fs::write(directory.join("kustomization.yaml"), "resources: [a.yaml]\n").unwrap();
        let objects = manifests(&directory);
        fs::remove_dir_all(&directory).unwrap();
        let kinds: Vec<String> = objects
            .unwrap()
            .iter()
            .map(|o| o["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B"]);
    }
}
