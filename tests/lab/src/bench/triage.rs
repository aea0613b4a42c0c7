//! `triage`: from the coordinator's API to the verdict of a cluster of three, on a warm channel.
//!
//! The caller runs in the lab's network, beside the coordinator: what is measured is the coordinator with its agents, not a
//! port-forward of the lab's API server.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hasteward_proto::channel::material::TrustBundle;
use hasteward_proto::channel::reverse::{ReverseConnection, prepare_socket};
use hasteward_proto::channel::settings::ChannelSettings;
use hasteward_proto::channel::tls::{self, Protocol};
use hasteward_proto::wire::people::steward_client::StewardClient;
use hasteward_proto::wire::people::{Engine, TriageRequest};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::figures::{Figures, quantile};
use crate::cli::BenchClient;
use crate::place::Place;
use crate::process::ProcessIdentity;
use crate::supervise::program;
use crate::wait::{Look, until};
use crate::{cnpg, deploy};

/// Calls of one run that count.
const CALLS: u32 = 100;
/// Calls before them that do not: the channel gets warm.
const WARM_UP: u32 = 10;
/// Port of the coordinator's gRPC.
const PORT: u16 = 8443;

/// Calls in `runs` runs; each gives its median and its 99th percentile.
pub(super) async fn measure(client: &Client, place: &Place, runs: u32) -> anyhow::Result<Figures> {
    let address = coordinator_address(client).await?;
    let directory = place.state().join("bench");
    std::fs::create_dir_all(&directory)?;
    let ca = directory.join("ca.crt");
    let token = directory.join("token");
    std::fs::write(&ca, authority(client).await?)?;
    std::fs::write(&token, viewer_token(client).await?)?;
    let supervisor = ProcessIdentity::read(&place.pid_file()).context("the lab is gone")?;
    let mut figures = Figures::new("triage", runs);
    for _ in 0..runs {
        let output = Command::new("nsenter")
            .args(["--target", &supervisor.pid.to_string(), "--net", "--"])
            .arg(program("hasteward-lab")?)
            .args([
                "bench-client",
                "--address",
                &address,
                "--calls",
                &CALLS.to_string(),
            ])
            .arg("--ca")
            .arg(&ca)
            .arg("--token")
            .arg(&token)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "bench client: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let times: Vec<f64> = serde_json::from_slice(&output.stdout).context("answer of the bench client")?;
        figures.add("p50_ms", quantile(&times, 0.50));
        figures.add("p99_ms", quantile(&times, 0.99));
    }
    Ok(figures)
}

/// Runs in the lab's network: calls, one after the other, and prints how long each took, in milliseconds.
pub async fn call(order: &BenchClient) -> anyhow::Result<()> {
    let stream = TcpStream::connect(&order.address)
        .await
        .context("reach the coordinator")?;
    prepare_socket(&stream)?;
    let bundle = TrustBundle::from_file(&order.ca)?;
    let config = tls::client_config(&bundle, None, Protocol::People)?;
    let name = format!("{}.{}.svc", deploy::COORDINATOR, deploy::NAMESPACE);
    let name = rustls::pki_types::ServerName::try_from(name)?;
    let settings = ChannelSettings::default();
    let stream = tls::connect(config.into(), name, stream, settings.handshake_timeout).await?;
    let connection = ReverseConnection::open(stream, &settings).await?;
    let mut steward = StewardClient::new(connection.channel());
    let token = std::fs::read_to_string(&order.token)?;
    let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {}", token.trim()).parse()?;
    let mut times = Vec::new();
    for number in 0..WARM_UP + order.calls {
        let mut request = tonic::Request::new(TriageRequest {
            engine: Engine::Cnpg.into(),
            namespace: cnpg::NAMESPACE.into(),
            cluster: cnpg::CLUSTER.into(),
            instance: String::new(),
            deadline_ms: 10_000,
        });
        request.metadata_mut().insert("authorization", bearer.clone());
        let began = Instant::now();
        let reply = steward.triage(request).await?.into_inner();
        let took = began.elapsed();
        ensure!(!reply.report_json.is_empty(), "an empty report");
        if number >= WARM_UP {
            times.push(took.as_secs_f64() * 1000.0);
        }
    }
    std::io::stdout().write_all(&serde_json::to_vec(&times)?)?;
    Ok(())
}

async fn coordinator_address(client: &Client) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), deploy::NAMESPACE);
    until("the coordinator's address", Duration::from_secs(30), async || {
        let pods = pods.list(&ListParams::default()).await?;
        let coordinator = pods
            .items
            .into_iter()
            .find(|pod| pod.name_any().starts_with(deploy::COORDINATOR));
        let address = coordinator.and_then(|pod| pod.status?.pod_ip);
        Ok(address.map_or(Look::not_yet("none"), |ip| Look::Done(format!("{ip}:{PORT}"))))
    })
    .await
    .context("find the coordinator")
}

async fn authority(client: &Client) -> anyhow::Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), deploy::NAMESPACE);
    let map = maps.get("hasteward-ca").await?;
    map.data
        .and_then(|mut data| data.remove("ca.crt"))
        .context("ConfigMap hasteward-ca has no ca.crt")
}

async fn viewer_token(client: &Client) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), deploy::NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec!["hasteward-cli".into()],
            expiration_seconds: Some(3600),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let reply = accounts
        .create_token_request("hasteward-viewer", &PostParams::default(), &request)
        .await?;
    Ok(reply.status.context("no token")?.token)
}
