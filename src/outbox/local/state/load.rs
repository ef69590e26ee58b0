//! The index, read from the state. Rows that do not hold together mean that the state cannot be
//! trusted, and then all of it is rebuilt from the files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::codec::Malformed;
use crate::outbox::delivery::Tally;
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::{DeadFile, Delivery, Index, Segment};
use crate::outbox::local::state::rows::{
    Account, Bits, CHUNK, Counters, DeadFileRow, DeliveryRow, Key, Letter, Meta, SegmentRow,
    Webhook, decode_bytes,
};
use crate::outbox::local::state::store::Store;

#[derive(Default)]
struct Rows {
    meta: Option<Meta>,
    deliveries: BTreeMap<u64, DeliveryRow>,
    counters: BTreeMap<u64, Counters>,
    segments: BTreeMap<(u64, u32), SegmentRow>,
    bits: Vec<(u64, u32, u32, Vec<u8>)>,
    letters: BTreeMap<u64, Letter>,
    index: Index,
}

/// The index that the state describes; `None`: the state is new.
///
/// # Errors
/// sled fails, or its rows do not hold together.
pub(in crate::outbox) fn load(store: &Store) -> Result<Option<Index>, StateError> {
    let mut rows = Rows::default();
    store.scan(|key, value| {
        rows.take(key, value).map_err(|Malformed| {
            let name = String::from_utf8_lossy(key.get(..1).unwrap_or_default()).into_owned();
            StateError::Inconsistent(format!("a row of kind {name:?} is malformed"))
        })
    })?;
    rows.assemble()
}

impl Rows {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match Key::decode(key)? {
            Key::Meta => self.meta = Some(Meta::decode(value)?),
            Key::Delivery(at) => {
                self.deliveries.insert(at, DeliveryRow::decode(value)?);
            }
            Key::Counters(at) => {
                self.counters.insert(at, Counters::decode(value)?);
            }
            Key::Segment(at, number) => {
                let row = SegmentRow::decode(number, value)?;
                self.segments.insert((at, number), row);
            }
            Key::Bits(at, number, chunk) => {
                self.bits.push((at, number, chunk, decode_bytes(value)?));
            }
            Key::Account(id) => {
                self.index.accounts.insert(id, Account::decode(value)?);
            }
            Key::Note(id, topic) => {
                let text = decode_bytes(value)?.into();
                self.index.notes.insert((id, topic), text);
            }
            Key::Webhook(key) => {
                self.index.webhooks.insert(key, Webhook::decode(value)?);
            }
            Key::Attempt(id) => {
                let row = AttemptRow::decode(id, value)?;
                self.index.attempts.insert(id, Arc::new(row));
            }
            Key::Letter(id) => {
                self.letters.insert(id, Letter::decode(value)?);
            }
            Key::DeadFile(number) => {
                let row = DeadFileRow::decode(value)?;
                let file = DeadFile { row, letters: 0 };
                self.index.dead_files.insert(number, file);
            }
            Key::LostEntry(at, ordinal) => {
                self.index.lost_entries.insert((at, ordinal));
            }
            Key::LostLetter(id) => {
                self.index.lost_letters.insert(id, Letter::decode(value)?);
            }
        }
        Ok(())
    }

    fn assemble(mut self) -> Result<Option<Index>, StateError> {
        let Some(meta) = self.meta else {
            let others = self.deliveries.len()
                + self.counters.len()
                + self.segments.len()
                + self.letters.len();
            return if others == 0 {
                Ok(None)
            } else {
                Err(inconsistent("its counters are missing"))
            };
        };
        let mut bits = self.assemble_bits()?;
        let mut index = self.index;
        let mut segments = self.segments.into_iter().peekable();
        for (position, row) in self.deliveries {
            let counters = self.counters.remove(&position);
            let counters = counters.ok_or_else(|| inconsistent("a delivery has no counters"))?;
            let mut delivery = Delivery::new(row);
            delivery.counters = counters;
            // Both come in the order of positions; one that belongs to no delivery is left over.
            while let Some(((at, number), row)) = segments.next_if(|((at, _), _)| *at == position) {
                let settled = bits.remove(&(at, number));
                let count = settled.as_ref().map_or(0, Bits::count);
                if count != row.settled_entries {
                    return Err(inconsistent("a segment's entries do not match their count"));
                }
                let segment = Segment {
                    row,
                    settled,
                    file: None,
                };
                delivery.segments.insert(number, Box::new(segment));
            }
            if position >= meta.next_position || index.by_id.contains_key(&delivery.row.info.id) {
                return Err(inconsistent("two deliveries share a name or place"));
            }
            index.insert_delivery(position, delivery);
        }
        if !self.counters.is_empty() || segments.next().is_some() || !bits.is_empty() {
            return Err(inconsistent(
                "rows of a delivery are there and itself is not",
            ));
        }
        for (id, letter) in self.letters {
            if !index.deliveries.contains_key(&letter.position) || id >= meta.next_letter {
                return Err(inconsistent("a dead letter has no delivery"));
            }
            if !index.dead_files.contains_key(&letter.file) {
                return Err(inconsistent("a dead letter has no file"));
            }
            index.insert_letter(id, letter);
        }
        check_sums(&index)?;
        index.next_position = meta.next_position;
        index.next_letter = meta.next_letter;
        Ok(Some(index))
    }

    fn assemble_bits(&mut self) -> Result<HashMap<(u64, u32), Bits>, StateError> {
        let mut bits: HashMap<(u64, u32), Bits> = HashMap::new();
        for (at, number, chunk, bytes) in self.bits.drain(..) {
            let segment = self.segments.get(&(at, number));
            let segment = segment.ok_or_else(|| inconsistent("bits belong to no segment"))?;
            let count = segment.summary.entries;
            if u64::from(chunk) * u64::from(CHUNK) >= u64::from(count) {
                return Err(inconsistent("bits lie beyond their segment"));
            }
            bits.entry((at, number))
                .or_insert_with(|| Bits::none(count))
                .put_chunk(chunk, &bytes)
                .map_err(|_| inconsistent("bits have the wrong size"))?;
        }
        Ok(bits)
    }
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
        if dead.get(position).copied().unwrap_or_default() != delivery.counters.dead {
            return Err(inconsistent("the dead letters of a delivery do not add up"));
        }
    }
    Ok(())
}

fn inconsistent(what: &str) -> StateError {
    StateError::Inconsistent(what.to_owned())
}
