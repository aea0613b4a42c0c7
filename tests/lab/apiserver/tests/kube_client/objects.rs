//! Objects: made, changed, deleted, owned.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use serde_json::{Value, json};

use crate::common::{Lab, object, running_pod};
use crate::{code, configmap, configmaps, until};

#[tokio::test]
async fn objects_are_made_read_changed_and_deleted() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    let made = configmap(&api, "a").await;
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let again = api
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "a"}})),
        )
        .await
        .unwrap_err();
    assert_eq!(code(&again), 409);

    let mut stale = made.clone();
    stale.data = Some([("a".to_owned(), "2".to_owned())].into());
    let changed = api.replace("a", &PostParams::default(), &stale).await.unwrap();
    assert_ne!(changed.metadata.resource_version, made.metadata.resource_version);
    stale.data = None;
    let conflict = api
        .replace("a", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    assert_eq!(code(&conflict), 409);

    // A write that changes nothing is no write.
    let same = api
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"a": "2"}})),
        )
        .await
        .unwrap();
    assert_eq!(same.metadata.resource_version, changed.metadata.resource_version);

    let named = api
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"generateName": "b-"}})),
        )
        .await
        .unwrap();
    assert!(named.metadata.name.unwrap().starts_with("b-"));

    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: Some("x".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(code(&api.delete("a", &wrong).await.unwrap_err()), 409);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(&api.get("a").await.unwrap_err()), 404);
    let elsewhere: Api<ConfigMap> = Api::namespaced(lab.admin().await, "missing");
    let missing = elsewhere
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "a"}})),
        )
        .await;
    assert_eq!(code(&missing.unwrap_err()), 404);
    lab.server.stop().await;
}

#[tokio::test]
async fn apply_conflicts_until_forced() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    let patch = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let one = PatchParams::apply("one");
    api.patch("a", &one, &Patch::Apply(patch("1"))).await.unwrap();
    let refused = api
        .patch("a", &PatchParams::apply("two"), &Patch::Apply(patch("2")))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), 409);
    let forced = api
        .patch("a", &PatchParams::apply("two").force(), &Patch::Apply(patch("2")))
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap()["k"], "2");
    let managers: Vec<String> = forced
        .metadata
        .managed_fields
        .unwrap()
        .into_iter()
        .filter_map(|m| m.manager)
        .collect();
    assert_eq!(managers, ["two"]);
    lab.server.stop().await;
}

#[tokio::test]
async fn finalizers_hold_and_owners_take_their_dependents_along() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    let owner = configmap(&api, "owner").await;
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "blockOwnerDeletion": true}]);
    let child = |name: &str, finalizers: Value| {
        object::<ConfigMap>(
            json!({"metadata": {"name": name, "ownerReferences": reference, "finalizers": finalizers}}),
        )
    };
    api.create(&PostParams::default(), &child("held", json!(["lab/hold"])))
        .await
        .unwrap();
    api.create(&PostParams::default(), &child("free", json!([])))
        .await
        .unwrap();
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..Default::default()
    };
    api.delete("owner", &foreground).await.unwrap();
    until(|| async { api.get_opt("free").await.unwrap().is_none() }).await;
    let held = api.get("held").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert!(
        api.get("owner")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some(),
        "waits for its dependent"
    );
    let added = Patch::Merge(json!({"metadata": {"finalizers": ["lab/hold", "lab/more"]}}));
    assert_eq!(
        code(
            &api.patch("held", &PatchParams::default(), &added)
                .await
                .unwrap_err()
        ),
        422
    );
    api.patch(
        "held",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    until(|| async {
        api.get_opt("held").await.unwrap().is_none() && api.get_opt("owner").await.unwrap().is_none()
    })
    .await;

    // Background: the dependents follow; orphans stay; a dependent of nobody is garbage.
    let owner = configmap(&api, "owner").await;
    let reference =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    let child = json!({"metadata": {"name": "child", "ownerReferences": reference}});
    api.create(&PostParams::default(), &object(child.clone()))
        .await
        .unwrap();
    api.delete(
        "owner",
        &DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..Default::default()
        },
    )
    .await
    .unwrap();
    until(|| async {
        api.get("child")
            .await
            .unwrap()
            .metadata
            .owner_references
            .is_none_or(|o| o.is_empty())
    })
    .await;
    until(|| async { api.get_opt("owner").await.unwrap().is_none() }).await;
    api.delete("child", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &object(child)).await.unwrap();
    until(|| async { api.get_opt("child").await.unwrap().is_none() }).await;
    lab.server.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_its_kubelet_and_its_status_has_its_own_door() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = pods.get("p").await.unwrap();
    assert_eq!(pod.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert!(spec.volumes.unwrap()[0].projected.is_some());
    let both = Patch::Merge(json!({"metadata": {"labels": {"l": "1"}}, "status": {"phase": "Failed"}}));
    let patched = pods.patch("p", &PatchParams::default(), &both).await.unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Running"));
    let conditions = json!({"status": {"conditions": [{"type": "Extra", "status": "True"}]}});
    let patched = pods
        .patch_status("p", &PatchParams::default(), &Patch::Strategic(conditions))
        .await
        .unwrap();
    assert_eq!(patched.status.unwrap().conditions.unwrap().len(), 2);
    let moved = Patch::Merge(json!({"spec": {"hostNetwork": true}}));
    assert_eq!(
        code(
            &pods
                .patch("p", &PatchParams::default(), &moved)
                .await
                .unwrap_err()
        ),
        422
    );

    let left = pods.delete("p", &DeleteParams::default()).await.unwrap();
    assert!(left.left().unwrap().metadata.deletion_timestamp.is_some());
    let waiting = pods.get("p").await.unwrap();
    assert_eq!(waiting.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());

    let pod = json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    pods.create(&PostParams::default(), &object(pod)).await.unwrap();
    let on_node = ListParams::default().fields("spec.nodeName=n1,status.phase!=Succeeded");
    assert!(pods.list(&on_node).await.unwrap().items.is_empty());
    let request = http::Request::post("/api/v1/namespaces/default/pods/q/binding")
        .header("content-type", "application/json")
        .body(json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "q"}, "target": {"kind": "Node", "name": "n1"}}).to_string().into_bytes())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    assert_eq!(pods.list(&on_node).await.unwrap().items.len(), 1);
    lab.server.stop().await;
}

