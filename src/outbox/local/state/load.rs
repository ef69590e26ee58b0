//! The index, read from the state. Rows that do not hold together mean that the state cannot be
//! trusted, and then all of it is rebuilt from the files.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::codec::Malformed;
use crate::outbox::delivery::Tally;
use crate::outbox::local::state::delivery::{Delivery, Segment};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::{DeadFile, Index};
use crate::outbox::local::state::rows::{
    Account, Bits, CHUNK, Counters, DeadFileRow, DeliveryRow, Key, Letter, Meta, SegmentRow,
    Webhook, decode_bytes,
};
use crate::outbox::local::state::store::Store;

/// Rows as they come, in the order of their keys: bits and counters before the deliveries that they
/// belong to, segments and letters after.
#[derive(Default)]
struct Rows {
    meta: Option<Meta>,
    bits: HashMap<(u64, u32), Chunks>,
    counters: VecDeque<(u64, Counters)>,
    texts: Texts,
    index: Index,
}

/// Texts that many deliveries have.
#[derive(Default)]
struct Texts(HashSet<Arc<str>>);

impl Texts {
    /// Has the texts of a delivery share their memory with the same ones of others.
    fn share(&mut self, row: &mut DeliveryRow) {
        let Some(info) = Arc::get_mut(&mut row.info) else {
            return;
        };
        for text in [&mut info.label, &mut info.title]
            .into_iter()
            .chain(&mut info.link)
        {
            match self.0.get(text) {
                Some(known) => *text = Arc::clone(known),
                None => {
                    self.0.insert(Arc::clone(text));
                }
            }
        }
    }
}

/// Parts of a segment's bits, each with its number.
type Chunks = Vec<(u32, Vec<u8>)>;

/// Why a row cannot be taken.
enum Wrong {
    Malformed,
    Inconsistent(&'static str),
}

impl From<Malformed> for Wrong {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// The index that the state describes; `None`: the state is new.
///
/// # Errors
/// sled fails, or its rows do not hold together.
pub(in crate::outbox) fn load(store: &Store) -> Result<Option<Index>, StateError> {
    let mut rows = Rows::default();
    store.scan(|key, value| {
        rows.take(key, value).map_err(|wrong| match wrong {
            Wrong::Malformed => {
                let name = String::from_utf8_lossy(key.get(..1).unwrap_or_default()).into_owned();
                StateError::Inconsistent(format!("a row of kind {name:?} is malformed"))
            }
            Wrong::Inconsistent(what) => inconsistent(what),
        })
    })?;
    rows.end()
}

impl Rows {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let index = &mut self.index;
        match Key::decode(key)? {
            Key::Meta => self.meta = Some(Meta::decode(value)?),
            Key::Delivery(at) => {
                let mut row = DeliveryRow::decode(value)?;
                self.texts.share(&mut row);
                let mut delivery = Delivery::new(row);
                if let Some((of, counters)) = self.counters.front()
                    && *of == at
                {
                    *delivery.counters_mut() = *counters;
                    self.counters.pop_front();
                }
                index.deliveries.insert(at, Box::new(delivery));
            }
            Key::Counters(at) => self.counters.push_back((at, Counters::decode(value)?)),
            Key::Segment(at, number) => {
                let row = SegmentRow::decode(number, value)?;
                let settled = self.bits.remove(&(at, number));
                let settled = settled.map(|chunks| bits(&row, chunks)).transpose()?;
                if settled.as_ref().map_or(0, Bits::count) != row.settled_entries {
                    return Err(Wrong::Inconsistent(
                        "a segment's entries do not match their count",
                    ));
                }
                let delivery = index.deliveries.get_mut(&at);
                let delivery = delivery.ok_or(Wrong::Inconsistent(
                    "rows of a delivery are there and itself is not",
                ))?;
                let segment = Segment {
                    row,
                    settled,
                    file: None,
                };
                delivery.segments.insert(segment);
            }
            Key::Bits(at, number, chunk) => {
                let chunks = self.bits.entry((at, number)).or_default();
                chunks.push((chunk, decode_bytes(value)?));
            }
            Key::Account(id) => {
                index.accounts.insert(id, Account::decode(value)?);
            }
            Key::Note(id, topic) => {
                let text = decode_bytes(value)?.into();
                index.notes.insert((id, topic), text);
            }
            Key::Webhook(key) => {
                index.webhooks.insert(key, Webhook::decode(value)?);
            }
            Key::Attempt(id) => {
                let row = AttemptRow::decode(id, value)?;
                index.attempts.insert(id, Arc::new(row));
            }
            Key::Letter(id) => {
                let letter = Letter::decode(value)?;
                if !index.deliveries.contains_key(&letter.position) {
                    return Err(Wrong::Inconsistent("a dead letter has no delivery"));
                }
                if !index.dead_files.contains_key(&letter.file) {
                    return Err(Wrong::Inconsistent("a dead letter has no file"));
                }
                index.insert_letter(id, letter);
            }
            Key::DeadFile(number) => {
                let row = DeadFileRow::decode(value)?;
                let file = DeadFile { row, letters: 0 };
                index.dead_files.insert(number, file);
            }
            Key::LostEntry(at, ordinal) => {
                index.lost_entries.insert((at, ordinal));
            }
            Key::LostLetter(id) => {
                index.lost_letters.insert(id, Letter::decode(value)?);
            }
        }
        Ok(())
    }

