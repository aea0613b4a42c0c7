//! Who may call what.

use std::sync::Arc;

use hasteward_coordinator::api::Requirement;
use hasteward_coordinator::api::requirement::Table;
use hasteward_coordinator::fleet::authority::Role;
use hasteward_coordinator::fleet::enrolment::EnrolmentRate;
use hasteward_coordinator::fleet::{Subject, TokenClaims};
use hasteward_proto::channel::tls::{Protocol, client_config};
use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::UnixMillis;
use hasteward_proto::wire::people::steward_client::StewardClient;
use hasteward_proto::wire::people::{
    AgentState, Engine, GetVersionRequest, ListAgentsRequest, ListClustersRequest, TriageRequest,
};
use hasteward_verdict::report::ClusterList;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::support::agent::TestAgent;
use crate::support::coordinator::Coordinator;
use crate::support::reviewer::{FakeReviewer, agent_user};
use crate::support::{authority, node, node_certificate, person_certificate};

/// The table of a release with a method that changes something.
const MUTATING: Table = &[
    (
        "/hasteward.people.v1.Steward/GetVersion",
        Requirement::Person(Role::Operator),
    ),
    (
        "/hasteward.people.v1.Steward/ListAgents",
        Requirement::Person(Role::Viewer),
    ),
];

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

async fn version(channel: &Channel, token: Option<&str>) -> Result<String, Failure> {
    let request = match token {
        Some(token) => with_token(GetVersionRequest {}, token),
        None => Request::new(GetVersionRequest {}),
    };
    let reply = StewardClient::new(channel.clone())
        .get_version(request)
        .await
        .map_err(Failure::from)?;
    Ok(reply.into_inner().version)
}

async fn refused(channel: &Channel, token: Option<&str>, code: &str, kind: FailureKind) {
    let failure = version(channel, token).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.kind), (code, kind), "{failure}");
    assert!(
        !failure.message.contains("header."),
        "a token in an error: {failure}"
    );
}

