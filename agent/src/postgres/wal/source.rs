//! Where WAL segments are read from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::postgres::reading::Unread;

/// An open segment.
pub trait SegmentFile {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A `pg_wal` directory.
pub trait SegmentSource {
    /// Opens the plain file `name`; `None` where there is none.
    fn open(&self, name: &str) -> Result<Option<Box<dyn SegmentFile>>, Unread>;
}

impl SegmentFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl SegmentFile for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Segments in memory: for tests and fuzzing.
#[derive(Debug, Clone, Default)]
pub struct MemorySource(pub BTreeMap<String, Vec<u8>>);

impl SegmentSource for MemorySource {
    fn open(&self, name: &str) -> Result<Option<Box<dyn SegmentFile>>, Unread> {
        Ok(self
            .0
            .get(name)
            .map(|bytes| Box::new(bytes.clone()) as Box<dyn SegmentFile>))
    }
}
