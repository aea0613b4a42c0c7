//! [`Server`]: the answer of `server.sql`.

use hasteward_proto::primitive::{Lsn, LsnError, SystemId, TimelineId, UnixMillis};
use serde::Deserialize;

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `pg_control_system().system_identifier`
    pub system_id: SystemId,
    /// `server_version_num`
    pub version_num: u32,
    /// `pg_is_in_recovery()`
    pub in_recovery: bool,
    /// The timeline that it writes. Of a standby: the newest that it is known to have followed, by its receiver, its latest
    /// restart point, or its minimum recovery point.
    pub timeline: Option<TimelineId>,
    /// Primary: `pg_current_wal_flush_lsn()`.
    pub flush: Option<Lsn>,
    /// Standby: `pg_last_wal_receive_lsn()`; `None` = nothing was received since the start.
    pub receive: Option<Lsn>,
    /// Standby: `pg_last_wal_replay_lsn()`.
    pub replay: Option<Lsn>,
    /// `pg_is_wal_replay_paused()`
    pub replay_paused: bool,
    /// `pg_stat_wal_receiver`
    pub receiver: Option<Receiver>,
    /// `pg_stat_replication`
    pub standbys: Vec<Standby>,
    /// `pg_replication_slots`
    pub slots: Vec<ServerSlot>,
    /// `max_slot_wal_keep_size`; `None` = no limit.
    pub max_slot_wal_keep_bytes: Option<u64>,
    /// `archive_mode` is not off.
    pub archive_enabled: bool,
    /// `pg_stat_archiver`
    pub archiver: Archiver,
    /// `pg_postmaster_start_time()`
    pub started_at: UnixMillis,
}

/// `pg_stat_wal_receiver`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// `status`
    pub status: String,
    /// `received_tli`
    pub timeline: Option<TimelineId>,
    /// `flushed_lsn`
    pub flushed: Option<Lsn>,
    /// `slot_name`; empty = none.
    pub slot: String,
    /// `last_msg_receipt_time`
    pub last_message_at: Option<UnixMillis>,
}

/// A row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// `application_name`
    pub application_name: String,
    /// `state`
    pub state: String,
    /// `sent_lsn`
    pub sent: Option<Lsn>,
    /// `write_lsn`
    pub write: Option<Lsn>,
    /// `flush_lsn`
    pub flush: Option<Lsn>,
    /// `replay_lsn`
    pub replay: Option<Lsn>,
    /// `sync_state`
    pub sync_state: String,
}

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSlot {
    /// `slot_name`
    pub name: String,
    /// `active`
    pub active: bool,
    /// `slot_type` is `logical`.
    pub logical: bool,
    /// `restart_lsn`
    pub restart: Option<Lsn>,
    /// `wal_status`; empty = null, it reserves nothing.
    pub wal_status: String,
}

