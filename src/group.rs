//! Brings together the rows of each user, over a whole delivery of any size, in a fixed amount of
//! memory.
//!
//! Records are collected in a buffer. When it holds half of the delivery's share of the memory
//! ([`Memory`]), a thread sorts it by user and writes it to a temporary file as one *run*, while the
//! other half is filled; at the end all runs are merged. So every user's records come out together and
//! in the order of their rows, and memory is the same for ten rows and ten million, for one row a user
//! and for all rows one user. When there are more runs than can be read back at once, neighbours are
//! merged to longer ones first.
//!
//! (Partitioning by hash would spare the sort, but needs a second mechanism for the partition
//! that is itself too large, and all rows can be one user's. The sort of a run in the cache costs
//! little beside decoding it.)
//!
//! The temporary file has no name and is not synced: it dies with the process, and a delivery
//! that was being received dies with it. It is sealed under a key that nobody keeps
//! ([`Scratch`](crate::seal::Scratch)).

mod buffer;
mod memory;
mod run;
mod spiller;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::path::PathBuf;

use crate::record::{Record, RecordView};
use crate::seal::Space;
use buffer::Buffer;
pub use memory::Memory;
use memory::Share;
use run::{Cursor, Run, Spill};
use spiller::Spiller;

/// Reading a run back takes at least this much memory: a sealed block.
const LEAST_READ_BUFFER: usize = 8 * 1024;
/// Larger does not read faster.
const MOST_READ_BUFFER: usize = 128 * 1024;

/// What grouping may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all deliveries share; a record that is larger than a share is held all the same.
    pub memory: Memory,
    /// Where temporary files are made.
    pub space: Space,
}

/// Grouping failed; the delivery must be given up.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The temporary file cannot be made, written or read: most often the disk is full.
    #[error("Grouping rows by user needs temporary space in {directory}, which failed")]
    Spill {
        /// Where temporary files are made.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One row holds more than 4 GiB.
    #[error("Row {0} is too large to be grouped")]
    RowTooLarge(u64),
}

/// Temporary space that has been read. The system needs some time to take much of it back, which it
/// does when this is dropped.
#[derive(Debug, Default)]
pub struct Spent(Option<Spill>);

impl Spent {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Collects the records of one delivery.
#[derive(Debug)]
pub struct Grouper {
    settings: Settings,
    share: Share,
    filling: Buffer,
    spiller: Option<Spiller>,
}

impl Grouper {
    /// An empty one. Takes its memory as it grows.
    pub fn new(settings: Settings) -> Self {
        Self {
            share: settings.memory.share(),
            settings,
            filling: Buffer::default(),
            spiller: None,
        }
    }

    /// Adds a record. Rows must come in ascending order.
    pub fn push(&mut self, record: &Record) -> Result<(), GroupError> {
        let size = self.filling.size_with(record);
        if size > self.room() && !self.filling.is_empty() {
            self.share.collect((4 * size).max(2 * self.share.held()));
            if size > self.room() {
                self.spill()?;
            }
        }
        self.filling.push(record)
    }

    /// One half is filled while the other one is being written.
    fn room(&self) -> usize {
        self.share.held() / 2
    }

    /// All records are there: they are sorted, or lie in the temporary file and take no memory.
    pub fn end(mut self) -> Result<Grouped, GroupError> {
        if self.spiller.is_some() {
            self.spill()?;
        }
        let Self {
            settings,
            mut share,
            mut filling,
            spiller,
        } = self;
        let records = match spiller {
            None => {
                filling.sort();
                Records::Held(filling)
            }
            Some(spiller) => {
                drop(filling);
                let ended = spiller.finish();
                let (spill, runs) = ended.map_err(|source| settings.failed(source))?;
                share.release();
                Records::Spilled(Box::new(spill), runs)
            }
        };
        Ok(Grouped {
            settings,
            share,
            records,
        })
    }