#[tokio::test]
async fn namespaces_are_furnished_and_emptied() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "team"}})),
        )
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "team");
    assert!(accounts.get("default").await.is_ok());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    assert!(maps.get("kube-root-ca.crt").await.unwrap().data.unwrap()["ca.crt"].contains("CERTIFICATE"));
    let held = json!({"metadata": {"name": "held", "finalizers": ["lab/hold"]}});
    maps.create(&PostParams::default(), &object(held)).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    until(|| async { accounts.get_opt("default").await.unwrap().is_none() }).await;
    let new = maps
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "new"}})),
        )
        .await;
    assert_eq!(code(&new.unwrap_err()), 403);
    assert_eq!(
        namespaces
            .get("team")
            .await
            .unwrap()
            .status
            .unwrap()
            .phase
            .as_deref(),
        Some("Terminating")
    );
    maps.patch(
        "held",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"finalizers": []}})),
    )
    .await
    .unwrap();
    until(|| async { namespaces.get_opt("team").await.unwrap().is_none() }).await;
    lab.server.stop().await;
}

#[tokio::test]
async fn unknown_members_are_dropped_and_refused_when_asked_and_wrong_types_never_taken() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    let post = |query: &str, body: Value| {
        let request = http::Request::post(format!("/api/v1/namespaces/default/configmaps{query}"));
        client.request::<Value>(
            request
                .header("content-type", "application/json")
                .body(body.to_string().into_bytes())
                .unwrap(),
        )
    };
    let typo = json!({"metadata": {"name": "a", "lables": {}}, "data": {"a": "1"}});
    let refused = post("?fieldValidation=Strict", typo.clone()).await.unwrap_err();
    assert_eq!(code(&refused), 400);
    assert!(
        refused.to_string().contains("unknown field \"metadata.lables\""),
        "{refused}"
    );
    assert_eq!(post("", typo).await.unwrap()["metadata"].get("lables"), None);
    assert_eq!(
        code(
            &post("", json!({"metadata": {"name": "b"}, "data": {"a": 1}}))
                .await
                .unwrap_err()
        ),
        400
    );
    lab.server.stop().await;
}

#[tokio::test]
async fn a_claim_takes_the_default_class_and_stays_while_a_pod_uses_it_and_a_budget_stops_evictions() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let create = |path: &str, body: Value| {
        let request = http::Request::post(path).header("content-type", "application/json");
        client.request::<Value>(request.body(body.to_string().into_bytes()).unwrap())
    };
    let class = json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "lab"});
    create("/apis/storage.k8s.io/v1/storageclasses", class)
        .await
        .unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "default");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = claims
        .create(&PostParams::default(), &object(claim))
        .await
        .unwrap();
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("fast"));
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let user = json!({"metadata": {"name": "user"}, "spec": {"containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    pods.create(&PostParams::default(), &object(user)).await.unwrap();
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    assert!(
        claims
            .get("c")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    pods.delete("user", &DeleteParams::default()).await.unwrap();
    until(|| async { claims.get_opt("c").await.unwrap().is_none() }).await;

    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget)
        .await
        .unwrap();
    assert_eq!(
        code(&pods.evict("p", &EvictParams::default()).await.unwrap_err()),
        429
    );
    let request = http::Request::delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b")
        .body(Vec::new())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    pods.evict("p", &EvictParams::default()).await.unwrap();
    assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
    lab.server.stop().await;
}
