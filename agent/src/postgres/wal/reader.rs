//! [`Reader`]: follows WAL records, as PostgreSQL's own reader does (`access/transam/xlogreader.c`).
//!
//! Constant memory: one window of a segment, never a whole record. A record counts when its length, its resource manager,
//! its link to the record before and its CRC-32C are right; the first one that is not ends the log.

mod assembly;
mod end;

use assembly::Assembly;
use end::lsn;
pub use end::{EndOfWal, Halt};
use hasteward_proto::primitive::{SystemId, TimelineId, UnixMillis};

use super::lineage::Lineage;
use super::page::{Magic, PageFault, PageHeader};
use super::record::{self, Kind, RecordHeader};
use super::segment::{BlockSize, SegmentName, SegmentSize};
use super::source::{SegmentFile, SegmentSource};
use crate::postgres::bytes::{chunk, u32_at};
use crate::postgres::reading::{Deadline, Unread, UnreadKind};

/// Bytes read at once; a multiple of every block size.
const WINDOW: usize = 512 * 1024;

/// Positions past this are refused, so that no sum of a position and a record's length can overflow.
const LAST_ADDRESS: u64 = u64::MAX - (1 << 33);

/// What is the same in every segment of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Whose WAL it is.
    pub system_id: SystemId,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
    /// Bytes of a page.
    pub block_size: BlockSize,
}

/// One valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where it starts.
    pub start: u64,
    /// Where the next one may start; after a segment switch, the start of the next segment.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
    /// When it was committed; only of commits.
    pub committed_at: Option<UnixMillis>,
}

/// Where the reader is: between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Where the next record starts.
    pub next: u64,
    /// Where the record before starts; `None` = not known (any earlier one will do).
    pub previous: Option<u64>,
}

struct OpenSegment {
    number: u64,
    timeline: TimelineId,
    name: String,
    file: Box<dyn SegmentFile>,
}

/// Follows records from a position.
pub struct Reader<'a> {
    source: &'a dyn SegmentSource,
    deadline: &'a Deadline,
    geometry: Geometry,
    lineage: &'a Lineage,
    position: Position,
    magic: Option<Magic>,
    page: Option<PageHeader>,
    segment: Option<OpenSegment>,
    window: Vec<u8>,
    window_at: u64,
    window_length: usize,
}

impl<'a> Reader<'a> {
    /// A reader that goes on from `position`.
    #[must_use]
    pub fn new(
        source: &'a dyn SegmentSource,
        geometry: Geometry,
        lineage: &'a Lineage,
        position: Position,
        deadline: &'a Deadline,
    ) -> Self {
        Self {
            source,
            deadline,
            geometry,
            lineage,
            position,
            magic: None,
            page: None,
            segment: None,
            window: Vec::new(),
            window_at: 0,
            window_length: 0,
        }
    }

    /// Where the next record would start.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Goes to the first record that can be found at or after the start of the page that holds `lsn`
    /// (`XLogFindNextRecord`).
    pub fn seek(&mut self, lsn: u64) -> Result<(), Halt> {
        let block = u64::from(self.geometry.block_size.bytes());
        let mut address = lsn - lsn % block;
        loop {
            let page = self.load(address)?;
            let header = page.size() as u64;
            let rest = if page.continues {
                u64::from(page.remaining).next_multiple_of(8)
            } else {
                0
            };
            if rest < block - header {
                self.position = Position {
                    next: address + header + rest,
                    previous: None,
                };
                return Ok(());
            }
            address = address.saturating_add(block);
        }
    }

