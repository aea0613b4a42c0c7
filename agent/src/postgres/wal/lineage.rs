//! [`Lineage`]: which timeline every byte of an instance's log belongs to.

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::segment::SegmentSize;
use crate::postgres::history::TimelineHistory;

/// A timeline and its ancestors, with the range of the log that each of them wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    timeline: TimelineId,
    /// Newest first: timeline, first byte, first byte no more.
    spans: Vec<(TimelineId, u64, u64)>,
}

impl Lineage {
    /// The lineage of `timeline`. PostgreSQL takes a timeline without a history file to have no ancestors; so do we.
    #[must_use]
    pub fn new(timeline: TimelineId, history: Option<&TimelineHistory>) -> Self {
        let mut spans = Vec::new();
        let mut begin = 0;
        for switch in history
            .map(|history| history.switches.as_slice())
            .unwrap_or_default()
        {
            spans.push((switch.parent, begin, switch.at.bytes()));
            begin = switch.at.bytes();
        }
        spans.push((timeline, begin, u64::MAX));
        spans.reverse();
        Self { timeline, spans }
    }

    /// Picks the history of `timeline` out of `histories`.
    #[must_use]
    pub fn among(timeline: TimelineId, histories: &[TimelineHistory]) -> Self {
        Self::new(
            timeline,
            histories.iter().find(|history| history.timeline == timeline),
        )
    }

    /// The newest timeline in it.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The timeline that a record starting at `lsn` belongs to.
    #[must_use]
    pub fn at(&self, lsn: u64) -> TimelineId {
        self.spans
            .iter()
            .find(|(_, begin, end)| (*begin..*end).contains(&lsn))
            .map_or(self.timeline, |(timeline, ..)| *timeline)
    }

    /// First byte that `timeline` did not write; `None` where it is no member.
    #[must_use]
    pub fn end_of(&self, timeline: TimelineId) -> Option<u64> {
        self.spans
            .iter()
            .find(|(member, ..)| *member == timeline)
            .map(|(.., end)| *end)
    }

    /// First byte that the newest timeline wrote.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.spans.first().map_or(0, |(_, begin, _)| *begin)
    }

    /// Timelines whose files may hold segment `number`, newest first. A segment in which a switch lies exists under both
    /// names, and the newer one holds both parts.
    pub(crate) fn holders(&self, number: u64, size: SegmentSize) -> impl Iterator<Item = TimelineId> + '_ {
        let (first, last) = (
            size.start(number),
            size.start(number.saturating_add(1)).saturating_sub(1),
        );
        self.spans
            .iter()
            .filter(move |(_, begin, end)| *begin <= last && *end > first)
            .map(|(timeline, ..)| *timeline)
    }

    /// Whether `other` descends from this one's newest timeline, and where it left it.
    #[must_use]
    pub fn left_by(&self, other: &TimelineHistory) -> Option<Lsn> {
        let at = other.left(self.timeline)?;
        let ancestors = other
            .switches
            .iter()
            .take_while(|switch| switch.parent != self.timeline);
        let known = self.spans.len() > 1;
        let same = ancestors.map(|s| (s.parent, s.at.bytes())).eq(self
            .spans
            .iter()
            .skip(1)
            .rev()
            .map(|s| (s.0, s.2)));
        (same || !known).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tli(id: u32) -> TimelineId {
        TimelineId::new(id).unwrap()
    }

    fn history(timeline: u32, text: &str) -> TimelineHistory {
        TimelineHistory::parse(tli(timeline), text.as_bytes()).unwrap()
    }

    #[test]
    fn bytes_belong_to_the_timeline_that_wrote_them() {
        let three = Lineage::new(tli(3), Some(&history(3, "1\t0/1800000\n2\t0/3000000\n")));
        assert_eq!(three.at(0x017F_FFFF), tli(1));
        assert_eq!(three.at(0x0180_0000), tli(2));
        assert_eq!(three.at(0x0300_0000), tli(3));
        assert_eq!(three.begin(), 0x0300_0000);
        let holders = |n| {
            three
                .holders(n, SegmentSize::DEFAULT)
                .map(TimelineId::get)
                .collect::<Vec<_>>()
        };
        assert_eq!(holders(0), [1]);
        assert_eq!(holders(1), [2, 1]);
        assert_eq!(holders(2), [2]);
        assert_eq!(holders(3), [3]);
    }

    #[test]
    fn a_descendant_has_the_same_ancestors() {
        let two = Lineage::new(tli(2), Some(&history(2, "1\t0/1800000\n")));
        let at = Lsn::new(0x0300_0000);
        assert_eq!(two.left_by(&history(3, "1\t0/1800000\n2\t0/3000000\n")), at);
        assert_eq!(two.left_by(&history(3, "1\t0/1900000\n2\t0/3000000\n")), None);
        assert_eq!(two.left_by(&history(3, "1\t0/1800000\n")), None);
        assert_eq!(
            Lineage::new(tli(2), None).left_by(&history(3, "1\t0/1800000\n2\t0/3000000\n")),
            at
        );
    }
}
