//! [`Assembly`]: a record over several pages, in constant memory.

use crate::postgres::wal::record::{self, HeaderFault, RecordHeader};

/// A record that does not lie on one page, as it is put together.
pub(super) struct Assembly {
    pub(super) head: [u8; record::HEADER],
    pub(super) prefix: [u8; record::PREFIX],
    pub(super) got: usize,
    pub(super) crc: u32,
}

impl Assembly {
    pub(super) const fn new() -> Self {
        Self {
            head: [0; record::HEADER],
            prefix: [0; record::PREFIX],
            got: 0,
            crc: 0,
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        if let Some(room) = self.head.get_mut(self.got..).filter(|room| !room.is_empty()) {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.got += count;
            bytes = &bytes[count..];
        }
        if self.got < record::HEADER || bytes.is_empty() {
            return;
        }
        if let Some(room) = self.prefix.get_mut(self.got - record::HEADER..) {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.got += bytes.len();
    }

    /// The header, as soon as all of it is there.
    pub(super) fn header(&self) -> Option<Result<RecordHeader, HeaderFault>> {
        (self.got >= record::HEADER).then(|| RecordHeader::parse(&self.head))
    }
}
