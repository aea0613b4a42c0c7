//! A full WAL volume: exit code 4 and no failover at all.

use crate::lab::Lab;
use serde_json::json;
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn a_full_wal_volume_ends_in_code_4_and_forbids_failover() {
    let lab = Lab::start(json!({"instances": 2, "walStorage": {"size": "120Mi"}})).await;
    lab.until_healthy().await;
    let postmaster = lab.postmaster("pg-1").await.unwrap();
    let volume = format!("/proc/{postmaster}/root/var/lib/postgresql/wal");
    let mut filler = fs::File::create(format!("{volume}/filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &vec![0; 1 << 20]).is_ok() {}
    drop(filler);
    // Its end is a PANIC, so the statement fails.
    let wal = "CREATE TABLE filler AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 100000) i";
    assert!(lab.sql("pg-1", wal).await.is_err());
    lab.until(
        "the manager left with code 4",
        Duration::from_secs(40),
        || async {
            let status = lab.pod("pg-1").await?.status?.container_statuses?.remove(0);
            (status.last_state?.terminated?.exit_code == 4).then_some(())
        },
    )
    .await;
    lab.until_phase("Not enough disk space").await;
    lab.stays("pg-1 is the target", async || {
        lab.cluster().await.target_primary() == Some("pg-1")
    })
    .await;
}