    /// [`Grouper::end`] and [`Grouped::visit`].
    pub fn finish<E: From<GroupError>>(
        self,
        visit: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<Spent, E> {
        self.end()?.visit(visit)
    }

    fn spill(&mut self) -> Result<(), GroupError> {
        let spiller = match &mut self.spiller {
            Some(spiller) => spiller,
            none => {
                let spiller = Spiller::start(&self.settings.space, self.share.held());
                none.insert(spiller.map_err(|source| self.settings.failed(source))?)
            }
        };
        spiller
            .write(&mut self.filling)
            .map_err(|source| self.settings.failed(source))?;
        self.share.give_back();
        // Also the buffer that was being written when the share became smaller.
        self.filling.shrink(self.room());
        Ok(())
    }
}

/// All records of a delivery.
#[derive(Debug)]
pub struct Grouped {
    settings: Settings,
    share: Share,
    records: Records,
}

#[derive(Debug)]
enum Records {
    /// Sorted.
    Held(Buffer),
    /// In sorted runs.
    Spilled(Box<Spill>, Vec<Run>),
}

impl Grouped {
    /// Whether records lie in the temporary file.
    pub fn has_spilled(&self) -> bool {
        matches!(self.records, Records::Spilled(..))
    }

    /// Hands every record to `visit`, sorted by [`Record::user`] and, within it, by row. Returns the
    /// temporary file, which is of no use any more.
    pub fn visit<E: From<GroupError>>(
        mut self,
        mut visit: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<Spent, E> {
        let (mut spill, mut runs) = match self.records {
            Records::Held(buffer) => {
                buffer.records().try_for_each(visit)?;
                return Ok(Spent(None));
            }
            Records::Spilled(spill, runs) => (*spill, runs),
        };
        self.share.merge();
        let settings = self.settings;
        let failed = |source| settings.failed(source);
        // Half of the share: what is made of the rows needs memory too.
        let memory = self.share.held() / 2;
        let most = (memory / LEAST_READ_BUFFER).max(2);
        while runs.len() > most {
            let mut longer = Spill::create(&settings.space, memory).map_err(failed)?;
            let mut merged = Vec::with_capacity(runs.len().div_ceil(most));
            let mut rest = runs.into_iter().peekable();
            while rest.peek().is_some() {
                let neighbours = rest.by_ref().take(most).collect();
                merge(&spill, neighbours, memory, |cursor| {
                    longer.append(cursor.piece())
                })
                .map_err(failed)?;
                merged.push(longer.end_run().map_err(failed)?);
            }
            (spill, runs) = (longer, merged);
        }
        let mut stopped = None;
        let merged = merge(&spill, runs, memory, |cursor| {
            visit(cursor.record()).map_err(|error| {
                stopped = Some(error);
                io::Error::other("the visit failed")
            })
        });
        match (merged, stopped) {
            (_, Some(error)) => Err(error),
            (Err(source), None) => Err(failed(source).into()),
            (Ok(()), None) => Ok(Spent(Some(spill))),
        }
    }
}

/// Hands the records of runs to `visit` in order, with so much memory for reading.
fn merge(
    spill: &Spill,
    runs: Vec<Run>,
    memory: usize,
    mut visit: impl FnMut(&Cursor) -> io::Result<()>,
) -> io::Result<()> {
    let buffer = memory / runs.len().max(1);
    let buffer = buffer.clamp(LEAST_READ_BUFFER, MOST_READ_BUFFER);
    let mut cursors = Vec::with_capacity(runs.len());
    // The smallest (user, run) is next. Of the cursors only these move through the heap.
    let mut turns = BinaryHeap::with_capacity(runs.len());
    for run in runs {
        let mut cursor = Cursor::new(run, buffer);
        if cursor.advance(spill)? {
            turns.push(Reverse((cursor.user(), cursors.len())));
            cursors.push(cursor);
        }
    }
    while let Some(mut turn) = turns.peek_mut() {
        let Reverse((user, run)) = *turn;
        let Some(cursor) = cursors.get_mut(run) else {
            break;
        };
        let next = loop {
            visit(cursor)?;
            if !cursor.advance(spill)? {
                break None;
            }
            if cursor.user() != user {
                break Some(cursor.user());
            }
        };
        match next {
            Some(user) => *turn = Reverse((user, run)),
            None => {
                PeekMut::pop(turn);
            }
        }
    }
    Ok(())
}

impl Settings {
    fn failed(&self, source: io::Error) -> GroupError {
        GroupError::Spill {
            directory: self.space.directory().to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Section;

    fn record(row: u64, user: u64, text: &str) -> Record {
        let mut record = Record::default();
        record.begin(row);
        record.user = user;
        record
            .section(Section::Identities)
            .extend_from_slice(user.to_string().as_bytes());
        record
            .section(Section::Event)
            .extend_from_slice(text.as_bytes());
        record.end();
        record
    }

    fn grouped(rows: &[(u64, String)], budget: usize) -> (Vec<(u64, u64, String)>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let mut grouper = Grouper::new(Settings {
            memory: Memory::new(budget),
            space: Space::new(directory.path()),
        });
        for (row, (user, text)) in rows.iter().enumerate() {
            grouper.push(&record(row as u64, *user, text)).unwrap();
        }
        let grouped = grouper.end().unwrap();
        let spilled = grouped.has_spilled();
        let mut out = Vec::new();
        grouped
            .visit(|record| -> Result<(), GroupError> {
                assert_eq!(record.identities, record.user.to_string().as_bytes());
                let text = String::from_utf8(record.event.to_vec()).unwrap();
                out.push((record.user, record.row, text));
                Ok(())
            })
            .unwrap();
        (out, spilled)
    }

    proptest! {
        #[test]
        fn every_row_comes_out_once_by_user_and_in_order_whatever_the_budget(
            rows in prop::collection::vec((0..6u64, "[a-z]{0,40}"), 0..80),
            budget in 1..6000usize,
        ) {
            let mut want: Vec<_> = rows
                .iter()
                .enumerate()
                .map(|(row, (user, text))| (*user, row as u64, text.clone()))
                .collect();
            want.sort();
            prop_assert_eq!(grouped(&rows, budget).0, want);
        }
    }

    #[test]
    fn a_delivery_beyond_the_budget_is_spilled_and_one_within_it_is_not() {
        let rows: Vec<_> = (0..1000u64).map(|row| (row % 7, "x".repeat(50))).collect();
        assert!(!grouped(&rows, 1 << 20).1);
        assert!(grouped(&rows, 10_000).1);
    }

    #[test]
    fn more_runs_than_can_be_read_at_once_are_merged_in_steps() {
        // With so little memory each row is a run, and two are read at once.
        let rows: Vec<_> = (0..300u64).map(|row| (row % 7, row.to_string())).collect();
        let mut want: Vec<_> = (0..300u64)
            .map(|row| (row % 7, row, row.to_string()))
            .collect();
        want.sort();
        assert_eq!(grouped(&rows, 8).0, want);
    }

    #[test]
    fn a_record_larger_than_the_buffers_survives_the_spill() {
        let rows: Vec<_> = (0..6u64)
            .map(|row| (row % 2, "y".repeat(300_000)))
            .collect();
        let (out, _) = grouped(&rows, 1000);
        assert_eq!(out.len(), 6);
        assert!(out.iter().all(|(_, _, text)| text.len() == 300_000));
    }

    #[test]
    fn both_buffers_give_back_what_others_need() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::new(4 << 20);
        let mut grouper = Grouper::new(Settings {
            memory: memory.clone(),
            space: Space::new(directory.path()),
        });
        let text = "x".repeat(1000);
        let mut rows = 0..;
        let mut push = |grouper: &mut Grouper| {
            let row = rows.next().unwrap();
            grouper.push(&record(row, row % 7, &text)).unwrap();
        };
        while grouper.spiller.is_none() {
            push(&mut grouper);
        }
        let large = grouper.room();
        let _others: Vec<_> = (0..32).map(|_| memory.share()).collect();
        // Each buffer is written once in its old size.
        for _ in 0..3 * large / text.len() {
            push(&mut grouper);
        }
        for _ in 0..3 * large / text.len() {
            push(&mut grouper);
            assert!(grouper.filling.capacity() <= 2 * grouper.room());
        }
        assert!(grouper.room() <= large / 8, "{}", grouper.room());
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let mut grouper = Grouper::new(Settings {
            memory: Memory::new(1),
            space: Space::new("/nowhere/at/all"),
        });
        grouper.push(&record(0, 0, "a")).unwrap();
        let error = grouper.push(&record(1, 0, "b")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
