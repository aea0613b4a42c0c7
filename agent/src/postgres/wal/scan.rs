//! The end of valid WAL, and the commits on the way there.

use hasteward_proto::primitive::{Lsn, SystemId, TimelineId, UnixMillis};

use super::lineage::Lineage;
use super::reader::{EndOfWal, Geometry, Halt, Position, Reader};
use super::record::Kind;
use super::source::SegmentSource;
use crate::postgres::control_file::ControlFile;
use crate::postgres::history::TimelineHistory;
use crate::postgres::reading::{Deadline, Unread, UnreadKind};

/// Where the log of an instance ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalEnd {
    /// End of the last valid record.
    pub end: Lsn,
    /// Where the last valid record starts ("redo done at"); `None` = none was found, only pages.
    pub last_record: Option<Lsn>,
    /// The timeline of the last valid record.
    pub timeline: TimelineId,
    /// How it was found.
    pub method: Method,
    /// Where the scan began.
    pub from: Lsn,
    /// System identifier in the pages' long headers.
    pub system_id: SystemId,
    /// Why the log ends there.
    pub stopped: EndOfWal,
    /// The instance went on to a newer timeline, and also holds valid records of the older one past that switch.
    pub abandoned: Option<(TimelineId, Lsn)>,
}

/// How the end of WAL was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Records were followed and checked from the redo point.
    Records,
    /// `pg_control` was not readable: the newest genuine segment was taken as the last one.
    Pages,
}

/// Commit records past a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commits {
    /// How many.
    pub count: u64,
    /// Time of the first and of the last one.
    pub span: Option<(UnixMillis, UnixMillis)>,
    /// End of valid WAL up to which was counted.
    pub end: Option<Lsn>,
}

/// What a scan needs to know.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// `pg_wal`.
    pub source: &'a dyn SegmentSource,
    /// The instance's control file.
    pub control: &'a ControlFile,
    /// Its history files, as far as they could be parsed.
    pub histories: &'a [TimelineHistory],
    /// Until when.
    pub deadline: &'a Deadline,
}

/// Commits seen so far, and the last record.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    commits: Commits,
    last: Option<(u64, u64)>,
    checkpoint: bool,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
struct Goal {
    /// Commits that start at or after this position.
    past: u64,
    /// The checkpoint record that must be there.
    checkpoint: Option<u64>,
}

impl Tally {
    fn add(&mut self, record: &super::reader::Record, goal: Goal) {
        self.last = Some((record.start, record.end));
        self.checkpoint |= record.kind == Kind::Checkpoint && goal.checkpoint == Some(record.start);
        if record.kind == Kind::Commit && record.start >= goal.past {
            self.commits.count += 1;
            if let Some(at) = record.committed_at {
                let first = self.commits.span.map_or(at, |(first, _)| first);
                self.commits.span = Some((first, at));
            }
        }
    }
}

