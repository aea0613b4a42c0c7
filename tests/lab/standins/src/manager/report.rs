//! What this instance says of itself at `/pg/status`.

use super::sql::{Session, text};
use super::state::Shared;
use super::{Place, archive};
use crate::cnpg::{InstanceReport, Lsn, ReplicationRow, SlotRow, names};
use anyhow::Context;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Collects the report. An error means an unhealthy instance, unless it is masked by a fence.
pub(super) async fn collect(shared: &Shared) -> anyhow::Result<InstanceReport> {
    let mut report = InstanceReport {
        is_primary: shared.place.is_primary(),
        is_pg_rewind_running: shared.rewinding.load(Ordering::SeqCst),
        might_be_unavailable: shared.might_be_unavailable(),
        instance_manager_version: names::VERSION.to_owned(),
        session_id: shared.session.clone(),
        ..InstanceReport::default()
    };
    let asked = tokio::time::timeout(Duration::from_secs(5), ask_server(&shared.place, report.clone())).await;
    match asked
        .context("the server does not answer")
        .and_then(|answer| answer)
    {
        Ok(full) => Ok(full),
        Err(error) if report.might_be_unavailable => {
            report.might_be_unavailable_masked_error = format!("{error:#}");
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

async fn ask_server(place: &Place, mut report: InstanceReport) -> anyhow::Result<InstanceReport> {
    let session = Session::open(place, "postgres").await?;
    let rows = session
        .rows(
            "SELECT (SELECT system_identifier FROM pg_control_system()) AS system_id,
                    (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_tli,
                    (SELECT received_tli FROM pg_stat_wal_receiver) AS received_tli,
                    EXISTS (SELECT 1 FROM pg_stat_wal_receiver) AS receiving,
                    pg_last_wal_receive_lsn() AS received,
                    pg_last_wal_replay_lsn() AS replayed,
                    CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
                    CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END AS written,
                    CASE WHEN pg_is_in_recovery() THEN NULL
                         ELSE pg_walfile_name(pg_current_wal_lsn()) END AS segment,
                    (SELECT count(*) > 0 FROM pg_settings WHERE pending_restart) AS pending",
        )
        .await?;
    let row = rows.first().context("the server returned no row")?;
    let lsn = |column: &str| text(row, column).parse::<Lsn>().unwrap_or_default();
    report.system_id = text(row, "system_id");
    report.current_lsn = lsn("written");
    report.received_lsn = lsn("received");
    report.replay_lsn = lsn("replayed");
    report.replay_paused = text(row, "paused") == "t";
    report.is_wal_receiver_active = text(row, "receiving") == "t";
    report.pending_restart = text(row, "pending") == "t";
    report.current_wal = text(row, "segment");
    report.timeline_id = u32::from_str_radix(report.current_wal.get(..8).unwrap_or_default(), 16)
        .ok()
        .or_else(|| text(row, "received_tli").parse().ok())
        .or_else(|| text(row, "checkpoint_tli").parse().ok())
        .unwrap_or(0);
    report.ready_wal_files = archive::ready_count(place);
    ask_archiver(&session, &mut report).await?;
    ask_replication(&session, &mut report).await?;
    Ok(report)
}

async fn ask_archiver(session: &Session, report: &mut InstanceReport) -> anyhow::Result<()> {
    let rows = session
        .rows(
            "SELECT last_archived_wal, last_archived_time, last_failed_wal, last_failed_time,
                    coalesce(last_archived_time, '-infinity') > coalesce(last_failed_time, '-infinity') AS works
             FROM pg_stat_archiver",
        )
        .await?;
    if let Some(row) = rows.first() {
        report.last_archived_wal = text(row, "last_archived_wal");
        report.last_archived_wal_time = text(row, "last_archived_time");
        report.last_failed_wal = text(row, "last_failed_wal");
        report.last_failed_wal_time = text(row, "last_failed_time");
        report.is_archiving_wal = text(row, "works") == "t";
    }
    Ok(())
}

async fn ask_replication(session: &Session, report: &mut InstanceReport) -> anyhow::Result<()> {
    for row in session
        .rows(
            "SELECT application_name, state, sent_lsn, write_lsn, flush_lsn, replay_lsn, sync_state, sync_priority
             FROM pg_stat_replication WHERE usename = 'streaming_replica'",
        )
        .await?
    {
        let lsn = |column: &str| text(&row, column).parse::<Lsn>().unwrap_or_default();
        report.replication_info.push(ReplicationRow {
            application_name: text(&row, "application_name"),
            state: text(&row, "state"),
            sent_lsn: lsn("sent_lsn"),
            write_lsn: lsn("write_lsn"),
            flush_lsn: lsn("flush_lsn"),
            replay_lsn: lsn("replay_lsn"),
            sync_state: text(&row, "sync_state"),
            sync_priority: text(&row, "sync_priority"),
        });
    }
    for row in session
        .rows(
            "SELECT slot_name, restart_lsn, wal_status, safe_wal_size, active
             FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY 1",
        )
        .await?
    {
        report.replication_slots_info.push(SlotRow {
            slot_name: text(&row, "slot_name"),
            restart_lsn: text(&row, "restart_lsn").parse().unwrap_or_default(),
            wal_status: text(&row, "wal_status"),
            safe_wal_size: text(&row, "safe_wal_size").parse().ok(),
            active: text(&row, "active") == "t",
        });
    }
    Ok(())
}
