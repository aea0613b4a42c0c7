//! Enrolment over the wire, and the agent's own way through it.

use std::sync::Arc;

use hasteward_agent::service::dial::{RunError, run};
use hasteward_agent::service::enrol::IdentityError;
use hasteward_coordinator::fleet::AgentState;
use hasteward_coordinator::fleet::enrolment::EnrolmentRate;
use hasteward_proto::channel::PeerCertificate;
use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::wire::agent::DescribeRequest;
use hasteward_proto::wire::enrol::EnrolRequest;
use hasteward_proto::wire::enrol::enrolment_client::EnrolmentClient;
use tokio_util::sync::CancellationToken;

use crate::support::agent::{
    Addresses, RunningAgent, TestAgent, certificate_files, config, request, token_files,
};
use crate::support::coordinator::Coordinator;
use crate::support::reviewer::FakeReviewer;
use crate::support::{authority, node, node_certificate, now, soon};

async fn enrol(coordinator: &Coordinator, token: &str, name: &str) -> Result<PeerCertificate, Failure> {
    let mut client = EnrolmentClient::new(coordinator.dial(None).await);
    let message = EnrolRequest {
        token: token.into(),
        certificate_request: request().into(),
        node: name.into(),
    };
    let reply = soon("enrol", client.enrol(message))
        .await
        .map_err(Failure::from)?
        .into_inner();
    Ok(PeerCertificate::from_der(&reply.chain[0]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_becomes_a_certificate_and_a_connection() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator = Coordinator::start(authority(), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(
        dir.path(),
        &reviewer.add_agent("n1"),
        coordinator.authority.bundle_pem(),
    );
    let agent = TestAgent::new("n1");
    let addresses = Addresses::of(coordinator.address);
    let running = RunningAgent::start(config("n1", &addresses, credentials), &agent);

    coordinator.connected("n1").await;
    assert_eq!(coordinator.told.count("enrolled n1"), 1);
    let status = coordinator.status("n1").unwrap();
    assert_eq!(status.described.unwrap().version, "1.2.3");
    let left = status.certificate_expires.unwrap().millis_since(now());
    assert!((23 * 3_600_000..=24 * 3_600_000).contains(&left), "{left}");
    let mut client = coordinator.fleet.agent(&node("n1")).unwrap();
    assert_eq!(
        client
            .describe(DescribeRequest {})
            .await
            .unwrap()
            .into_inner()
            .node,
        "n1"
    );

    running.shutdown.cancel();
    coordinator.lost("n1").await;
    let gone = client.describe(DescribeRequest {}).await.unwrap_err();
    assert_eq!(Failure::from(gone).kind, FailureKind::Unreachable);
    assert!(coordinator.fleet.agent(&node("n1")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wire_says_who_is_refused_and_why() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator = Coordinator::start(authority(), &reviewer).await;
    let agent = reviewer.add_agent("n1");
    let (cli, gone, other) = (
        reviewer.add_viewer(),
        reviewer.add_agent("n2"),
        reviewer.add_agent("n3"),
    );
    reviewer.set_pod("agent-n2", None);

    let certificate = enrol(&coordinator, &agent, "n1").await.unwrap();
    assert_eq!(certificate.identity.uri(), "spiffe://hasteward/node/n1");
    for (token, name, code, kind) in [
        (&cli, "n1", "enrol-token-rejected", FailureKind::Unauthenticated),
        (&gone, "n2", "enrol-pod-gone", FailureKind::Forbidden),
        (&other, "n1", "enrol-other-node", FailureKind::Forbidden),
        (
            &"x".to_owned(),
            "n1",
            "enrol-malformed-token",
            FailureKind::Unauthenticated,
        ),
        (&agent, "N1", "enrol-node", FailureKind::Input),
    ] {
        let failure = enrol(&coordinator, token, name).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.kind), (code, kind), "{failure}");
        assert!(
            !failure.message.contains("header."),
            "a token in an error: {failure}"
        );
        assert_eq!(coordinator.told.count(&format!("enrolment refused {code}")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_is_bounded_in_rate_and_size() {
    let reviewer = Arc::new(FakeReviewer::default());
    let rate = EnrolmentRate {
        per_second: 0,
        burst: 2,
    };
    let table = hasteward_coordinator::api::requirement::METHODS;
    let coordinator = Coordinator::start_with(authority(), &reviewer, table, rate).await;
    let token = reviewer.add_agent("n1");

    let mut client = EnrolmentClient::new(coordinator.dial(None).await);
    let message = EnrolRequest {
        token: "a".repeat(100_000),
        ..EnrolRequest::default()
    };
    assert_eq!(
        client.enrol(message).await.unwrap_err().code(),
        tonic::Code::OutOfRange
    );
    assert_eq!(reviewer.reviews(), 0);

    enrol(&coordinator, &token, "n1").await.unwrap();
    enrol(&coordinator, &token, "n1").await.unwrap();
    let failure = enrol(&coordinator, &token, "n1").await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("enrol-busy", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_files_works_and_must_be_the_nodes() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator = Coordinator::start(authority(), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = &coordinator.authority;
    let credentials = certificate_files(dir.path(), authority, "b", now(), authority.bundle_pem());
    let addresses = Addresses::of(coordinator.address);

    // Said at the start, before anything is dialled.
    let wrong = run(
        config("a", &addresses, credentials.clone()),
        TestAgent::new("a").routes(),
        CancellationToken::new(),
    );
    let error = soon("refused", wrong).await.unwrap_err();
    assert!(
        matches!(error, RunError::Identity(IdentityError::OtherNode { .. })),
        "{error}"
    );

    let agent = TestAgent::new("b");
    let _running = RunningAgent::start(config("b", &addresses, credentials), &agent);
    coordinator.connected("b").await;
    assert_eq!(coordinator.told.count("enrolled b"), 0);
    let _ = node_certificate(authority, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_authority_makes_the_agent_enrol_again() {
    let reviewer = Arc::new(FakeReviewer::default());
    let first = Coordinator::start(authority(), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(
        dir.path(),
        &reviewer.add_agent("n1"),
        first.authority.bundle_pem(),
    );
    let addresses = Addresses::of(first.address);
    let agent = TestAgent::new("n1");
    let _running = RunningAgent::start(config("n1", &addresses, credentials), &agent);
    first.connected("n1").await;
    first.stop().await;

    let second = Coordinator::start(authority(), &reviewer).await;
    std::fs::write(dir.path().join("ca.crt"), second.authority.bundle_pem()).unwrap();
    addresses.set(second.address);
    second.connected("n1").await;
    assert_eq!(second.told.count("enrolled n1"), 1);
    assert_eq!(second.status("n1").unwrap().state, AgentState::Connected);
}
