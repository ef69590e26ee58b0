//! Records in memory, one after the other.

use crate::group::GroupError;
use crate::record::{Record, RecordView};

/// Records of some rows, in the order of the rows until they are sorted.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a record's bytes begin and where its sections end.
#[derive(Clone, Copy, Debug)]
struct Entry {
    user: u64,
    row: u64,
    start: u32,
    ends: [u32; 4],
}

impl Buffer {
    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it would take with this record.
    pub fn size_with(&self, record: &Record) -> usize {
        self.bytes.len() + record.bytes().len() + (self.entries.len() + 1) * size_of::<Entry>()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`GroupError::RowTooLarge`].
    pub fn push(&mut self, record: &Record) -> Result<(), GroupError> {
        let start = u32::try_from(self.bytes.len())
            .ok()
            .filter(|_| record.bytes().len() <= u32::MAX as usize)
            .ok_or(GroupError::RowTooLarge(record.row))?;
        self.bytes.extend_from_slice(record.bytes());
        self.entries.push(Entry {
            user: record.user,
            row: record.row,
            start,
            ends: record.ends(),
        });
        Ok(())
    }

    /// Orders the records by user and, within it, by row.
    pub fn sort(&mut self) {
        self.entries
            .sort_unstable_by_key(|entry| (entry.user, entry.row));
    }

    /// The records in their order.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.parts()
            .map(|(user, row, ends, bytes)| RecordView::from_parts(row, user, ends, bytes))
    }

    /// User, row, ends of the sections, and bytes of each record.
    pub fn parts(&self) -> impl Iterator<Item = (u64, u64, [u32; 4], &[u8])> {
        self.entries.iter().map(|entry| {
            let start = entry.start as usize;
            let end = start + entry.ends[3] as usize;
            let own = self.bytes.get(start..end).unwrap_or(&[]);
            (entry.user, entry.row, entry.ends, own)
        })
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
