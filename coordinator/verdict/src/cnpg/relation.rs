//! [`Relation`]: what one instance holds that another lacks.

use hasteward_proto::primitive::{Lsn, SystemId, TimelineId, UnixMillis};

use super::lineage::{Lineage, Parting};
use super::position::Position;
use super::subject::Subject;
use crate::evidence::Evidence;
use crate::evidence::cnpg::{ClusterResource, Commits, StandbyState};

/// Evidence of two instances is read seconds apart while the primary writes. A replica on the primary's own history that
/// was read later is ahead by what was written between; beyond this much it must stream, or it is not that.
const READ_SKEW: u64 = 256 * 1024 * 1024;

/// An instance, seen from the current primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is the primary.
    Primary,
    /// Read, and the primary holds everything of it.
    Contained,
    /// Not (fully) read, but the primary sends it WAL right now.
    SeenByPrimary(Position),
    /// Not (fully) read, but the coordinator saw it on the primary's history.
    Remembered(Position),
    /// Proven to hold nothing of its own.
    Nothing(Nothing),
    /// Histories part, and it has WAL past that point.
    Parted(Parted),
    /// It is of another system.
    Foreign(SystemId),
    /// Read, and there is no primary that could be read to compare it with.
    Uncompared,
    /// Not known: it may hold anything.
    Unread(String),
}

/// Why an instance holds nothing of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nothing {
    VolumeGone(String),
    Empty,
    Joining,
    Unfinished(String),
}

impl Nothing {
    /// An empty or unfinished PGDATA proves nothing of a data directory that was set aside on the same volume.
    pub(crate) fn doubt(&self, subject: &Subject<'_>) -> Option<String> {
        match self {
            Self::Empty | Self::Unfinished(_) => subject.set_aside(),
            Self::VolumeGone(_) | Self::Joining => None,
        }
    }
}

/// Two histories that parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parted {
    /// The last shared position; `None` = nothing is shared, or the point is not known.
    pub(crate) fork: Option<Lsn>,
    /// It left the shared timeline there: it was promoted.
    pub(crate) left: bool,
    /// What it holds past the fork.
    pub(crate) own: Worth,
    /// What the other one holds past the fork.
    pub(crate) other: Worth,
}

/// What lies past a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// No WAL.
    Nothing,
    /// WAL without a single commit record.
    NoCommits,
    /// Commits.
    Commits(Commits),
    /// WAL whose commits were not counted: it may hold any number.
    Uncounted,
}

impl Worth {
    /// Losing it may lose a commit.
    pub(crate) fn may_hold(self) -> bool {
        matches!(self, Self::Commits(_) | Self::Uncounted)
    }

    pub(crate) fn count(self) -> Option<u64> {
        match self {
            Self::Nothing | Self::NoCommits => Some(0),
            Self::Commits(commits) => Some(commits.count),
            Self::Uncounted => None,
        }
    }

    pub(crate) fn span(self) -> Option<(UnixMillis, UnixMillis)> {
        match self {
            Self::Commits(commits) => commits.span,
            Self::Nothing | Self::NoCommits | Self::Uncounted => None,
        }
    }
}

/// A stretch whose commits decide something: on this timeline, past this position.
pub(crate) type Stretch = (TimelineId, Lsn);

/// An instance whose history and end are both known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'s> {
    pub(crate) subject: &'s Subject<'s>,
    pub(crate) lineage: &'s Lineage,
    pub(crate) position: Position,
}

/// The subject as a reader, or why it is none.
pub(crate) fn reader<'s>(subject: &'s Subject<'s>) -> Result<Reader<'s>, String> {
    if let Some(why) = subject.unfinished() {
        return Err(format!("it is an unfinished base backup: {why}"));
    }
    if subject.label_in_doubt() {
        return Err("whether it is an unfinished base backup is not known".to_owned());
    }
    if subject.systems().is_empty() {
        return Err(subject.why_unread());
    }
    let position = subject.position.ok_or_else(|| subject.why_unread())?;
    let lineage = subject.lineage.as_ref().map_err(Clone::clone)?;
    if position.exact {
        Ok(Reader {
            subject,
            lineage,
            position,
        })
    } else {
        Err(format!(
            "the end of its WAL is not known, only that it reaches {}: {}",
            position.lsn,
            subject.why_unread()
        ))
    }
}

