//! The end of WAL from the segments alone: for when `pg_control` is gone or damaged.
//!
//! Nothing says where recovery would start, which timeline the instance is on, or how large segments are; all of it is taken
//! from the segments themselves, and anything ambiguous is refused. The last segment's records then give the exact end;
//! where they do not hold, its page headers give it to one page.

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::lineage::Lineage;
use super::page::{LONG_HEADER, PageHeader};
use super::reader::{EndOfWal, Geometry, Halt, Position, Reader, read_full};
use super::scan::{Method, WalEnd};
use super::segment::SegmentName;
use super::source::SegmentSource;
use crate::postgres::reading::{Deadline, Unread, UnreadKind};

/// A segment whose first page says that it is what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Genuine {
    /// Its name.
    pub name: SegmentName,
    /// Its number, by its own segment size.
    pub number: u64,
    /// What its first page says.
    pub geometry: Geometry,
}

impl Genuine {
    /// Where it starts. The log's very first segment starts at 0, which is no LSN; its first page does.
    #[must_use]
    pub fn start(&self) -> Option<Lsn> {
        let first = u64::from(self.geometry.block_size.bytes());
        Lsn::new(self.geometry.segment_size.start(self.number).max(first))
    }

    /// Looks at the first page of segment `name`; `None` where it is gone, recycled, or no segment of 13 to 18.
    pub fn check(source: &dyn SegmentSource, name: SegmentName) -> Result<Option<Self>, Unread> {
        let text = name.to_string();
        let Some(file) = source.open(&text)? else {
            return Ok(None);
        };
        let mut bytes = [0; LONG_HEADER];
        let length = read_full(file.as_ref(), &mut bytes, 0)
            .map_err(|error| Unread::new(UnreadKind::Io, format!("{text}: {error}")))?;
        let genuine = || {
            let page = PageHeader::parse(&bytes[..length]).ok()?;
            let long = page.long?;
            let number = name.number(long.segment_size)?;
            page.belongs_at(long.segment_size.start(number), long.segment_size)
                .ok()?;
            if page.timeline > name.timeline() {
                return None;
            }
            let (system_id, segment_size) = (long.system_id, long.segment_size);
            Some(Self {
                name,
                number,
                geometry: Geometry {
                    system_id,
                    segment_size,
                    block_size: long.block_size,
                },
            })
        };
        Ok(genuine())
    }
}

/// Finds the end of WAL among the segments `names`.
pub fn end(source: &dyn SegmentSource, names: &[SegmentName], deadline: &Deadline) -> Result<WalEnd, Unread> {
    let genuine = newest_timeline(source, names, deadline)?;
    let [first, .., last] = match genuine.as_slice() {
        [] => {
            return Err(Unread::new(
                UnreadKind::Corrupt,
                "pg_wal holds no genuine segment",
            ));
        }
        [one] => [*one, *one, *one],
        [first, .., last] => [*first, *first, *last],
    };
    if let Some(other) = genuine.iter().find(|segment| segment.geometry != last.geometry) {
        let detail = format!(
            "segments {} and {} belong to different clusters",
            other.name, last.name
        );
        return Err(Unread::new(UnreadKind::Corrupt, detail));
    }
    if last.number - first.number + 1 != genuine.len() as u64 {
        let detail = format!("segments between {} and {} are missing", first.name, last.name);
        return Err(Unread::new(UnreadKind::Corrupt, detail));
    }

    // The segment before, where a record that goes on through all of the last one begins.
    let mut starts = genuine.iter().rev().take(2);
    if let Some(end) = starts.find_map(|segment| by_records(source, segment, deadline).transpose()) {
        return end;
    }
    by_pages(source, &last, deadline)
}

/// The genuine segments of the newest timeline that has any, in order.
fn newest_timeline(
    source: &dyn SegmentSource,
    names: &[SegmentName],
    deadline: &Deadline,
) -> Result<Vec<Genuine>, Unread> {
    let mut timelines: Vec<TimelineId> = names.iter().map(|name| name.timeline()).collect();
    timelines.sort_unstable();
    timelines.dedup();
    for timeline in timelines.into_iter().rev() {
        let mut genuine = Vec::new();
        for name in names.iter().filter(|name| name.timeline() == timeline) {
            if deadline.passed() {
                return Err(Unread::timeout("WAL scan of segment headers"));
            }
            genuine.extend(Genuine::check(source, *name)?);
        }
        genuine.sort_by_key(|segment| segment.number);
        if !genuine.is_empty() {
            return Ok(genuine);
        }
    }
    Ok(Vec::new())
}

fn found(segment: &Genuine, end: u64, last: Option<u64>, stopped: EndOfWal) -> Option<WalEnd> {
    Some(WalEnd {
        end: Lsn::new(end)?,
        last_record: last.and_then(Lsn::new),
        timeline: segment.name.timeline(),
        method: Method::Pages,
        from: segment.start()?,
        system_id: segment.geometry.system_id,
        stopped,
        abandoned: None,
    })
}

/// Follows the records from the first one that starts in `segment`; `None` where there is none.
fn by_records(
    source: &dyn SegmentSource,
    segment: &Genuine,
    deadline: &Deadline,
) -> Result<Option<WalEnd>, Unread> {
    let lineage = Lineage::new(segment.name.timeline(), None);
    let next = segment.geometry.segment_size.start(segment.number);
    let start = Position { next, previous: None };
    let mut reader = Reader::new(source, segment.geometry, &lineage, start, deadline);
    match reader.seek(next) {
        Ok(()) => {}
        Err(Halt::End(_)) => return Ok(None),
        Err(Halt::Failed(unread)) => return Err(unread),
    }
    let mut last = None;
    loop {
        match reader.next_record() {
            Ok(record) => last = Some(record),
            Err(Halt::Failed(unread)) => return Err(unread),
            Err(Halt::End(stopped)) => {
                return Ok(last.and_then(|last| found(segment, last.end, Some(last.start), stopped)));
            }
        }
    }
}

/// Walks the page headers of `segment`.
fn by_pages(source: &dyn SegmentSource, segment: &Genuine, deadline: &Deadline) -> Result<WalEnd, Unread> {
    let lineage = Lineage::new(segment.name.timeline(), None);
    let geometry = segment.geometry;
    let block = u64::from(geometry.block_size.bytes());
    let start = geometry.segment_size.start(segment.number);
    let mut reader = Reader::new(
        source,
        geometry,
        &lineage,
        Position {
            next: start,
            previous: None,
        },
        deadline,
    );
    let mut address = start;
    let stopped = loop {
        if address - start >= u64::from(geometry.segment_size.bytes()) {
            break EndOfWal::NoSegment(format!("after {}", segment.name));
        }
        match reader.load(address) {
            Ok(_) => address += block,
            Err(Halt::End(end)) => break end,
            Err(Halt::Failed(unread)) => return Err(unread),
        }
    };
    found(segment, address, None, stopped).ok_or_else(|| {
        Unread::new(
            UnreadKind::Corrupt,
            format!("{} holds no valid page", segment.name),
        )
    })
}
