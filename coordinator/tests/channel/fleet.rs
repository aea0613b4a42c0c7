//! The fleet: who gets in, who wins, and how soon a loss is known.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hasteward_agent::service::enrol::Credentials;
use hasteward_coordinator::fleet::authority::Role;
use hasteward_coordinator::fleet::simulated::SimulatedAgent;
use hasteward_coordinator::fleet::{AgentState, CertificateAuthority, Fleet, NoEvents, SystemClock};
use hasteward_proto::channel::tls::{Protocol, client_config, connect};
use hasteward_proto::channel::{
    AgentInstance, CertifiedIdentity, ChannelSettings, ReverseError, ServerName, serve_reverse,
};
use hasteward_proto::primitive::UnixMillis;
use hasteward_proto::wire::agent::{CountCommitsRequest, DescribeRequest};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::agent::{Addresses, RunningAgent, TestAgent, certificate_files, config};
use crate::support::coordinator::Coordinator;
use crate::support::relay::Relay;
use crate::support::reviewer::FakeReviewer;
use crate::support::{
    LONG, NAME, authority, node, node_certificate, now, person_certificate, quick, soon, until,
};

async fn coordinator() -> Coordinator {
    Coordinator::start(authority(), &Arc::new(FakeReviewer::default())).await
}

/// One bare connection that serves `agent` as the holder of `identity`, to its end.
async fn serve_as(
    coordinator: &Coordinator,
    identity: Option<&CertifiedIdentity>,
    agent: &TestAgent,
) -> Result<(), ReverseError> {
    let bundle = coordinator.authority.trust_bundle().unwrap();
    let config = client_config(&bundle, identity, Protocol::Reverse).unwrap();
    let socket = TcpStream::connect(coordinator.address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let stream = connect(Arc::new(config), name, socket, LONG).await.unwrap();
    let instance = AgentInstance::random().unwrap();
    soon(
        "the end",
        serve_reverse(
            stream,
            agent.routes(),
            &instance,
            &quick(),
            CancellationToken::new(),
        ),
    )
    .await
}

fn files(dir: &tempfile::TempDir, authority: &CertificateAuthority, name: &str) -> Credentials {
    certificate_files(dir.path(), authority, name, now(), authority.bundle_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_count_are_refused() {
    let coordinator = coordinator().await;
    let agent = TestAgent::new("a");

    let foreign = node_certificate(&authority(), "a");
    let refused = serve_as(&coordinator, Some(&foreign), &agent).await;
    assert!(
        matches!(refused, Err(ReverseError::CertificateRefused(_))),
        "{refused:?}"
    );

    let subject = hasteward_coordinator::fleet::Subject::Node(node("a"));
    let long_ago = UnixMillis(now().0 - 3_600_000);
    let expired = coordinator
        .authority
        .issue_for(&subject, long_ago, Duration::from_secs(60))
        .unwrap();
    let refused = serve_as(&coordinator, Some(&expired), &agent).await;
    assert!(
        matches!(refused, Err(ReverseError::CertificateRefused(_))),
        "{refused:?}"
    );
    until("both are counted", async || {
        coordinator.told.count("refused tls") == 2
    })
    .await;

    let _ = serve_as(&coordinator, None, &agent).await;
    coordinator.told("refused no-certificate").await;
    let person = person_certificate(&coordinator.authority, "ann", Role::Operator);
    let _ = serve_as(&coordinator, Some(&person), &agent).await;
    coordinator.told("refused not-a-node").await;
    let other = node_certificate(&coordinator.authority, "b");
    let _ = serve_as(&coordinator, Some(&other), &agent).await;
    coordinator.told("refused agent-other-node").await;

    assert!(
        coordinator.fleet.list().is_empty(),
        "{:?}",
        coordinator.fleet.list()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_two_agents_wins_and_the_conflict_is_counted() {
    let coordinator = coordinator().await;
    let dir = tempfile::tempdir().unwrap();
    let addresses = Addresses::of(coordinator.address);
    let credentials = files(&dir, &coordinator.authority, "n1");
    let (first, mut second) = (TestAgent::new("n1"), TestAgent::new("n1"));
    second.version = "second".into();
    let first_running = RunningAgent::start(config("n1", &addresses, credentials.clone()), &first);
    coordinator.connected("n1").await;
    let mut client = coordinator.fleet.agent(&node("n1")).unwrap();
    assert_eq!(
        client
            .describe(DescribeRequest {})
            .await
            .unwrap()
            .into_inner()
            .version,
        "1.2.3"
    );

    let identity = node_certificate(&coordinator.authority, "n1");
    let serving = serve_as(&coordinator, Some(&identity), &second);
    let watching = async {
        until("the second is in place", async || {
            client
                .clone()
                .describe(DescribeRequest {})
                .await
                .is_ok_and(|d| d.into_inner().version == "second")
        })
        .await;
        until("counted", async || {
            coordinator.status("n1").unwrap().identity_conflicts >= 1
        })
        .await;
    };
    tokio::select! {
        served = serving => panic!("the newest was closed: {served:?}"),
        () = soon("conflict", watching) => {}
    }
    assert!(coordinator.told.count("conflict n1") >= 1);
    drop(first_running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_of_a_restarted_agent_is_no_conflict() {
    let coordinator = coordinator().await;
    let relay = Relay::start(coordinator.address).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = files(&dir, &coordinator.authority, "n1");
    let first = TestAgent::new("n1");
    let running = RunningAgent::start(
        config("n1", &Addresses::of(relay.address), credentials.clone()),
        &first,
    );
    coordinator.connected("n1").await;
    // The node loses power: nobody says good-bye, and the agent is back before the ping was missed.
    relay.set_deaf(true);
    drop(running);
    let mut second = TestAgent::new("n1");
    second.version = "second".into();
    let _running = RunningAgent::start(
        config("n1", &Addresses::of(coordinator.address), credentials),
        &second,
    );
    until("the second is in place", async || {
        coordinator
            .status("n1")
            .is_some_and(|s| s.described.is_some_and(|d| d.version == "second"))
    })
    .await;
    // Longer than the older connection could be thought alive.
    tokio::time::sleep(quick().liveness_bound() + Duration::from_millis(200)).await;
    let status = coordinator.status("n1").unwrap();
    assert_eq!(
        (status.state, status.identity_conflicts),
        (AgentState::Connected, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_loss_is_known_on_both_ends_within_the_keep_alive_bound() {
    let coordinator = coordinator().await;
    let relay = Relay::start(coordinator.address).await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = files(&dir, &coordinator.authority, "n1");
    let agent = TestAgent::new("n1");
    let addresses = Addresses::of(relay.address);
    let _running = RunningAgent::start(config("n1", &addresses, credentials), &agent);
    coordinator.connected("n1").await;
    let mut client = coordinator.fleet.agent(&node("n1")).unwrap();
    let in_flight = tokio::spawn(async move { client.count_commits(CountCommitsRequest::default()).await });
    soon("in flight", agent.waiting.acquire()).await.unwrap().forget();

    let begun = Instant::now();
    relay.set_deaf(true);
    let failed = soon("the call fails", in_flight).await.unwrap().unwrap_err();
    let noticed = begun.elapsed();
    assert_eq!(failed.code(), tonic::Code::Unavailable, "{failed}");
    // Scheduling on a busy machine is not part of the bound.
    let bound = quick().liveness_bound() + Duration::from_secs(1);
    println!(
        "silent loss noticed after {noticed:?}, bound {:?}",
        quick().liveness_bound()
    );
    assert!(noticed < bound, "{noticed:?}");
    coordinator.told("lost n1").await;
    // The agent dials again although nothing reaches it: its own end has noticed.
    until("the agent dials again", async || relay.accepted() >= 2).await;
    println!("the agent dialled again after {:?}", begun.elapsed());
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    relay.set_deaf(false);
    until("back", async || coordinator.told.count("connected n1") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_returns_to_a_restarted_coordinator() {
    let reviewer = Arc::new(FakeReviewer::default());
    let first = Coordinator::start(authority(), &reviewer).await;
    let authority = first.authority.clone();
    let dir = tempfile::tempdir().unwrap();
    let addresses = Addresses::of(first.address);
    let agent = TestAgent::new("n1");
    let _running = RunningAgent::start(config("n1", &addresses, files(&dir, &authority, "n1")), &agent);
    first.connected("n1").await;
    let changes = first.fleet.changes();
    let (seen, fleet) = (*changes.borrow(), first.fleet.clone());
    first.stop().await;
    assert!(*changes.borrow() > seen);
    assert_eq!(fleet.list()[0].state, AgentState::Lost);

    let second = Coordinator::start(authority, &reviewer).await;
    addresses.set(second.address);
    soon("back", second.fleet.wait_for(&node("n1"))).await;
    assert_eq!(second.status("n1").unwrap().identity_conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_before_the_coordinator_has_a_name_does_not_wait_for_the_next_look() {
    let coordinator = Coordinator::start(authority(), &Arc::new(FakeReviewer::default())).await;
    let dir = tempfile::tempdir().unwrap();
    let addresses = Addresses::default();
    let agent = TestAgent::new("n1");
    let mut config = config("n1", &addresses, files(&dir, &coordinator.authority, "n1"));
    config.pauses.resolve_every = Duration::from_secs(3600);
    let _running = RunningAgent::start(config, &agent);
    // Long enough for a first look that finds no name; were it shorter, the test would only prove less.
    tokio::time::sleep(Duration::from_millis(50)).await;
    addresses.set(coordinator.address);
    coordinator.connected("n1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_gets_a_connection() {
    let reviewer = Arc::new(FakeReviewer::default());
    let one = Coordinator::start(authority(), &reviewer).await;
    let two = Coordinator::start(one.authority.clone(), &reviewer).await;
    let dir = tempfile::tempdir().unwrap();
    let addresses = Addresses::of(one.address);
    let agent = TestAgent::new("n1");
    let _running = RunningAgent::start(
        config("n1", &addresses, files(&dir, &one.authority, "n1")),
        &agent,
    );
    one.connected("n1").await;
    *addresses.0.lock().unwrap() = vec![one.address, two.address, two.address];
    two.connected("n1").await;
    assert_eq!(one.status("n1").unwrap().state, AgentState::Connected);
    // An address that is no longer listed keeps its connection while it lives.
    addresses.set(two.address);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(one.status("n1").unwrap().state, AgentState::Connected);
    assert_eq!(one.told.count("lost n1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn expected_agents_are_listed_before_they_connect() {
    let coordinator = coordinator().await;
    coordinator
        .fleet
        .set_expected(BTreeSet::from([node("n1"), node("n2")]));
    let agent = TestAgent::new("n2");
    let _plugged = SimulatedAgent::plug(
        &coordinator.fleet,
        node("n2"),
        AgentInstance::random().unwrap(),
        agent.routes(),
    );
    coordinator.connected("n2").await;
    let states: Vec<_> = coordinator
        .fleet
        .list()
        .into_iter()
        .map(|s| (s.node.to_string(), s.state))
        .collect();
    assert_eq!(
        states,
        [
            ("n1".to_owned(), AgentState::NeverSeen),
            ("n2".to_owned(), AgentState::Connected)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_over_the_reverse_channel_is_quick() {
    let coordinator = coordinator().await;
    let dir = tempfile::tempdir().unwrap();
    let agent = TestAgent::new("n1");
    let credentials = files(&dir, &coordinator.authority, "n1");
    let _running = RunningAgent::start(
        config("n1", &Addresses::of(coordinator.address), credentials),
        &agent,
    );
    let mut client = soon("connected", coordinator.fleet.wait_for(&node("n1"))).await;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        client.describe(DescribeRequest {}).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "unary round trip over TLS on loopback: p50 {:?}, p95 {:?}, max {:?}",
        times[100], times[190], times[199]
    );
    assert!(times[100] < Duration::from_millis(5), "p50 {:?}", times[100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_simulated_agents_plug_in() {
    let fleet = Fleet::new(
        ChannelSettings::default(),
        Arc::new(SystemClock),
        Arc::new(NoEvents),
    );
    let begun = Instant::now();
    let plugged: Vec<_> = (0..1000)
        .map(|i| {
            let name = format!("n{i}");
            let routes = TestAgent::new(&name).routes();
            SimulatedAgent::plug(&fleet, node(&name), AgentInstance::random().unwrap(), routes)
        })
        .collect();
    until("all connected", async || fleet.list().len() == 1000).await;
    let connected = begun.elapsed();
    let begun = Instant::now();
    let calls = fleet.list().into_iter().map(|status| {
        let mut client = fleet.agent(&status.node).unwrap();
        async move {
            client
                .describe(DescribeRequest {})
                .await
                .unwrap()
                .into_inner()
                .node
                == status.node.as_str()
        }
    });
    assert!(
        futures::future::join_all(calls)
            .await
            .into_iter()
            .all(|right| right)
    );
    println!(
        "1000 simulated agents: connected in {connected:?}, each called once in {:?}",
        begun.elapsed()
    );
    plugged[7].pull();
    until("one lost", async || fleet.agent(&node("n7")).is_none()).await;
    drop(plugged);
    until("all lost", async || {
        fleet.list().iter().all(|status| status.state == AgentState::Lost)
    })
    .await;
}
