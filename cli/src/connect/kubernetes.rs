//! What the command line does with a kubeconfig: a token, the CA, a port-forward.

use hasteward_proto::failure::{Failure, FailureKind};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use secrecy::SecretString;
use tokio::io::DuplexStream;

use crate::args::Global;

/// Whoever may create tokens of this account may read (design: people).
const VIEWER: &str = "hasteward-viewer";
/// The audience that the coordinator asks for.
const AUDIENCE: &str = "hasteward-cli";
/// The shortest life that the API server grants.
const TOKEN_SECONDS: i64 = 600;
/// The coordinator's gRPC port.
const PORT: u16 = 8443;

/// A Kubernetes cluster that hasteward runs in.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// The cluster of the chosen kubeconfig.
    pub(super) async fn from(global: &Global) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(
                "kubeconfig",
                FailureKind::Environment,
                format!("no usable kubeconfig: {error}"),
            )
            .hint("give --kubeconfig FILE or set KUBECONFIG; `kubectl version` must work")
        };
        let options = KubeConfigOptions {
            context: global.context.clone(),
            ..KubeConfigOptions::default()
        };
        let mut config = match (&global.kubeconfig, &global.context) {
            (Some(file), _) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|e| failed(&e))?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|e| failed(&e))?
            }
            (None, Some(_)) => kube::Config::from_kubeconfig(&options)
                .await
                .map_err(|e| failed(&e))?,
            (None, None) => kube::Config::infer().await.map_err(|e| failed(&e))?,
        };
        // Its default repeats a 503 for many minutes; a person is told instead.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|e| failed(&e))?;
        Ok(Self {
            client,
            namespace: global.system_namespace.clone(),
        })
    }

    /// A token of the viewer's account for the coordinator.
    pub(super) async fn viewer_token(&self) -> Result<SecretString, Failure> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        };
        let request = TokenRequest {
            metadata: kube::api::ObjectMeta::default(),
            spec,
            status: None,
        };
        let reply = accounts
            .create_token_request(VIEWER, &PostParams::default(), &request)
            .await;
        let reply = reply.map_err(|e| self.refused("a token of ServiceAccount hasteward-viewer", &e))?;
        let token = reply.status.map(|s| s.token).unwrap_or_default();
        Ok(SecretString::from(token))
    }

    /// The CA bundle that the coordinator published.
    pub(super) async fn ca(&self) -> Result<String, Failure> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps
            .get("hasteward-ca")
            .await
            .map_err(|e| self.refused("ConfigMap hasteward-ca", &e))?;
        map.data
            .and_then(|mut data| data.remove("ca.crt"))
            .ok_or_else(|| {
                Failure::new(
                    "ca-missing",
                    FailureKind::Dependency,
                    format!("ConfigMap {}/hasteward-ca has no ca.crt", self.namespace),
                )
            })
    }

    /// A byte stream to the coordinator's gRPC port.
    pub(super) async fn forward(&self) -> Result<DuplexStream, Failure> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let wanted = ListParams::default()
            .labels("app.kubernetes.io/name=hasteward,app.kubernetes.io/component=coordinator");
        let list = pods.list(&wanted).await.map_err(|e| self.refused("pods", &e))?;
        let ready = |p: &&Pod| {
            let conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
            p.metadata.deletion_timestamp.is_none()
                && conditions
                    .into_iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let name = list
            .items
            .iter()
            .find(ready)
            .and_then(|p| p.metadata.name.clone())
            .ok_or_else(|| {
                let what = if list.items.is_empty() {
                    "no coordinator runs"
                } else {
                    "no coordinator is ready"
                };
                Failure::new(
                    "coordinator-not-ready",
                    FailureKind::Unreachable,
                    format!("{what} in namespace {}", self.namespace),
                )
                .retryable()
                .hint(format!(
                    "kubectl get pods -n {} -l app.kubernetes.io/component=coordinator",
                    self.namespace
                ))
            })?;
        let mut forward = pods
            .portforward(&name, &[PORT])
            .await
            .map_err(|e| self.refused(&format!("a port-forward to pod {name}"), &e))?;
        forward.take_stream(PORT).ok_or_else(|| {
            Failure::new(
                "port-forward",
                FailureKind::Internal,
                "the port-forward has no stream",
            )
        })
    }

    /// The API server refused or did not answer.
    fn refused(&self, what: &str, error: &kube::Error) -> Failure {
        let namespace = &self.namespace;
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                Failure::new("kubernetes-forbidden", FailureKind::Forbidden, format!("you may not use {what} in namespace {namespace}: {}", status.message))
                    .hint(format!("ask an administrator: kubectl create rolebinding hasteward-viewers -n {namespace} --role=hasteward-viewer --user=<you>"))
            }
            kube::Error::Api(status) if status.code == 404 => {
                Failure::new("not-installed", FailureKind::NotFound, format!("{what} is not in namespace {namespace}: is hasteward installed there?"))
                    .hint("kubectl apply -k deploy/kustomize/base, or give --system-namespace")
            }
            kube::Error::Api(status) => {
                Failure::new("kubernetes", FailureKind::Dependency, format!("{what}: the API server answered {}: {}", status.code, status.message))
            }
            other => Failure::new("kubernetes-unreachable", FailureKind::Unreachable, format!("{what}: {other}"))
                .retryable()
                .hint("`kubectl version` must work with the same kubeconfig"),
        }
    }
}
