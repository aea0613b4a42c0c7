//! The built-in controllers' stand-ins, in a lab of their own: pods are placed, started, replaced and removed.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::time::Duration;

use hasteward_lab::options::UpOptions;
use hasteward_lab::wait::{Look, until};
use hasteward_lab::{Lab, image, kubernetes};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

const NS: &str = "db";
const WITHIN: Duration = Duration::from_secs(60);

fn workload(kind: &str, name: &str, more: &Value) -> Value {
    let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let mut object = json!({
        "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": NS },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "main", "image": image::BASE, "command": ["/bin/sh", "-c", "exec sleep 600"] }] } },
        }
    });
    merge(&mut object["spec"], more);
    object
}

fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(into), Some(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = from.clone(),
    }
}

async fn pods(client: &Client, app: &str) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NS);
    Ok(api
        .list(&ListParams::default().labels(&format!("app={app}")))
        .await?
        .items)
}

fn nodes_of(pods: &[Pod]) -> Vec<String> {
    let mut nodes: Vec<String> = pods
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
        .collect();
    nodes.sort();
    nodes
}

/// One lab for all of them: it is the expensive part.
#[tokio::test]
async fn workloads_and_volumes() {
    let lab = Lab::up(UpOptions {
        bare: true,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    let client = lab.client();
    daemon_set(client).await;
    deployment(client).await;
    job(client).await;
    stateful_set(client).await;
    local_volume(&lab).await;
    lab.down().unwrap();
}

async fn daemon_set(client: &Client) {
    kubernetes::apply(client, workload("DaemonSet", "each", &json!({})))
        .await
        .unwrap();
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), NS);
    until("a pod on every node", WITHIN, async || {
        let ready = api
            .get("each")
            .await?
            .status
            .map_or(0, |status| status.number_ready);
        Ok(if ready == 3 {
            Look::Done(())
        } else {
            Look::not_yet(ready)
        })
    })
    .await
    .unwrap();
    assert_eq!(nodes_of(&pods(client, "each").await.unwrap()), ["n1", "n2", "n3"]);
    gone(client, &api, "each").await;
}

async fn deployment(client: &Client) {
    kubernetes::apply(client, workload("Deployment", "some", &json!({ "replicas": 2 })))
        .await
        .unwrap();
    let api: Api<Deployment> = Api::namespaced(client.clone(), NS);
    let available = async |wanted: i32| {
        until(format!("{wanted} available"), WITHIN, async || {
            let status = api.get("some").await?.status.unwrap_or_default();
            let found = status.available_replicas.unwrap_or(0);
            let all = pods(client, "some").await?.len();
            let done = found == wanted && usize::try_from(wanted).is_ok_and(|wanted| wanted == all);
            Ok(if done {
                Look::Done(())
            } else {
                Look::NotYet(format!("{found} available, {all} pods"))
            })
        })
        .await
        .unwrap();
    };
    available(2).await;
    let before: Vec<String> = pods(client, "some")
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();

    // A pod that is deleted is replaced.
    let all: Api<Pod> = Api::namespaced(client.clone(), NS);
    all.delete(&before[0], &DeleteParams::default()).await.unwrap();
    until("the pod gone", WITHIN, async || {
        Ok(if all.get_opt(&before[0]).await?.is_none() {
            Look::Done(())
        } else {
            Look::not_yet("there")
        })
    })
    .await
    .unwrap();
    available(2).await;

    let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    api.patch("some", &PatchParams::default(), &scale).await.unwrap();
    available(1).await;
    gone(client, &api, "some").await;
}

