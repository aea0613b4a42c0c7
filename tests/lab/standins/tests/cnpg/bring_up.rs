//! A cluster comes up, scales and keeps its instances.

use crate::lab::Lab;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn three_instances_stream_through_their_slots() {
    let lab = Lab::start(json!({"instances": 3, "walStorage": {"size": "512Mi"}})).await;
    lab.until_healthy().await;
    let status = lab.cluster().await.observed();
    assert_eq!(status.current_primary.as_deref(), Some("pg-1"));
    assert_eq!(status.ready_instances, Some(3));
    assert_eq!(status.instance_names, ["pg-1", "pg-2", "pg-3"]);
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.kind == "Ready" && c.status == "True")
    );
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.kind == "ConsistentSystemID" && c.reason == "Unique")
    );
    assert_eq!(status.timeline_id, Some(1));
    lab.until("both replicas stream", Duration::from_secs(20), || async {
        let slots = lab
            .sql(
                "pg-1",
                "SELECT string_agg(slot_name, ',' ORDER BY 1) FROM pg_replication_slots WHERE active",
            )
            .await
            .unwrap();
        (slots == "_cnpg_pg_2,_cnpg_pg_3").then_some(())
    })
    .await;
    let pgdata = lab.pgdata("pg-2").await;
    assert_eq!(
        std::fs::read_link(pgdata.join("pg_wal")).unwrap().to_str(),
        Some("/var/lib/postgresql/wal/pg_wal")
    );
    assert!(pgdata.join("standby.signal").exists());
    let claim = lab
        .scope
        .api::<PersistentVolumeClaim>()
        .get("pg-2")
        .await
        .unwrap();
    assert_eq!(claim.metadata.annotations.unwrap()["cnpg.io/pvcStatus"], "ready");
    let report = lab.report("pg-2").await.unwrap();
    assert!(
        !report.is_primary && report.is_wal_receiver_active && report.timeline_id == 1,
        "{report:?}"
    );
}

#[tokio::test]
async fn a_deleted_replica_pod_returns_on_its_claims_and_a_deleted_claim_means_a_clone() {
    let lab = Lab::start(json!({"instances": 2})).await;
    lab.until_healthy().await;
    let before = lab.pod("pg-2").await.unwrap().metadata.uid;
    let marker = lab.pgdata("pg-2").await.join("lab-marker");
    std::fs::write(&marker, "").unwrap();
    lab.delete_pod("pg-2").await;
    lab.until("another pod", Duration::from_secs(30), || async {
        lab.pod("pg-2")
            .await
            .filter(|pod| pod.metadata.uid != before)
            .map(drop)
    })
    .await;
    lab.until_healthy().await;
    assert!(marker.exists());
    let patch = json!({"metadata": {"annotations": {"alpha.cnpg.io/unrecoverable": "true"}}});
    lab.scope
        .api::<k8s_openapi::api::core::v1::Pod>()
        .patch(
            "pg-2",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&patch),
        )
        .await
        .unwrap();
    lab.until("a new claim", Duration::from_secs(30), || async {
        let claim = lab.node.claim("pg-2").await.ok()?;
        (!marker.starts_with(&claim)).then_some(())
    })
    .await;
    lab.until_ready("pg-2", true).await;
    lab.until_healthy().await;
}

#[tokio::test]
async fn tablespaces_are_cloned_and_wal_goes_to_the_archive() {
    let lab = Lab::start(json!({
        "instances": 2,
        "tablespaces": [{"name": "Fast_disk", "storage": {"size": "1Gi"}, "owner": {"name": "app"}}],
        "backup": {"barmanObjectStore": {"destinationPath": "file://$ROOT/archive"}},
    }))
    .await;
    lab.until_healthy().await;
    lab.until("the tablespace is there", Duration::from_secs(20), || async {
        lab.sql(
            "pg-1",
            "SELECT spcname FROM pg_tablespace WHERE spcname = 'Fast_disk'",
        )
        .await
        .ok()
        .filter(|name| name == "Fast_disk")
    })
    .await;
    lab.sql(
        "pg-1",
        "CREATE TABLE far (x int) TABLESPACE \"Fast_disk\"; INSERT INTO far VALUES (7)",
    )
    .await
    .unwrap();
    lab.until("the replica has it", Duration::from_secs(20), || async {
        lab.sql("pg-2", "SELECT x FROM far")
            .await
            .ok()
            .filter(|x| x == "7")
    })
    .await;
    let claim = lab
        .scope
        .api::<PersistentVolumeClaim>()
        .get("pg-2-tbs-fast-disk")
        .await
        .unwrap();
    assert_eq!(claim.metadata.labels.unwrap()["cnpg.io/pvcRole"], "PG_TABLESPACE");

    let segment = lab
        .sql("pg-1", "SELECT pg_walfile_name(pg_current_wal_lsn())")
        .await
        .unwrap();
    lab.sql("pg-1", "SELECT pg_switch_wal()").await.unwrap();
    let archived = lab
        .node
        .root
        .join("archive/pg/wals")
        .join(&segment[..16])
        .join(&segment);
    lab.until("the segment is archived", Duration::from_secs(20), || async {
        archived.exists().then_some(())
    })
    .await;
    until_archiving(&lab, "True").await;
    lab.annotate("lab.hasteward/break-archiving", Some("true")).await;
    lab.sql("pg-1", "SELECT pg_switch_wal()").await.unwrap();
    lab.sql("pg-1", "CREATE TABLE more AS SELECT 1; SELECT pg_switch_wal()")
        .await
        .unwrap();
    until_archiving(&lab, "False").await;
    assert!(lab.report("pg-1").await.unwrap().ready_wal_files > 0);
    lab.annotate("lab.hasteward/break-archiving", None).await;
    until_archiving(&lab, "True").await;
}

async fn until_archiving(lab: &Lab, status: &str) {
    lab.until(
        &format!("ContinuousArchiving={status}"),
        Duration::from_secs(90),
        || async {
            let conditions = lab.cluster().await.observed().conditions;
            conditions
                .iter()
                .any(|c| c.kind == "ContinuousArchiving" && c.status == status)
                .then_some(())
        },
    )
    .await;
}
