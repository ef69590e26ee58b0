//! Brings together the rows of each user, over a whole delivery of any size, in a fixed amount of
//! memory.
//!
//! Records are collected in a buffer. When it holds half of the delivery's share of the memory
//! ([`Memory`]), a thread sorts it by user and writes it to a temporary file as one *run*, while the
//! other half is filled; at the end all runs are merged. So every user's records come out together and
//! in the order of their rows, and memory is the same for ten rows and ten million, for one row a user
//! and for all rows one user. When there are more runs than can be read back at once, as many
//! neighbours as it takes are merged to longer ones first: from some 100 million rows on.
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
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::path::PathBuf;

use crate::record::{Record, RecordView};
use crate::seal::Space;
use buffer::Buffer;
pub use memory::Memory;
use memory::Share;
use run::{Cursor, Run, Spill};
use spiller::Spiller;

/// Of one run no more is read at once: larger does not read faster.
const MOST_READ_BUFFER: usize = 128 * 1024;

/// Runs are merged to fewer ones by two of them at least, however little memory there is.
const LEAST_MERGED: usize = 2;

/// Memory for reading runs back. What is made of the rows needs some too.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// What runs share whose buffers could be smaller.
    usual: usize,
    /// What very many runs may take with a block each.
    most: usize,
}

impl Reading {
    /// Of what a delivery has for both.
    fn of(held: usize) -> Self {
        Self {
            usual: held / 2,
            most: held / 8 * 5,
        }
    }
}

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
pub struct Spent(Vec<Spill>);

impl Spent {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let (spill, mut runs) = match self.records {
            Records::Held(buffer) => {
                buffer.records().try_for_each(visit)?;
                return Ok(Spent::default());
            }
            Records::Spilled(spill, runs) => (*spill, runs),
        };
        self.share.merge();
        let settings = self.settings;
        let failed = |source| settings.failed(source);
        let memory = Reading::of(self.share.held());
        let mut files = vec![spill];
        while least_read(&runs) > memory.most && runs.len() > LEAST_MERGED {
            let longer = Spill::create(&settings.space, memory.usual).map_err(failed)?;
            runs = shorten(&mut files, longer, runs, memory).map_err(failed)?;
        }
        let mut stopped = None;
        let merged = merge(&files, runs, memory, |cursor| {
            visit(cursor.record()).map_err(|error| {
                stopped = Some(error);
                io::Error::other("the visit failed")
            })
        });
        match (merged, stopped) {
            (_, Some(error)) => Err(error),
            (Err(source), None) => Err(failed(source).into()),
            (Ok(()), None) => Ok(Spent(files)),
        }
    }
}

/// Memory that reading these at once takes at least.
fn least_read<'a>(runs: impl IntoIterator<Item = &'a Run>) -> usize {
    runs.into_iter().map(Run::least_read).sum()
}

/// Merges neighbours, the first ones first, until all that there are then can be read at once, or each has
/// been merged. The new runs lie in `longer`, which becomes the last of `files`, or the only one.
fn shorten(
    files: &mut Vec<Spill>,
    mut longer: Spill,
    runs: Vec<Run>,
    memory: Reading,
) -> io::Result<Vec<Run>> {
    let mut merged: Vec<Run> = Vec::new();
    let mut rest = VecDeque::from(runs);
    while rest.len() > 1 {
        let mut excess = (least_read(&merged) + least_read(&rest)).saturating_sub(memory.most);
        if excess == 0 {
            break;
        }
        let (mut group, mut read) = (Vec::new(), 0);
        while let Some(run) = rest.pop_front() {
            read += run.least_read();
            // All but one of them are gone then.
            if !group.is_empty() {
                excess = excess.saturating_sub(run.least_read());
            }
            group.push(run);
            let next = rest.front().map_or(0, Run::least_read);
            if group.len() >= LEAST_MERGED && (excess == 0 || read + next > memory.most) {
                break;
            }
        }
        merge(files, group, memory, |cursor| longer.append(cursor.piece()))?;
        merged.push(longer.end_run()?);
    }
    if rest.is_empty() {
        files.clear();
    }
    for run in &mut merged {
        run.file = files.len();
    }
    files.push(longer);
    merged.extend(rest);
    Ok(merged)
}

/// Hands the records of runs to `visit` in order.
fn merge(
    files: &[Spill],
    runs: Vec<Run>,
    memory: Reading,
    mut visit: impl FnMut(&Cursor) -> io::Result<()>,
) -> io::Result<()> {
    let buffer = memory.usual / runs.len().max(1);
    let mut cursors = Vec::with_capacity(runs.len());
    // The smallest (user, run) is next. Of the cursors only these move through the heap.
    let mut turns = BinaryHeap::with_capacity(runs.len());
    for run in runs {
        let buffer = buffer.clamp(run.least_read(), MOST_READ_BUFFER);
        let mut cursor = Cursor::new(run, buffer);
        if cursor.advance(files)? {
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
            if !cursor.advance(files)? {
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
    fn no_more_runs_are_merged_to_longer_ones_than_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let space = Space::new(directory.path());
        let mut spill = Spill::create(&space, 0).unwrap();
        let mut row = 0;
        let mut run = || {
            let mut buffer = Buffer::default();
            for user in [2, 1] {
                row += 1;
                buffer.push(&record(row, user, "x")).unwrap();
            }
            buffer.sort();
            for piece in buffer.pieces() {
                spill.append(piece).unwrap();
            }
            spill.end_run().unwrap()
        };
        let runs: Vec<Run> = (0..10).map(|_| run()).collect();
        let block = runs[0].least_read();
        let memory = Reading {
            usual: 4 * block,
            most: 8 * block,
        };
        let mut files = vec![spill];
        let longer = Spill::create(&space, 0).unwrap();
        let runs = shorten(&mut files, longer, runs, memory).unwrap();
        let places: Vec<usize> = runs.iter().map(|run| run.file).collect();
        assert_eq!(places, [1, 0, 0, 0, 0, 0, 0, 0], "three became one");
        let mut seen = Vec::new();
        merge(&files, runs, memory, |cursor| {
            let record = cursor.record();
            seen.push((record.user, record.row));
            Ok(())
        })
        .unwrap();
        let rows = |user: u64| (1..=10).map(move |run| (user, 2 * run + 1 - user));
        assert_eq!(seen, rows(1).chain(rows(2)).collect::<Vec<_>>());

        // So few can be read that each has to be merged: what was there before is of no use any more.
        let (spill, mut runs) = (files.swap_remove(1), Vec::new());
        let mut files = vec![spill];
        for user in 0..5 {
            files[0].append(&piece(user)).unwrap();
            runs.push(files[0].end_run().unwrap());
        }
        let memory = Reading {
            usual: 0,
            most: block,
        };
        runs.pop();
        let longer = Spill::create(&space, 0).unwrap();
        let runs = shorten(&mut files, longer, runs, memory).unwrap();
        let places: Vec<usize> = runs.iter().map(|run| run.file).collect();
        assert_eq!((places, files.len()), (vec![0, 0], 1));
    }

    fn piece(user: u64) -> Vec<u8> {
        let mut buffer = Buffer::default();
        buffer.push(&record(0, user, "x")).unwrap();
        buffer.pieces().flatten().copied().collect()
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
