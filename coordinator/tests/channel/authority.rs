//! One authority, however many replicas start at once: in files, and against an API server in miniature.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use hasteward_coordinator::fleet::{
    FileAuthorityStore, KubeTokenReviewer, ReviewedToken, SecretAuthorityStore, StoreError, SystemClock,
    TokenReviewer, load_or_create,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use secrecy::SecretString;
use serde_json::{Value, json};

/// Objects by path; create, read and replace with resource versions, as the API server does.
#[derive(Clone, Default)]
struct Api {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    calls: Arc<Mutex<Vec<(Method, String, Value)>>>,
}

impl Api {
    fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "hasteward")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Others run between any two requests.
        tokio::task::yield_now().await;
        self.calls
            .lock()
            .unwrap()
            .push((method.clone(), path.clone(), body.clone()));
        let (code, answer) = self.act(&method, &path, body);
        Response::builder()
            .status(code)
            .body(Body::from(serde_json::to_vec(&answer).unwrap()))
            .unwrap()
    }

    fn act(&self, method: &Method, path: &str, mut body: Value) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": reason, "reason": reason, "code": code.as_u16()});
            (code, status)
        };
        let mut objects = self.objects.lock().unwrap();
        let version = |value: &Value| value["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if path.ends_with("/tokenreviews") {
            return (
                StatusCode::CREATED,
                objects.get("tokenreview").cloned().unwrap_or_default(),
            );
        }
        match *method {
            Method::GET => match objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                body["metadata"]["resourceVersion"] = json!("1");
                objects.insert(path, body.clone());
                (StatusCode::CREATED, body)
            }
            Method::PUT => {
                let Some(current) = objects.get(path).and_then(version) else {
                    return failure(StatusCode::NOT_FOUND, "NotFound");
                };
                if version(&body).is_some_and(|given| given != current) {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                body["metadata"]["resourceVersion"] =
                    json!((current.parse::<u64>().unwrap() + 1).to_string());
                objects.insert(path.to_owned(), body.clone());
                (StatusCode::OK, body)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn object(&self, path: &str) -> Value {
        self.objects
            .lock()
            .unwrap()
            .get(path)
            .cloned()
            .unwrap_or_default()
    }
}

const SECRET: &str = "/api/v1/namespaces/hasteward/secrets/hasteward-ca";
const CONFIG_MAP: &str = "/api/v1/namespaces/hasteward/configmaps/hasteward-ca";

/// Four replicas at once; all must hold the same authority, and the ConfigMap must publish it.
async fn race(api: &Api) {
    let replicas = (0..4).map(|_| {
        let store = SecretAuthorityStore::new(&api.client(), "hasteward");
        async move {
            load_or_create(&store, &SystemClock)
                .await
                .unwrap()
                .bundle_pem()
                .to_owned()
        }
    });
    let bundles = futures::future::join_all(replicas).await;
    assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
    assert_eq!(api.object(CONFIG_MAP)["data"]["ca.crt"], json!(bundles[0]));
}

#[tokio::test]
async fn replicas_that_start_together_end_with_one_authority() {
    let api = Api::default();
    race(&api).await;
    let secret = api.object(SECRET);
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(
        secret["metadata"]["resourceVersion"], "1",
        "the Secret was written twice"
    );
    // And again, after a restart.
    race(&api).await;
    assert_eq!(api.object(SECRET), secret);
    assert_eq!(api.object(CONFIG_MAP)["metadata"]["resourceVersion"], "1");
}

#[tokio::test]
async fn a_secret_laid_out_empty_is_filled_once() {
    let api = Api::default();
    let empty = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "hasteward-ca", "resourceVersion": "7"}});
    api.objects.lock().unwrap().insert(SECRET.to_owned(), empty);
    race(&api).await;
    let secret = api.object(SECRET);
    assert_eq!(
        (&secret["type"], &secret["metadata"]["resourceVersion"]),
        (&json!("Opaque"), &json!("8"))
    );
}

