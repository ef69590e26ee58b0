//! Blocks: some sealed records together, at most 256 KiB of them unless one alone is larger. A block
//! is written once and never changed. Beside the body lies where each record is and what it weighs,
//! so that a record that is damaged can still be counted.

use crate::model::DeliveryId;
use crate::outbox::codec::{Decoder, Malformed};
use crate::outbox::delivery::Tally;
use crate::outbox::record::{Frame, Kind, Name, Record};
use crate::seal::{KeyId, Keyring};

/// Bytes that a block may have, unless it has one record only.
pub(super) const BLOCK: usize = 256 << 10;
/// Bytes of a place: length, rows and batches.
const PLACE: usize = 12;

/// Some records, and what each of them weighs.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The ordinal of the first record.
    pub first: u64,
    pub entries: u32,
    pub places: Vec<u8>,
    pub body: Vec<u8>,
}

/// Why a record does not come out of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not what was written.
    Damaged,
    /// It is sealed under a key that is not there.
    Key(KeyId),
}

impl Block {
    pub fn starting(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Puts a record that was encoded behind the last one. Returns the block that is full by that,
    /// without the record.
    pub fn push(&mut self, record: &[u8], tally: Tally) -> Option<Self> {
        let full = (!self.body.is_empty() && self.body.len() + record.len() > BLOCK).then(|| {
            let next = Self::starting(self.first + u64::from(self.entries));
            std::mem::replace(self, next)
        });
        self.put(record, tally);
        full
    }

    /// The same, however full it is.
    pub fn put(&mut self, record: &[u8], tally: Tally) {
        for part in [record.len() as u64, tally.rows, tally.batches] {
            let narrow = u32::try_from(part).unwrap_or(u32::MAX);
            self.places.extend_from_slice(&narrow.to_le_bytes());
        }
        self.body.extend_from_slice(record);
        self.entries += 1;
    }

    /// The ordinals of its records.
    pub fn ordinals(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.entries)
    }

    /// One record as it is sealed, sound or not.
    pub fn bytes(&self, ordinal: u64) -> Option<&[u8]> {
        let (offset, length, _) = self.place(ordinal)?;
        self.body.get(offset..offset.saturating_add(length))
    }

    /// Bytes that it takes on the server.
    pub fn size(&self) -> usize {
        self.body.len() + self.places.len()
    }

    pub fn holds(&self, ordinal: u64) -> bool {
        ordinal
            .checked_sub(self.first)
            .is_some_and(|at| at < u64::from(self.entries))
    }

    /// Offset, length and weight of a record.
    fn place(&self, ordinal: u64) -> Option<(usize, usize, Tally)> {
        let at = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        let mut offset = 0usize;
        for (n, place) in self.places.chunks_exact(PLACE).enumerate() {
            let mut read = Decoder::new(place);
            let (length, rows, batches) = (read.u32().ok()?, read.u32().ok()?, read.u32().ok()?);
            if n == at {
                let tally = Tally {
                    rows: u64::from(rows),
                    batches: u64::from(batches),
                };
                return Some((offset, length as usize, tally));
            }
            offset = offset.checked_add(length as usize)?;
        }
        None
    }

    /// What a record weighs.
    pub fn tally(&self, ordinal: u64) -> Option<Tally> {
        self.place(ordinal).map(|(_, _, tally)| tally)
    }

    /// One record as it is sealed, once it has been opened, and what it weighs.
    pub fn sealed(
        &self,
        delivery: DeliveryId,
        ordinal: u64,
        keys: &Keyring,
    ) -> Result<(&[u8], Tally), Unreadable> {
        self.open(delivery, ordinal, keys)?;
        let (offset, length, tally) = self.place(ordinal).ok_or(Unreadable::Damaged)?;
        let bytes = self.body.get(offset..offset.saturating_add(length));
        Ok((bytes.ok_or(Unreadable::Damaged)?, tally))
    }

