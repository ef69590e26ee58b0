//! The rows that sled holds. Keys are a letter and big-endian numbers of our own counters (or a
//! hash or id of fixed width); values are framed by `codec` (version, CRC32C), all under 4 KiB.
//!
//! | key | value |
//! |---|---|
//! | `m` | next position, next letter |
//! | `d` position | a delivery: header, totals, when it was committed. Written once |
//! | `c` position | its counters: how many rows and batches went where, when it was cancelled, when it settled whole |
//! | `s` position, segment | a segment that is not settled yet: first ordinal, entries, weight, how much has settled |
//! | `b` position, segment, chunk | which of the chunk's [`CHUNK`] entries have settled, one bit each; absent: none |
//! | `a` destination | the newest sealed account, the label, and the position that they came with |
//! | `w` SHA-256 of a webhook id | delivery, rows, when |
//! | `l` letter | a dead-letter record: where it lies, which slices are left, whether it is replayed |
//! | `f` file | length of a dead-letter file as the state knows it |
//!
//! A position is a delivery's place in the queue: given out at commit, never twice.

use std::sync::Arc;

use super::codec::{Decoder, Encoder, Malformed};
use super::delivery::{Info, Tally, Totals, WebhookKey};
use super::segment::Summary;
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};

/// Entries whose settled bits share a row.
pub(super) const CHUNK: u32 = 1024;

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Meta,
    Delivery(u64),
    Counters(u64),
    Segment(u64, u32),
    Bits(u64, u32, u32),
    Account(DestinationId),
    Webhook(WebhookKey),
    Letter(u64),
    DeadFile(u32),
}

impl Key {
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(33);
        let mut put = |letter: u8, parts: &[&[u8]]| {
            key.push(letter);
            parts.iter().for_each(|part| key.extend_from_slice(part));
        };
        match self {
            Self::Meta => put(b'm', &[]),
            Self::Delivery(at) => put(b'd', &[&at.to_be_bytes()]),
            Self::Counters(at) => put(b'c', &[&at.to_be_bytes()]),
            Self::Segment(at, n) => put(b's', &[&at.to_be_bytes(), &n.to_be_bytes()]),
            Self::Bits(at, n, chunk) => put(
                b'b',
                &[&at.to_be_bytes(), &n.to_be_bytes(), &chunk.to_be_bytes()],
            ),
            Self::Account(id) => put(b'a', &[&id.0]),
            Self::Webhook(key) => put(b'w', &[&key.0]),
            Self::Letter(id) => put(b'l', &[&id.to_be_bytes()]),
            Self::DeadFile(n) => put(b'f', &[&n.to_be_bytes()]),
        }
        key
    }

    pub fn decode(key: &[u8]) -> Result<Self, Malformed> {
        let (&letter, rest) = key.split_first().ok_or(Malformed)?;
        let mut read = Decoder::new(rest);
        let key = match letter {
            b'm' => Self::Meta,
            b'd' => Self::Delivery(wide(&mut read)?),
            b'c' => Self::Counters(wide(&mut read)?),
            b's' => Self::Segment(wide(&mut read)?, narrow(&mut read)?),
            b'b' => Self::Bits(wide(&mut read)?, narrow(&mut read)?, narrow(&mut read)?),
            b'a' => Self::Account(DestinationId(read.array()?)),
            b'w' => Self::Webhook(WebhookKey(read.array()?)),
            b'l' => Self::Letter(wide(&mut read)?),
            b'f' => Self::DeadFile(narrow(&mut read)?),
            _ => return Err(Malformed),
        };
        read.end()?;
        Ok(key)
    }
}

fn wide(read: &mut Decoder<'_>) -> Result<u64, Malformed> {
    read.array().map(u64::from_be_bytes)
}

fn narrow(read: &mut Decoder<'_>) -> Result<u32, Malformed> {
    read.array().map(u32::from_be_bytes)
}

