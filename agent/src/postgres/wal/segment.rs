//! Names and sizes of WAL segments (PostgreSQL `access/xlog_internal.h`).

use std::fmt;

use hasteward_proto::primitive::{Lsn, TimelineId};

/// Bytes of a WAL segment: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// PostgreSQL's default, 16 MiB.
    pub const DEFAULT: Self = Self(16 * 1024 * 1024);

    /// `bytes`, where PostgreSQL allows it (`IsValidWalSegSize`).
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The number of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn number(self, lsn: u64) -> u64 {
        lsn / self.0 as u64
    }

    /// Where segment `number` starts. Saturates, so that a hostile name cannot wrap around.
    #[must_use]
    pub const fn start(self, number: u64) -> u64 {
        number.saturating_mul(self.0 as u64)
    }

    /// Segments for each value of the middle part of a name (`XLogSegmentsPerXLogId`).
    const fn per_id(self) -> u64 {
        0x1_0000_0000 / self.0 as u64
    }
}

/// Bytes of a WAL page (`XLOG_BLCKSZ`): a power of two from 1 to 64 KiB; 8 KiB unless compiled otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// PostgreSQL's default, 8 KiB.
    pub const DEFAULT: Self = Self(8192);

    /// `bytes`, where PostgreSQL allows it.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65536 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// Name of a WAL segment file: `TTTTTTTTXXXXXXXXYYYYYYYY`.
///
/// What its digits mean depends on the segment size, so they are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    id: u32,
    part: u32,
}

impl SegmentName {
    /// The name of segment `number` of `timeline` (`XLogFileName`); `None` past the end of the log.
    #[must_use]
    pub fn new(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<Self> {
        let id = u32::try_from(number / size.per_id()).ok()?;
        let part = u32::try_from(number % size.per_id()).ok()?;
        Some(Self { timeline, id, part })
    }

    /// Parses a file name (`IsXLogFileName`): 24 upper-case hexadecimal digits, nothing else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
            return None;
        }
        let field = |at: usize| u32::from_str_radix(&name[at..at + 8], 16).ok();
        Some(Self {
            timeline: TimelineId::new(field(0)?)?,
            id: field(8)?,
            part: field(16)?,
        })
    }

    /// The timeline in the name. The pages inside may be of an ancestor.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// A sort key: by position in the log, the older timeline first. Needs no segment size.
    #[must_use]
    pub const fn by_position(&self) -> (u32, u32, u32) {
        (self.id, self.part, self.timeline.get())
    }

    /// The segment's number; `None` where no segment of that size has this name.
    #[must_use]
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        (u64::from(self.part) < size.per_id())
            .then(|| u64::from(self.id) * size.per_id() + u64::from(self.part))
    }

    /// Where the segment starts; `None` for the very first one (it starts at 0, which is no LSN) and for impossible names.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        Lsn::new(size.start(self.number(size)?))
    }

    /// The name that PostgreSQL gives the last, unfinished segment of a timeline that it left.
    #[must_use]
    pub fn partial(self) -> String {
        format!("{self}.partial")
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.id, self.part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_initdb() {
        for good in [1 << 20, 1 << 24, 1 << 30] {
            assert!(SegmentSize::new(good).is_some());
        }
        for bad in [0, 1, 8192, (1 << 20) + 1, 3 << 20, 1 << 31] {
            assert!(SegmentSize::new(bad).is_none(), "{bad}");
        }
        assert!(
            BlockSize::new(512).is_none() && BlockSize::new(0).is_none() && BlockSize::new(12288).is_none()
        );
    }

    #[test]
    fn names_of_the_documentation() {
        let name = SegmentName::parse("000000010000000A000000FF").unwrap();
        assert_eq!(
            name.start(SegmentSize::DEFAULT).unwrap().to_string(),
            "A/FF000000"
        );
        assert_eq!(name.partial(), "000000010000000A000000FF.partial");
        let impossible = SegmentName::parse("000000010000000A00000100").unwrap();
        assert_eq!(impossible.start(SegmentSize::DEFAULT), None);
        assert!(impossible.start(SegmentSize::new(1 << 20).unwrap()).is_some());
        for bad in [
            "",
            "000000000000000A000000FF",
            "000000010000000a000000FF",
            "000000010000000A000000FF.partial",
        ] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(timeline in 1u32.., lsn in 1u64.., shift in 20u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let name = SegmentName::new(TimelineId::new(timeline).unwrap(), size.number(lsn), size).unwrap();
            prop_assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
            prop_assert_eq!(name.number(size), Some(size.number(lsn)));
        }

        #[test]
        fn any_text_is_a_name_or_none(text in ".*") {
            let _ = SegmentName::parse(&text);
        }
    }
}
