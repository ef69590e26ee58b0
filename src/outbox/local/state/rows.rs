//! The rows that sled holds, one type for each kind of value; the page of
//! [`local`](crate::outbox::local) has the table.

use std::sync::Arc;

pub(in crate::outbox) use crate::outbox::bits::{Bits, CHUNK, decode_bytes, encode_bytes};
pub(in crate::outbox) use crate::outbox::counters::Counters;
pub(in crate::outbox) use crate::outbox::local::state::key::Key;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::codec::{Decoder, Encoder, Malformed};
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::outbox::local::files::dead::DeadPlace;
use crate::outbox::local::files::segment::Summary;
use crate::outbox::record::{Kind, Name};

/// The counters that all others are numbered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Meta {
    pub next_position: u64,
    pub next_letter: u64,
}

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.u64(self.next_position).u64(self.next_letter);
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let meta = Self {
            next_position: read.u64()?,
            next_letter: read.u64()?,
        };
        read.end().map(|()| meta)
    }
}

/// What does not change about a committed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeliveryRow {
    pub info: Arc<Info>,
    pub totals: Totals,
    pub committed: UnixMillis,
    /// Rejected rows that were kept; `None`: it is not known.
    pub kept: Option<u32>,
}

impl DeliveryRow {
    /// The account is left out: it has a row of its own, where the newest one stands.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        let info = Info {
            account: Arc::from([]),
            ..(*self.info).clone()
        };
        info.encode(&mut out);
        self.totals.encode(&mut out);
        out.time(self.committed);
        if let Some(kept) = self.kept {
            out.u32(kept);
        }
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let row = Self {
            info: Arc::new(Info::decode(&mut read)?),
            totals: Totals::decode(&mut read)?,
            committed: read.time()?,
            kept: match read.rest.is_empty() {
                true => None,
                false => Some(read.u32()?),
            },
        };
        read.end().map(|()| row)
    }
}

/// A segment that has entries to settle, or that must outlive the others of its delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct SegmentRow {
    pub summary: Summary,
    pub settled_entries: u32,
    pub settled: Tally,
    /// Found to be damaged: the file is set aside when it has settled, not removed.
    pub damaged: bool,
}

impl SegmentRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.u32(self.summary.first).u32(self.summary.entries);
        self.summary.tally.encode(&mut out);
        out.u64(self.summary.bytes).u32(self.settled_entries);
        self.settled.encode(&mut out);
        out.u8(u8::from(self.damaged));
        out.row()
    }

    pub fn decode(number: u32, value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let row = Self {
            summary: Summary {
                number,
                first: read.u32()?,
                entries: read.u32()?,
                tally: Tally::decode(&mut read)?,
                bytes: read.u64()?,
            },
            settled_entries: read.u32()?,
            settled: Tally::decode(&mut read)?,
            damaged: read.u8()? != 0,
        };
        read.end().map(|()| row)
    }

    pub fn is_settled(&self) -> bool {
        self.settled_entries >= self.summary.entries
    }

    /// What has not settled.
    pub fn left(&self) -> Tally {
        let mut left = self.summary.tally;
        left -= self.settled;
        left
    }

    pub fn holds(&self, ordinal: u32) -> bool {
        ordinal
            .checked_sub(self.summary.first)
            .is_some_and(|local| local < self.summary.entries)
    }
}

/// The newest account of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Account {
    pub position: u64,
    pub label: String,
    pub sealed: Arc<[u8]>,
}

impl Account {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.u64(self.position).text(&self.label).blob(&self.sealed);
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let account = Self {
            position: read.u64()?,
            label: read.text()?,
            sealed: read.blob()?.into(),
        };
        read.end().map(|()| account)
    }
}

/// A webhook id whose delivery is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Webhook {
    pub delivery: DeliveryId,
    pub rows: u64,
    pub committed: UnixMillis,
}

impl Webhook {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.raw(&self.delivery.0)
            .u64(self.rows)
            .time(self.committed);
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let webhook = Self {
            delivery: DeliveryId(read.array()?),
            rows: read.u64()?,
            committed: read.time()?,
        };
        read.end().map(|()| webhook)
    }
}

/// A dead-letter record, or the part of it that a person treated alike: either all of its `live`
/// slices are dead, or all of them wait to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Letter {
    pub position: u64,
    pub file: u32,
    pub offset: u64,
    pub length: u32,
    pub ordinal: u32,
    /// Which slices of the record are meant.
    pub live: Bits,
    pub tally: Tally,
    /// Its place in the queue of its destination, when it was replayed.
    pub queued: Option<u64>,
}

impl Letter {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.u64(self.position)
            .u32(self.file)
            .u64(self.offset)
            .u32(self.length)
            .u32(self.ordinal)
            .blob(self.live.bytes());
        self.tally.encode(&mut out);
        match self.queued {
            None => out.u8(0),
            Some(at) => out.u8(1).u64(at),
        };
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let letter = Self {
            position: read.u64()?,
            file: read.u32()?,
            offset: read.u64()?,
            length: read.u32()?,
            ordinal: read.u32()?,
            live: Bits::from_bytes(read.blob()?),
            tally: Tally::decode(&mut read)?,
            queued: match read.u8()? {
                0 => None,
                1 => Some(read.u64()?),
                _ => return Err(Malformed),
            },
        };
        read.end().map(|()| letter)
    }
}

impl Letter {
    /// Where its record lies.
    pub fn place(&self) -> DeadPlace {
        DeadPlace {
            file: self.file,
            offset: self.offset,
            length: self.length,
        }
    }

    /// What its record is called.
    pub fn name(&self, delivery: DeliveryId) -> Name {
        Name {
            kind: Kind::Dead,
            delivery,
            ordinal: self.ordinal,
        }
    }

    /// Whether this slice of it is dead, and not on its way again.
    pub fn is_dead(&self, slice: u32) -> bool {
        self.queued.is_none() && self.live.get(slice)
    }
}

/// What the state knows of a dead-letter file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct DeadFileRow {
    /// Bytes of it that are durable.
    pub length: u64,
    /// A letter in it was given up.
    pub damaged: bool,
}

impl DeadFileRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.u64(self.length);
        if self.damaged {
            out.u8(1);
        }
        out.row()
    }

    /// A row without the mark is of a sound file.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let length = read.u64()?;
        let damaged = !read.rest.is_empty() && read.u8()? == 1;
        read.end().map(|()| Self { length, damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let segment = SegmentRow {
            summary: Summary {
                number: 4,
                first: 5,
                entries: 6,
                tally: Tally {
                    rows: 7,
                    batches: 8,
                },
                bytes: 9,
            },
            settled_entries: 1,
            settled: Tally {
                rows: 2,
                batches: 3,
            },
            damaged: true,
        };
        assert_eq!(SegmentRow::decode(4, &segment.encode()), Ok(segment));
        let letter = Letter {
            position: 1,
            file: 2,
            offset: 3,
            length: 4,
            ordinal: 5,
            live: Bits::all(11),
            tally: Tally::default(),
            queued: Some(6),
        };
        assert_eq!(Letter::decode(&letter.encode()), Ok(letter));
        let account = Account {
            position: 1,
            label: "label".to_owned(),
            sealed: Arc::from(*b"sealed"),
        };
        assert_eq!(Account::decode(&account.encode()), Ok(account));
    }
}
