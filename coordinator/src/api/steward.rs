//! [`StewardService`]: `hasteward.people.v1.Steward`, thin.

use std::sync::Arc;
use std::time::Duration;

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{ClusterRef, Engine, InstanceName, UnixMillis};
use hasteward_proto::wire::people;
use hasteward_proto::wire::people::steward_server::{Steward, StewardServer};
use serde::Serialize;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::engine::{ClusterQuery, TriageEngine, TriageQuery};
use crate::fleet::{AgentState, AgentStatus, Fleet};

/// Time limit of a triage that names none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest time limit that may be asked for.
const MAX_DEADLINE: Duration = Duration::from_secs(120);
/// What an engine gets beyond its deadline to hand over what it has.
const HAND_OVER: Duration = Duration::from_secs(1);
/// Largest request, bytes: a few names.
const MAX_MESSAGE: usize = 64 << 10;

/// Which build this is.
#[derive(Debug, Clone)]
pub struct BuildInfo {
    /// `CARGO_PKG_VERSION`.
    pub version: String,
    /// The commit, where known.
    pub commit: String,
    /// When this process started.
    pub started_at: UnixMillis,
}

/// Answers people.
pub struct StewardService {
    engine: Arc<dyn TriageEngine>,
    fleet: Fleet,
    build: BuildInfo,
}

impl StewardService {
    /// Over an engine and the fleet.
    #[must_use]
    pub const fn new(engine: Arc<dyn TriageEngine>, fleet: Fleet, build: BuildInfo) -> Self {
        Self { engine, fleet, build }
    }

    /// As a tonic service with its message bound.
    #[must_use]
    pub fn into_server(self) -> StewardServer<Self> {
        StewardServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Bad input: the field and its allowed form.
fn input(message: impl Into<String>) -> Failure {
    Failure::new("bad-input", FailureKind::Input, message)
}

/// The engine of a request; `None` = unspecified.
fn engine(value: i32) -> Result<Option<Engine>, Failure> {
    match people::Engine::try_from(value) {
        Ok(people::Engine::Unspecified) => Ok(None),
        Ok(people::Engine::Cnpg) => Ok(Some(Engine::Cnpg)),
        Ok(people::Engine::Galera) => Ok(Some(Engine::Galera)),
        Err(_) => Err(input(format!(
            "engine: {value} is unknown: expected cnpg or galera"
        ))),
    }
}

/// A name of the API server; the form is that of instances.
fn name(field: &str, text: &str) -> Result<String, Failure> {
    let checked = InstanceName::new(text).map_err(|error| {
        let detail = error.to_string();
        input(format!(
            "{field}: {}",
            detail.strip_prefix("instance: ").unwrap_or(&detail)
        ))
    })?;
    Ok(checked.into())
}

/// The query of a request.
fn query(request: &people::TriageRequest) -> Result<TriageQuery, Failure> {
    let engine = engine(request.engine)?.ok_or_else(|| input("engine: missing: expected cnpg or galera"))?;
    let cluster = ClusterRef {
        namespace: name("namespace", &request.namespace)?,
        name: name("cluster", &request.cluster)?,
    };
    let instance = if request.instance.is_empty() {
        None
    } else {
        Some(InstanceName::new(&request.instance).map_err(|e| input(e.to_string()))?)
    };
    Ok(TriageQuery {
        engine,
        cluster,
        instance,
    })
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| Failure::new("report-json", FailureKind::Internal, e.to_string()))
}

/// One row of `ListAgents`.
fn row(status: AgentStatus) -> people::AgentRow {
    let state = match status.state {
        AgentState::Connected => people::AgentState::Connected,
        AgentState::Lost => people::AgentState::Lost,
        AgentState::NeverSeen => people::AgentState::NeverSeen,
    };
    let millis = |at: Option<UnixMillis>| at.unwrap_or_default().0;
    people::AgentRow {
        node: status.node.into(),
        state: state.into(),
        version: status
            .described
            .map(|described| described.version)
            .unwrap_or_default(),
        connected_since_ms: millis(status.connected_since),
        last_seen_ms: millis(status.last_seen),
        certificate_expires_ms: millis(status.certificate_expires),
        identity_conflicts: status.identity_conflicts,
    }
}

#[tonic::async_trait]
impl Steward for StewardService {
    async fn triage(
        &self,
        request: Request<people::TriageRequest>,
    ) -> Result<Response<people::TriageReply>, Status> {
        let request = request.into_inner();
        let query = query(&request)?;
        let limit = match request.deadline_ms {
            0 => DEFAULT_DEADLINE,
            millis => Duration::from_millis(millis.into()).min(MAX_DEADLINE),
        };
        let triage = self.engine.triage(query, Instant::now() + limit);
        let report = tokio::time::timeout(limit + HAND_OVER, triage)
            .await
            .map_err(|_| {
                Failure::new(
                    "triage-timeout",
                    FailureKind::Timeout,
                    format!("no verdict within {limit:?}"),
                )
                .retryable()
            })??;
        Ok(Response::new(people::TriageReply {
            report_json: json(&report)?.into(),
        }))
    }

    async fn list_clusters(
        &self,
        request: Request<people::ListClustersRequest>,
    ) -> Result<Response<people::ListClustersReply>, Status> {
        let request = request.into_inner();
        let namespace = match request.namespace.as_str() {
            "" => None,
            text => Some(name("namespace", text)?),
        };
        let query = ClusterQuery {
            namespace,
            engine: engine(request.engine)?,
        };
        let list = self.engine.list_clusters(query).await?;
        Ok(Response::new(people::ListClustersReply {
            list_json: json(&list)?.into(),
        }))
    }

    async fn list_agents(
        &self,
        _: Request<people::ListAgentsRequest>,
    ) -> Result<Response<people::ListAgentsReply>, Status> {
        let agents = self.fleet.list().into_iter().map(row).collect();
        Ok(Response::new(people::ListAgentsReply { agents }))
    }

    async fn get_version(
        &self,
        _: Request<people::GetVersionRequest>,
    ) -> Result<Response<people::GetVersionReply>, Status> {
        let BuildInfo {
            version,
            commit,
            started_at,
        } = self.build.clone();
        Ok(Response::new(people::GetVersionReply {
            version,
            commit,
            started_at_ms: started_at.0,
        }))
    }
}
