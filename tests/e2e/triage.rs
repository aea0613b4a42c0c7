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

/// A row of the oracle: what a fault must give.
struct Row {
    verdict: &'static str,
    authority: Option<&'static str>,
    diagnosis: &'static str,
    target: &'static str,
    actions: &'static [&'static str],
}

impl Row {
    /// What `report` lacks of this row.
    fn lacks(&self, report: &Value) -> Option<String> {
        let data = &report["data"];
        let verdict = &data["verdict"];
        if verdict["kind"] != self.verdict {
            return Some(format!("verdict {}, not {}", verdict["kind"], self.verdict));
        }
        if verdict["authority"].as_str() != self.authority {
            return Some(format!(
                "authority {}, not {:?}",
                verdict["authority"], self.authority
            ));
        }
        let list = |name: &str| data[name].as_array().cloned().unwrap_or_default();
        let diagnosed = |d: &Value| d["id"] == self.diagnosis && d["target"] == self.target;
        if !list("diagnoses").iter().any(diagnosed) {
            return Some(format!("no {} of {}", self.diagnosis, self.target));
        }
        let instances = list("instances");
        let action = &instances.iter().find(|i| i["instance"] == self.target)?["action"];
        let expected = self.actions.iter().any(|wanted| action == wanted);
        (!expected).then(|| format!("action {action}, not one of {:?}", self.actions))
    }
}

/// Triages until the report fits the row: a change takes a moment to reach the caches of the coordinator.
async fn triage_fits(lab: &Lab, row: &Row) -> Value {
    let audit = lab.audit().unwrap();
    let fits = async || {
        let output = lab.hasteward(&TRIAGE).await?;
        let report: Value = serde_json::from_str(&output.stdout)?;
        Ok(match row.lacks(&report) {
            None if output.code == TO_ACT_ON => Look::Done(report),
            None => Look::NotYet(format!("exit code {}", output.code)),
            Some(lacks) => Look::NotYet(format!("{lacks}: {report:#}")),
        })
    };
    let report = until(
        format!("triage fits {}", row.diagnosis),
        Duration::from_secs(60),
        fits,
    )
    .await
    .unwrap();
    let ours = |user: &str| user.starts_with("system:serviceaccount:hasteward-system:");
    let writes = audit.writes(ours).unwrap();
    assert!(writes.is_empty(), "{writes:?}");
    report
}

/// Every fault of the lab on one cluster, one after the other: the table of the oracle.
async fn the_oracle_holds(wal_volume: bool) {
    let lab = Lab::up(UpOptions {
        pg: 3,
        wal_volume,
        ..UpOptions::NOTHING
    })
    .await
    .unwrap();
    triage_gives(&lab, HEALTHY).await;

    lab.inflict("kill-server", "pg-2").await.unwrap();
    let crash_loop = Row {
        verdict: "provable",
        authority: Some("pg-1"),
        diagnosis: "cnpg-replica-down",
        target: "pg-2",
        actions: &["restart"],
    };
    triage_fits(&lab, &crash_loop).await;
    lab.heal("pg-2").await.unwrap();
    lab.healthy(3).await.unwrap();
    triage_gives(&lab, HEALTHY).await;

    lab.inflict("diverge", "pg-2").await.unwrap();
    let diverged = Row {
        verdict: "diverged",
        authority: None,
        diagnosis: "cnpg-split-brain-diverged",
        target: "pg-2",
        actions: &["blocked"],
    };
    let report = triage_fits(&lab, &diverged).await;
    let branches = report["data"]["verdict"]["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 2, "{branches:?}");
    for branch in branches {
        assert!(
            branch["commitsPastFork"].as_u64().is_some_and(|n| n > 0),
            "commits are counted: {branch}"
        );
        assert!(
            branch["firstCommitAt"].is_i64() && branch["lastCommitAt"].is_i64(),
            "and have a time: {branch}"
        );
    }
    lab.down().unwrap();
}

#[tokio::test]
async fn the_oracle_holds_without_a_wal_volume() {
    the_oracle_holds(false).await;
}

#[tokio::test]
async fn the_oracle_holds_with_a_wal_volume() {
    the_oracle_holds(true).await;
}

#[tokio::test]
async fn a_replica_whose_wal_is_gone_is_to_be_reseeded() {
    for wal_volume in [false, true] {
        let lab = Lab::up(UpOptions {
            pg: 3,
            wal_volume,
            ..UpOptions::NOTHING
        })
        .await
        .unwrap();
        triage_gives(&lab, HEALTHY).await;
        lab.inflict("lose-slot", "pg-3").await.unwrap();
        let missing = Row {
            verdict: "provable",
            authority: Some("pg-1"),
            diagnosis: "cnpg-replica-missing-wal",
            target: "pg-3",
            actions: &["reseed"],
        };
        triage_fits(&lab, &missing).await;
        lab.down().unwrap();
    }
}