impl Scan<'_> {
    /// Finds the end of valid WAL: follows the records from the redo point.
    ///
    /// The timeline is the newest that the control file proves; where the server was following another one, also a newer
    /// one whose history it holds *and* whose records go on from the switch (a history file alone proves nothing).
    pub fn end(&self) -> Result<WalEnd, Unread> {
        self.survey(u64::MAX).map(|(end, _)| end)
    }

    /// Counts commit records of `timeline` that start at or after `past`.
    pub fn commits(&self, timeline: TimelineId, past: Lsn) -> Result<Commits, Unread> {
        let (end, tally) = self.survey(past.bytes())?;
        if end.timeline == timeline {
            return Ok(Commits {
                end: Some(end.end),
                ..tally
            });
        }
        // An ancestor: its records up to the switch, and what else of it is still there.
        let lineage = Lineage::among(end.timeline, self.histories);
        let Some(left) = lineage.end_of(timeline) else {
            let detail = format!("the instance is on timeline {}, not on {timeline}", end.timeline);
            return Err(Unread::new(UnreadKind::Depends, detail));
        };
        let lineage = Lineage::among(timeline, self.histories);
        let start = Position {
            next: past.bytes(),
            previous: None,
        };
        let mut reader = Reader::new(self.source, self.geometry(), &lineage, start, self.deadline);
        seek(&mut reader, past)?;
        let goal = Goal {
            past: past.bytes(),
            checkpoint: None,
        };
        let mut tally = Tally::default();
        let stopped = follow(&mut reader, &mut tally, goal, |_, _| ())?;
        let Some(end) = tally
            .last
            .and_then(|(_, end)| Lsn::new(end))
            .filter(|end| end.bytes() >= left)
        else {
            let detail =
                format!("the records of timeline {timeline} past {past} are not all there: {stopped}");
            return Err(Unread::new(UnreadKind::Depends, detail));
        };
        Ok(Commits {
            end: Some(end),
            ..tally.commits
        })
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            system_id: self.control.system_id,
            segment_size: self.control.segment_size,
            block_size: self.control.wal_block_size,
        }
    }

    /// Follows the records from the redo point, or from `past` where that is earlier, to the end.
    fn survey(&self, past: u64) -> Result<(WalEnd, Commits), Unread> {
        let control = self.control;
        let timeline = control.timeline();
        let lineage = Lineage::among(timeline, self.histories);
        let newer = self.newer_timelines(&lineage);

        let redo = control.redo.bytes();
        let start = Position {
            next: redo,
            previous: None,
        };
        let mut reader = Reader::new(self.source, self.geometry(), &lineage, start, self.deadline);
        if past < redo
            && let Some(past) = Lsn::new(past)
        {
            seek(&mut reader, past)?;
        }
        let from = reader.position().next;
        let goal = Goal {
            past,
            checkpoint: Some(control.checkpoint.bytes()),
        };
        let mut tally = Tally::default();
        let mut switches: Vec<(&TimelineHistory, Position, Tally)> = Vec::new();
        let stopped = follow(&mut reader, &mut tally, goal, |position, tally| {
            for (history, _) in newer.iter().filter(|(_, at)| at.bytes() == position.next) {
                switches.push((history, position, *tally));
            }
        })?;
        let older = tally;
        let end = |tally: &Tally, lineage: &Lineage, stopped, abandoned| {
            let (last, end) = tally.last?;
            Some(WalEnd {
                end: Lsn::new(end)?,
                last_record: Lsn::new(last),
                timeline: lineage.at(last),
                method: Method::Records,
                from: Lsn::new(from)?,
                system_id: control.system_id,
                stopped,
                abandoned,
            })
        };

        // Newest first: what the older one could show, the newer one shows too.
        switches.sort_by_key(|(history, ..)| std::cmp::Reverse(history.timeline));
        for (history, position, mut tally) in switches {
            let lineage = Lineage::new(history.timeline, Some(history));
            let mut reader = Reader::new(self.source, self.geometry(), &lineage, position, self.deadline);
            let stopped = follow(&mut reader, &mut tally, goal, |_, _| ())?;
            if tally.last.is_some_and(|(last, _)| last >= lineage.begin()) {
                let older_end = older.last.and_then(|(_, end)| Lsn::new(end));
                let abandoned = older_end
                    .filter(|end| end.bytes() > position.next)
                    .map(|end| (timeline, end));
                if let Some(end) = end(&tally, &lineage, stopped, abandoned) {
                    return Ok((end, tally.commits));
                }
            }
        }
        let tally = older;

        if !tally.checkpoint {
            let detail = match tally.last.and_then(|(_, end)| Lsn::new(end)) {
                Some(end) if end > control.checkpoint => {
                    format!(
                        "no checkpoint record at {}, where pg_control has it",
                        control.checkpoint
                    )
                }
                Some(end) => format!(
                    "valid WAL ends at {end}, before the checkpoint {} that pg_control has: {stopped}",
                    control.checkpoint
                ),
                None => format!("no valid WAL record at {}: {stopped}", control.redo),
            };
            return Err(Unread::new(UnreadKind::Corrupt, detail));
        }
        end(&tally, &lineage, stopped, None)
            .map(|end| (end, tally.commits))
            .ok_or_else(|| {
                Unread::new(
                    UnreadKind::Corrupt,
                    format!("no valid WAL record at {}", control.redo),
                )
            })
    }

    /// Timelines that the instance may have gone on to since its control file was written, newest first.
    fn newer_timelines(&self, lineage: &Lineage) -> Vec<(&TimelineHistory, Lsn)> {
        if !self.control.state.is_following() {
            return Vec::new();
        }
        let mut newer: Vec<_> = self
            .histories
            .iter()
            .filter_map(|history| Some((history, lineage.left_by(history)?)))
            // PostgreSQL refuses a timeline that forked off before the point it has replayed to.
            .filter(|(_, at)| *at >= self.control.floor())
            .collect();
        newer.sort_by_key(|(history, _)| std::cmp::Reverse(history.timeline));
        newer
    }
}

/// Follows records to the end of the log; `at_boundary` is told after each.
fn follow(
    reader: &mut Reader<'_>,
    tally: &mut Tally,
    goal: Goal,
    mut at_boundary: impl FnMut(Position, &Tally),
) -> Result<EndOfWal, Unread> {
    loop {
        match reader.next_record() {
            Ok(record) => {
                tally.add(&record, goal);
                at_boundary(reader.position(), tally);
            }
            Err(Halt::End(end)) => return Ok(end),
            Err(Halt::Failed(unread)) => return Err(unread),
        }
    }
}

/// Goes to the first record on the page of `past`, which must be there.
fn seek(reader: &mut Reader<'_>, past: Lsn) -> Result<(), Unread> {
    reader.seek(past.bytes()).map_err(|halt| match halt {
        Halt::End(end) => Unread::new(
            UnreadKind::Depends,
            format!("pg_wal does not hold {past} (any more): {end}"),
        ),
        Halt::Failed(unread) => unread,
    })
}

#[cfg(test)]
mod tests;