/// `pg_stat_archiver`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archiver {
    /// `failed_count`
    pub failed_count: u64,
    /// `last_failed_time`
    pub last_failed_at: Option<UnixMillis>,
    /// `last_archived_time`
    pub last_archived_at: Option<UnixMillis>,
    /// `last_failed_wal`; empty = none.
    pub last_failed_wal: String,
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No row.
    #[error("the server's answer is empty")]
    Empty,
    /// Not the JSON that the query builds.
    #[error("the server's answer is not what was asked for: {0}")]
    Shape(#[from] serde_json::Error),
    /// A position is no LSN.
    #[error(transparent)]
    Lsn(#[from] LsnError),
    /// A field has an impossible value.
    #[error("the server's answer has an impossible {0}")]
    Impossible(&'static str),
}

#[derive(Deserialize)]
struct Row {
    system_id: String,
    version_num: u32,
    in_recovery: bool,
    wal_file: Option<String>,
    checkpoint_timeline: Option<i64>,
    recovery_timeline: Option<i64>,
    flush: Option<String>,
    receive: Option<String>,
    replay: Option<String>,
    replay_paused: bool,
    receiver: Option<ReceiverRow>,
    standbys: Option<Vec<StandbyRow>>,
    slots: Option<Vec<SlotRow>>,
    max_slot_wal_keep_mb: Option<i64>,
    archive_enabled: bool,
    archiver: Option<ArchiverRow>,
    started_ms: i64,
}

#[derive(Deserialize)]
struct ReceiverRow {
    status: Option<String>,
    timeline: Option<i64>,
    flushed: Option<String>,
    slot: Option<String>,
    last_message_ms: Option<i64>,
}

#[derive(Deserialize)]
struct StandbyRow {
    application_name: Option<String>,
    state: Option<String>,
    sent: Option<String>,
    write: Option<String>,
    flush: Option<String>,
    replay: Option<String>,
    sync_state: Option<String>,
}

#[derive(Deserialize)]
struct SlotRow {
    name: String,
    active: bool,
    logical: bool,
    restart: Option<String>,
    wal_status: Option<String>,
}

#[derive(Deserialize)]
struct ArchiverRow {
    failed_count: Option<u64>,
    last_failed_ms: Option<i64>,
    last_archived_ms: Option<i64>,
    last_failed_wal: Option<String>,
}

/// `0/0` is PostgreSQL's *none*.
fn lsn(text: Option<String>) -> Result<Option<Lsn>, LsnError> {
    text.filter(|text| text != "0/0")
        .map(|text| text.parse())
        .transpose()
}

fn timeline(number: Option<i64>) -> Option<TimelineId> {
    number
        .and_then(|number| u32::try_from(number).ok())
        .and_then(TimelineId::new)
}

/// Takes the answer apart.
pub fn parse(text: &str) -> Result<Server, AnswerError> {
    let row: Row = serde_json::from_str(text)?;
    let written = match row.wal_file.as_deref() {
        None => None,
        Some(name) => {
            let number = name
                .get(..8)
                .and_then(|digits| i64::from_str_radix(digits, 16).ok());
            Some(timeline(number).ok_or(AnswerError::Impossible("pg_walfile_name"))?)
        }
    };
    let receiver = row.receiver.map(receiver).transpose()?;
    let followed = [
        receiver.as_ref().and_then(|receiver| receiver.timeline),
        timeline(row.checkpoint_timeline),
        timeline(row.recovery_timeline),
    ];
    let keep = row.max_slot_wal_keep_mb.and_then(|mb| u64::try_from(mb).ok());
    let archiver = row.archiver.map_or_else(Archiver::default, |archiver| Archiver {
        failed_count: archiver.failed_count.unwrap_or_default(),
        last_failed_at: archiver.last_failed_ms.map(UnixMillis),
        last_archived_at: archiver.last_archived_ms.map(UnixMillis),
        last_failed_wal: archiver.last_failed_wal.unwrap_or_default(),
    });
    Ok(Server {
        system_id: row
            .system_id
            .parse()
            .map_err(|_| AnswerError::Impossible("system_identifier"))?,
        version_num: row.version_num,
        in_recovery: row.in_recovery,
        timeline: written.or_else(|| followed.into_iter().flatten().max()),
        flush: lsn(row.flush)?,
        receive: lsn(row.receive)?,
        replay: lsn(row.replay)?,
        replay_paused: row.replay_paused,
        receiver,
        standbys: row
            .standbys
            .unwrap_or_default()
            .into_iter()
            .map(standby)
            .collect::<Result<_, _>>()?,
        slots: row
            .slots
            .unwrap_or_default()
            .into_iter()
            .map(slot)
            .collect::<Result<_, _>>()?,
        max_slot_wal_keep_bytes: keep.map(|mb| mb.saturating_mul(1024 * 1024)),
        archive_enabled: row.archive_enabled,
        archiver,
        started_at: UnixMillis(row.started_ms),
    })
}

fn receiver(row: ReceiverRow) -> Result<Receiver, LsnError> {
    Ok(Receiver {
        status: row.status.unwrap_or_default(),
        timeline: timeline(row.timeline),
        flushed: lsn(row.flushed)?,
        slot: row.slot.unwrap_or_default(),
        last_message_at: row.last_message_ms.map(UnixMillis),
    })
}

fn standby(row: StandbyRow) -> Result<Standby, LsnError> {
    Ok(Standby {
        application_name: row.application_name.unwrap_or_default(),
        state: row.state.unwrap_or_default(),
        sent: lsn(row.sent)?,
        write: lsn(row.write)?,
        flush: lsn(row.flush)?,
        replay: lsn(row.replay)?,
        sync_state: row.sync_state.unwrap_or_default(),
    })
}

fn slot(row: SlotRow) -> Result<ServerSlot, LsnError> {
    Ok(ServerSlot {
        name: row.name,
        active: row.active,
        logical: row.logical,
        restart: lsn(row.restart)?,
        wal_status: row.wal_status.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIMARY: &str = r#"{"system_id":"7710163625067142077","version_num":180004,"in_recovery":false,
        "wal_file":"000000040000000000000016","checkpoint_timeline":3,"recovery_timeline":4,"flush":"0/1801AD0",
        "receive":null,"replay":null,"replay_paused":false,"receiver":null,"standbys":null,"slots":null,
        "max_slot_wal_keep_mb":-1,"archive_enabled":false,"archiver":null,"started_ms":1}"#;

    #[test]
    fn a_primary_is_on_the_timeline_that_it_writes() {
        let server = parse(PRIMARY).unwrap();
        assert_eq!(server.timeline.unwrap().get(), 4);
        assert_eq!(server.max_slot_wal_keep_bytes, None);
        assert_eq!(server.flush.unwrap().to_string(), "0/1801AD0");
    }

    #[test]
    fn impossible_answers_are_errors() {
        for (what, with) in [
            ("\"7710163625067142077\"", "\"0\""),
            ("000000040000000000000016", "x"),
            ("0/1801AD0", "1801AD0"),
            ("180004", "-1"),
        ] {
            assert!(parse(&PRIMARY.replace(what, with)).is_err(), "{with}");
        }
        assert!(
            parse(&PRIMARY.replace("0/1801AD0", "0/0"))
                .unwrap()
                .flush
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in ".*") {
            let _ = parse(&text);
        }
    }
}