async fn start() -> (Coordinator, Arc<FakeReviewer>) {
    let reviewer = Arc::new(FakeReviewer::default());
    (Coordinator::start(authority(), &reviewer).await, reviewer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads() {
    let (coordinator, reviewer) = start().await;
    let token = reviewer.add_viewer();
    let _agent = hasteward_coordinator::fleet::simulated::SimulatedAgent::plug(
        &coordinator.fleet,
        node("n1"),
        hasteward_proto::channel::AgentInstance::random().unwrap(),
        TestAgent::new("n1").routes(),
    );
    coordinator.connected("n1").await;
    let mut client = StewardClient::new(coordinator.dial(None).await);

    let version = client
        .get_version(with_token(GetVersionRequest {}, &token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            version.version.as_str(),
            version.commit.as_str(),
            version.started_at_ms
        ),
        ("9.9.9", "abc", 5)
    );
    let agents = client
        .list_agents(with_token(ListAgentsRequest {}, &token))
        .await
        .unwrap()
        .into_inner()
        .agents;
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].node.as_str(), agents[0].state()),
        ("n1", AgentState::Connected)
    );
    assert!(
        agents[0].last_seen_ms >= agents[0].connected_since_ms - 1000 && agents[0].connected_since_ms > 0
    );
    let list = client
        .list_clusters(with_token(ListClustersRequest::default(), &token))
        .await
        .unwrap()
        .into_inner();
    let list: ClusterList = serde_json::from_slice(&list.list_json).unwrap();
    assert_eq!(list.clusters[0].cluster.name, "one");
    assert_eq!(
        reviewer.reviews(),
        1,
        "one question to the API server within a minute"
    );

    let ask = |cluster: &str, deadline_ms| TriageRequest {
        engine: Engine::Cnpg.into(),
        namespace: "db".into(),
        cluster: cluster.into(),
        deadline_ms,
        ..TriageRequest::default()
    };
    let fail = |status: tonic::Status| Failure::from(status);
    let failure = fail(
        client
            .triage(with_token(ask("none", 0), &token))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (failure.code.as_str(), failure.kind),
        ("no-such-cluster", FailureKind::NotFound)
    );
    let failure = fail(
        client
            .triage(with_token(ask("slow", 50), &token))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (failure.code.as_str(), failure.kind),
        ("triage-timeout", FailureKind::Timeout)
    );
    let bad = [
        ask("../x", 0),
        ask("", 0),
        TriageRequest {
            engine: 0,
            ..ask("a", 0)
        },
        TriageRequest {
            engine: 7,
            ..ask("a", 0)
        },
        TriageRequest {
            instance: "A B".into(),
            ..ask("a", 0)
        },
    ];
    for request in bad {
        let failure = fail(client.triage(with_token(request, &token)).await.unwrap_err());
        assert_eq!(
            (failure.code.as_str(), failure.kind),
            ("bad-input", FailureKind::Input)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_person_is_refused() {
    let (coordinator, reviewer) = start().await;
    let channel = coordinator.dial(None).await;
    refused(&channel, None, "no-credentials", FailureKind::Unauthenticated).await;
    refused(
        &channel,
        Some("x"),
        "bad-credentials",
        FailureKind::Unauthenticated,
    )
    .await;
    assert_eq!(reviewer.reviews(), 0);
    refused(
        &channel,
        Some("a.b.c"),
        "token-rejected",
        FailureKind::Unauthenticated,
    )
    .await;
    // A token of an agent, and one of an agent that somebody requested for the audience of people.
    let agent = reviewer.add_agent("n1");
    refused(
        &channel,
        Some(&agent),
        "token-rejected",
        FailureKind::Unauthenticated,
    )
    .await;
    let claims = TokenClaims {
        username: agent_user(),
        ..TokenClaims::default()
    };
    let bent = reviewer.add_token("bent", "hasteward-cli", claims);
    refused(
        &channel,
        Some(&bent),
        "token-service-account",
        FailureKind::Forbidden,
    )
    .await;
    let claims = TokenClaims {
        audiences: vec!["other".into()],
        ..TokenClaims::default()
    };
    let elsewhere = reviewer.add_token("elsewhere", "hasteward-cli", claims);
    refused(
        &channel,
        Some(&elsewhere),
        "token-audience",
        FailureKind::Unauthenticated,
    )
    .await;

    // A certificate of an agent, even with the token of a reader.
    let viewer = reviewer.add_viewer();
    let channel = coordinator
        .dial(Some(&node_certificate(&coordinator.authority, "n1")))
        .await;
    refused(&channel, None, "not-a-person", FailureKind::Forbidden).await;
    refused(&channel, Some(&viewer), "not-a-person", FailureKind::Forbidden).await;

    reviewer.set_down(true);
    let channel = coordinator.dial(None).await;
    refused(&channel, Some(&viewer), "token-review", FailureKind::Unreachable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_holder() {
    let (coordinator, _) = start().await;
    for role in [Role::Viewer, Role::Operator] {
        let identity = person_certificate(&coordinator.authority, "ann@example.org", role);
        assert_eq!(
            version(&coordinator.dial(Some(&identity)).await, None)
                .await
                .unwrap(),
            "9.9.9"
        );
    }
    // Of another authority, or expired: TLS refuses, so there is nobody to answer.
    let long_ago = UnixMillis(crate::support::now().0 - 86_400_000 * 2);
    let name = hasteward_proto::channel::PersonName::new("ann").unwrap();
    let expired = coordinator
        .authority
        .issue(
            &Subject::Person {
                name,
                role: Role::Operator,
            },
            long_ago,
        )
        .unwrap();
    let foreign = person_certificate(&authority(), "eve", Role::Operator);
    for identity in [expired, foreign] {
        let failure = version(&coordinator.dial(Some(&identity)).await, None)
            .await
            .unwrap_err();
        assert!(!failure.code.starts_with("no-"), "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator =
        Coordinator::start_with(authority(), &reviewer, MUTATING, EnrolmentRate::default()).await;
    let token = reviewer.add_viewer();
    let anonymous = coordinator.dial(None).await;
    refused(&anonymous, Some(&token), "role-too-low", FailureKind::Forbidden).await;
    let viewer = coordinator
        .dial(Some(&person_certificate(
            &coordinator.authority,
            "ann",
            Role::Viewer,
        )))
        .await;
    refused(&viewer, None, "role-too-low", FailureKind::Forbidden).await;
    let operator = coordinator
        .dial(Some(&person_certificate(
            &coordinator.authority,
            "bob",
            Role::Operator,
        )))
        .await;
    assert_eq!(version(&operator, None).await.unwrap(), "9.9.9");
    StewardClient::new(operator.clone())
        .list_agents(ListAgentsRequest {})
        .await
        .unwrap();

    // Served, and not listed.
    let unlisted = StewardClient::new(operator)
        .list_clusters(ListClustersRequest::default())
        .await
        .unwrap_err();
    let failure = Failure::from(unlisted);
    assert_eq!(
        (failure.code.as_str(), failure.kind),
        ("method-unknown", FailureKind::Forbidden)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_protocols_are_spoken() {
    let (coordinator, _) = start().await;
    let bundle = coordinator.authority.trust_bundle().unwrap();
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = client_config(&bundle, None, Protocol::People).unwrap();
        config.alpn_protocols = alpn;
        let socket = tokio::net::TcpStream::connect(coordinator.address).await.unwrap();
        let name = hasteward_proto::channel::ServerName::try_from(crate::support::NAME).unwrap();
        let mut connecting = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await;
        if let Ok(stream) = &mut connecting {
            use tokio::io::AsyncReadExt as _;
            let mut byte = [0];
            let read = crate::support::soon("closed", stream.read(&mut byte)).await;
            assert!(matches!(read, Ok(0) | Err(_)));
        }
    }
    crate::support::until("refused", async || coordinator.told.count("refused tls") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_holds_no_place() {
    let (coordinator, reviewer) = start().await;
    let token = reviewer.add_viewer();
    let talking = coordinator.dial(None).await;
    version(&talking, Some(&token)).await.unwrap();
    let silent = coordinator.dial(None).await;
    coordinator.told("refused silent").await;
    assert!(version(&silent, Some(&token)).await.is_err());
    // Who has called once may be quiet.
    version(&talking, Some(&token)).await.unwrap();
    assert_eq!(coordinator.told.count("refused silent"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_only_is_refused_holds_no_place() {
    let (coordinator, _) = start().await;
    let stranger = coordinator.dial(None).await;
    assert!(version(&stranger, Some("a.b.c")).await.is_err());
    assert!(version(&stranger, None).await.is_err());
    coordinator.told("refused silent").await;
}
