//! The whole way with an API server that makes and reviews tokens itself: the lab's, with the shipped roles and manifests, and
//! the coordinator holding nothing but its own ServiceAccount.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use hasteward_coordinator::clock::SystemClock;
use hasteward_coordinator::fleet::admission::admit;
use hasteward_coordinator::fleet::expected::follow_agent_pods;
use hasteward_coordinator::fleet::{
    AdmissionPolicy, AgentState, KubeTokenReviewer, Refusal, SecretAuthorityStore, TokenReviewer,
    load_or_create,
};
use hasteward_lab_apiserver::{Config, Server};
use hasteward_proto::failure::Failure;
use hasteward_proto::wire::people::GetVersionRequest;
use hasteward_proto::wire::people::steward_client::StewardClient;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::support::agent::{Addresses, RunningAgent, TestAgent, config, token_files};
use crate::support::coordinator::Coordinator;
use crate::support::{node, until};

const NAMESPACE: &str = "hasteward-system";

/// A running API server with hasteward's manifests in it.
struct Lab {
    server: Server,
    admin: Client,
    _data: tempfile::TempDir,
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

impl Lab {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = Server::start(&Config::new(data.path()), vec![listener]).unwrap();
        let kubeconfig = server
            .api()
            .authority
            .kubeconfig("admin", &["system:masters"], &server.url())
            .unwrap();
        let lab = Self {
            admin: client(&kubeconfig).await,
            server,
            _data: data,
        };
        for file in [
            "namespace",
            "serviceaccounts",
            "coordinator-rbac",
            "viewer-rbac",
            "agent",
        ] {
            lab.apply(file).await;
        }
        lab.create(
            "/api/v1/nodes",
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
        )
        .await;
        lab
    }

