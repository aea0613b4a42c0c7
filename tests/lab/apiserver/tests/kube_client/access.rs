//! Everything beyond plain objects: tokens, ports, definitions, faults, events.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::common::{LONG, Lab, object, running_pod};
use crate::{code, configmap, configmaps, until};

type Crd = k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

#[tokio::test]
async fn a_token_is_for_its_audience_and_tells_of_its_pod() {
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
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [uid]);
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["n1"]);
    let other = reviews
        .create(&PostParams::default(), &review("other"))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_ne!(other.authenticated, Some(true));

    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let gone = reviews
        .create(&PostParams::default(), &review("lab"))
        .await
        .unwrap();
    assert_ne!(gone.status.unwrap().authenticated, Some(true));
    lab.server.stop().await;
}

#[tokio::test]
async fn a_token_lets_in_as_long_as_its_pod_lives_and_rbac_decides_on_what() {
    let lab = Lab::start().await;
    let client = lab.admin().await;
    running_pod(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let uid = pods.get("p").await.unwrap().metadata.uid.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    // No audience: the server's own.
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
