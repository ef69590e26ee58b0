//! Records in memory, one after the other, as they will lie in a run.

use super::run::Head;
use crate::group::GroupError;
use crate::record::{Record, RecordView};

/// Records of some rows, in the order of the rows until they are sorted.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a record begins. Later rows begin later, so that this orders by user and, within it, by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    user: u64,
    start: u32,
}

impl Buffer {
    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it would take with this record.
    pub fn size_with(&self, record: &Record) -> usize {
        let bytes = self.bytes.len() + Head::of(record).size() + record.bytes().len();
        bytes + (self.entries.len() + 1) * size_of::<Entry>()
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record) -> Result<(), GroupError> {
        let start = u32::try_from(self.bytes.len())
            .ok()
            .filter(|_| record.bytes().len() <= u32::MAX as usize)
            .ok_or(GroupError::RowTooLarge(record.row))?;
        Head::of(record).write(&mut self.bytes);
        self.bytes.extend_from_slice(record.bytes());
        self.entries.push(Entry {
            user: record.user,
            start,
        });
        Ok(())
    }

    /// Orders the records by user and, within it, by row.
    pub fn sort(&mut self) {
        self.entries.sort_unstable();
    }

    /// The records in their order.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.placed().map(|(head, bytes, _)| head.view(bytes))
    }

    /// The records in their order, each as it lies in a run.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.placed().map(|(_, _, piece)| piece)
    }

    /// Head, bytes, and both of them together.
    fn placed(&self) -> impl Iterator<Item = (Head, &[u8], &[u8])> {
        self.entries.iter().filter_map(|entry| {
            let rest = self.bytes.get(entry.start as usize..)?;
            let (head, behind) = Head::read(rest)?;
            let bytes = behind.get(..head.length())?;
            let whole = rest.len() - behind.len() + bytes.len();
            Some((head, bytes, rest.get(..whole)?))
        })
    }

    /// Gives back the memory of an empty buffer that is more than this.
    pub fn shrink(&mut self, most: usize) {
        self.bytes.shrink_to(most);
        self.entries.shrink_to(most / size_of::<Entry>());
    }

    /// Bytes of memory that it has.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
