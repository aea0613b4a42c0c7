//! What a fence stops, and what it does not.

use crate::lab::Lab;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn files_are_rewritten_under_a_fence() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    let restarts = restarts(&lab, "pg-2").await;
    lab.fence(r#"["pg-2"]"#).await;
    lab.until_ready("pg-2", false).await;
    lab.until("the server is down", Duration::from_secs(20), || async {
        lab.postmaster("pg-2").await.is_none().then_some(())
    })
    .await;
    let report = lab.report("pg-2").await.unwrap();
    assert!(
        report.might_be_unavailable && !report.is_primary && report.received_lsn.0 == 0,
        "{report:?}"
    );

    let pgdata = lab.pgdata("pg-2").await;
    fs::write(pgdata.join("pg_hba.conf"), "host all all all trust\n").unwrap();
    fs::write(pgdata.join("standby.signal"), "tampered").unwrap();
    fs::write(pgdata.join("override.conf"), "").unwrap();
    lab.annotate("test/touch", Some("1")).await;
    lab.until(
        "files are as the manager wants them",
        Duration::from_secs(10),
        || async {
            let signal = fs::read_to_string(pgdata.join("standby.signal")).ok()?;
            let hba = fs::read_to_string(pgdata.join("pg_hba.conf")).ok()?;
            let overrides = fs::read_to_string(pgdata.join("override.conf")).ok()?;
            (signal.is_empty() && hba.contains("map=local") && overrides.contains("_cnpg_pg_2")).then_some(())
        },
    )
    .await;

    let aside = pgdata.with_file_name("aside");
    fs::rename(&pgdata, &aside).unwrap();
    lab.annotate("test/touch", Some("2")).await;
    lab.until(
        "an almost empty PGDATA reappears",
        Duration::from_secs(10),
        || async { pgdata.join("custom.conf").exists().then_some(()) },
    )
    .await;
    assert!(!pgdata.join("PG_VERSION").exists());
    // Removing it would race with the next rewrite: an exchange does not.
    let (from, to) = (aside.as_path(), pgdata.as_path());
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_EXCHANGE).unwrap();
    assert!(pgdata.join("PG_VERSION").exists());
    fs::remove_dir_all(&aside).unwrap();

    lab.unfence().await;
    lab.until_ready("pg-2", true).await;
    lab.until_healthy().await;
    assert_eq!(
        self::restarts(&lab, "pg-2").await,
        restarts,
        "the container was never restarted"
    );
}

#[tokio::test]
async fn a_fence_blocks_the_re_creation_of_another_pod() {
    let lab = Lab::start(json!({"instances": 3})).await;
    lab.until_healthy().await;
    lab.fence(r#"["pg-2"]"#).await;
    lab.until_ready("pg-2", false).await;
    lab.until("the operator saw it", Duration::from_secs(10), || async {
        (lab.cluster().await.observed().ready_instances == Some(2)).then_some(())
    })
    .await;
    lab.delete_pod("pg-3").await;
    lab.until("pg-3 is gone", Duration::from_secs(30), || async {
        lab.pod("pg-3").await.is_none().then_some(())
    })
    .await;
    lab.until("its claim dangles", Duration::from_secs(20), || async {
        (lab.cluster().await.observed().dangling_pvc == ["pg-3"]).then_some(())
    })
    .await;
    lab.stays("no pod pg-3", async || lab.pod("pg-3").await.is_none())
        .await;
    lab.unfence().await;
    lab.until_ready("pg-3", true).await;
    lab.until_healthy().await;
}

#[tokio::test]
async fn a_fenced_primary_means_no_failover_and_no_work() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    lab.fence(r#"["pg-1"]"#).await;
    lab.until_ready("pg-1", false).await;
    lab.stays("pg-1 is the target", async || {
        lab.cluster().await.target_primary() == Some("pg-1")
    })
    .await;
    lab.unfence().await;
    lab.until_ready("pg-1", true).await;
    lab.until_healthy().await;
}

async fn restarts(lab: &Lab, pod: &str) -> i32 {
    let status = lab.pod(pod).await.unwrap().status.unwrap();
    status.container_statuses.unwrap()[0].restart_count
}
