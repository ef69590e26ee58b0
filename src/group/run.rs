//! A run: records sorted by user, in a temporary file that is sealed, and the cursor that reads it
//! back.
//!
//! A record in the file is a head and its bytes. The head is little-endian: user u64, row u32, the
//! lengths of the four sections u8 each. Where row or a length needs more, the row is [`LONG`], and row
//! u64 and section ends u32 follow.

use std::io;

use crate::record::{Record, RecordView};
use crate::seal::{Scratch, Space, Stretch};

/// Bytes of a short head.
const SHORT: usize = 8 + 4 + 4;
/// Bytes of a long head: the most that one has.
const MOST: usize = SHORT + 8 + 16;
/// The row of a short head that goes on.
const LONG: u32 = u32::MAX;

/// What stands before a record's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    user: u64,
    row: u64,
    ends: [u32; 4],
}

impl Head {
    pub fn of(record: &Record) -> Self {
        Self {
            user: record.user,
            row: record.row,
            ends: record.ends(),
        }
    }

    /// Bytes of it when it is written.
    pub fn size(&self) -> usize {
        match self.short() {
            Some(_) => SHORT,
            None => MOST,
        }
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.user.to_le_bytes());
        if let Some((row, lengths)) = self.short() {
            out.extend_from_slice(&row.to_le_bytes());
            out.extend_from_slice(&lengths);
            return;
        }
        out.extend_from_slice(&LONG.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.row.to_le_bytes());
        for end in self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
    }

    /// Takes the head off that `bytes` begin with; `None` when they end before it does.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (user, rest) = bytes.split_first_chunk()?;
        let (row, rest) = rest.split_first_chunk()?;
        let (lengths, rest) = rest.split_first_chunk::<4>()?;
        let (user, row) = (u64::from_le_bytes(*user), u32::from_le_bytes(*row));
        let mut ends = [0; 4];
        if row != LONG {
            let mut end = 0;
            for (place, length) in ends.iter_mut().zip(lengths) {
                end += u32::from(*length);
                *place = end;
            }
            let row = u64::from(row);
            return Some((Self { user, row, ends }, rest));
        }
        let (row, mut rest) = rest.split_first_chunk()?;
        let row = u64::from_le_bytes(*row);
        for place in &mut ends {
            let (end, behind) = rest.split_first_chunk()?;
            *place = u32::from_le_bytes(*end);
            rest = behind;
        }
        Some((Self { user, row, ends }, rest))
    }

    /// Row and lengths of the sections, if they are as small as nearly all are.
    #[inline]
    fn short(&self) -> Option<(u32, [u8; 4])> {
        let row = u32::try_from(self.row).ok().filter(|row| *row != LONG)?;
        let mut lengths = [0; 4];
        let mut start = 0;
        for (length, end) in lengths.iter_mut().zip(self.ends) {
            *length = u8::try_from(end.checked_sub(start)?).ok()?;
            start = end;
        }
        Some((row, lengths))
    }

    /// Bytes of the record behind it.
    pub fn length(&self) -> usize {
        self.ends[3] as usize
    }

    /// The record whose bytes stand behind it.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> RecordView<'a> {
        RecordView::from_parts(self.row, self.user, self.ends, bytes)
    }
}

/// The temporary file that holds all runs of one delivery.
#[derive(Debug)]
pub struct Spill {
    file: Scratch,
}

/// One run's place.
#[derive(Debug)]
pub struct Run {
    /// In which of the files.
    pub file: usize,
    stretch: Stretch,
}

impl Run {
    /// Bytes of memory that reading it takes at least: a sealed block.
    pub fn least_read(&self) -> usize {
        self.stretch.block_bytes()
    }
}

impl Spill {
    /// Makes an unnamed file, for one who has so much memory.
    pub fn create(space: &Space, memory: usize) -> io::Result<Self> {
        Ok(Self {
            file: Scratch::create(space)?.gathering(memory / 16),
        })
    }

    /// Appends a record, behind its head, to the run at hand. A run's records are sorted.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.write(record)
    }

    /// Ends the run at hand, of the first of the files.
    pub fn end_run(&mut self) -> io::Result<Run> {
        let stretch = self.file.end_stretch()?;
        Ok(Run { file: 0, stretch })
    }
}

/// Reads one run, record by record. Within a run, and from run to run, a user's rows ascend.
#[derive(Debug)]
pub struct Cursor {
    run: Run,
    buffer: Vec<u8>,
    capacity: usize,
    /// Where the current record begins in `buffer`, where its bytes do, and the first byte after them.
    head_at: usize,
    start: usize,
    next: usize,
    head: Head,
}

impl Cursor {
    /// Before the first record of a run.
    pub fn new(run: Run, capacity: usize) -> Self {
        Self {
            run,
            buffer: Vec::new(),
            capacity,
            head_at: 0,
            start: 0,
            next: 0,
            head: Head::default(),
        }
    }

    /// Goes to the next record; `false` at the end of the run.
    pub fn advance(&mut self, files: &[Spill]) -> io::Result<bool> {
        if self.fill(MOST, files)? == 0 {
            return Ok(false);
        }
        let bytes = self.buffer.get(self.next..).unwrap_or_default();
        let (head, behind) = Head::read(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = bytes.len() - behind.len();
        let whole = size + head.length();
        if self.fill(whole, files)? < whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.head = head;
        self.head_at = self.next;
        self.start = self.next + size;
        self.next += whole;
        Ok(true)
    }

    /// The user of the record that the cursor stands on.
    pub fn user(&self) -> u64 {
        self.head.user
    }

    /// The record that the cursor stands on.
    pub fn record(&self) -> RecordView<'_> {
        let bytes = self.buffer.get(self.start..self.next).unwrap_or(&[]);
        self.head.view(bytes)
    }

    /// The same, behind its head, as it lies in a run.
    pub fn piece(&self) -> &[u8] {
        self.buffer.get(self.head_at..self.next).unwrap_or(&[])
    }

    /// Makes sure that `wanted` bytes from `next` on are in the buffer, unless the run ends before.
    /// Returns how many there are.
    fn fill(&mut self, wanted: usize, files: &[Spill]) -> io::Result<usize> {
        let held = self.buffer.len() - self.next;
        if held >= wanted || self.run.stretch.is_read() {
            return Ok(held);
        }
        self.buffer.drain(..self.next);
        self.next = 0;
        let more = wanted.max(self.capacity) - held;
        let Some(Spill { file }) = files.get(self.run.file) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let stretch = &mut self.run.stretch;
        stretch.read(file, &mut self.buffer, more)?;
        stretch.give_back(file);
        Ok(self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_are_short_where_all_is_small() {
        for (row, ends, size) in [
            (0, [0; 4], SHORT),
            (u64::from(LONG) - 1, [255, 510, 765, 1_020], SHORT),
            (u64::from(LONG), [1, 2, 3, 4], MOST),
            (u64::MAX, [1, 2, 3, 4], MOST),
            (7, [256, 256, 256, 256], MOST),
            (7, [0, 0, 0, u32::MAX], MOST),
        ] {
            let head = Head {
                user: 9 << 60,
                row,
                ends,
            };
            let mut written = Vec::new();
            head.write(&mut written);
            assert_eq!((written.len(), head.size()), (size, size));
            for end in 0..size {
                assert!(Head::read(&written[..end]).is_none());
            }
            written.extend_from_slice(b"behind");
            let (back, behind) = Head::read(&written).unwrap();
            assert_eq!((back.user, back.row, back.ends), (9 << 60, row, ends));
            assert_eq!(behind, b"behind");
        }
    }
}