#[tokio::test]
async fn a_broken_authority_is_reported_and_kept() {
    let api = Api::default();
    race(&api).await;
    let mut broken = api.object(SECRET);
    broken["data"]["tls.crt"] = json!("eA==");
    api.objects
        .lock()
        .unwrap()
        .insert(SECRET.to_owned(), broken.clone());
    let store = SecretAuthorityStore::new(&api.client(), "hasteward");
    let error = load_or_create(&store, &SystemClock).await.unwrap_err();
    assert!(matches!(error, StoreError::Authority(_)), "{error}");
    assert_eq!(api.object(SECRET), broken);
}

#[tokio::test]
async fn files_keep_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let replicas = (0..8).map(|_| {
        let store = FileAuthorityStore::new(dir.path());
        tokio::spawn(async move {
            load_or_create(&store, &SystemClock)
                .await
                .unwrap()
                .bundle_pem()
                .to_owned()
        })
    });
    let bundles: Vec<_> = futures::future::join_all(replicas)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("ca.crt")).unwrap(),
        bundles[0]
    );
    let mode = std::fs::metadata(dir.path().join("ca.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.crt", "ca.pem"], "nothing half-made is left");
}

#[tokio::test]
async fn the_api_server_is_asked_as_it_wants_to_be() {
    let api = Api::default();
    let reviewed = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {"authenticated": true, "audiences": ["hasteward-agent"], "user": {
            "username": "system:serviceaccount:hasteward:hasteward-agent",
            "extra": {"authentication.kubernetes.io/pod-name": ["agent-x"],
                "authentication.kubernetes.io/pod-uid": ["u-1"], "authentication.kubernetes.io/node-name": ["n1"]}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running"}, "metadata": {"name": "agent-x", "uid": "u-1",
        "deletionTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "x"},
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "hasteward-agent", "uid": "d-1", "controller": true}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "hasteward-agent", "uid": "d-1"}});
    {
        let mut objects = api.objects.lock().unwrap();
        objects.insert("tokenreview".into(), reviewed);
        objects.insert("/api/v1/namespaces/hasteward/pods/agent-x".into(), pod);
        objects.insert(
            "/apis/apps/v1/namespaces/hasteward/daemonsets/hasteward-agent".into(),
            set,
        );
    }
    let kube = KubeTokenReviewer::new(api.client());
    let token = SecretString::from("a.b.c");
    let ReviewedToken::Authenticated(claims) = kube.review(&token, "hasteward-agent").await.unwrap() else {
        panic!("rejected")
    };
    assert_eq!(
        (claims.pod_name.as_deref(), claims.pod_uid.as_deref()),
        (Some("agent-x"), Some("u-1"))
    );
    assert_eq!(
        (claims.node_name.as_deref(), claims.audiences.len()),
        (Some("n1"), 1)
    );
    let (method, path, body) = api.calls.lock().unwrap()[0].clone();
    assert_eq!(
        (method, path.as_str()),
        (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews")
    );
    assert_eq!(
        (&body["spec"]["token"], &body["spec"]["audiences"]),
        (&json!("a.b.c"), &json!(["hasteward-agent"]))
    );

    let pod = kube.pod("hasteward", "agent-x").await.unwrap().unwrap();
    let owner = pod.controller.unwrap();
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("DaemonSet", "d-1"));
    assert!(pod.terminating && !pod.finished && pod.node.as_deref() == Some("n1"));
    assert_eq!(kube.pod("hasteward", "gone").await.unwrap(), None);
    assert_eq!(
        kube.daemon_set_uid("hasteward", "hasteward-agent")
            .await
            .unwrap()
            .as_deref(),
        Some("d-1")
    );

    api.objects.lock().unwrap().insert(
        "tokenreview".into(),
        json!({"kind": "TokenReview", "metadata": {}, "spec": {},
        "apiVersion": "authentication.k8s.io/v1", "status": {"error": "expired"}}),
    );
    assert_eq!(
        kube.review(&token, "hasteward-agent").await.unwrap(),
        ReviewedToken::Rejected
    );
}
