//! kube-rs against the server.

mod common;

use common::{LONG, Lab, object, running_pod};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
    PropagationPolicy, WatchEvent, WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn configmaps(client: &kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the server: {other}"),
    }
}

async fn configmap(api: &Api<ConfigMap>, name: &str) -> ConfigMap {
    api.create(
        &PostParams::default(),
        &object(json!({"metadata": {"name": name}, "data": {"a": "1"}})),
    )
    .await
    .unwrap()
}

/// Polls until a condition holds; the server works in the background.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let poll = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, poll).await.expect("the condition holds in time");
}

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
async fn a_watcher_sees_changes_survives_a_forgotten_history_and_a_restart_of_its_connection() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let stream = watcher(api.clone(), watcher::Config::default()).applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = timeout(LONG, stream.try_next()).await.unwrap().unwrap().unwrap();
        seen.push(next.metadata.name.unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["a", "kube-root-ca.crt"]);
    configmap(&api, "b").await;
    let next = timeout(LONG, stream.try_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.metadata.name.as_deref(), Some("b"));
    lab.server.stop().await;
}

#[tokio::test]
async fn an_old_version_is_gone_and_the_watcher_lists_again() {
    let lab = Lab::with(|config| config.history = 3).await;
    let api = configmaps(&lab.admin().await);
    let first = configmap(&api, "a").await.metadata.resource_version.unwrap();
    for i in 0..5 {
        configmap(&api, &format!("more-{i}")).await;
    }
    let mut raw = api.watch(&WatchParams::default(), &first).await.unwrap().boxed();
    match timeout(LONG, raw.next()).await.unwrap().unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    // The runtime's watcher: list, lose the history, list again.
    let mut stream = watcher(api.clone(), watcher::Config::default().timeout(1)).boxed();
    while !matches!(
        timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap(),
        watcher::Event::InitDone
    ) {}
    lab.server.api().store.compact();
    configmap(&api, "z").await;
    lab.server.api().store.compact();
    let found = async {
        loop {
            match stream.next().await.unwrap() {
                Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))
                    if map.metadata.name.as_deref() == Some("z") =>
                {
                    break;
                }
                _ => {}
            }
        }
    };
    timeout(LONG, found).await.unwrap();
    lab.server.stop().await;
}

#[tokio::test]
async fn bookmarks_come_at_the_end_of_a_streamed_list_and_while_nothing_happens() {
    let lab = Lab::with(|config| config.bookmark_every = std::time::Duration::from_millis(50)).await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let params = WatchParams::default().initial_events();
    let mut stream = api.watch(&params, "0").await.unwrap().boxed();
    let mut names = Vec::new();
    loop {
        match timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Added(map) => names.push(map.metadata.name.unwrap()),
            WatchEvent::Bookmark(mark) => {
                assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["a", "kube-root-ca.crt"]);
    let quiet = timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(quiet, WatchEvent::Bookmark(mark) if mark.metadata.annotations.is_empty()));
    lab.server.stop().await;
}

