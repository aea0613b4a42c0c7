//! A renewed certificate moves to a new connection without dropping a call.

use std::sync::Arc;
use std::time::Duration;

use hasteward_coordinator::fleet::{AgentState, CertificateAuthority};
use hasteward_proto::wire::agent::{CountCommitsRequest, DescribeRequest};

use crate::support::agent::{Addresses, RunningAgent, TestAgent, config, token_files};
use crate::support::coordinator::Coordinator;
use crate::support::reviewer::FakeReviewer;
use crate::support::{node, now, soon, until};

/// An authority whose certificates live for a few seconds.
fn short_lived(seconds: u64) -> Arc<CertificateAuthority> {
    let authority = CertificateAuthority::create(now()).unwrap();
    Arc::new(authority.with_leaf_validity(Duration::from_secs(seconds)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_survives_the_renewal() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator = Coordinator::start(short_lived(12), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(
        dir.path(),
        &reviewer.add_agent("n1"),
        coordinator.authority.bundle_pem(),
    );
    let agent = TestAgent::new("n1");
    let _running = RunningAgent::start(
        config("n1", &Addresses::of(coordinator.address), credentials),
        &agent,
    );
    let client = soon("connected", coordinator.fleet.wait_for(&node("n1"))).await;
    let first = coordinator.status("n1").unwrap();
    let mut calling = client.clone();
    let in_flight = tokio::spawn(async move { calling.count_commits(CountCommitsRequest::default()).await });
    soon("in flight", agent.waiting.acquire()).await.unwrap().forget();

    until("renewed", async || {
        coordinator.status("n1").unwrap().certificate_expires > first.certificate_expires
    })
    .await;
    assert!(!in_flight.is_finished());
    // New calls of the same client go over the new connection while the old call is still under way.
    client.clone().describe(DescribeRequest {}).await.unwrap();
    agent.gate.add_permits(1);
    soon("the call ends", in_flight)
        .await
        .unwrap()
        .expect("the call in flight is answered");
    client.clone().describe(DescribeRequest {}).await.unwrap();

    let status = coordinator.status("n1").unwrap();
    assert_eq!(
        (status.state, status.identity_conflicts),
        (AgentState::Connected, 0)
    );
    assert_eq!(
        coordinator.told.count("connected n1"),
        1,
        "a renewal is no reconnect"
    );
    assert_eq!(coordinator.told.count("lost n1"), 0);
    assert!(coordinator.told.count("enrolled n1") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_does_not_outlive_its_certificate() {
    let reviewer = Arc::new(FakeReviewer::default());
    let coordinator = Coordinator::start(short_lived(3), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = token_files(
        dir.path(),
        &reviewer.add_agent("n1"),
        coordinator.authority.bundle_pem(),
    );
    let agent = TestAgent::new("n1");
    let _running = RunningAgent::start(
        config("n1", &Addresses::of(coordinator.address), credentials),
        &agent,
    );
    coordinator.connected("n1").await;
    // Its pod is gone: no fresh token, no renewal, and the certificate dies out.
    reviewer.revoke_all();
    coordinator.lost("n1").await;
    let expired = coordinator.status("n1").unwrap().certificate_expires.unwrap();
    assert!(now() >= expired);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(coordinator.status("n1").unwrap().state, AgentState::Lost);
}
