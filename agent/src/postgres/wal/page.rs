//! The header of a WAL page (PostgreSQL `access/xlog_internal.h`, `XLogPageHeaderData`).

use hasteward_proto::primitive::{Lsn, SystemId, TimelineId};

use super::segment::{BlockSize, SegmentSize};
use crate::postgres::bytes::{u16_at, u32_at, u64_at};

/// `XLP_FIRST_IS_CONTRECORD`
const CONTRECORD: u16 = 1;
/// `XLP_LONG_HEADER`
const LONG: u16 = 2;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`
const OVERWRITE_CONTRECORD: u16 = 8;
/// `XLP_ALL_FLAGS`; 4 is `XLP_BKP_REMOVABLE`.
const ALL: u16 = 15;

/// Bytes of a short header (`SizeOfXLogShortPHD`).
pub const SHORT_HEADER: usize = 24;
/// Bytes of a long header (`SizeOfXLogLongPHD`), on the first page of a segment.
pub const LONG_HEADER: usize = 40;

/// A page header. Parsing checks its own sense; whether it belongs where it was found is for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// `xlp_magic`
    pub magic: Magic,
    /// `xlp_tli`: timeline of the first record that starts on this page, or is continued.
    pub timeline: TimelineId,
    /// `xlp_pageaddr`
    pub address: u64,
    /// `xlp_rem_len`: bytes left of a record that began on an earlier page.
    pub remaining: u32,
    /// The page begins with the rest of a record.
    pub continues: bool,
    /// The record that the page before left unfinished was given up; a new one starts here.
    pub overwrites: bool,
    /// Of a segment's first page.
    pub long: Option<LongHeader>,
}

/// What only the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// `xlp_sysid`
    pub system_id: SystemId,
    /// `xlp_seg_size`
    pub segment_size: SegmentSize,
    /// `xlp_xlog_blcksz`
    pub block_size: BlockSize,
}

/// `XLOG_PAGE_MAGIC`: the WAL format of one major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Magic(u16);

impl Magic {
    /// The magic `raw`, where it is one of 13 to 18.
    #[must_use]
    pub const fn new(raw: u16) -> Option<Self> {
        match raw {
            0xD106 | 0xD10D | 0xD110 | 0xD113 | 0xD116 | 0xD118 => Some(Self(raw)),
            _ => None,
        }
    }

    /// The major version that writes it.
    #[must_use]
    pub const fn major(self) -> u32 {
        match self.0 {
            0xD106 => 13,
            0xD10D => 14,
            0xD110 => 15,
            0xD113 => 16,
            0xD116 => 17,
            _ => 18,
        }
    }
}

/// Why bytes are no valid page, or not the page that belongs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// All of the header is zero: never written.
    #[error("the page was never written")]
    Zero,
    /// Shorter than a header.
    #[error("the page is cut short")]
    Short,
    /// Not a known magic.
    #[error("magic {0:04X}")]
    Magic(u16),
    /// The magic of another major version than on the pages before.
    #[error("magic of PostgreSQL {0}")]
    OtherVersion(u32),
    /// Flags that do not exist.
    #[error("flags {0:04X}")]
    Flags(u16),
    /// `xlp_tli` is 0, older than on the page before, or newer than the segment's name.
    #[error("timeline {0}")]
    Timeline(u32),
    /// `xlp_pageaddr` is of another page: a recycled segment.
    #[error("address {}/{:X}, of an earlier use of the file", .0 >> 32, .0 & 0xFFFF_FFFF)]
    Address(u64),
    /// A first page without a long header, or a later page with one.
    #[error("long header where there should be none, or the reverse")]
    LongHeader,
    /// `xlp_sysid`, `xlp_seg_size` or `xlp_xlog_blcksz` impossible.
    #[error("impossible values in the long header")]
    LongHeaderValues,
    /// `xlp_sysid` of another cluster.
    #[error("system identifier {0}")]
    SystemId(SystemId),
    /// `xlp_seg_size` or `xlp_xlog_blcksz` of another cluster.
    #[error("other segment or block size")]
    Sizes,
}

impl PageHeader {
    /// Parses the header of a page that starts with `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PageFault> {
        let header: &[u8; SHORT_HEADER] = bytes.first_chunk().ok_or(PageFault::Short)?;
        let raw = u16_at(header, 0).ok_or(PageFault::Short)?;
        let Some(magic) = Magic::new(raw) else {
            return Err(if header.iter().all(|&b| b == 0) {
                PageFault::Zero
            } else {
                PageFault::Magic(raw)
            });
        };
        let flags = u16_at(header, 2).ok_or(PageFault::Short)?;
        if flags & !ALL != 0 {
            return Err(PageFault::Flags(flags));
        }
        let long = if flags & LONG == 0 {
            None
        } else {
            Some(LongHeader::parse(bytes)?)
        };
        Ok(Self {
            magic,
            timeline: u32_at(header, 4)
                .and_then(TimelineId::new)
                .ok_or(PageFault::Timeline(0))?,
            address: u64_at(header, 8).ok_or(PageFault::Short)?,
            remaining: u32_at(header, 16).ok_or(PageFault::Short)?,
            continues: flags & CONTRECORD != 0,
            overwrites: flags & OVERWRITE_CONTRECORD != 0,
            long,
        })
    }

    /// Bytes of the header.
    #[must_use]
    pub const fn size(&self) -> usize {
        if self.long.is_some() {
            LONG_HEADER
        } else {
            SHORT_HEADER
        }
    }

    /// Whether this is the page at `address` of a log with these segments.
    pub fn belongs_at(&self, address: u64, segment_size: SegmentSize) -> Result<(), PageFault> {
        if self.address != address {
            return Err(PageFault::Address(self.address));
        }
        let first = address.is_multiple_of(u64::from(segment_size.bytes()));
        if first != self.long.is_some() {
            return Err(PageFault::LongHeader);
        }
        Ok(())
    }

    /// Where the page starts, as an LSN.
    #[must_use]
    pub const fn lsn(&self) -> Option<Lsn> {
        Lsn::new(self.address)
    }
}

impl LongHeader {
    fn parse(bytes: &[u8]) -> Result<Self, PageFault> {
        let header: &[u8; LONG_HEADER] = bytes.first_chunk().ok_or(PageFault::Short)?;
        let read = || {
            Some(Self {
                system_id: SystemId::new(u64_at(header, 24)?)?,
                segment_size: SegmentSize::new(u32_at(header, 32)?)?,
                block_size: BlockSize::new(u32_at(header, 36)?)?,
            })
        };
        read().ok_or(PageFault::LongHeaderValues)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_a_fault(bytes: Vec<u8>) {
            let _ = PageHeader::parse(&bytes);
        }

        #[test]
        fn any_bytes_after_a_magic_are_a_header_or_a_fault(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            bytes.splice(0..bytes.len().min(2), [0x10, 0xD1]);
            let _ = PageHeader::parse(&bytes);
        }
    }

    #[test]
    fn zeros_are_named_as_such() {
        assert_eq!(PageHeader::parse(&[0; 8192]), Err(PageFault::Zero));
        assert_eq!(PageHeader::parse(&[0; 23]), Err(PageFault::Short));
        assert_eq!(PageHeader::parse(&[1; 24]), Err(PageFault::Magic(0x0101)));
    }
}