/// The counters that all others are numbered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
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
pub(super) struct DeliveryRow {
    pub info: Arc<Info>,
    pub totals: Totals,
    pub committed: UnixMillis,
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
        out.row()
    }

    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let row = Self {
            info: Arc::new(Info::decode(&mut read)?),
            totals: Totals::decode(&mut read)?,
            committed: read.time()?,
        };
        read.end().map(|()| row)
    }
}

/// Where rows and batches of a delivery went; what is in none of these waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub delivered: Tally,
    pub dead: Tally,
    pub discarded: Tally,
    pub damaged: Tally,
    pub cancelled: Tally,
    /// From then on nothing of it is given out.
    pub cancelled_at: Option<UnixMillis>,
    /// When the last of it settled.
    pub finished: Option<UnixMillis>,
}

impl Counters {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        for tally in [self.delivered, self.dead, self.discarded, self.damaged] {
            put_tally(&mut out, tally);
        }
        put_tally(&mut out, self.cancelled);
        put_time(&mut out, self.cancelled_at);
        put_time(&mut out, self.finished);
        out.row()
    }

    /// A row of before there was cancelling ends after the first four.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let mut counters = Self {
            delivered: tally(&mut read)?,
            dead: tally(&mut read)?,
            discarded: tally(&mut read)?,
            damaged: tally(&mut read)?,
            ..Self::default()
        };
        if !read.rest.is_empty() {
            counters.cancelled = tally(&mut read)?;
            counters.cancelled_at = time(&mut read)?;
            counters.finished = time(&mut read)?;
        }
        read.end().map(|()| counters)
    }

    /// All that does not wait and does not fly.
    pub fn settled(&self) -> Tally {
        let mut sum = self.delivered;
        sum += self.dead;
        sum += self.discarded;
        sum += self.damaged;
        sum += self.cancelled;
        sum
    }
}

fn put_tally(out: &mut Encoder, tally: Tally) {
    out.u64(tally.rows).u64(tally.batches);
}

fn put_time(out: &mut Encoder, time: Option<UnixMillis>) {
    match time {
        Some(time) => out.u8(1).time(time),
        None => out.u8(0),
    };
}

fn time(read: &mut Decoder<'_>) -> Result<Option<UnixMillis>, Malformed> {
    match read.u8()? {
        0 => Ok(None),
        1 => read.time().map(Some),
        _ => Err(Malformed),
    }
}

fn tally(read: &mut Decoder<'_>) -> Result<Tally, Malformed> {
    Ok(Tally {
        rows: read.u64()?,
        batches: read.u64()?,
    })
}

/// A segment that has entries to settle, or that must outlive the others of its delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentRow {
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
        put_tally(&mut out, self.summary.tally);
        out.u64(self.summary.bytes).u32(self.settled_entries);
        put_tally(&mut out, self.settled);
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
                tally: tally(&mut read)?,
                bytes: read.u64()?,
            },
            settled_entries: read.u32()?,
            settled: tally(&mut read)?,
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

/// One bit for each of a number of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u8>);

impl Bits {
    pub fn none(count: u32) -> Self {
        Self(vec![0; (count as usize).div_ceil(8)])
    }

    pub fn all(count: u32) -> Self {
        let mut bits = Self::none(count);
        (0..count).for_each(|at| {
            bits.set(at, true);
        });
        bits
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn get(&self, at: u32) -> bool {
        self.0
            .get(at as usize / 8)
            .is_some_and(|byte| byte & (1 << (at % 8)) != 0)
    }

    /// Returns whether the bit changed. A bit beyond the last never does.
    pub fn set(&mut self, at: u32, value: bool) -> bool {
        let before = self.get(at);
        let Some(byte) = self.0.get_mut(at as usize / 8) else {
            return false;
        };
        if value {
            *byte |= 1 << (at % 8);
        } else {
            *byte &= !(1 << (at % 8));
        }
        before != value
    }

    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.0.len() as u32 * 8).filter(|&at| self.get(at))
    }

    /// The bytes of one chunk of [`CHUNK`] bits.
    pub fn chunk(&self, chunk: u32) -> &[u8] {
        const BYTES: usize = CHUNK as usize / 8;
        let start = (chunk as usize * BYTES).min(self.0.len());
        let end = (start + BYTES).min(self.0.len());
        &self.0[start..end]
    }

    /// Puts the bytes of one chunk back; a row of another size is malformed.
    pub fn put_chunk(&mut self, chunk: u32, bytes: &[u8]) -> Result<(), Malformed> {
        const BYTES: usize = CHUNK as usize / 8;
        let start = chunk as usize * BYTES;
        let end = (start + BYTES).min(self.0.len());
        let place = self.0.get_mut(start..end).ok_or(Malformed)?;
        if place.len() != bytes.len() {
            return Err(Malformed);
        }
        place.copy_from_slice(bytes);
        Ok(())
    }
}