async fn job(client: &Client) {
    let template = json!({ "template": { "spec": { "restartPolicy": "Never" } } });
    for (name, script) in [("good", "exit 0"), ("bad", "exit 3")] {
        let mut object = workload("Job", name, &template);
        object["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
        object["spec"]["backoffLimit"] = json!(0);
        object["spec"].as_object_mut().unwrap().remove("selector");
        kubernetes::apply(client, object).await.unwrap();
    }
    let api: Api<Job> = Api::namespaced(client.clone(), NS);
    for (name, condition) in [("good", "Complete"), ("bad", "Failed")] {
        until(format!("job {name} {condition}"), WITHIN, async || {
            let status = api.get(name).await?.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let done = conditions
                .iter()
                .any(|c| c.type_ == condition && c.status == "True");
            Ok(if done {
                Look::Done(())
            } else {
                Look::NotYet(format!("{conditions:?}"))
            })
        })
        .await
        .unwrap();
        gone(client, &api, name).await;
    }
}

async fn stateful_set(client: &Client) {
    let more = json!({
        "serviceName": "numbered", "replicas": 2,
        "template": { "spec": { "containers": [{ "name": "main", "image": image::BASE,
            "command": ["/bin/sh", "-c", "hostname > /data/name; exec sleep 600"],
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }] } },
        "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "10Mi" } } } }],
    });
    kubernetes::apply(client, workload("StatefulSet", "numbered", &more))
        .await
        .unwrap();
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), NS);
    until("both numbers ready", WITHIN, async || {
        let ready = api
            .get("numbered")
            .await?
            .status
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        Ok(if ready == 2 {
            Look::Done(())
        } else {
            Look::not_yet(ready)
        })
    })
    .await
    .unwrap();
    let made = pods(client, "numbered").await.unwrap();
    let mut names: Vec<String> = made.iter().map(ResourceExt::name_any).collect();
    names.sort();
    assert_eq!(names, ["numbered-0", "numbered-1"]);
    let first = made.iter().find(|pod| pod.name_any() == "numbered-0").unwrap();
    let second = made.iter().find(|pod| pod.name_any() == "numbered-1").unwrap();
    let ready_at = |pod: &Pod| {
        let conditions = pod.status.as_ref().unwrap().conditions.clone().unwrap();
        conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap()
            .last_transition_time
            .clone()
            .unwrap()
            .0
    };
    assert!(
        second.creation_timestamp().unwrap().0 >= ready_at(first),
        "OrderedReady: one after the other"
    );
    gone(client, &api, "numbered").await;

    // The claims stay, as Kubernetes does it; deleted by hand, their volumes and data go too.
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NS);
    assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 2);
    for name in ["data-numbered-0", "data-numbered-1"] {
        gone(client, &claims, name).await;
    }
    no_volumes(client).await;
}

async fn local_volume(lab: &Lab) {
    let client = lab.client();
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "here", "namespace": NS },
        "spec": { "storageClassName": "lab-local", "accessModes": ["ReadWriteOnce"],
                  "resources": { "requests": { "storage": "10Mi" } } } });
    kubernetes::apply(client, claim).await.unwrap();
    let more = json!({
        "replicas": 1,
        "template": { "spec": {
            "nodeSelector": { "kubernetes.io/hostname": "n2" },
            "containers": [{ "name": "main", "image": image::BASE,
                "command": ["/bin/sh", "-c", "echo here > /data/file; exec sleep 600"],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "here" } }] } },
    });
    kubernetes::apply(client, workload("Deployment", "local", &more))
        .await
        .unwrap();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NS);
    let volume = until("the claim bound", WITHIN, async || {
        let spec = claims.get("here").await?.spec.unwrap_or_default();
        Ok(spec.volume_name.map_or(Look::not_yet("unbound"), Look::Done))
    })
    .await
    .unwrap();
    let inside = lab.place().node("n2").join("local").join(&volume).join("file");
    let file = lab.place().from_host(&inside).unwrap();
    until("data on the node", WITHIN, async || {
        Ok(if file.exists() {
            Look::Done(())
        } else {
            Look::not_yet("no file")
        })
    })
    .await
    .unwrap();
    assert!(
        volumes
            .get(&volume)
            .await
            .unwrap()
            .spec
            .unwrap()
            .node_affinity
            .is_some()
    );

    // A claim in use stays until its pod is gone.
    claims.delete("here", &DeleteParams::default()).await.unwrap();
    assert!(
        claims
            .get("here")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NS);
    gone(client, &deployments, "local").await;
    no_volumes(client).await;
    assert!(!file.exists(), "reclaim policy Delete removes the data");
}

async fn no_volumes(client: &Client) {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    until("no volume left", WITHIN, async || {
        let left = volumes.list(&ListParams::default()).await?.items.len();
        Ok(if left == 0 {
            Look::Done(())
        } else {
            Look::not_yet(left)
        })
    })
    .await
    .unwrap();
}

/// Deletes an object and waits until it and every pod of its name are gone.
async fn gone<K>(client: &Client, api: &Api<K>, name: &str)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.delete(name, &DeleteParams::background()).await.unwrap();
    until(format!("{name} gone"), WITHIN, async || {
        let there = api.get_opt(name).await?.is_some();
        let left = pods(client, name).await?.len();
        Ok(if !there && left == 0 {
            Look::Done(())
        } else {
            Look::NotYet(format!("there: {there}, pods: {left}"))
        })
    })
    .await
    .unwrap();
}