    /// The next valid record. After an error the position is unchanged: the end of the last valid record.
    pub fn next_record(&mut self) -> Result<Record, Halt> {
        let block = u64::from(self.geometry.block_size.bytes());
        let mut at = self.position.next;
        let mut given_up = None;
        loop {
            let address = at - at % block;
            let page = self.load(address)?;
            let mut offset = usize::try_from(at - address).unwrap_or(usize::MAX);
            if offset == 0 {
                offset = page.size();
                at = address + page.size() as u64;
            }
            if offset < page.size() || !offset.is_multiple_of(8) {
                return Err(EndOfWal::Offset.into());
            }
            if page.continues && offset == page.size() {
                return Err(EndOfWal::ContinuesAnother.into());
            }
            self.check_timeline(at)?;

            let bytes = self.block(address).get(offset..).unwrap_or_default();
            let length = u32_at(bytes, 0).ok_or(EndOfWal::Offset)?;
            RecordHeader::check_length(length).map_err(EndOfWal::Header)?;
            let (header, prefix, end);
            if let Some(whole) = bytes.get(..length as usize) {
                let head = chunk(whole, 0).ok_or(EndOfWal::Offset)?;
                header = RecordHeader::parse(&head).map_err(EndOfWal::Header)?;
                self.check_link(&header, at)?;
                let body = &whole[record::HEADER..];
                if checksum(crc32c::crc32c(body), &head) != header.crc {
                    return Err(EndOfWal::Checksum.into());
                }
                let mut start = [0; record::PREFIX];
                let count = body.len().min(record::PREFIX);
                start[..count].copy_from_slice(&body[..count]);
                prefix = start;
                end = at + u64::from(length).next_multiple_of(8);
            } else {
                match self.assemble(at, offset, length)? {
                    Assembled::Whole(head, start, until) => (header, prefix, end) = (head, start, until),
                    Assembled::GivenUp(page) => {
                        given_up = Some(at);
                        at = page;
                        continue;
                    }
                }
            }
            let kind = header.kind();
            if let Some(given_up) = given_up
                && (kind != Kind::OverwriteContrecord || record::overwritten(&prefix) != Some(given_up))
            {
                return Err(EndOfWal::NotOverwritten.into());
            }
            let segment = u64::from(self.geometry.segment_size.bytes());
            let end = if kind == Kind::Switch {
                end.next_multiple_of(segment)
            } else {
                end
            };
            let committed_at = if kind == Kind::Commit {
                record::commit_time(&prefix)
            } else {
                None
            };
            self.position = Position {
                next: end,
                previous: Some(at),
            };
            return Ok(Record {
                start: at,
                end,
                kind,
                committed_at,
            });
        }
    }

    /// Puts a record together that goes on over the next pages.
    fn assemble(&mut self, at: u64, offset: usize, length: u32) -> Result<Assembled, Halt> {
        let block = u64::from(self.geometry.block_size.bytes());
        let mut address = at - at % block;
        let mut assembly = Assembly::new();
        assembly.feed(self.block(address).get(offset..).unwrap_or_default());
        let mut header = None;
        loop {
            if header.is_none()
                && let Some(parsed) = assembly.header()
            {
                let parsed = parsed.map_err(EndOfWal::Header)?;
                self.check_link(&parsed, at)?;
                header = Some(parsed);
            }
            address = address.saturating_add(block);
            let page = self.load(address)?;
            if page.overwrites {
                return Ok(Assembled::GivenUp(address));
            }
            let remaining = page.remaining as usize;
            if !page.continues || remaining == 0 || remaining + assembly.got != length as usize {
                return Err(EndOfWal::NotContinued(address).into());
            }
            let bytes = self.block(address).get(page.size()..).unwrap_or_default();
            let count = remaining.min(bytes.len());
            assembly.feed(&bytes[..count]);
            if count < remaining {
                continue;
            }
            // The last page may have completed the header too.
            let header = if let Some(header) = header {
                header
            } else {
                let parsed = assembly
                    .header()
                    .ok_or(EndOfWal::Offset)?
                    .map_err(EndOfWal::Header)?;
                self.check_link(&parsed, at)?;
                parsed
            };
            if checksum(assembly.crc, &assembly.head) != header.crc {
                return Err(EndOfWal::Checksum.into());
            }
            let end = address + (page.size() + count.next_multiple_of(8)) as u64;
            return Ok(Assembled::Whole(header, assembly.prefix, end));
        }
    }

    fn check_link(&self, header: &RecordHeader, at: u64) -> Result<(), EndOfWal> {
        let right = match self.position.previous {
            Some(previous) => header.previous == previous,
            None => header.previous < at,
        };
        if right {
            Ok(())
        } else {
            Err(EndOfWal::Previous(header.previous))
        }
    }

    /// A file of an older timeline may go on past the point where the lineage left that timeline.
    fn check_timeline(&self, at: u64) -> Result<(), EndOfWal> {
        match &self.segment {
            Some(open) if self.lineage.end_of(open.timeline).is_some_and(|end| at >= end) => {
                Err(EndOfWal::TimelineLeft(open.timeline))
            }
            _ => Ok(()),
        }
    }

    /// The page at `address`; call [`Self::load`] before.
    fn block(&self, address: u64) -> &[u8] {
        let at = usize::try_from(address.wrapping_sub(self.window_at)).unwrap_or(usize::MAX);
        let size = self.geometry.block_size.bytes() as usize;
        at.checked_add(size)
            .and_then(|end| self.window.get(at..end))
            .unwrap_or_default()
    }

    /// Reads and checks the page at `address`.
    pub(crate) fn load(&mut self, address: u64) -> Result<PageHeader, Halt> {
        if let Some(page) = self.page.filter(|page| page.address == address) {
            return Ok(page);
        }
        if address > LAST_ADDRESS {
            return Err(EndOfWal::Offset.into());
        }
        self.fill(address)?;
        let fault = |fault| EndOfWal::Page { address, fault };
        let page = PageHeader::parse(self.block(address)).map_err(fault)?;
        page.belongs_at(address, self.geometry.segment_size)
            .map_err(fault)?;
        if self.magic.is_some_and(|magic| magic != page.magic) {
            return Err(fault(PageFault::OtherVersion(page.magic.major())).into());
        }
        let named = self
            .segment
            .as_ref()
            .map_or(self.lineage.timeline(), |open| open.timeline);
        let older = self
            .page
            .is_some_and(|last| last.address < address && page.timeline < last.timeline);
        if older || page.timeline > named {
            return Err(fault(PageFault::Timeline(page.timeline.get())).into());
        }
        self.magic = Some(page.magic);
        self.page = Some(page);
        Ok(page)
    }

