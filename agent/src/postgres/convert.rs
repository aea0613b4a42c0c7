//! From what was read to the protocol (`hasteward.agent.v1`).

use hasteward_proto::primitive::{Lsn, TimelineId, UnixMillis};
use hasteward_proto::wire::agent as wire;

use super::backup_label::{BackupFrom, BackupLabel, BackupMethod};
use super::control_file::{ClusterState, ControlFile};
use super::inspect::{HistoryFile, Instance, Slot};
use super::live::{Receiver, Server, ServerSlot, Standby};
use super::reading::{Reading, Unread, UnreadKind};
use super::signals::Signals;
use super::tablespaces::Tablespace;
use super::wal::directory::WalDirectory;
use super::wal::scan::{Commits, Method, WalEnd};
use crate::volume::{Space, VolumeRole};

fn bytes(lsn: Option<Lsn>) -> u64 {
    lsn.map_or(0, Lsn::bytes)
}

fn number(timeline: Option<TimelineId>) -> u32 {
    timeline.map_or(0, TimelineId::get)
}

fn millis(at: Option<UnixMillis>) -> i64 {
    at.map_or(0, |at| at.0)
}

impl From<UnreadKind> for wire::UnreadKind {
    fn from(kind: UnreadKind) -> Self {
        match kind {
            UnreadKind::Corrupt => Self::Corrupt,
            UnreadKind::UnknownVersion => Self::UnknownVersion,
            UnreadKind::NotMounted => Self::NotMounted,
            UnreadKind::TooLarge => Self::TooLarge,
            UnreadKind::WrongType => Self::WrongType,
            UnreadKind::Refused => Self::Refused,
            UnreadKind::Permission => Self::Permission,
            UnreadKind::Io => Self::Io,
            UnreadKind::Timeout => Self::Timeout,
            UnreadKind::ServerDown => Self::ServerDown,
            UnreadKind::ServerHung => Self::ServerHung,
            UnreadKind::ServerError => Self::ServerError,
            UnreadKind::NotNeeded => Self::NotNeeded,
            UnreadKind::Depends => Self::Depends,
            UnreadKind::NoProgram => Self::NoProgram,
        }
    }
}

impl From<Unread> for wire::Unread {
    fn from(unread: Unread) -> Self {
        Self {
            kind: wire::UnreadKind::from(unread.kind).into(),
            detail: unread.detail,
        }
    }
}

/// A `*Reading` message from a [`Reading`], given how its value converts. Further fields are in brackets, to be set after.
macro_rules! reading {
    ($($message:ident, $module:ident $(($($more:ident),*))?: $from:ty => $value:expr;)*) => {$(
        impl From<Reading<$from>> for wire::$message {
            fn from(reading: Reading<$from>) -> Self {
                use wire::$module::Outcome;
                let (provenance, outcome) = match reading {
                    Reading::Known(known) => {
                        let provenance = wire::Provenance { source: known.source, read_at_ms: known.read_at.0 };
                        let convert: fn($from) -> _ = $value;
                        (Some(provenance), Outcome::Known(convert(known.value)))
                    }
                    Reading::Unread(unread) => (None, Outcome::Unread(unread.into())),
                    Reading::Absent { proof } => (None, Outcome::Absent(wire::Absent { proof })),
                };
                Self { provenance, outcome: Some(outcome), $($($more: Default::default()),*)? }
            }
        }
    )*};
}

pub(crate) use reading;

reading! {
    ControlFileReading, control_file_reading: ControlFile => wire::ControlFile::from;
    SignalsReading, signals_reading: Signals => wire::Signals::from;
    BackupLabelReading, backup_label_reading: BackupLabel => wire::BackupLabel::from;
    HistoriesReading, histories_reading: Vec<HistoryFile> =>
        |files| wire::Histories { files: files.into_iter().map(Into::into).collect() };
    WalEndReading, wal_end_reading: WalEnd => wire::WalEnd::from;
    WalDirectoryReading, wal_directory_reading: WalDirectory => wire::WalDirectory::from;
    SlotsReading, slots_reading: Vec<Slot> =>
        |slots| wire::Slots { slots: slots.into_iter().map(Into::into).collect() };
    TablespacesReading, tablespaces_reading: Vec<Tablespace> =>
        |all| wire::Tablespaces { tablespaces: all.into_iter().map(Into::into).collect() };
    VolumeSpaceReading, volume_space_reading(role, tablespace): Space => wire::VolumeSpace::from;
    LeftoversReading, leftovers_reading: Vec<String> => |paths| wire::Leftovers { paths };
    ServerReading, server_reading: Server => wire::Server::from;
}