    /// One record, opened.
    pub fn open(
        &self,
        delivery: DeliveryId,
        ordinal: u64,
        keys: &Keyring,
    ) -> Result<Record, Unreadable> {
        let (offset, length, _) = self.place(ordinal).ok_or(Unreadable::Damaged)?;
        let bytes = self
            .body
            .get(offset..offset.saturating_add(length))
            .ok_or(Unreadable::Damaged)?;
        let name = Name {
            kind: Kind::Entry,
            delivery,
            ordinal: u32::try_from(ordinal).map_err(|_| Unreadable::Damaged)?,
        };
        open(bytes, name, keys)
    }
}

/// Opens a record that must be the one of this name.
pub(super) fn open(bytes: &[u8], name: Name, keys: &Keyring) -> Result<Record, Unreadable> {
    let frame = Frame::decode(bytes).map_err(|Malformed| Unreadable::Damaged)?;
    if let Some(key) = frame.key_id()
        && !keys.holds(key)
    {
        return Err(Unreadable::Key(key));
    }
    let record = frame.open(keys).map_err(|Malformed| Unreadable::Damaged)?;
    if record.name != name {
        return Err(Unreadable::Damaged);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::{Slice, encode};
    use crate::seal::Key;

    const ID: DeliveryId = DeliveryId([7; 16]);

    fn keys() -> Keyring {
        Keyring::new(Key::new([1; 32]), Vec::new())
    }

    fn record(ordinal: u32, body: &[u8]) -> Vec<u8> {
        let (mut out, mut sealer) = (Vec::new(), keys().sealer().unwrap());
        let name = Name {
            kind: Kind::Entry,
            delivery: ID,
            ordinal,
        };
        let slices = [Slice {
            bytes: body,
            rows: ordinal + 1,
        }];
        encode(&mut out, &mut sealer, name, &[0], &slices).unwrap();
        out
    }

    #[test]
    fn records_come_out_of_the_block_that_they_went_into() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut blocks = Vec::new();
        let mut block = Block::default();
        let mut bodies = Vec::new();
        for ordinal in 0..60u32 {
            // One is larger than a block.
            let length = if ordinal == 20 {
                BLOCK + 1
            } else {
                rng.usize(..20_000)
            };
            let body: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
            let tally = Tally {
                rows: u64::from(ordinal) + 1,
                batches: 1,
            };
            blocks.extend(block.push(&record(ordinal, &body), tally));
            bodies.push(body);
        }
        blocks.push(block);
        assert!(
            blocks
                .iter()
                .all(|block| block.body.len() <= BLOCK || block.entries == 1)
        );
        assert_eq!(blocks.iter().map(|block| block.entries).sum::<u32>(), 60);
        for (ordinal, body) in bodies.iter().enumerate() {
            let ordinal = ordinal as u64;
            let holding: Vec<_> = blocks.iter().filter(|block| block.holds(ordinal)).collect();
            assert_eq!(holding.len(), 1);
            let record = holding[0].open(ID, ordinal, &keys()).unwrap();
            assert_eq!(&record.slices[0][..], body);
            assert_eq!(holding[0].tally(ordinal).unwrap().rows, ordinal + 1);
        }
    }

    #[test]
    fn what_is_damaged_is_told_from_what_needs_another_key() {
        let mut block = Block::default();
        for ordinal in 0..3 {
            block.push(&record(ordinal, b"body"), Tally::default());
        }
        let other = Keyring::new(Key::new([2; 32]), Vec::new());
        let key = keys().current();
        assert_eq!(block.open(ID, 1, &other).unwrap_err(), Unreadable::Key(key));
        let wrong = DeliveryId([8; 16]);
        assert_eq!(
            block.open(wrong, 1, &keys()).unwrap_err(),
            Unreadable::Damaged
        );
        let middle = block.body.len() / 2;
        block.body[middle] ^= 1;
        assert_eq!(block.open(ID, 1, &keys()).unwrap_err(), Unreadable::Damaged);
        assert!(block.open(ID, 0, &keys()).is_ok() && block.open(ID, 2, &keys()).is_ok());
        assert_eq!(block.open(ID, 3, &keys()).unwrap_err(), Unreadable::Damaged);
    }
}
