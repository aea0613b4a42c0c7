//! What an agent sent, checked and turned into evidence. Pure.
//!
//! An agent is trusted to be honest, not to be of our version: a value that makes no sense is unread (corrupt), a part that
//! is missing is unread too. Never a default.

use hasteward_proto::primitive::{Lsn, SystemId, TimelineId, UnixMillis};
use hasteward_proto::wire::agent as wire;
use hasteward_verdict::evidence::cnpg as ev;
use hasteward_verdict::evidence::{Evidence, UnreadReason};

/// A wire reading taken apart: where it came from, and one of three outcomes.
struct Parts<W> {
    provenance: Option<wire::Provenance>,
    outcome: Option<Outcome<W>>,
}

enum Outcome<W> {
    Known(W),
    Unread(wire::Unread),
    Absent(wire::Absent),
}

macro_rules! readings {
    ($($reading:ident, $module:ident => $known:ty;)*) => {$(
        impl From<wire::$reading> for Parts<$known> {
            fn from(reading: wire::$reading) -> Self {
                let outcome = reading.outcome.map(|outcome| match outcome {
                    wire::$module::Outcome::Known(known) => Outcome::Known(known),
                    wire::$module::Outcome::Unread(unread) => Outcome::Unread(unread),
                    wire::$module::Outcome::Absent(absent) => Outcome::Absent(absent),
                });
                Self { provenance: reading.provenance, outcome }
            }
        }
    )*};
}

readings! {
    ProcessesReading, processes_reading => wire::Processes;
    ControlFileReading, control_file_reading => wire::ControlFile;
    SignalsReading, signals_reading => wire::Signals;
    BackupLabelReading, backup_label_reading => wire::BackupLabel;
    HistoriesReading, histories_reading => wire::Histories;
    WalEndReading, wal_end_reading => wire::WalEnd;
    WalDirectoryReading, wal_directory_reading => wire::WalDirectory;
    SlotsReading, slots_reading => wire::Slots;
    TablespacesReading, tablespaces_reading => wire::Tablespaces;
    VolumeSpaceReading, volume_space_reading => wire::VolumeSpace;
    LeftoversReading, leftovers_reading => wire::Leftovers;
    ServerReading, server_reading => wire::Server;
}