impl From<Instance> for wire::InspectPostgresReply {
    /// All but `processes` and `server`, which do not come from files.
    fn from(instance: Instance) -> Self {
        Self {
            processes: None,
            control_file: Some(instance.control.into()),
            signals: Some(instance.signals.into()),
            backup_label: Some(instance.backup_label.into()),
            histories: Some(instance.histories.into()),
            wal_end: Some(instance.wal_end.into()),
            wal_directory: Some(instance.wal.into()),
            slots: Some(instance.slots.into()),
            tablespaces: Some(instance.tablespaces.into()),
            volumes: instance
                .volumes
                .into_iter()
                .map(|(role, space)| volume(role, space))
                .collect(),
            leftovers: Some(instance.leftovers.into()),
            server: None,
        }
    }
}

/// The reading of one volume.
#[must_use]
pub fn volume(role: VolumeRole, space: Reading<Space>) -> wire::VolumeSpaceReading {
    let (role, tablespace) = match role {
        VolumeRole::PgData => (wire::VolumeRole::PgData, String::new()),
        VolumeRole::PgWal => (wire::VolumeRole::PgWal, String::new()),
        VolumeRole::Tablespace(name) => (wire::VolumeRole::PgTablespace, name),
        VolumeRole::Scratch => (wire::VolumeRole::Scratch, String::new()),
        VolumeRole::MariadbData => (wire::VolumeRole::MariadbData, String::new()),
        VolumeRole::GaleraConfig => (wire::VolumeRole::GaleraConfig, String::new()),
    };
    wire::VolumeSpaceReading {
        role: role.into(),
        tablespace,
        ..space.into()
    }
}

impl From<ClusterState> for wire::ClusterState {
    fn from(state: ClusterState) -> Self {
        match state {
            ClusterState::StartingUp => Self::StartingUp,
            ClusterState::ShutDown => Self::ShutDown,
            ClusterState::ShutDownInRecovery => Self::ShutDownInRecovery,
            ClusterState::ShuttingDown => Self::ShuttingDown,
            ClusterState::InCrashRecovery => Self::InCrashRecovery,
            ClusterState::InArchiveRecovery => Self::InArchiveRecovery,
            ClusterState::InProduction => Self::InProduction,
        }
    }
}

impl From<ControlFile> for wire::ControlFile {
    fn from(control: ControlFile) -> Self {
        Self {
            system_id: control.system_id.get(),
            version: control.version,
            catalog_version: control.catalog_version,
            state: wire::ClusterState::from(control.state).into(),
            updated_at_ms: control.updated_at.0,
            checkpoint_lsn: control.checkpoint.bytes(),
            redo_lsn: control.redo.bytes(),
            checkpoint_timeline: control.checkpoint_timeline.get(),
            previous_timeline: control.previous_timeline.get(),
            checkpoint_at_ms: control.checkpoint_at.0,
            min_recovery_lsn: bytes(control.min_recovery.map(|(lsn, _)| lsn)),
            min_recovery_timeline: number(control.min_recovery.map(|(_, timeline)| timeline)),
            backup_start_lsn: bytes(control.backup_start),
            backup_end_lsn: bytes(control.backup_end),
            backup_end_required: control.backup_end_required,
            wal_log_hints: control.wal_log_hints,
            full_page_writes: control.full_page_writes,
            data_checksum_version: control.data_checksum_version,
            wal_segment_size: control.segment_size.bytes(),
            wal_block_size: control.wal_block_size.bytes(),
        }
    }
}

impl From<Signals> for wire::Signals {
    fn from(signals: Signals) -> Self {
        Self {
            standby: signals.standby,
            recovery: signals.recovery,
        }
    }
}

impl From<BackupLabel> for wire::BackupLabel {
    fn from(label: BackupLabel) -> Self {
        Self {
            start_wal_lsn: label.start.bytes(),
            checkpoint_lsn: label.checkpoint.bytes(),
            method: match label.method {
                BackupMethod::Streamed => "streamed".to_owned(),
                BackupMethod::PgRewind => "pg_rewind".to_owned(),
                BackupMethod::Other(other) => other,
            },
            from: match label.from {
                Some(BackupFrom::Primary) => "primary".to_owned(),
                Some(BackupFrom::Standby) => "standby".to_owned(),
                None => String::new(),
            },
            start_timeline: label.timeline.get(),
        }
    }
}

impl From<HistoryFile> for wire::TimelineHistory {
    fn from(file: HistoryFile) -> Self {
        let (switches, unread) = match file.history {
            Ok(history) => (history.switches, None),
            Err(unread) => (Vec::new(), Some(unread.into())),
        };
        let switches = switches.into_iter().map(|switch| wire::TimelineSwitch {
            parent: switch.parent.get(),
            at_lsn: switch.at.bytes(),
        });
        Self {
            timeline: file.timeline.get(),
            switches: switches.collect(),
            unread,
        }
    }
}

