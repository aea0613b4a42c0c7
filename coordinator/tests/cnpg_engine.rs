//! The CNPG engine against a real watch protocol and agents that answer what a test says: what it collects, what it makes
//! of an API server that fails, and that it writes nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/cnpg.rs"]
#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hasteward_proto::failure::FailureKind;
use hasteward_verdict::report::{Action, VerdictKind};
use support::{Answer, Scene};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_cluster_is_provable_and_nothing_is_written() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    let before = scene.writes();
    let report = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    assert_eq!(report.verdict.kind, VerdictKind::Provable, "{report:#?}");
    assert_eq!(report.verdict.authority.as_ref().unwrap().as_str(), "pg-1");
    assert_eq!(report.exit_code(), 0, "{report:#?}");
    assert!(
        report.instances.iter().all(|i| i.action == Action::None),
        "{report:#?}"
    );
    assert_eq!(scene.writes(), before, "triage wrote to the API server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_told_what_the_api_server_says_and_no_more() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    let target = scene.agents.asked("node-2").pop().unwrap();
    assert_eq!(
        (
            target.cluster.as_str(),
            target.instance.as_str(),
            target.container.as_str()
        ),
        ("pg", "pg-2", "postgres")
    );
    assert_eq!(target.container_id, "b".repeat(64));
    let volume = target
        .volumes
        .iter()
        .find(|v| v.mount_path == "/var/lib/postgresql/data")
        .unwrap();
    assert_eq!(
        volume.name, "pv-pg-2",
        "the last part of the path is the PV's name"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_costs_its_limit_and_only_its_own_row() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    scene.agents.set("node-3", Answer::Hang);
    let begun = Instant::now();
    let report = scene
        .engine
        .triage(&support::cluster(), Duration::from_millis(700))
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(
        report.verdict.kind,
        VerdictKind::Provable,
        "the primary still sees it stream: {report:#?}"
    );
    assert!(
        report
            .instances
            .iter()
            .any(|i| i.instance.as_str() == "pg-3" && !i.unread.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_streaming_is_remembered() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    // The replica's node goes away, and with it its row on the primary.
    scene.agents.set("node-3", Answer::Gone);
    scene.agents.set("node-1", Answer::primary(&["pg-2"]));
    let report = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    let gone = report
        .instances
        .iter()
        .find(|i| i.instance.as_str() == "pg-3")
        .unwrap();
    assert!(
        gone.position.as_ref().is_some_and(|p| p.seen_at.is_some()),
        "{gone:#?}"
    );
    assert_eq!(report.verdict.kind, VerdictKind::Provable, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_only_carries_the_label_is_no_instance() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    scene
        .create("pods", &support::pod("pg-9", "node-1", "some-other-uid"))
        .await;
    let report = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    let names: Vec<_> = report.instances.iter().map(|i| i.instance.as_str()).collect();
    assert_eq!(names, ["pg-1", "pg-2", "pg-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_fails_bounds_the_time_and_is_said() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    for rule in [
        r#"[{"prefix": "/", "code": 500}]"#,
        r#"[{"prefix": "/", "code": 410}]"#,
        r#"[{"prefix": "/", "code": 503}]"#,
        r#"[{"prefix": "/", "delayMs": 60000}]"#,
    ] {
        scene.fault(rule);
        let begun = Instant::now();
        let report = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
        assert!(begun.elapsed() < LIMIT, "{rule}: {:?}", begun.elapsed());
        assert_ne!(report.verdict.kind, VerdictKind::Diverged, "{rule}");
        assert!(
            report
                .instances
                .iter()
                .all(|i| matches!(i.action, Action::None | Action::Wait | Action::Blocked)),
            "{rule}: {report:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_operator_there_is_an_answer_too() {
    let scene = Scene::without_operator().await;
    let failure = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.kind),
        ("operator-not-installed", FailureKind::NotFound)
    );
    assert!(scene.engine.list(None).is_empty());
    // The operator is installed later: no restart is needed.
    scene.install_operator().await;
    scene.healthy_cluster().await;
    assert_eq!(scene.engine.list(None).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_cluster_names_those_that_exist() {
    let scene = Scene::start().await;
    scene.healthy_cluster().await;
    let mut other = support::cluster();
    other.name = "nope".to_owned();
    let failure = scene.engine.triage(&other, LIMIT).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.hint.unwrap().contains("db/pg"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_of_two_primaries_reigns_proves_nothing() {
    let scene = Arc::new(Scene::start().await);
    scene.healthy_cluster().await;
    // Each time that the primary is read, the roles change right after the custom resource was.
    let turn = Arc::new(AtomicUsize::new(0));
    let (switching, count) = (Arc::downgrade(&scene), turn.clone());
    scene.agents.before(move || {
        let next = ["pg-2", "pg-1"][count.fetch_add(1, Ordering::Relaxed) % 2];
        switching.upgrade().unwrap().switch_to(next)
    });
    let report = scene.engine.triage(&support::cluster(), LIMIT).await.unwrap();
    assert_eq!(turn.load(Ordering::Relaxed), 2, "it looked once more");
    assert_eq!(report.verdict.kind, VerdictKind::Undeterminable, "{report:#?}");
    assert_eq!(report.exit_code(), 4);
    let calm = |action| matches!(action, Action::None | Action::Wait | Action::Blocked);
    assert!(report.instances.iter().all(|i| calm(i.action)), "{report:#?}");
}