    /// Makes the window hold the page at `address`.
    fn fill(&mut self, address: u64) -> Result<(), Halt> {
        let block = self.geometry.block_size.bytes() as usize;
        let number = self.geometry.segment_size.number(address);
        if self.segment.as_ref().is_none_or(|open| open.number != number) {
            self.window_length = 0;
            self.segment = None;
            self.segment = Some(self.open(number)?);
        }
        let inside =
            address >= self.window_at && address - self.window_at + block as u64 <= self.window_length as u64;
        if inside {
            return Ok(());
        }
        let Some(open) = &self.segment else {
            return Err(EndOfWal::NoSegment(String::new()).into());
        };
        if self.deadline.passed() {
            return Err(Unread::timeout(format_args!("WAL scan at {}", lsn(address))).into());
        }
        let offset = address - self.geometry.segment_size.start(number);
        let rest = u64::from(self.geometry.segment_size.bytes()) - offset;
        let wanted = usize::try_from(rest).unwrap_or(WINDOW).min(WINDOW);
        if self.window.len() < WINDOW {
            self.window.resize(WINDOW, 0);
        }
        self.window_length = 0;
        self.window_at = address;
        let length = read_full(open.file.as_ref(), &mut self.window[..wanted], offset)
            .map_err(|error| Unread::new(UnreadKind::Io, format!("{}: {error}", open.name)))?;
        self.window_length = length - length % block;
        if self.window_length < block {
            return Err(EndOfWal::Page {
                address,
                fault: PageFault::Short,
            }
            .into());
        }
        Ok(())
    }

    /// Opens the file that holds segment `number`: of the newest timeline whose file is really that segment. A recycled file
    /// that only bears the name is passed over.
    fn open(&self, number: u64) -> Result<OpenSegment, Halt> {
        let size = self.geometry.segment_size;
        let mut end = None;
        for timeline in self.lineage.holders(number, size) {
            let Some(name) = SegmentName::new(timeline, number, size) else {
                break;
            };
            for name in [name.to_string(), name.partial()] {
                let Some(file) = self.source.open(&name)? else {
                    continue;
                };
                match self.genuine(file.as_ref(), number, timeline) {
                    Ok(Ok(())) => {
                        return Ok(OpenSegment {
                            number,
                            timeline,
                            name,
                            file,
                        });
                    }
                    Ok(Err(fault)) => end = end.or(Some(EndOfWal::Segment { name, fault })),
                    Err(error) => return Err(Unread::new(UnreadKind::Io, format!("{name}: {error}")).into()),
                }
            }
            end = end.or_else(|| Some(EndOfWal::NoSegment(name.to_string())));
        }
        Err(end
            .unwrap_or_else(|| EndOfWal::NoSegment(format!("number {number}")))
            .into())
    }

    /// Whether the first page of `file` says that it is segment `number` of this cluster.
    fn genuine(
        &self,
        file: &dyn SegmentFile,
        number: u64,
        timeline: TimelineId,
    ) -> std::io::Result<Result<(), PageFault>> {
        let mut bytes = [0; super::page::LONG_HEADER];
        let length = read_full(file, &mut bytes, 0)?;
        let check = || {
            let page = PageHeader::parse(&bytes[..length])?;
            page.belongs_at(
                self.geometry.segment_size.start(number),
                self.geometry.segment_size,
            )?;
            let long = page.long.ok_or(PageFault::LongHeader)?;
            if long.system_id != self.geometry.system_id {
                return Err(PageFault::SystemId(long.system_id));
            }
            if (long.segment_size, long.block_size) != (self.geometry.segment_size, self.geometry.block_size)
            {
                return Err(PageFault::Sizes);
            }
            if page.timeline > timeline {
                return Err(PageFault::Timeline(page.timeline.get()));
            }
            Ok(())
        };
        Ok(check())
    }
}

enum Assembled {
    Whole(RecordHeader, [u8; record::PREFIX], u64),
    /// The page at this address starts anew.
    GivenUp(u64),
}

/// The CRC of a record: of its body, then of its header up to the CRC.
fn checksum(body: u32, head: &[u8; record::HEADER]) -> u32 {
    crc32c::crc32c_append(body, &head[..record::CHECKED_HEADER])
}

/// Reads until `buffer` is full or the file ends.
pub(crate) fn read_full(file: &dyn SegmentFile, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