/// How two readers part, with the stretches past the fork of each. `None`: the first holds nothing past the second's reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) fork: Option<Lsn>,
    pub(crate) first_left: bool,
    /// The first has WAL past the fork.
    pub(crate) first_past: bool,
    pub(crate) second_past: bool,
    pub(crate) first_stretches: Vec<Stretch>,
    pub(crate) second_stretches: Vec<Stretch>,
}

/// Compare two readers by history and end, before any commit is counted.
pub(crate) fn compare(first: &Reader<'_>, second: &Reader<'_>) -> Comparison {
    let parting = first.lineage.part(second.lineage);
    let past = |end: Lsn, fork: Lsn| end > fork;
    match parting {
        Parting::At { fork, first_left, .. } => Comparison {
            fork: Some(fork),
            first_left,
            first_past: past(first.position.lsn, fork),
            second_past: past(second.position.lsn, fork),
            first_stretches: first.lineage.past(fork),
            second_stretches: second.lineage.past(fork),
        },
        Parting::Unrelated => Comparison {
            fork: None,
            first_left: true,
            first_past: true,
            second_past: true,
            first_stretches: Vec::new(),
            second_stretches: Vec::new(),
        },
        Parting::Same
            if wrote_here(first.subject, first.position.timeline)
                || wrote_here(second.subject, second.position.timeline) =>
        {
            // What it wrote and what it may have followed later lie on one timeline, so no count could tell them apart.
            let fork = first.lineage.entered();
            let side = |one: &Reader<'_>| {
                let wrote = wrote_here(one.subject, one.position.timeline);
                let stretches = fork.filter(|_| !wrote).map(|fork| one.lineage.past(fork));
                (
                    fork.is_none_or(|fork| past(one.position.lsn, fork)),
                    stretches.unwrap_or_default(),
                )
            };
            let (first_past, first_stretches) = side(first);
            let (second_past, second_stretches) = side(second);
            Comparison {
                fork,
                first_left: true,
                first_past,
                second_past,
                first_stretches,
                second_stretches,
            }
        }
        Parting::Same if twins(first.subject, second.subject) => {
            // Both were promoted from one parent at one position and drew one number: the files look like one history.
            let fork = first.lineage.entered();
            let stretches = |lineage: &Lineage| fork.map(|fork| lineage.past(fork)).unwrap_or_default();
            Comparison {
                fork,
                first_left: true,
                first_past: fork.is_none_or(|fork| past(first.position.lsn, fork)),
                second_past: fork.is_none_or(|fork| past(second.position.lsn, fork)),
                first_stretches: stretches(first.lineage),
                second_stretches: stretches(second.lineage),
            }
        }
        Parting::Same => {
            let fork = first.position.lsn.min(second.position.lsn);
            let ahead = |one: &Reader<'_>, other: &Reader<'_>| {
                one.position.lsn > other.position.lsn && !merely_read_later(one, other)
            };
            Comparison {
                fork: Some(fork),
                first_left: false,
                first_past: ahead(first, second),
                second_past: ahead(second, first),
                first_stretches: first.lineage.past(fork),
                second_stretches: second.lineage.past(fork),
            }
        }
    }
}

/// One history, and both wrote it: a timeline has one writer only.
fn twins(first: &Subject<'_>, second: &Subject<'_>) -> bool {
    first.stood_by() == Some(false) && second.stood_by() == Some(false)
}

/// It is not the primary, and was seen writing this very timeline and not following it since: another one of this number.
fn wrote_here(subject: &Subject<'_>, timeline: TimelineId) -> bool {
    let wrote = subject
        .ev
        .last_written
        .filter(|wrote| wrote.timeline == timeline && !subject.is_primary);
    wrote.is_some_and(|wrote| {
        subject
            .ev
            .remembered
            .is_none_or(|seen| seen.timeline != timeline || seen.at <= wrote.at)
    })
}

/// WAL that lies past the point where its own history left an older timeline, unless that is proven to hold no commit.
pub(crate) fn abandoned(subject: &Subject<'_>) -> Option<(Stretch, Worth)> {
    let stretch = subject.ev.disk.wal_end.value()?.abandoned?;
    let worth = worth(subject, true, &[stretch]);
    worth.may_hold().then_some((stretch, worth))
}