impl From<WalEnd> for wire::WalEnd {
    fn from(end: WalEnd) -> Self {
        let method = match end.method {
            Method::Records => wire::WalScanMethod::Records,
            Method::Pages => wire::WalScanMethod::Pages,
        };
        Self {
            end_lsn: end.end.bytes(),
            timeline: end.timeline.get(),
            method: method.into(),
            from_lsn: end.from.bytes(),
            system_id: end.system_id.get(),
            abandoned_timeline: end.abandoned.map_or(0, |(timeline, _)| timeline.get()),
            abandoned_lsn: end.abandoned.map_or(0, |(_, end)| end.bytes()),
        }
    }
}

impl From<WalDirectory> for wire::WalDirectory {
    fn from(wal: WalDirectory) -> Self {
        Self {
            bytes: wal.bytes,
            segments: wal.segments,
            ready: wal.ready,
            oldest_segment_lsn: bytes(wal.oldest.map(|(lsn, _)| lsn)),
            oldest_segment_timeline: number(wal.oldest.map(|(_, timeline)| timeline)),
            on_wal_volume: wal.on_wal_volume,
        }
    }
}

impl From<Slot> for wire::Slot {
    fn from(slot: Slot) -> Self {
        match slot.state {
            Ok(state) => Self {
                name: slot.name,
                restart_lsn: bytes(state.restart),
                logical: state.logical,
                unread: None,
            },
            Err(unread) => Self {
                name: slot.name,
                unread: Some(unread.into()),
                ..Self::default()
            },
        }
    }
}

impl From<Tablespace> for wire::Tablespace {
    fn from(tablespace: Tablespace) -> Self {
        Self {
            oid: tablespace.oid,
            target: tablespace.target,
            resolved: tablespace.resolved,
        }
    }
}

impl From<Space> for wire::VolumeSpace {
    fn from(space: Space) -> Self {
        Self {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            total_inodes: space.total_inodes,
            free_inodes: space.free_inodes,
            read_only: space.read_only,
        }
    }
}

impl From<Commits> for wire::Commits {
    fn from(commits: Commits) -> Self {
        Self {
            count: commits.count,
            first_at_ms: millis(commits.span.map(|(first, _)| first)),
            last_at_ms: millis(commits.span.map(|(_, last)| last)),
            end_lsn: bytes(commits.end),
        }
    }
}

/// The reply to `CountCommits`.
#[must_use]
pub fn count_commits(commits: Result<Commits, Unread>) -> wire::CountCommitsReply {
    use wire::count_commits_reply::Outcome;
    let outcome = match commits {
        Ok(commits) => Outcome::Known(commits.into()),
        Err(unread) => Outcome::Unread(unread.into()),
    };
    wire::CountCommitsReply {
        outcome: Some(outcome),
    }
}

impl From<Server> for wire::Server {
    fn from(server: Server) -> Self {
        Self {
            system_id: server.system_id.get(),
            version_num: server.version_num,
            in_recovery: server.in_recovery,
            timeline: number(server.timeline),
            flush_lsn: bytes(server.flush),
            receive_lsn: bytes(server.receive),
            replay_lsn: bytes(server.replay),
            replay_paused: server.replay_paused,
            receiver: server.receiver.map(Into::into),
            standbys: server.standbys.into_iter().map(Into::into).collect(),
            slots: server.slots.into_iter().map(Into::into).collect(),
            max_slot_wal_keep_bytes: server.max_slot_wal_keep_bytes.unwrap_or(u64::MAX),
            archive_enabled: server.archive_enabled,
            archive_failed_count: server.archiver.failed_count,
            archive_last_failed_at_ms: millis(server.archiver.last_failed_at),
            archive_last_success_at_ms: millis(server.archiver.last_archived_at),
            archive_last_failed_wal: server.archiver.last_failed_wal,
            // Summing the sizes of all databases stats every file of each: not done while triaging.
            database_bytes: 0,
            started_at_ms: server.started_at.0,
        }
    }
}

impl From<Receiver> for wire::WalReceiver {
    fn from(receiver: Receiver) -> Self {
        Self {
            status: receiver.status,
            received_timeline: number(receiver.timeline),
            flushed_lsn: bytes(receiver.flushed),
            slot_name: receiver.slot,
            last_message_at_ms: millis(receiver.last_message_at),
        }
    }
}

impl From<Standby> for wire::Standby {
    fn from(standby: Standby) -> Self {
        Self {
            application_name: standby.application_name,
            state: standby.state,
            sent_lsn: bytes(standby.sent),
            write_lsn: bytes(standby.write),
            flush_lsn: bytes(standby.flush),
            replay_lsn: bytes(standby.replay),
            sync_state: standby.sync_state,
        }
    }
}

impl From<ServerSlot> for wire::ServerSlot {
    fn from(slot: ServerSlot) -> Self {
        Self {
            name: slot.name,
            active: slot.active,
            logical: slot.logical,
            restart_lsn: bytes(slot.restart),
            wal_status: slot.wal_status,
        }
    }
}
