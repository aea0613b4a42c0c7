//! `hasteward triage` of a PostgreSQL cluster: healthy, harmed in each way that the lab knows, and never changing anything.

use std::time::Duration;

use hasteward_lab::options::UpOptions;
use hasteward_lab::wait::{Look, until};
use hasteward_lab::{Lab, cnpg};
use serde_json::Value;

const TRIAGE: [&str; 9] = [
    "triage",
    "-e",
    "cnpg",
    "-c",
    cnpg::CLUSTER,
    "-n",
    cnpg::NAMESPACE,
    "--output",
    "json",
];
const HEALTHY: i32 = 0;
const TO_ACT_ON: i32 = 6;

async fn three() -> Lab {
    let lab = Lab::up(UpOptions {
        pg: 3,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    triage_gives(&lab, HEALTHY).await;
    lab
}

/// Triages until it ends with this code: agents report a change within their own interval.
async fn triage_gives(lab: &Lab, code: i32) -> Value {
    until(
        format!("triage ends with {code}"),
        Duration::from_secs(60),
        async || {
            let output = lab.hasteward(&TRIAGE).await?;
            Ok(if output.code == code {
                Look::Done(serde_json::from_str(&output.stdout)?)
            } else {
                Look::NotYet(format!("{}: {}{}", output.code, output.stdout, output.stderr))
            })
        },
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_healthy_cluster_and_nothing_changed() {
    let lab = three().await;
    let instances = ["pg-1", "pg-2", "pg-3"];

    // While the servers run: the API server saw no write by anybody of hasteward.
    let audit = lab.audit().unwrap();
    for _ in 0..3 {
        assert_eq!(lab.hasteward(&TRIAGE).await.unwrap().code, HEALTHY);
    }
    let ours = |user: &str| {
        user.starts_with("system:serviceaccount:hasteward-system:") || user == "kubernetes-admin"
    };
    let writes = audit.writes(ours).unwrap();
    assert!(writes.is_empty(), "{writes:?}");

    // With every process of the instances stopped, any changed byte, mode or time is ours.
    let frozen = lab.freeze(&instances).await.unwrap();
    let before = lab.volume_files(&instances).await.unwrap();
    let output = lab.hasteward(&TRIAGE).await.unwrap();
    let after = lab.volume_files(&instances).await.unwrap();
    drop(frozen);
    assert!(before.len() > 100, "the volumes hold databases");
    assert_eq!(before.differences(&after), Vec::<String>::new());
    assert!(
        !output.stdout.is_empty(),
        "frozen servers are an answer, not a hang"
    );
    lab.down().unwrap();
}

#[tokio::test]
async fn a_crash_loop_over_intact_data() {
    let lab = three().await;
    lab.inflict("kill-server", "pg-2").await.unwrap();
    triage_gives(&lab, TO_ACT_ON).await;
    lab.heal("pg-2").await.unwrap();
    lab.healthy(3).await.unwrap();
    triage_gives(&lab, HEALTHY).await;
    lab.down().unwrap();
}

#[tokio::test]
async fn a_replica_whose_wal_is_gone() {
    let lab = three().await;
    lab.inflict("lose-slot", "pg-3").await.unwrap();
    triage_gives(&lab, TO_ACT_ON).await;
    lab.down().unwrap();
}

#[tokio::test]
async fn a_replica_that_left_its_primarys_history() {
    let lab = three().await;
    lab.inflict("diverge", "pg-2").await.unwrap();
    let report = triage_gives(&lab, TO_ACT_ON).await;
    assert!(report.to_string().contains("pg-2"), "{report}");
    lab.down().unwrap();
}