pub(super) fn encode_bits(bytes: &[u8]) -> Vec<u8> {
    let mut out = Encoder::for_row();
    out.blob(bytes);
    out.row()
}

pub(super) fn decode_bits(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut read = Decoder::of_row(value)?;
    let bytes = read.blob()?.to_vec();
    read.end().map(|()| bytes)
}

/// The newest account of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
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
pub(super) struct Webhook {
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
pub(super) struct Letter {
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
        put_tally(&mut out, self.tally);
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
            tally: tally(&mut read)?,
            queued: match read.u8()? {
                0 => None,
                1 => Some(read.u64()?),
                _ => return Err(Malformed),
            },
        };
        read.end().map(|()| letter)
    }
}

pub(super) fn encode_length(length: u64) -> Vec<u8> {
    let mut out = Encoder::for_row();
    out.u64(length);
    out.row()
}

pub(super) fn decode_length(value: &[u8]) -> Result<u64, Malformed> {
    let mut read = Decoder::of_row(value)?;
    let length = read.u64()?;
    read.end().map(|()| length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_sort_by_their_numbers() {
        let keys = [
            Key::Account(DestinationId([9; 16])),
            Key::Bits(1, 2, 3),
            Key::Bits(1, 2, 256),
            Key::Bits(1, 300, 0),
            Key::Counters(7),
            Key::Delivery(255),
            Key::Delivery(256),
            Key::DeadFile(4),
            Key::Letter(u64::MAX),
            Key::Meta,
            Key::Segment(5, 6),
            Key::Webhook(WebhookKey([3; 32])),
        ];
        let encoded: Vec<_> = keys.iter().map(|key| key.encode()).collect();
        assert!(encoded.is_sorted());
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(Key::decode(bytes), Ok(*key));
            assert_eq!(
                Key::decode(&[bytes.as_slice(), b"x"].concat()),
                Err(Malformed)
            );
        }
        assert_eq!(Key::decode(b""), Err(Malformed));
    }

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

    #[test]
    fn counters_of_before_there_was_cancelling_are_read() {
        let weight = |rows| Tally { rows, batches: 1 };
        let mut old = Encoder::for_row();
        (1..=4).for_each(|rows| put_tally(&mut old, weight(rows)));
        let counters = Counters::decode(&old.row()).unwrap();
        assert_eq!(counters.damaged, weight(4));
        assert_eq!(counters.cancelled, Tally::default());
        assert_eq!((counters.cancelled_at, counters.finished), (None, None));
        let counters = Counters {
            cancelled: weight(5),
            cancelled_at: Some(UnixMillis(6)),
            finished: Some(UnixMillis(7)),
            ..counters
        };
        assert_eq!(Counters::decode(&counters.encode()), Ok(counters));
    }

    #[test]
    fn bits_are_cut_into_chunks_and_put_together_again() {
        let mut bits = Bits::none(2_500);
        for at in [0, 1023, 1024, 2047, 2048, 2499] {
            assert!(bits.set(at, true));
            assert!(!bits.set(at, true));
        }
        assert!(!bits.set(9_999, true));
        let mut other = Bits::none(2_500);
        for chunk in 0..3 {
            other.put_chunk(chunk, bits.chunk(chunk)).unwrap();
        }
        assert_eq!(other, bits);
        assert_eq!(other.count(), 6);
        assert!(other.put_chunk(3, &[1]).is_err());
        assert!(other.put_chunk(0, &[1]).is_err());
    }
}