    /// Creates every object of a shipped manifest.
    async fn apply(&self, file: &str) {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/base");
        let text = std::fs::read_to_string(base.join(format!("{file}.yaml"))).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let rbac = "/apis/rbac.authorization.k8s.io/v1";
            let path = match object["kind"].as_str().unwrap() {
                "Namespace" => "/api/v1/namespaces".to_owned(),
                "ServiceAccount" => format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
                "ClusterRole" => format!("{rbac}/clusterroles"),
                "ClusterRoleBinding" => format!("{rbac}/clusterrolebindings"),
                "Role" => format!("{rbac}/namespaces/{NAMESPACE}/roles"),
                "RoleBinding" => format!("{rbac}/namespaces/{NAMESPACE}/rolebindings"),
                "DaemonSet" => format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"),
                other => panic!("{file}: {other}"),
            };
            self.create(&path, &object).await;
        }
    }

    async fn create(&self, path: &str, object: &Value) {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object).unwrap())
            .unwrap();
        self.admin
            .request::<Value>(request)
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// A client with the rights of the coordinator's ServiceAccount.
    async fn as_coordinator(&self) -> Client {
        let token = self.token("hasteward-coordinator", None, None).await;
        let mut kubeconfig = Kubeconfig::from_yaml(
            &self
                .server
                .api()
                .authority
                .kubeconfig("nobody", &[], &self.server.url())
                .unwrap(),
        )
        .unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        (user.client_certificate_data, user.client_key_data) = (None, None);
        user.token = Some(SecretString::from(token));
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// TokenRequest, as kubelet and `kubectl create token` make it.
    async fn token(&self, account: &str, audience: Option<&str>, pod: Option<&Pod>) -> String {
        let reference = pod.map(|pod| {
            json!({"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid})
        });
        let request: TokenRequest = serde_json::from_value(json!({
            "spec": {"audiences": audience.into_iter().collect::<Vec<_>>(), "boundObjectRef": reference}
        }))
        .unwrap();
        let accounts = Api::<ServiceAccount>::namespaced(self.admin.clone(), NAMESPACE);
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap();
        made.status.unwrap().token
    }

    /// A pod as the DaemonSet controller makes it, bound to a node.
    async fn agent_pod(&self, name: &str, on: &str) -> Pod {
        let sets = Api::<DaemonSet>::namespaced(self.admin.clone(), NAMESPACE);
        let owner = sets.get("hasteward-agent").await.unwrap().metadata.uid.unwrap();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet",
                "name": "hasteward-agent", "uid": owner, "controller": true}]},
            "spec": {"nodeName": on, "serviceAccountName": "hasteward-agent",
                "containers": [{"name": "agent", "image": "hasteward-agent"}]}
        }))
        .unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinators_own_account_suffices_for_all_of_it() {
    let lab = Lab::start().await;
    let own = lab.as_coordinator().await;

    // One authority for both replicas, and its certificate where agents mount it.
    let store = SecretAuthorityStore::new(&own, NAMESPACE);
    let (one, two) = tokio::join!(
        load_or_create(&store, &SystemClock),
        load_or_create(&store, &SystemClock)
    );
    let (authority, other) = (one.unwrap(), two.unwrap());
    assert_eq!(authority.bundle_pem(), other.bundle_pem());
    let map = Api::<ConfigMap>::namespaced(lab.admin.clone(), NAMESPACE)
        .get("hasteward-ca")
        .await
        .unwrap();
    assert_eq!(map.data.unwrap()["ca.crt"], authority.bundle_pem());

    let reviewer: Arc<dyn TokenReviewer> = Arc::new(KubeTokenReviewer::new(own.clone()));
    let coordinator = Coordinator::start_in(Arc::new(authority), reviewer, NAMESPACE).await;
    let stop = CancellationToken::new();
    let policy = AdmissionPolicy::new(NAMESPACE);
    let following = tokio::spawn(follow_agent_pods(
        own.clone(),
        policy,
        coordinator.fleet.clone(),
        stop.clone(),
    ));

    // A pod, and no agent yet.
    let pod = lab.agent_pod("agent-1", "n1").await;
    until("the agent is expected", async || {
        coordinator
            .status("n1")
            .is_some_and(|status| status.state == AgentState::NeverSeen)
    })
    .await;
    let token = lab
        .token("hasteward-agent", Some("hasteward-agent"), Some(&pod))
        .await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(dir.path(), &token, coordinator.authority.bundle_pem());
    let running = RunningAgent::start(
        config("n1", &Addresses::of(coordinator.address), credentials),
        &TestAgent::new("n1"),
    );
    coordinator.connected("n1").await;

    // A reader; and neither's token opens the other's door.
    let viewer = lab.token("hasteward-viewer", Some("hasteward-cli"), None).await;
    let mut people = StewardClient::new(coordinator.dial(None).await);
    let mut ask = async |token: &str| {
        let mut request = Request::new(GetVersionRequest {});
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        people
            .get_version(request)
            .await
            .map(|reply| reply.into_inner().version)
            .map_err(|s| Failure::from(s).code)
    };
    assert_eq!(ask(&viewer).await.as_deref(), Ok("9.9.9"));
    assert_eq!(ask(&token).await.unwrap_err(), "token-rejected");
    let plain = lab.token("hasteward-viewer", None, None).await;
    assert_eq!(ask(&plain).await.unwrap_err(), "token-rejected");
    let bent = lab
        .token("hasteward-agent", Some("hasteward-cli"), Some(&pod))
        .await;
    assert_eq!(ask(&bent).await.unwrap_err(), "token-service-account");

    drop(running);
    stop.cancel();
    following.await.unwrap();
    lab.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_rest_on_what_the_api_server_says() {
    let lab = Lab::start().await;
    let reviewer = KubeTokenReviewer::new(lab.as_coordinator().await);
    let policy = AdmissionPolicy::new(NAMESPACE);
    let ask = async |token: &str, claimed: &str| {
        admit(&reviewer, &policy, &SecretString::from(token), &node(claimed)).await
    };
    let pod = lab.agent_pod("agent-1", "n1").await;
    let token = lab
        .token("hasteward-agent", Some("hasteward-agent"), Some(&pod))
        .await;
    assert_eq!(ask(&token, "n1").await, Ok("agent-1".to_owned()));
    assert!(matches!(ask(&token, "n2").await, Err(Refusal::OtherNode { .. })));

    let cli = lab.token("hasteward-viewer", Some("hasteward-cli"), None).await;
    assert_eq!(ask(&cli, "n1").await, Err(Refusal::TokenRejected));
    let viewer = lab.token("hasteward-viewer", Some("hasteward-agent"), None).await;
    assert!(matches!(
        ask(&viewer, "n1").await,
        Err(Refusal::ServiceAccount { .. })
    ));
    let unbound = lab.token("hasteward-agent", Some("hasteward-agent"), None).await;
    assert_eq!(ask(&unbound, "n1").await, Err(Refusal::NotBoundToPod));
    let mut forged = token.clone();
    forged.pop();
    forged.push(if token.ends_with('A') { 'B' } else { 'A' });
    assert_eq!(ask(&forged, "n1").await, Err(Refusal::TokenRejected));

    // Somebody's own pod that runs as the agents' account.
    let mut stray = pod.clone();
    stray.metadata = serde_json::from_value(json!({"name": "stray"})).unwrap();
    let stray = lab.pods().create(&PostParams::default(), &stray).await.unwrap();
    let token_of_stray = lab
        .token("hasteward-agent", Some("hasteward-agent"), Some(&stray))
        .await;
    assert!(matches!(
        ask(&token_of_stray, "n1").await,
        Err(Refusal::NotOurDaemonSet { .. })
    ));

    // No kubelet here finishes the deletion: the pod stays terminating.
    lab.pods()
        .delete("agent-1", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(
        ask(&token, "n1").await,
        Err(Refusal::PodTerminating("agent-1".to_owned()))
    );
    lab.pods()
        .delete("agent-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(ask(&token, "n1").await, Err(Refusal::TokenRejected));
    // Another pod of the same name does not bring the token back.
    lab.agent_pod("agent-1", "n1").await;
    assert_eq!(ask(&token, "n1").await, Err(Refusal::TokenRejected));
    lab.server.stop().await;
}