/// `one` is ahead on the history of `other`, whose server runs and sends it WAL: `other` has written on since it was read.
///
/// A replica that receives nothing now got nothing from `other` after `other` was read; what it has more, `other` lost.
fn merely_read_later(one: &Reader<'_>, other: &Reader<'_>) -> bool {
    let runs = other.subject.is_primary && other.subject.running() == Some(true);
    let near = one.position.lsn.bytes_past(other.position.lsn) <= READ_SKEW;
    runs && (one.subject.receives() || (near && sends(other.subject, one.subject)))
}

/// The row of `to` on `from` says that WAL is sent right now.
fn sends(from: &Subject<'_>, to: &Subject<'_>) -> bool {
    from.server().is_some_and(|server| {
        server.standbys.iter().any(|row| {
            row.application_name == to.name().as_str()
                && matches!(row.state, StandbyState::Streaming | StandbyState::Catchup)
        })
    })
}

/// What lies in `stretches` of an instance, by the commits that were counted there.
pub(crate) fn worth(subject: &Subject<'_>, past: bool, stretches: &[Stretch]) -> Worth {
    if !past {
        return Worth::Nothing;
    }
    if stretches.is_empty() {
        return Worth::Uncounted;
    }
    let mut sum = Commits { count: 0, span: None };
    for &stretch in stretches {
        let Some(commits) = counted(subject, stretch) else {
            return Worth::Uncounted;
        };
        sum.count = sum.count.saturating_add(commits.count);
        sum.span = match (sum.span, commits.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }
    if sum.count == 0 {
        Worth::NoCommits
    } else {
        Worth::Commits(sum)
    }
}

/// The commits of one stretch, if they were counted. Contradicting answers count as none.
fn counted(subject: &Subject<'_>, (timeline, past): Stretch) -> Option<Commits> {
    let mut answers = subject
        .ev
        .commits_past
        .iter()
        .filter(|answer| answer.timeline == timeline && answer.past == past);
    let first = answers.next()?.commits.value()?;
    answers
        .all(|other| other.commits.value() == Some(first))
        .then_some(*first)
}

/// Whether an answer (of any kind) to the question is there.
pub(crate) fn answered(subject: &Subject<'_>, (timeline, past): Stretch) -> bool {
    subject
        .ev
        .commits_past
        .iter()
        .any(|answer| answer.timeline == timeline && answer.past == past)
}

/// `first` against `second`: how they part, as far as that matters for what `first` holds.
pub(crate) fn part(first: &Reader<'_>, second: &Reader<'_>) -> Option<Parted> {
    let comparison = compare(first, second);
    comparison.first_past.then(|| Parted {
        fork: comparison.fork,
        left: comparison.first_left,
        own: worth(first.subject, comparison.first_past, &comparison.first_stretches),
        other: worth(
            second.subject,
            comparison.second_past,
            &comparison.second_stretches,
        ),
    })
}

/// What `subject` is to the primary.
pub(crate) fn relate(subject: &Subject<'_>, primary: &Reader<'_>, resource: &ClusterResource) -> Relation {
    let reference = resource
        .system_id
        .or_else(|| primary.subject.systems().first().copied());
    if let Some(other) = subject.systems().into_iter().find(|&id| Some(id) != reference) {
        return Relation::Foreign(other);
    }
    if let Some(nothing) = nothing(subject) {
        return match nothing.doubt(subject) {
            None => Relation::Nothing(nothing),
            // What the primary sends it WAL for lives; anything else is decided by what lies there, and that was not read.
            Some(why) => match unread(subject, primary, resource, why.clone()) {
                seen @ Relation::SeenByPrimary(_) => seen,
                _ => Relation::Unread(why),
            },
        };
    }
    match reader(subject) {
        Ok(reader) => match part(&reader, primary) {
            Some(parted) => Relation::Parted(parted),
            None if in_doubt(&reader, primary) => {
                let why = "whether it followed or wrote its timeline is not known".to_owned();
                unread(subject, primary, resource, why)
            }
            None => Relation::Contained,
        },
        Err(why) => unread(subject, primary, resource, why),
    }
}

/// What is proven to hold nothing of its own.
pub(crate) fn nothing(subject: &Subject<'_>) -> Option<Nothing> {
    if let Some(proof) = subject.volume_gone() {
        return Some(Nothing::VolumeGone(proof));
    }
    if subject.joining() {
        return Some(Nothing::Joining);
    }
    if subject.empty() {
        return Some(Nothing::Empty);
    }
    subject.unfinished().map(Nothing::Unfinished)
}

/// The primary reaches past its end. On the primary's own timeline that proves containment only of a standby: what may have
/// written that timeline itself is not compared by a bare number.
fn in_doubt(reader: &Reader<'_>, primary: &Reader<'_>) -> bool {
    let same = reader.lineage.part(primary.lineage) == Parting::Same;
    same && reader.subject.stood_by().is_none()
        && reader.lineage.entered().is_none_or(|at| reader.position.lsn > at)
}

/// An unread instance blocks, unless the primary sends it WAL, or the coordinator saw it on the primary's history.
fn unread(subject: &Subject<'_>, primary: &Reader<'_>, resource: &ClusterResource, why: String) -> Relation {
    if subject.writes() && !subject.is_primary {
        return Relation::Unread(format!("its server accepts writes, and {why}"));
    }
    if wrote_here(subject, primary.lineage.timeline()) {
        return Relation::Unread(format!(
            "it was seen writing the primary's timeline and not following it since, and {why}"
        ));
    }
    // What little was read must not contradict: a lower bound past the fork, or a timeline that the primary never had.
    if let Some(position) = subject.position {
        let own = primary.lineage.timeline() == position.timeline;
        let ancestor = primary
            .lineage
            .left(position.timeline)
            .is_some_and(|left| position.lsn <= left);
        if !(own || ancestor) {
            return Relation::Unread(format!(
                "it is on timeline {} at {}, and {why}",
                position.timeline, position.lsn
            ));
        }
        if let Ok(lineage) = &subject.lineage
            && lineage
                .part(primary.lineage)
                .fork()
                .is_some_and(|fork| position.lsn > fork)
        {
            return Relation::Unread(format!("it is past the fork, and {why}"));
        }
    }
    let serving = primary.subject.writes() || (resource.replica_cluster && primary.subject.recovers());
    let row = primary.subject.server().filter(|_| serving).and_then(|server| {
        let own = |row: &&crate::evidence::cnpg::Standby| row.application_name == subject.name().as_str();
        server
            .standbys
            .iter()
            .filter(own)
            .find(|row| row.state == StandbyState::Streaming)
    });
    if let Some(row) = row {
        let lsn = row.flush.or(row.replay).unwrap_or(primary.position.lsn);
        let source = super::position::Source::PrimaryRow;
        return Relation::SeenByPrimary(Position {
            timeline: primary.lineage.timeline(),
            lsn,
            source,
            exact: false,
        });
    }
    if let Some(seen) = subject.ev.remembered {
        // On the primary's own timeline more can only have come from the primary. On any other one the sighting is where it
        // was at least: what it received after it, and past the fork, nobody saw.
        let wrote_since = subject.ev.last_written.is_some_and(|wrote| wrote.at >= seen.at);
        if seen.timeline == primary.lineage.timeline() && !wrote_since {
            let source = super::position::Source::Remembered(seen.at);
            let position = Position {
                timeline: seen.timeline,
                lsn: seen.lsn,
                source,
                exact: false,
            };
            return Relation::Remembered(position);
        }
        return Relation::Unread(format!(
            "{why}; it was seen on timeline {} up to {}, and may have gone on from there before the primary began timeline {}",
            seen.timeline,
            seen.lsn,
            primary.lineage.timeline()
        ));
    }
    Relation::Unread(why)
}

/// The first answers, in a form for reports: an instance's own position, or what others saw of it.
pub(crate) fn seen(subject: &Subject<'_>, relation: &Relation) -> Option<Position> {
    match relation {
        Relation::SeenByPrimary(position) | Relation::Remembered(position) => Some(*position),
        Relation::Nothing(_) => None,
        _ => subject
            .position
            .filter(|_| !matches!(&subject.ev.disk.backup_label, Evidence::Known(_))),
    }
}
