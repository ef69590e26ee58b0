//! A run: records sorted by user, in a temporary file that is sealed, and the cursor that reads it
//! back.
//!
//! A record in the file is a little-endian head (user u64, row u64, four section ends u32) and
//! its bytes.

use std::io;
use std::path::Path;

use crate::record::{Record, RecordView};
use crate::seal::{Scratch, Stretch};

/// user, row, ends
pub const HEAD: usize = 8 + 8 + 16;

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

    pub fn encode(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&self.user.to_le_bytes());
        head[8..16].copy_from_slice(&self.row.to_le_bytes());
        for (place, end) in head[16..].chunks_exact_mut(4).zip(self.ends) {
            place.copy_from_slice(&end.to_le_bytes());
        }
        head
    }

    pub fn decode(head: &[u8; HEAD]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (user, row) = (word(0), word(8));
        let mut ends = [0; 4];
        for (end, bytes) in ends.iter_mut().zip(head[16..].chunks_exact(4)) {
            *end = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { user, row, ends }
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

/// One run's place in the file.
#[derive(Debug)]
pub struct Run(Stretch);

impl Spill {
    /// Makes an unnamed file in `directory`, for one who has so much memory.
    pub fn create(directory: &Path, memory: usize) -> io::Result<Self> {
        Ok(Self {
            file: Scratch::create(directory)?.gathering(memory / 16),
        })
    }

    /// Appends a record, behind its head, to the run at hand. A run's records are sorted.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.write(record)
    }

    /// Ends the run at hand.
    pub fn end_run(&mut self) -> io::Result<Run> {
        self.file.end_stretch().map(Run)
    }
}

/// Reads one run, record by record. Within a run, and from run to run, a user's rows ascend.
#[derive(Debug)]
pub struct Cursor {
    run: Run,
    buffer: Vec<u8>,
    capacity: usize,
    /// Where the current record's bytes begin in `buffer`, and the first byte after them.
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
            start: 0,
            next: 0,
            head: Head::default(),
        }
    }

    /// Goes to the next record; `false` at the end of the run.
    pub fn advance(&mut self, spill: &Spill) -> io::Result<bool> {
        if !self.fill(HEAD, spill)? {
            return Ok(false);
        }
        let Some(head) = self.buffer.get(self.next..).and_then(<[u8]>::first_chunk) else {
            return Ok(false);
        };
        self.head = Head::decode(head);
        let length = self.head.length();
        if !self.fill(HEAD + length, spill)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.start = self.next + HEAD;
        self.next = self.start + length;
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
        let start = self.start.saturating_sub(HEAD);
        self.buffer.get(start..self.next).unwrap_or(&[])
    }

    /// Makes sure that `wanted` bytes from `next` on are in the buffer; `false` when the run ends
    /// before the first of them.
    fn fill(&mut self, wanted: usize, spill: &Spill) -> io::Result<bool> {
        let held = self.buffer.len() - self.next;
        if held >= wanted {
            return Ok(true);
        }
        self.buffer.drain(..self.next);
        self.next = 0;
        let more = wanted.max(self.capacity) - held;
        self.run.0.read(&spill.file, &mut self.buffer, more)?;
        self.run.0.give_back(&spill.file);
        match self.buffer.len() {
            0 => Ok(false),
            length if length < wanted => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(true),
        }
    }
}
