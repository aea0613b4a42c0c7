//! What `/pg/status` answers.

use super::Lsn;
use serde::{Deserialize, Serialize};

/// One instance about itself. Of a fenced one only `isPrimary` (from the signal file) means anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire format")]
pub struct InstanceReport {
    /// System identifier.
    #[serde(rename = "systemID")]
    pub system_id: String,
    /// Absence of `standby.signal`.
    pub is_primary: bool,
    /// Timeline in use.
    #[serde(rename = "timeLineID")]
    pub timeline_id: u32,
    /// Write position of a primary.
    pub current_lsn: Lsn,
    /// Last position received by a replica.
    pub received_lsn: Lsn,
    /// Last position replayed by a replica.
    pub replay_lsn: Lsn,
    /// Replay is paused.
    pub replay_paused: bool,
    /// A WAL receiver runs.
    pub is_wal_receiver_active: bool,
    /// The start-up path is rewinding.
    pub is_pg_rewind_running: bool,
    /// Fenced, or just unfenced.
    pub might_be_unavailable: bool,
    /// The error hidden by `mightBeUnavailable`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub might_be_unavailable_masked_error: String,
    /// The last attempt of the archiver succeeded.
    #[serde(rename = "isArchivingWAL")]
    pub is_archiving_wal: bool,
    /// Of the archiver.
    #[serde(rename = "lastArchivedWAL")]
    pub last_archived_wal: String,
    /// When.
    #[serde(rename = "lastArchivedWALTime")]
    pub last_archived_wal_time: String,
    /// Of the archiver.
    #[serde(rename = "lastFailedWAL")]
    pub last_failed_wal: String,
    /// When.
    #[serde(rename = "lastFailedWALTime")]
    pub last_failed_wal_time: String,
    /// Segment being written.
    #[serde(rename = "currentWAL")]
    pub current_wal: String,
    /// Number of `.ready` files.
    pub ready_wal_files: u32,
    /// `pg_stat_replication`.
    pub replication_info: Vec<ReplicationRow>,
    /// High-availability slots.
    pub replication_slots_info: Vec<SlotRow>,
    /// A parameter waits for a restart.
    pub pending_restart: bool,
    /// Version of the manager.
    pub instance_manager_version: String,
    /// Differs after every start of the manager.
    #[serde(rename = "sessionID")]
    pub session_id: String,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationRow {
    /// Instance name.
    pub application_name: String,
    /// `streaming`, `catchup`, …
    pub state: String,
    /// Sent.
    pub sent_lsn: Lsn,
    /// Written.
    pub write_lsn: Lsn,
    /// Flushed.
    pub flush_lsn: Lsn,
    /// Replayed.
    pub replay_lsn: Lsn,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// As text.
    pub sync_priority: String,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlotRow {
    /// Name.
    pub slot_name: String,
    /// Oldest position kept.
    pub restart_lsn: Lsn,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: String,
    /// Bytes until it is lost.
    pub safe_wal_size: Option<i64>,
    /// In use.
    pub active: bool,
}
