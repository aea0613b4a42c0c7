//! [`Lineage`]: the history that led to a timeline, compared by content.
//!
//! Two equal timeline numbers prove nothing: instances that were promoted apart draw the same number. What counts is where
//! each timeline was left. And a `.history` file that merely lies in `pg_wal` proves nothing either: a standby fetches the
//! file of a newer timeline before it knows whether it can follow. So only the file of the timeline that an instance is
//! proven to be on is ever read here.

use hasteward_proto::primitive::{Lsn, TimelineId};

use crate::evidence::Evidence;
use crate::evidence::cnpg::{HistoryFile, Switch};

/// The way from the first timeline to the one that is followed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// Oldest first; the last is open.
    segments: Vec<Segment>,
    /// The history names a switch before the one that precedes it: somebody restored to a point before a known fork.
    backwards: bool,
}

/// A stretch of one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) timeline: TimelineId,
    /// Where it was entered; `None` = the first.
    pub(crate) begin: Option<Lsn>,
    /// Where it was left; `None` = it is the current one.
    pub(crate) end: Option<Lsn>,
}

/// Why a lineage is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineageGap {
    #[error("the history files were not read: {0}")]
    Unread(String),
    #[error("{} is not there", .0.history_file_name())]
    Missing(TimelineId),
    #[error("{file} was not parsed: {why}")]
    Unparsed { file: String, why: String },
    #[error("{} contradicts itself", .0.history_file_name())]
    Impossible(TimelineId),
}

/// How two lineages lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// One history.
    Same,
    /// One history up to `fork`.
    At {
        /// The last shared position.
        fork: Lsn,
        /// The first one left the shared timeline there.
        first_left: bool,
        /// The second one did.
        second_left: bool,
    },
    /// Nothing in common.
    Unrelated,
}

impl Parting {
    /// The last shared position, where there is one and the histories part.
    pub(crate) fn fork(self) -> Option<Lsn> {
        match self {
            Self::At { fork, .. } => Some(fork),
            Self::Same | Self::Unrelated => None,
        }
    }
}

impl Lineage {
    /// The lineage of `timeline` from the history files of the instance that is on it.
    pub(crate) fn of(
        timeline: TimelineId,
        histories: &Evidence<Vec<HistoryFile>>,
    ) -> Result<Self, LineageGap> {
        if timeline == TimelineId::FIRST {
            return Self::from_switches(timeline, &[]);
        }
        let files = match histories {
            Evidence::Known(known) => &known.value,
            Evidence::Unread(unread) => return Err(LineageGap::Unread(unread.detail.clone())),
            Evidence::Absent(_) => return Err(LineageGap::Missing(timeline)),
        };
        let mut own = files.iter().filter(|file| file.timeline == timeline);
        let file = own.next().ok_or(LineageGap::Missing(timeline))?;
        if own.any(|other| other.switches.value() != file.switches.value()) {
            return Err(LineageGap::Impossible(timeline));
        }
        match &file.switches {
            Evidence::Known(known) => Self::from_switches(timeline, &known.value),
            Evidence::Unread(unread) => Err(LineageGap::Unparsed {
                file: timeline.history_file_name(),
                why: unread.detail.clone(),
            }),
            Evidence::Absent(_) => Err(LineageGap::Missing(timeline)),
        }
    }

    /// From the lines of a history file. PostgreSQL requires rising timeline numbers (`readTimeLineHistory`), but not rising
    /// positions: a restore with `recovery_target_timeline = 2` to a point before timeline 2 began writes `1@500, 2@300`.
    /// PostgreSQL searches such a file newest first, so 300 is where timeline 1 really was left.
    fn from_switches(timeline: TimelineId, switches: &[Switch]) -> Result<Self, LineageGap> {
        let rising = switches.windows(2).all(|pair| pair[0].parent < pair[1].parent);
        let below = switches.last().is_none_or(|last| last.parent < timeline);
        let rooted = timeline == TimelineId::FIRST || !switches.is_empty();
        if !(rising && below && rooted) {
            return Err(LineageGap::Impossible(timeline));
        }
        let mut ends: Vec<Lsn> = switches.iter().map(|switch| switch.at).collect();
        let backwards = ends.windows(2).any(|pair| pair[1] < pair[0]);
        for i in (1..ends.len()).rev() {
            ends[i - 1] = ends[i - 1].min(ends[i]);
        }
        let mut segments = Vec::with_capacity(ends.len() + 1);
        let mut begin = None;
        for (switch, end) in switches.iter().zip(ends) {
            if begin != Some(end) {
                segments.push(Segment {
                    timeline: switch.parent,
                    begin,
                    end: Some(end),
                });
            }
            begin = Some(end);
        }
        segments.push(Segment {
            timeline,
            begin,
            end: None,
        });
        Ok(Self { segments, backwards })
    }

    /// The timeline that it leads to.
    pub(crate) fn timeline(&self) -> TimelineId {
        self.current().timeline
    }

    /// Where the current timeline was entered; `None` on a first timeline.
    pub(crate) fn entered(&self) -> Option<Lsn> {
        self.current().begin
    }

    /// The timeline before the current one, and where it was left.
    pub(crate) fn parent(&self) -> Option<(TimelineId, Lsn)> {
        let before = self.segments.len().checked_sub(2).map(|i| self.segments[i])?;
        before.end.map(|end| (before.timeline, end))
    }

    /// Where `timeline` was left; `None` = it is not an ancestor.
    pub(crate) fn left(&self, timeline: TimelineId) -> Option<Lsn> {
        self.segments
            .iter()
            .find(|segment| segment.timeline == timeline)
            .and_then(|segment| segment.end)
    }

    /// A switch lies before the one that precedes it.
    pub(crate) fn goes_backwards(&self) -> bool {
        self.backwards
    }

    /// The stretches past `fork`, each from where it is no longer shared.
    pub(crate) fn past(&self, fork: Lsn) -> Vec<(TimelineId, Lsn)> {
        let open = self
            .segments
            .iter()
            .filter(|segment| segment.end.is_none_or(|end| end > fork));
        open.map(|segment| {
            (
                segment.timeline,
                segment.begin.map_or(fork, |begin| begin.max(fork)),
            )
        })
        .collect()
    }

    /// How this lineage (the first) lies to `other` (the second).
    pub(crate) fn part(&self, other: &Self) -> Parting {
        let mut shared = None;
        for (a, b) in self.segments.iter().zip(&other.segments) {
            if a.timeline != b.timeline {
                return shared.map_or(Parting::Unrelated, |fork| Parting::At {
                    fork,
                    first_left: true,
                    second_left: true,
                });
            }
            match (a.end, b.end) {
                (None, None) => return Parting::Same,
                (Some(fork), None) => {
                    return Parting::At {
                        fork,
                        first_left: true,
                        second_left: false,
                    };
                }
                (None, Some(fork)) => {
                    return Parting::At {
                        fork,
                        first_left: false,
                        second_left: true,
                    };
                }
                (Some(x), Some(y)) if x == y => shared = Some(x),
                (Some(x), Some(y)) => {
                    return Parting::At {
                        fork: x.min(y),
                        first_left: x < y,
                        second_left: y < x,
                    };
                }
            }
        }
        // Both end with an open stretch, so the loop has returned; no histories at all would share nothing.
        Parting::Unrelated
    }

    fn current(&self) -> Segment {
        // `from_switches` always pushes the open stretch last.
        self.segments.last().copied().unwrap_or(Segment {
            timeline: TimelineId::FIRST,
            begin: None,
            end: None,
        })
    }
}
