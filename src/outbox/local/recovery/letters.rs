//! Dead letters that the state does not know: those written just before a crash, and all of them
//! when the state is rebuilt.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::model::DeliveryId;
use crate::outbox::dead::DeadMeta;
use crate::outbox::delivery::Tally;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::read::{ReadFile, Unreadable, sound};
use crate::outbox::local::state::rows::{Bits, Letter};
use crate::outbox::record;
use crate::seal::Keyring;

/// What lies in a dead-letter file behind what the state knows of it.
#[derive(Debug)]
pub(in crate::outbox) struct Tail {
    /// Length of the whole file.
    pub length: u64,
    pub letters: Vec<FoundLetter>,
    /// Deliveries with a record that is sound by its checksum and does not open.
    pub shut: Vec<DeliveryId>,
}

/// A dead-letter record that the state does not know.
#[derive(Debug)]
pub(in crate::outbox) struct FoundLetter {
    pub meta: DeadMeta,
    /// As it will be in the state, but for its position.
    pub letter: Letter,
    /// Rows of each slice.
    pub rows: Vec<u32>,
}

/// All dead letters of one entry, in the order in which they were written.
#[derive(Debug)]
pub(in crate::outbox) struct EntryLetters {
    pub delivery: DeliveryId,
    pub ordinal: u32,
    /// What the entry weighs by its segment; `None`: that does not say, or is not there.
    pub weight: Option<Tally>,
    pub letters: Vec<FoundLetter>,
}

impl Tail {
    /// Reads what lies behind the first `known` bytes; `None`: the file has gone.
    pub fn read(
        disk: &Disk,
        path: &Path,
        keys: &Keyring,
        number: u32,
        known: u64,
    ) -> Result<Option<Self>, Unreadable> {
        let file = ReadFile::open(disk, path);
        let Some(bytes) = sound(file.and_then(|file| file.whole()))? else {
            return Ok(None);
        };
        let mut tail = Self {
            length: bytes.len() as u64,
            letters: Vec::new(),
            shut: Vec::new(),
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        for (offset, length, frame) in record::scan(bytes.get(known..).unwrap_or_default()) {
            let opened = frame.open(keys).and_then(|record| {
                let meta = DeadMeta::decode(&record)?;
                Ok((record, meta))
            });
            let Ok((record, meta)) = opened else {
                tail.shut.push(frame.name.delivery);
                continue;
            };
            tail.letters.push(FoundLetter {
                letter: Letter {
                    position: 0,
                    file: number,
                    offset: (known + offset) as u64,
                    length: length as u32,
                    ordinal: record.name.ordinal,
                    live: Bits::all(record.slices.len() as u32),
                    tally: Tally::default(),
                    queued: None,
                },
                meta,
                rows: record.rows,
            });
        }
        Ok(Some(tail))
    }
}

impl EntryLetters {
    /// What they weigh together.
    pub fn dead(&self) -> Tally {
        sum(&self.letters)
    }
}

/// Puts the letters of each entry together. The weights are not known yet.
pub(in crate::outbox) fn by_entry(letters: Vec<FoundLetter>) -> Vec<EntryLetters> {
    let mut entries: BTreeMap<_, Vec<FoundLetter>> = BTreeMap::new();
    for found in letters {
        let entry = (found.meta.delivery, found.letter.ordinal);
        entries.entry(entry).or_default().push(found);
    }
    let entries = entries.into_iter();
    let entries = entries.map(|((delivery, ordinal), mut letters)| {
        keep_latest(&mut letters);
        EntryLetters {
            delivery,
            ordinal,
            weight: None,
            letters,
        }
    });
    entries.collect()
}

/// One that died again is in a later record too, and only there it counts.
fn keep_latest(letters: &mut Vec<FoundLetter>) {
    let mut seen = HashSet::new();
    for found in letters.iter_mut().rev() {
        for (at, slice) in found.meta.slices.iter().enumerate() {
            let latest = seen.insert(slice.original);
            if !latest {
                found.letter.live.set(at as u32, false);
            } else if let Some(rows) = found.rows.get(at) {
                found.letter.tally += Tally {
                    rows: u64::from(*rows),
                    batches: 1,
                };
            }
        }
    }
    letters.retain(|found| found.letter.tally.batches > 0);
}

fn sum(letters: &[FoundLetter]) -> Tally {
    let mut sum = Tally::default();
    letters.iter().for_each(|found| sum += found.letter.tally);
    sum
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::model::DestinationId;
    use crate::outbox::dead::DeadSlice;

    fn found(originals: &[u32]) -> FoundLetter {
        let slices = originals
            .iter()
            .map(|&original| DeadSlice {
                original,
                attempts: 1,
                first_try: UnixMillis(1),
                last_try: UnixMillis(1),
                reason: String::new(),
            })
            .collect();
        FoundLetter {
            meta: DeadMeta {
                delivery: DeliveryId([1; 16]),
                destination: DestinationId([1; 16]),
                received: UnixMillis(1),
                label: String::new(),
                title: String::new(),
                account: Arc::from([]),
                replaces: None,
                route: 0,
                slices,
            },
            letter: Letter {
                position: 0,
                file: 0,
                offset: 0,
                length: 0,
                ordinal: 0,
                live: Bits::all(originals.len() as u32),
                tally: Tally::default(),
                queued: None,
            },
            rows: vec![10; originals.len()],
        }
    }

    #[test]
    fn a_slice_that_died_twice_counts_once_and_where_it_died_last() {
        let mut letters = vec![found(&[1, 2, 3]), found(&[2]), found(&[2, 3])];
        keep_latest(&mut letters);
        let live: Vec<Vec<u32>> = letters
            .iter()
            .map(|found| found.letter.live.ones().collect())
            .collect();
        assert_eq!(live, [vec![0], vec![0, 1]]);
        assert_eq!(sum(&letters).rows, 30);
        let batches: Vec<u64> = letters.iter().map(|one| one.letter.tally.batches).collect();
        assert_eq!(batches, [1, 2]);
    }
}
