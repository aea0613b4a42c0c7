//! Switchover, failover and what becomes of a former primary.

use crate::lab::{CLUSTER, Lab};
use hasteward_lab_standins::cnpg::{names, patch_status};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use std::fs;
use std::time::Duration;

async fn until_primary(lab: &Lab, instance: &str) {
    lab.until(&format!("{instance} leads"), Duration::from_secs(60), || async {
        (lab.cluster().await.current_primary() == Some(instance)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_switchover_rewinds_and_demotes_the_old_primary() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    patch_status(&lab.scope, CLUSTER, None, &json!({"targetPrimary": "pg-2"}))
        .await
        .unwrap();
    until_primary(&lab, "pg-2").await;
    let signal = lab.pgdata("pg-1").await.join("standby.signal");
    lab.until("the old primary is demoted", Duration::from_secs(40), || async {
        signal.exists().then_some(())
    })
    .await;
    lab.until_healthy().await;
    assert!(!lab.pgdata("pg-1").await.join("global/pg_control.old").exists());
    lab.until("timeline 2 everywhere", Duration::from_secs(20), || async {
        let one = lab.report("pg-1").await.ok()?;
        let two = lab.report("pg-2").await.ok()?;
        (one.timeline_id == 2 && two.timeline_id == 2 && !one.is_primary && two.is_primary).then_some(())
    })
    .await;
    assert_eq!(
        lab.pod("pg-2").await.unwrap().metadata.labels.unwrap()[names::INSTANCE_ROLE],
        "primary"
    );
}

#[tokio::test]
async fn a_former_primary_is_rewound_before_its_fence_is_read() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    lab.annotate(names::BREAK_ARCHIVING, Some("true")).await;
    lab.sql("pg-1", "CREATE TABLE t AS SELECT 1; SELECT pg_switch_wal()")
        .await
        .unwrap();
    lab.delete_pod("pg-1").await;
    until_primary(&lab, "pg-2").await;
    // While archiving is broken the former primary cannot come up, and no fence keeps it from trying.
    lab.fence(r#"["pg-1"]"#).await;
    let log = lab.node.root.join("pg-1.log");
    lab.until(
        "the start-up path fails on archiving",
        Duration::from_secs(40),
        || async {
            let text = fs::read_to_string(&log).unwrap_or_default();
            (text.matches("archiving the WAL that is left").count() >= 2).then_some(())
        },
    )
    .await;
    assert!(!lab.pgdata("pg-1").await.join("standby.signal").exists());
    lab.annotate(names::BREAK_ARCHIVING, None).await;
    let pgdata = lab.pgdata("pg-1").await;
    lab.until(
        "it is rewound although it is fenced",
        Duration::from_secs(40),
        || async { pgdata.join("standby.signal").exists().then_some(()) },
    )
    .await;
    lab.until(
        "the fence is honoured after that",
        Duration::from_secs(20),
        || async {
            let report = lab.report("pg-1").await.ok()?;
            (report.might_be_unavailable && !report.is_primary).then_some(())
        },
    )
    .await;
    assert!(lab.postmaster("pg-1").await.is_none());
    lab.unfence().await;
    lab.until_healthy().await;
}

#[tokio::test]
async fn a_killed_postmaster_ends_the_container() {
    let lab = Lab::start(json!({"instances": 1})).await;
    lab.until_healthy().await;
    let postmaster = lab.postmaster("pg-1").await.unwrap();
    kill(postmaster, Signal::SIGKILL).unwrap();
    lab.until(
        "the container restarted after a failure",
        Duration::from_secs(30),
        || async {
            let status = lab.pod("pg-1").await?.status?.container_statuses?.remove(0);
            let code = status.last_state?.terminated?.exit_code;
            (status.restart_count == 1 && code == 1).then_some(())
        },
    )
    .await;
    lab.until_healthy().await;
}

#[tokio::test]
async fn a_paused_operator_does_not_move_the_labels() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    lab.annotate(names::RECONCILIATION_LOOP, Some("disabled")).await;
    patch_status(&lab.scope, CLUSTER, None, &json!({"targetPrimary": "pg-2"}))
        .await
        .unwrap();
    until_primary(&lab, "pg-2").await;
    assert_eq!(
        lab.pod("pg-2").await.unwrap().metadata.labels.unwrap()[names::INSTANCE_ROLE],
        "replica"
    );
    lab.annotate(names::RECONCILIATION_LOOP, None).await;
    lab.until("the labels follow", Duration::from_secs(20), || async {
        let labels = lab.pod("pg-2").await?.metadata.labels?;
        (labels[names::INSTANCE_ROLE] == "primary").then_some(())
    })
    .await;
    lab.until_healthy().await;
}

#[tokio::test]
async fn a_failed_primary_is_replaced_through_pending() {
    let lab = Lab::start(json!({"instances": 3})).await;
    lab.until_healthy().await;
    lab.sql("pg-1", "CREATE TABLE kept AS SELECT 7 AS x")
        .await
        .unwrap();
    lab.delete_pod("pg-1").await;
    lab.until("another instance leads", Duration::from_secs(60), || async {
        let cluster = lab.cluster().await;
        (cluster.current_primary() != Some("pg-1") && cluster.current_primary() == cluster.target_primary())
            .then_some(())
    })
    .await;
    lab.until_healthy().await;
    let leader = lab.cluster().await.current_primary().unwrap().to_owned();
    assert_eq!(lab.sql(&leader, "SELECT x FROM kept").await.unwrap(), "7");
    let events = lab
        .scope
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
    assert!(
        reasons.iter().any(|reason| reason == "FailingOver"),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|reason| reason == "FailoverTarget"),
        "{reasons:?}"
    );
    lab.until("pg-1 follows", Duration::from_secs(30), || async {
        let report = lab.report("pg-1").await.ok()?;
        (!report.is_primary && report.timeline_id == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_promoted_behind_the_managers_back_is_rewound() {
    // Without an archive a rewind needs the WAL back to the last common checkpoint in pg_wal.
    let parameters = json!({"shared_buffers": "16MB", "fsync": "off", "wal_keep_size": "512MB"});
    let lab = Lab::start(json!({"instances": 2, "postgresql": {"parameters": parameters}})).await;
    lab.until_healthy().await;
    lab.sql("pg-2", "SELECT pg_promote(false)").await.unwrap();
    // The manager may stop it before this commits.
    let _ = lab.sql("pg-2", "CREATE TABLE lost AS SELECT 1").await;
    lab.until("its container restarts", Duration::from_secs(30), || async {
        let status = lab.pod("pg-2").await?.status?.container_statuses?.remove(0);
        (status.restart_count > 0).then_some(())
    })
    .await;
    lab.sql("pg-1", "CREATE TABLE kept AS SELECT 7 AS x")
        .await
        .unwrap();
    lab.until("it follows again", Duration::from_secs(40), || async {
        let report = lab.report("pg-2").await.ok()?;
        let kept = lab.sql("pg-2", "SELECT x FROM kept").await.ok()?;
        (!report.is_primary && report.is_wal_receiver_active && kept == "7").then_some(())
    })
    .await;
    assert!(lab.sql("pg-2", "SELECT * FROM lost").await.is_err());
    assert!(!lab.pgdata("pg-2").await.join("global/pg_control.old").exists());
    assert_eq!(lab.cluster().await.current_primary(), Some("pg-1"));
    lab.until_healthy().await;
}