    fn end(self) -> Result<Option<Index>, StateError> {
        if !self.counters.is_empty() || !self.bits.is_empty() {
            return Err(inconsistent(
                "rows of a delivery are there and itself is not",
            ));
        }
        let mut index = self.index;
        let Some(meta) = self.meta else {
            return match index.deliveries.is_empty() {
                true => Ok(None),
                false => Err(inconsistent("its counters are missing")),
            };
        };
        if index.next_letter > meta.next_letter {
            return Err(inconsistent(
                "a dead letter has a number that is not given out yet",
            ));
        }
        for (position, delivery) in std::mem::take(&mut index.deliveries) {
            if position >= meta.next_position || index.by_id.contains_key(&delivery.row.info.id) {
                return Err(inconsistent("two deliveries share a name or place"));
            }
            index.insert_delivery(position, delivery);
        }
        check_sums(&index)?;
        index.next_position = meta.next_position;
        index.next_letter = meta.next_letter;
        Ok(Some(index))
    }
}

/// Which entries of a segment have settled.
fn bits(row: &SegmentRow, chunks: Chunks) -> Result<Bits, Wrong> {
    let count = row.summary.entries;
    let mut bits = Bits::none(count);
    for (chunk, bytes) in chunks {
        if u64::from(chunk) * u64::from(CHUNK) >= u64::from(count) {
            return Err(Wrong::Inconsistent("bits lie beyond their segment"));
        }
        bits.put_chunk(chunk, &bytes)
            .map_err(|_| Wrong::Inconsistent("bits have the wrong size"))?;
    }
    Ok(bits)
}

/// What waits by the counters must be what waits in the segments and among the replayed letters.
fn check_sums(index: &Index) -> Result<(), StateError> {
    let mut dead: HashMap<u64, Tally> = HashMap::new();
    let mut queued: HashMap<u64, Tally> = HashMap::new();
    for letter in index.letters.values() {
        let sums = match letter.queued {
            None => &mut dead,
            Some(_) => &mut queued,
        };
        *sums.entry(letter.position).or_default() += letter.tally;
    }
    for (position, delivery) in &index.deliveries {
        let mut waiting = delivery.unsettled();
        waiting += queued.get(position).copied().unwrap_or_default();
        if waiting != delivery.waiting() {
            return Err(inconsistent("the rows of a delivery do not add up"));
        }
        if dead.get(position).copied().unwrap_or_default() != delivery.counters().dead {
            return Err(inconsistent("the dead letters of a delivery do not add up"));
        }
    }
    Ok(())
}

fn inconsistent(what: &str) -> StateError {
    StateError::Inconsistent(what.to_owned())
}