#[tokio::test]
async fn a_selection_is_entered_and_left() {
    let lab = Lab::start().await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let mut stream = api
        .watch(&WatchParams::default().labels("on=yes"), "0")
        .await
        .unwrap()
        .boxed();
    for (labels, kind) in [
        (json!({"on": "yes"}), "ADDED"),
        (json!({"on": "yes", "x": "1"}), "MODIFIED"),
        (json!({"on": "no"}), "DELETED"),
    ] {
        api.patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": labels}})),
        )
        .await
        .unwrap();
        let event = timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
        let found = match event {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(_) => "DELETED",
            _ => "?",
        };
        assert_eq!(found, kind);
    }
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
async fn tokens_live_as_long_as_their_pod_and_rbac_decides() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let uid = pods.get("p").await.unwrap().metadata.uid.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let request: TokenRequest = object(json!({"metadata": {}, "spec": {"audiences": ["lab"],
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}}));
    let token = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token;
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let review = |audience: &str| {
        object::<TokenReview>(json!({"metadata": {}, "spec": {"token": token, "audiences": [audience]}}))
    };
    let status = reviews
        .create(&PostParams::default(), &review("lab"))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.audiences.unwrap(), ["lab"]);
    let user = status.user.unwrap();
    assert_eq!(
        user.username.as_deref(),
        Some("system:serviceaccount:default:default")
    );
    let extra = user.extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [uid.clone()]);
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["n1"]);
    let other = reviews
        .create(&PostParams::default(), &review("other"))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_ne!(other.authenticated, Some(true));

    // The server's own audience lets in; RBAC decides on what.
    let request: TokenRequest = object(json!({"metadata": {}, "spec": {"audiences": [],
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}}));
    let own = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token;
    let theirs = lab.token_client(&own).await;
    let denied = configmaps(&theirs)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    assert_eq!(code(&denied), 403);
    assert!(
        denied.to_string().contains("cannot list resource \"configmaps\""),
        "{denied}"
    );
    for (path, body) in [
        (
            "roles",
            json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]}),
        ),
        (
            "rolebindings",
            json!({"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": ""}, "subjects": [{"kind": "ServiceAccount", "name": "default"}]}),
        ),
    ] {
        let request = http::Request::post(format!(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/{path}"
        ));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap();
        client.request::<Value>(request).await.unwrap();
    }
    configmaps(&theirs).list(&ListParams::default()).await.unwrap();
    assert_eq!(
        code(&configmaps(&theirs).get("kube-root-ca.crt").await.unwrap_err()),
        403
    );
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(
        code(
            &configmaps(&theirs)
                .list(&ListParams::default())
                .await
                .unwrap_err()
        ),
        401
    );
    let gone = reviews
        .create(&PostParams::default(), &review("lab"))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_ne!(gone.authenticated, Some(true));
    lab.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded_and_logs_are_read() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let mut forward = pods.portforward("p", &[80, 81, 82]).await.unwrap();
    let mut echo = forward.take_stream(80).unwrap();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut echo);
    let mut back = vec![0; sent.len()];
    let (wrote, read) = timeout(LONG, async {
        tokio::join!(writer.write_all(&sent), reader.read_exact(&mut back))
    })
    .await
    .unwrap();
    wrote.unwrap();
    read.unwrap();
    assert!(sent == back, "what was sent came back");
    let mut greeting = vec![0; 18];
    timeout(LONG, forward.take_stream(81).unwrap().read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(greeting, b"hello from the pod");
    let error = timeout(LONG, forward.take_error(82).unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(error.contains("connection refused"), "{error}");
    drop(echo);
    let log = pods
        .logs(
            "p",
            &LogParams {
                tail_lines: Some(5),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(log, "log of /containerLogs/default/p/c?tailLines=5\n");
    lab.server.stop().await;
}

#[tokio::test]
async fn custom_resources_are_defined_checked_and_served() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    let crd = json!({"metadata": {"name": "things.lab.example"}, "spec": {"group": "lab.example", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "minimum": 1}, "mode": {"type": "string", "default": "calm"}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    type Crd = k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let crds: Api<Crd> = Api::all(client.clone());
    let made = crds.create(&PostParams::default(), &object(crd)).await.unwrap();
    assert!(
        made.status
            .unwrap()
            .conditions
            .unwrap()
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
    );
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("lab.example", "v1", "Thing"), "things");
    let things: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let thing = |spec: Value| {
        object::<DynamicObject>(json!({"apiVersion": "lab.example/v1", "kind": "Thing",
        "metadata": {"name": "t"}, "spec": spec, "status": {"size": 9}}))
    };
    assert_eq!(
        code(
            &things
                .create(&PostParams::default(), &thing(json!({"size": 0})))
                .await
                .unwrap_err()
        ),
        422
    );
    let made = things
        .create(&PostParams::default(), &thing(json!({"size": 1, "junk": 1})))
        .await
        .unwrap();
    assert_eq!(made.data["spec"], json!({"size": 1, "mode": "calm"}));
    assert_eq!(made.data.get("status"), None);
    assert_eq!(made.metadata.generation, Some(1));
    let status = Patch::Merge(json!({"status": {"size": 4}, "spec": {"size": 7}}));
    let patched = things
        .patch_status("t", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (&patched.data["spec"]["size"], &patched.data["status"]["size"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(patched.metadata.generation, Some(1));
    let scaled = things
        .patch_scale(
            "t",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 3}})),
        )
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    assert_eq!(things.get("t").await.unwrap().metadata.generation, Some(2));
    let (found, capabilities) =
        kube::discovery::pinned_kind(&client, &GroupVersionKind::gvk("lab.example", "v1", "Thing"))
            .await
            .unwrap();
    assert_eq!(
        (found.plural.as_str(), capabilities.subresources.len()),
        ("things", 2)
    );
    crds.delete("things.lab.example", &DeleteParams::default())
        .await
        .unwrap();
    until(|| async { crds.get_opt("things.lab.example").await.unwrap().is_none() }).await;
    assert_eq!(code(&things.get("t").await.unwrap_err()), 404);
    lab.server.stop().await;
}

#[tokio::test]
async fn faults_come_from_their_file_and_the_audit_log_tells_reads_from_writes() {
    let (faults, audit) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let (fault_path, audit_path) = (faults.path().to_owned(), audit.path().to_owned());
    let lab = Lab::with(|config| {
        config.fault_file = Some(fault_path.clone());
        config.audit_log = Some(audit_path.clone());
    })
    .await;
    let api = configmaps(&lab.admin().await);
    configmap(&api, "a").await;
    let rule = json!([{"method": "GET", "prefix": "/api/v1/namespaces/default/configmaps", "code": 500, "times": 1}]);
    std::fs::write(&fault_path, rule.to_string()).unwrap();
    assert_eq!(code(&api.get("a").await.unwrap_err()), 500);
    api.get("a").await.unwrap();
    let log = std::fs::read_to_string(&audit_path).unwrap();
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let seen: Vec<_> = lines
        .iter()
        .map(|l| {
            (
                l["verb"].as_str().unwrap(),
                l["name"].as_str().unwrap(),
                l["code"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [("create", "", 201), ("get", "a", 500), ("get", "a", 200)]);
    assert_eq!(lines[0]["user"], "admin");
    lab.server.stop().await;
}

#[tokio::test]
async fn events_are_one_store_in_two_shapes() {
    use kube::runtime::events::{Event, EventType, Recorder, Reporter};
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let reference = kube::Resource::object_ref(&pods.get("p").await.unwrap(), &());
    let recorder = Recorder::new(
        client.clone(),
        Reporter {
            controller: "lab".into(),
            instance: None,
        },
    );
    let event = Event {
        type_: EventType::Warning,
        reason: "Broken".into(),
        note: Some("it broke".into()),
        action: "Look".into(),
        secondary: None,
    };
    recorder.publish(&event, &reference).await.unwrap();
    recorder.publish(&event, &reference).await.unwrap();
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client, "default");
    let found = events
        .list(&ListParams::default().fields("involvedObject.name=p"))
        .await
        .unwrap()
        .items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message.as_deref(), Some("it broke"));
    assert_eq!(found[0].series.as_ref().unwrap().count, Some(2));
    lab.server.stop().await;
}
