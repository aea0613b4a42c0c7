//! Each reason to refuse a certificate, by its own variant.

use hasteward_coordinator::fleet::admission::admit;
use hasteward_coordinator::fleet::{AdmissionPolicy, ControllerRef, PodFacts, Refusal, TokenClaims};
use secrecy::SecretString;

use crate::support::node;
use crate::support::reviewer::{FakeReviewer, NAMESPACE, agent_claims, agent_pod};

async fn ask(reviewer: &FakeReviewer, token: &str, claimed: &str) -> Result<String, Refusal> {
    admit(
        reviewer,
        &AdmissionPolicy::new(NAMESPACE),
        &SecretString::from(token),
        &node(claimed),
    )
    .await
}

/// A token and a pod of node `n1`, each changed by the case.
async fn ask_changed(
    claims: impl FnOnce(&mut TokenClaims),
    pod: impl FnOnce(&mut PodFacts),
) -> Result<String, Refusal> {
    let reviewer = FakeReviewer::default();
    let (mut said, mut facts) = (agent_claims("n1"), agent_pod("n1"));
    claims(&mut said);
    pod(&mut facts);
    reviewer.set_pod("agent-n1", Some(facts));
    let token = reviewer.add_token("agent", "hasteward-agent", said);
    ask(&reviewer, &token, "n1").await
}

fn owner(change: impl FnOnce(&mut ControllerRef)) -> impl FnOnce(&mut PodFacts) {
    |pod| change(pod.controller.as_mut().unwrap())
}

#[tokio::test]
async fn an_agent_is_admitted() {
    assert_eq!(ask_changed(|_| {}, |_| {}).await, Ok("agent-n1".to_owned()));
    // Kubernetes before 1.30 does not put the node into the token.
    assert_eq!(
        ask_changed(|c| c.node_name = None, |_| {}).await,
        Ok("agent-n1".to_owned())
    );
}

#[tokio::test]
async fn tokens_of_others_are_refused() {
    let reviewer = FakeReviewer::default();
    let cli = reviewer.add_viewer();
    assert_eq!(ask(&reviewer, &cli, "n1").await, Err(Refusal::TokenRejected));
    for malformed in ["", "a", "a.b", "a.b.c.d", "a..c", "a.b.c\n", "a.b.ü"] {
        assert_eq!(
            ask(&reviewer, malformed, "n1").await,
            Err(Refusal::MalformedToken),
            "{malformed:?}"
        );
    }
    let long = format!("a.{}.c", "b".repeat(20_000));
    assert_eq!(ask(&reviewer, &long, "n1").await, Err(Refusal::MalformedToken));
    assert_eq!(
        reviewer.reviews(),
        1,
        "a malformed token is no question to the API server"
    );

    // An API server that does not check audiences says another one, or none.
    let audience = ask_changed(
        |c| c.audiences = vec!["https://kubernetes.default.svc".into()],
        |_| {},
    )
    .await;
    assert!(matches!(audience, Err(Refusal::Audience(_))), "{audience:?}");
    for other in [
        "system:serviceaccount:hasteward:default",
        "system:serviceaccount:other:hasteward-agent",
        "hasteward-agent",
    ] {
        let refused = ask_changed(|c| c.username = other.into(), |_| {}).await;
        assert!(
            matches!(refused, Err(Refusal::ServiceAccount { .. })),
            "{other}: {refused:?}"
        );
    }
    assert_eq!(
        ask_changed(|c| c.pod_name = None, |_| {}).await,
        Err(Refusal::NotBoundToPod)
    );
    assert_eq!(
        ask_changed(|c| c.pod_uid = None, |_| {}).await,
        Err(Refusal::NotBoundToPod)
    );
}

#[tokio::test]
async fn pods_that_are_no_living_agents_are_refused() {
    let pod = || "agent-n1".to_owned();
    let reviewer = FakeReviewer::default();
    let token = reviewer.add_agent("n1");
    reviewer.set_pod("agent-n1", None);
    assert_eq!(ask(&reviewer, &token, "n1").await, Err(Refusal::PodGone(pod())));

    assert_eq!(
        ask_changed(|_| {}, |p| p.uid = "uid-new".into()).await,
        Err(Refusal::PodReplaced(pod()))
    );
    let empty = ask_changed(|c| c.pod_uid = Some(String::new()), |p| p.uid = String::new()).await;
    assert_eq!(empty, Err(Refusal::PodReplaced(pod())));
    assert_eq!(
        ask_changed(|_| {}, |p| p.terminating = true).await,
        Err(Refusal::PodTerminating(pod()))
    );
    assert_eq!(
        ask_changed(|_| {}, |p| p.finished = true).await,
        Err(Refusal::PodFinished(pod()))
    );
    assert_eq!(
        ask_changed(|_| {}, |p| p.node = None).await,
        Err(Refusal::PodUnscheduled(pod()))
    );

    let not_ours = Refusal::NotOurDaemonSet {
        pod: pod(),
        daemon_set: "hasteward-agent".into(),
    };
    assert_eq!(
        ask_changed(|_| {}, |p| p.controller = None).await,
        Err(not_ours.clone())
    );
    assert_eq!(
        ask_changed(|_| {}, owner(|o| o.kind = "ReplicaSet".into())).await,
        Err(not_ours.clone())
    );
    assert_eq!(
        ask_changed(|_| {}, owner(|o| o.name = "other".into())).await,
        Err(not_ours.clone())
    );
    assert_eq!(
        ask_changed(|_| {}, owner(|o| o.api_version = "evil/v1".into())).await,
        Err(not_ours.clone())
    );
    // The name of our DaemonSet, and not the object.
    assert_eq!(
        ask_changed(|_| {}, owner(|o| o.uid = "forged".into())).await,
        Err(not_ours)
    );
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_node_only() {
    let reviewer = FakeReviewer::default();
    let token = reviewer.add_agent("n1");
    let refused = ask(&reviewer, &token, "n2").await;
    let expected = Refusal::OtherNode {
        pod: "agent-n1".into(),
        found: "n1".into(),
        claimed: node("n2"),
    };
    assert_eq!(refused, Err(expected));
    let token_says_other = ask_changed(|c| c.node_name = Some("n2".into()), |_| {}).await;
    assert!(
        matches!(token_says_other, Err(Refusal::OtherNode { .. })),
        "{token_says_other:?}"
    );
}

#[tokio::test]
async fn not_knowing_is_no_yes() {
    let reviewer = FakeReviewer::default();
    let token = reviewer.add_agent("n1");
    reviewer.set_down(true);
    assert!(matches!(
        ask(&reviewer, &token, "n1").await,
        Err(Refusal::Unavailable(_))
    ));
}
