//! [`Position`]: where an instance is in history, and how that is known.
//!
//! The end of WAL counts, never the last checkpoint: after an abrupt failover the former primary's checkpoint lies before
//! the fork while minutes of acknowledged commits lie behind it. The timeline is the newest that any source proves: on a
//! standby the checkpoint's timeline stays old until the next restart point.

use hasteward_proto::primitive::{Lsn, TimelineId, UnixMillis};

use crate::evidence::cnpg::{ClusterState, ControlFile, InstanceEvidence, Server, WalScan};

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) timeline: TimelineId,
    pub(crate) lsn: Lsn,
    pub(crate) source: Source,
    /// `lsn` is the end of everything it holds; otherwise it holds at least this.
    pub(crate) exact: bool,
}

/// How a position is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Server,
    WalRecords,
    WalPages,
    ControlFile,
    /// The primary's `pg_stat_replication`.
    PrimaryRow,
    /// The coordinator saw it then.
    Remembered(UnixMillis),
}

impl Source {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::WalRecords => "wal records",
            Self::WalPages => "wal pages",
            Self::ControlFile => "control file",
            Self::PrimaryRow => "primary",
            Self::Remembered(_) => "seen streaming",
        }
    }
}

/// The position that the instance's own server and files prove; `None` = not even a lower bound.
pub(crate) fn own(instance: &InstanceEvidence) -> Option<Position> {
    let server = instance.server.value();
    let control = instance.disk.control.value();
    let wal = instance.disk.wal_end.value();

    let timeline = server
        .and_then(server_timeline)
        .into_iter()
        .chain(control.map(control_timeline))
        .chain(wal.map(|wal| wal.timeline))
        .max()?;

    let mut found: Option<Position> = None;
    let mut offer = |lsn: Option<Lsn>, source, exact| {
        if let Some(lsn) = lsn {
            let merged = match found {
                Some(best) if best.lsn >= lsn => Position {
                    exact: best.exact || exact,
                    ..best
                },
                Some(best) => Position {
                    timeline,
                    lsn,
                    source,
                    exact: best.exact || exact,
                },
                None => Position {
                    timeline,
                    lsn,
                    source,
                    exact,
                },
            };
            found = Some(merged);
        }
    };
    if let Some(server) = server.filter(|server| server_timeline(server).is_none_or(|own| own == timeline)) {
        if server.in_recovery {
            // Local WAL is replayed before a receiver is asked to start, so once anything was received the larger of
            // both is the end. Without a receiver `pg_wal` may hold more than was replayed.
            let received = [server.receive, server.receiver.as_ref().and_then(|r| r.flushed)]
                .into_iter()
                .flatten()
                .max();
            // The sender cuts its stream anywhere: what was received may end inside a record that never came whole. Where it
            // does not go on, only the last valid record counts; see `unscanned`.
            let scanned = wal.is_some_and(|wal| wal.timeline == timeline && wal.method == WalScan::Records);
            let streams = server
                .receiver
                .as_ref()
                .is_some_and(|receiver| receiver.streaming);
            if streams || !scanned {
                offer(received, Source::Server, true);
            }
            offer(server.replay, Source::Server, false);
        } else {
            offer(server.flush, Source::Server, true);
        }
    }
    if let Some(wal) = wal.filter(|wal| wal.timeline == timeline) {
        let source = match wal.method {
            WalScan::Records => Source::WalRecords,
            WalScan::Pages => Source::WalPages,
        };
        offer(Some(wal.end), source, true);
    }
    if let Some(control) = control {
        // Proven to have no WAL at all, and shut down in order: the control file is the end.
        let sealed = instance.disk.wal_end.is_absent()
            && matches!(
                control.state,
                ClusterState::ShutDown | ClusterState::ShutDownInRecovery
            );
        let recovered = control
            .min_recovery
            .filter(|&(_, own)| own == timeline)
            .map(|(lsn, _)| lsn);
        let checkpoint = (control.checkpoint_timeline == timeline).then_some(control.checkpoint);
        offer(recovered.max(checkpoint), Source::ControlFile, sealed);
    }
    found
}

/// The timeline that a server writes, receives or replays: the newest of them.
fn server_timeline(server: &Server) -> Option<TimelineId> {
    let received = server
        .receiver
        .as_ref()
        .filter(|receiver| receiver.streaming)
        .and_then(|receiver| receiver.timeline);
    server.timeline.max(received)
}

/// The newest timeline that a control file proves: right after a promotion only the recovery point carries it.
pub(crate) fn control_timeline(control: &ControlFile) -> TimelineId {
    control
        .min_recovery
        .map_or(control.checkpoint_timeline, |(_, recovered)| {
            recovered.max(control.checkpoint_timeline)
        })
}
