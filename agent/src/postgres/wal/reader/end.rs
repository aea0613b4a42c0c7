//! Why a log ends, or why it could not be read on.

use hasteward_proto::primitive::TimelineId;

use crate::postgres::reading::Unread;
use crate::postgres::wal::page::PageFault;
use crate::postgres::wal::record::HeaderFault;

/// Why no record follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndOfWal {
    /// The page is not a page of this log.
    #[error("page {}: {fault}", lsn(*address))]
    Page {
        /// Where it should be.
        address: u64,
        /// What is wrong.
        fault: PageFault,
    },
    /// There is no file for the segment.
    #[error("no segment {0}")]
    NoSegment(String),
    /// The file of the segment holds something else.
    #[error("segment {name}: {fault}")]
    Segment {
        /// Its name.
        name: String,
        /// What is wrong with its first page.
        fault: PageFault,
    },
    /// The bytes are no record header.
    #[error("{0}")]
    Header(HeaderFault),
    /// A record would start within a page header, or unaligned.
    #[error("no record can start there")]
    Offset,
    /// The page begins with the rest of a record that nobody began.
    #[error("the page continues another record")]
    ContinuesAnother,
    /// The page after does not continue the record.
    #[error("page {} does not continue the record", lsn(*.0))]
    NotContinued(u64),
    /// `xl_prev` does not name the record before.
    #[error("link to {} instead of the record before", lsn(*.0))]
    Previous(u64),
    /// CRC-32C is wrong.
    #[error("wrong CRC")]
    Checksum,
    /// A given-up record is not followed by the record that says so.
    #[error("a given-up record is not marked as such")]
    NotOverwritten,
    /// The timeline was left here, and the newer one's segment is not there.
    #[error("timeline {0} was left here")]
    TimelineLeft(TimelineId),
}

/// Why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The log ends here.
    End(EndOfWal),
    /// It could not be read on; says nothing about where the log ends.
    Failed(Unread),
}

/// `high/low`, also for zero.
pub(super) fn lsn(bytes: u64) -> String {
    format!("{:X}/{:X}", bytes >> 32, bytes & 0xFFFF_FFFF)
}

impl From<Unread> for Halt {
    fn from(unread: Unread) -> Self {
        Self::Failed(unread)
    }
}

impl From<EndOfWal> for Halt {
    fn from(end: EndOfWal) -> Self {
        Self::End(end)
    }
}