/// A field that makes no sense.
struct Nonsense(&'static str);

/// The evidence of one reading.
fn evidence<R, W, T>(
    item: &'static str,
    reading: Option<R>,
    check: impl FnOnce(W) -> Result<T, Nonsense>,
) -> Evidence<T>
where
    R: Into<Parts<W>>,
{
    let Some(reading) = reading else {
        return Evidence::unread(
            UnreadReason::UnknownVersion,
            format!("the agent sent no {item}: agent and coordinator differ in version"),
        );
    };
    let parts: Parts<W> = reading.into();
    match parts.outcome {
        Some(Outcome::Known(known)) => match check(known) {
            Ok(value) => {
                let provenance = parts.provenance.unwrap_or_default();
                Evidence::known(value, provenance.source, UnixMillis(provenance.read_at_ms))
            }
            Err(Nonsense(field)) => {
                Evidence::unread(UnreadReason::Corrupt, format!("{item}: {field} makes no sense"))
            }
        },
        Some(Outcome::Unread(unread)) => Evidence::unread(reason(unread.kind()), unread.detail),
        Some(Outcome::Absent(absent)) => Evidence::absent(absent.proof),
        None => Evidence::unread(
            UnreadReason::UnknownVersion,
            format!("the agent sent an empty {item}"),
        ),
    }
}

fn reason(kind: wire::UnreadKind) -> UnreadReason {
    match kind {
        wire::UnreadKind::Corrupt => UnreadReason::Corrupt,
        wire::UnreadKind::Unspecified | wire::UnreadKind::UnknownVersion => UnreadReason::UnknownVersion,
        wire::UnreadKind::NotMounted => UnreadReason::NotMounted,
        wire::UnreadKind::TooLarge => UnreadReason::TooLarge,
        wire::UnreadKind::WrongType => UnreadReason::WrongType,
        wire::UnreadKind::Refused => UnreadReason::Refused,
        wire::UnreadKind::Permission => UnreadReason::Permission,
        wire::UnreadKind::Io => UnreadReason::Io,
        wire::UnreadKind::Timeout => UnreadReason::Timeout,
        wire::UnreadKind::ServerDown => UnreadReason::ServerDown,
        wire::UnreadKind::ServerHung => UnreadReason::ServerHung,
        wire::UnreadKind::ServerError => UnreadReason::ServerError,
        wire::UnreadKind::NotNeeded => UnreadReason::NotNeeded,
        wire::UnreadKind::Depends => UnreadReason::Depends,
        wire::UnreadKind::NoProgram => UnreadReason::NoProgram,
    }
}

/// Everything that an agent said of one instance.
pub(super) fn reply(reply: wire::InspectPostgresReply) -> (ev::DiskEvidence, Evidence<ev::Server>) {
    let disk = ev::DiskEvidence {
        processes: evidence("processes", reply.processes, processes),
        control: evidence("control file", reply.control_file, control),
        signals: evidence("signal files", reply.signals, |s: wire::Signals| {
            Ok(ev::Signals {
                standby: s.standby,
                recovery: s.recovery,
            })
        }),
        backup_label: evidence("backup label", reply.backup_label, backup_label),
        histories: evidence("timeline histories", reply.histories, histories),
        wal_end: evidence("end of WAL", reply.wal_end, wal_end),
        wal: evidence("WAL directory", reply.wal_directory, |w: wire::WalDirectory| {
            let oldest = Lsn::new(w.oldest_segment_lsn).zip(TimelineId::new(w.oldest_segment_timeline));
            Ok(ev::WalDirectory {
                bytes: w.bytes,
                segments: w.segments,
                ready: w.ready,
                oldest,
                on_wal_volume: w.on_wal_volume,
            })
        }),
        slots: evidence("slots", reply.slots, |s: wire::Slots| {
            Ok(s.slots.into_iter().map(disk_slot).collect())
        }),
        tablespaces: evidence("tablespaces", reply.tablespaces, |t: wire::Tablespaces| {
            let one = |t: wire::Tablespace| ev::Tablespace {
                oid: t.oid,
                target: t.target,
                resolved: t.resolved,
            };
            Ok(t.tablespaces.into_iter().map(one).collect())
        }),
        volumes: reply.volumes.into_iter().map(volume).collect(),
        leftovers: evidence("leftovers", reply.leftovers, |l: wire::Leftovers| Ok(l.paths)),
    };
    (disk, server(reply.server))
}

fn processes(p: wire::Processes) -> Result<ev::Processes, Nonsense> {
    let postmaster = p.postmaster.map(|p| {
        if p.uid == 0 {
            return Err(Nonsense("a server of uid 0"));
        }
        Ok(ev::Postmaster {
            pid: p.pid,
            uid: p.uid,
            started_at: UnixMillis(p.started_at_ms),
            stopped: p.stopped,
        })
    });
    Ok(ev::Processes {
        manager: p.manager,
        postmaster: postmaster.transpose()?,
        tools: p.tools,
    })
}

fn control(c: wire::ControlFile) -> Result<ev::ControlFile, Nonsense> {
    let state = match c.state() {
        wire::ClusterState::StartingUp => ev::ClusterState::StartingUp,
        wire::ClusterState::ShutDown => ev::ClusterState::ShutDown,
        wire::ClusterState::ShutDownInRecovery => ev::ClusterState::ShutDownInRecovery,
        wire::ClusterState::ShuttingDown => ev::ClusterState::ShuttingDown,
        wire::ClusterState::InCrashRecovery => ev::ClusterState::InCrashRecovery,
        wire::ClusterState::InArchiveRecovery => ev::ClusterState::InArchiveRecovery,
        wire::ClusterState::InProduction => ev::ClusterState::InProduction,
        wire::ClusterState::Unspecified => return Err(Nonsense("state")),
    };
    Ok(ev::ControlFile {
        system_id: SystemId::new(c.system_id).ok_or(Nonsense("system identifier 0"))?,
        version: c.version,
        state,
        updated_at: UnixMillis(c.updated_at_ms),
        checkpoint: Lsn::new(c.checkpoint_lsn).ok_or(Nonsense("checkpoint 0/0"))?,
        redo: Lsn::new(c.redo_lsn).ok_or(Nonsense("redo point 0/0"))?,
        checkpoint_timeline: TimelineId::new(c.checkpoint_timeline).ok_or(Nonsense("timeline 0"))?,
        min_recovery: Lsn::new(c.min_recovery_lsn).zip(TimelineId::new(c.min_recovery_timeline)),
        backup_start: Lsn::new(c.backup_start_lsn),
        backup_end_required: c.backup_end_required,
        wal_log_hints: c.wal_log_hints,
        data_checksums: c.data_checksum_version != 0,
        wal_segment_size: c.wal_segment_size,
    })
}

fn backup_label(b: wire::BackupLabel) -> Result<ev::BackupLabel, Nonsense> {
    let start = Lsn::new(b.start_wal_lsn).ok_or(Nonsense("start 0/0"))?;
    Ok(ev::BackupLabel {
        start,
        method: b.method,
        timeline: TimelineId::new(b.start_timeline),
    })
}

fn histories(h: wire::Histories) -> Result<Vec<ev::HistoryFile>, Nonsense> {
    let file = |f: wire::TimelineHistory| {
        let timeline = TimelineId::new(f.timeline).ok_or(Nonsense("timeline 0"))?;
        let source = format!("pg_wal/{}", timeline.history_file_name());
        let switch = |s: wire::TimelineSwitch| {
            let parent = TimelineId::new(s.parent)?;
            Some(ev::Switch {
                parent,
                at: Lsn::new(s.at_lsn)?,
            })
        };
        let switches = match f.unread {
            Some(unread) => Evidence::unread(reason(unread.kind()), unread.detail),
            None => match f.switches.into_iter().map(switch).collect::<Option<Vec<_>>>() {
                Some(switches) => Evidence::known(switches, source, UnixMillis::default()),
                None => Evidence::unread(
                    UnreadReason::Corrupt,
                    format!("{source}: a switch of timeline 0 or at 0/0"),
                ),
            },
        };
        Ok(ev::HistoryFile { timeline, switches })
    };
    h.files.into_iter().map(file).collect()
}

fn wal_end(w: wire::WalEnd) -> Result<ev::WalEnd, Nonsense> {
    Ok(ev::WalEnd {
        end: Lsn::new(w.end_lsn).ok_or(Nonsense("end 0/0"))?,
        timeline: TimelineId::new(w.timeline).ok_or(Nonsense("timeline 0"))?,
        method: match w.method() {
            wire::WalScanMethod::Records => ev::WalScan::Records,
            wire::WalScanMethod::Pages => ev::WalScan::Pages,
            wire::WalScanMethod::Unspecified => return Err(Nonsense("scan method")),
        },
        system_id: SystemId::new(w.system_id),
        abandoned: TimelineId::new(w.abandoned_timeline).zip(Lsn::new(w.abandoned_lsn)),
    })
}

fn disk_slot(s: wire::Slot) -> ev::DiskSlot {
    let state = match s.unread {
        Some(unread) => Evidence::unread(reason(unread.kind()), unread.detail),
        None => Evidence::known(
            ev::DiskSlotState {
                restart: Lsn::new(s.restart_lsn),
                logical: s.logical,
            },
            format!("pg_replslot/{}/state", s.name),
            UnixMillis::default(),
        ),
    };
    ev::DiskSlot { name: s.name, state }
}

fn volume(v: wire::VolumeSpaceReading) -> ev::VolumeSpace {
    let role = match v.role() {
        wire::VolumeRole::PgData => ev::ClaimRole::Data,
        wire::VolumeRole::PgWal => ev::ClaimRole::Wal,
        wire::VolumeRole::PgTablespace => ev::ClaimRole::Tablespace(v.tablespace.clone()),
        wire::VolumeRole::Scratch => ev::ClaimRole::Other("scratch".to_owned()),
        wire::VolumeRole::MariadbData | wire::VolumeRole::GaleraConfig | wire::VolumeRole::Unspecified => {
            ev::ClaimRole::Other("unknown".to_owned())
        }
    };
    let space = evidence("volume space", Some(v), |s: wire::VolumeSpace| {
        Ok(ev::Space {
            total_bytes: s.total_bytes,
            free_bytes: s.free_bytes,
            total_inodes: s.total_inodes,
            free_inodes: s.free_inodes,
            read_only: s.read_only,
        })
    });
    ev::VolumeSpace { role, space }
}

/// What the server said of itself.
pub(super) fn server(reading: Option<wire::ServerReading>) -> Evidence<ev::Server> {
    evidence("server status", reading, |s: wire::Server| {
        let archive_failing =
            s.archive_failed_count > 0 && s.archive_last_failed_at_ms > s.archive_last_success_at_ms;
        Ok(ev::Server {
            system_id: SystemId::new(s.system_id).ok_or(Nonsense("system identifier 0"))?,
            version_num: s.version_num,
            in_recovery: s.in_recovery,
            timeline: TimelineId::new(s.timeline),
            flush: Lsn::new(s.flush_lsn),
            receive: Lsn::new(s.receive_lsn),
            replay: Lsn::new(s.replay_lsn),
            replay_paused: s.replay_paused,
            receiver: s.receiver.map(|r| ev::Receiver {
                streaming: r.status == "streaming",
                timeline: TimelineId::new(r.received_timeline),
                flushed: Lsn::new(r.flushed_lsn),
            }),
            standbys: s.standbys.into_iter().map(standby).collect(),
            slots: s.slots.into_iter().map(server_slot).collect(),
            archive_enabled: s.archive_enabled,
            archive_failing: archive_failing.then_some(s.archive_last_failed_wal),
            database_bytes: (s.database_bytes != 0).then_some(s.database_bytes),
        })
    })
}

fn standby(s: wire::Standby) -> ev::Standby {
    let state = match s.state.as_str() {
        "startup" => ev::StandbyState::Startup,
        "catchup" => ev::StandbyState::Catchup,
        "streaming" => ev::StandbyState::Streaming,
        _ => ev::StandbyState::Other,
    };
    ev::Standby {
        application_name: s.application_name,
        state,
        flush: Lsn::new(s.flush_lsn),
        replay: Lsn::new(s.replay_lsn),
    }
}

fn server_slot(s: wire::ServerSlot) -> ev::ServerSlot {
    let wal_status = match s.wal_status.as_str() {
        "reserved" | "extended" => ev::SlotWal::Kept,
        "unreserved" => ev::SlotWal::Unreserved,
        "lost" => ev::SlotWal::Lost,
        _ => ev::SlotWal::None,
    };
    ev::ServerSlot {
        name: s.name,
        active: s.active,
        restart: Lsn::new(s.restart_lsn),
        wal_status,
    }
}

/// How many commits an agent counted.
pub(super) fn commits(reply: wire::CountCommitsReply, now: UnixMillis) -> Evidence<ev::Commits> {
    match reply.outcome {
        Some(wire::count_commits_reply::Outcome::Known(c)) => {
            let span = (c.count > 0).then_some((UnixMillis(c.first_at_ms), UnixMillis(c.last_at_ms)));
            Evidence::known(ev::Commits { count: c.count, span }, "WAL records", now)
        }
        Some(wire::count_commits_reply::Outcome::Unread(unread)) => {
            Evidence::unread(reason(unread.kind()), unread.detail)
        }
        None => Evidence::unread(UnreadReason::UnknownVersion, "the agent sent no count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_is_unread() {
        let (disk, server) = reply(wire::InspectPostgresReply::default());
        assert!(disk.control.why_unread().is_some());
        assert!(server.why_unread().is_some());
    }

    #[test]
    fn nonsense_is_corrupt_not_a_default() {
        let outcome = wire::control_file_reading::Outcome::Known(wire::ControlFile::default());
        let reading = wire::ControlFileReading {
            provenance: None,
            outcome: Some(outcome),
        };
        let (disk, _) = reply(wire::InspectPostgresReply {
            control_file: Some(reading),
            ..Default::default()
        });
        assert_eq!(
            disk.control.why_unread().map(|u| u.reason),
            Some(UnreadReason::Corrupt)
        );
    }

    #[test]
    fn a_server_of_root_is_never_evidence() {
        let postmaster = wire::Postmaster {
            pid: 1,
            uid: 0,
            ..Default::default()
        };
        assert!(
            processes(wire::Processes {
                postmaster: Some(postmaster),
                ..Default::default()
            })
            .is_err()
        );
    }
}
