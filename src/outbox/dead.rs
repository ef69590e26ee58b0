//! Dead letters as they are kept: one record holds the dead slices of one entry, as the page of
//! [`local`](crate::outbox::local) draws it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::codec::{Decoder, Encoder, Malformed, cut};
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::letter::{Dead, DeadLetter, LetterId};
use crate::outbox::record::{Kind, Record, Slice};

/// Bytes of a reason that are kept.
const MAX_REASON: usize = 1 << 10;
/// Ends the reason of a letter that is not what was sent any more.
const EDITED: &str = " (edited since)";
const NONE: u64 = u64::MAX;

/// The meta part of a dead-letter record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeadMeta {
    pub delivery: DeliveryId,
    pub destination: DestinationId,
    pub received: UnixMillis,
    pub label: String,
    pub title: String,
    pub account: Arc<[u8]>,
    pub replaces: Option<u64>,
    pub route: u8,
    pub slices: Vec<DeadSlice>,
}

/// What is known of one slice of a dead-letter record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeadSlice {
    pub original: u32,
    pub attempts: u32,
    pub first_try: UnixMillis,
    pub last_try: UnixMillis,
    pub reason: String,
}

impl DeadSlice {
    pub fn new(original: u32, dead: &Dead) -> Self {
        Self {
            original,
            attempts: dead.attempts,
            first_try: dead.first_try,
            last_try: dead.last_try,
            reason: cut(&dead.reason, MAX_REASON).to_owned(),
        }
    }
}

impl DeadMeta {
    pub fn new(info: &Info, account: Arc<[u8]>, replaces: Option<u64>, route: u8) -> Self {
        Self {
            delivery: info.id,
            destination: info.destination,
            received: info.received,
            label: (*info.label).to_owned(),
            title: (*info.title).to_owned(),
            account,
            replaces,
            route,
            slices: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(&self.delivery.0)
            .raw(&self.destination.0)
            .time(self.received)
            .text(&self.label)
            .text(&self.title)
            .blob(&self.account)
            .u64(self.replaces.unwrap_or(NONE))
            .u8(self.route);
        for slice in &self.slices {
            out.u32(slice.original)
                .u32(slice.attempts)
                .time(slice.first_try)
                .time(slice.last_try)
                .text(&slice.reason);
        }
        out.bytes
    }

    /// Reads the meta part of `record`; there is one slice here for each there.
    pub fn decode(record: &Record) -> Result<Self, Malformed> {
        let mut read = Decoder::new(&record.meta);
        let mut meta = Self {
            delivery: DeliveryId(read.array()?),
            destination: DestinationId(read.array()?),
            received: read.time()?,
            label: read.text()?,
            title: read.text()?,
            account: read.blob()?.into(),
            replaces: Some(read.u64()?).filter(|id| *id != NONE),
            route: read.u8()?,
            slices: Vec::new(),
        };
        for _ in &record.slices {
            meta.slices.push(DeadSlice {
                original: read.u32()?,
                attempts: read.u32()?,
                first_try: read.time()?,
                last_try: read.time()?,
                reason: read.text()?,
            });
        }
        read.end()?;
        if (record.name.kind, record.name.delivery) != (Kind::Dead, meta.delivery) {
            return Err(Malformed);
        }
        Ok(meta)
    }
}

/// A dead-letter record, read back.
pub(in crate::outbox) struct LetterRecord {
    pub record: Record,
    pub meta: DeadMeta,
}

impl LetterRecord {
    /// One slice of it as the API shows it, with its payload.
    pub fn slice(&self, id: LetterId) -> Option<(DeadLetter, Bytes)> {
        let at = id.slice as usize;
        let (slice, payload) = (self.meta.slices.get(at)?, self.record.slices.get(at)?);
        let letter = DeadLetter {
            id,
            delivery: self.meta.delivery,
            destination: self.meta.destination,
            route: self.meta.route,
            rows: self.record.rows.get(at).copied()?,
            bytes: payload.len() as u64,
            reason: slice.reason.clone(),
            attempts: slice.attempts,
            first_try: slice.first_try,
            last_try: slice.last_try,
        };
        Some((letter, payload.clone()))
    }

    /// Those of its slices that are `live`: payload, rows, and what it says of them.
    pub fn live(&self, live: &Bits) -> impl Iterator<Item = (&[u8], u32, &DeadSlice)> {
        live.ones().filter_map(|at| {
            let at = at as usize;
            let (payload, meta) = (self.record.slices.get(at)?, self.meta.slices.get(at)?);
            Some((&payload[..], *self.record.rows.get(at)?, meta))
        })
    }

    /// What makes a record of those of its slices that stay, each named by its place.
    pub fn only(&self, stays: impl Fn(u32) -> bool) -> (DeadMeta, Vec<Slice<'_>>) {
        let all = (0u32..).zip(self.record.slices.iter().zip(&self.record.rows));
        let kept = all.filter(|(at, _)| stays(*at));
        let slices = kept.map(|(_, (bytes, &rows))| Slice { bytes, rows });
        let told = (0u32..).zip(&self.meta.slices);
        let meta = DeadMeta {
            // What it replaced is long gone, and its number may be another's when this is found after a crash.
            replaces: None,
            slices: told
                .filter(|(at, _)| stays(*at))
                .map(|(_, slice)| slice.clone())
                .collect(),
            ..self.meta.clone()
        };
        (meta, slices.collect())
    }

    /// What the record says of one of its slices when a person has put another payload there, with
    /// the rows of that slice; `None`: it has no such slice.
    pub fn mended(&self, id: LetterId) -> Option<(DeadMeta, u32)> {
        let at = id.slice as usize;
        let (slice, &rows) = (self.meta.slices.get(at)?, self.record.rows.get(at)?);
        let mut slice = slice.clone();
        if !slice.reason.ends_with(EDITED) {
            slice.reason = cut(&slice.reason, MAX_REASON - EDITED.len()).to_owned() + EDITED;
        }
        let meta = DeadMeta {
            replaces: Some(id.letter),
            slices: vec![slice],
            ..self.meta.clone()
        };
        Some((meta, rows))
    }
}

/// A dead slice with its payload.
pub(in crate::outbox) struct DeadBody {
    pub meta: DeadSlice,
    pub bytes: Bytes,
    pub rows: u32,
}

/// The dead ones among the slices that a claim of an entry showed.
pub(in crate::outbox) fn of_entry(record: &Record, dead: &[Dead]) -> Vec<DeadBody> {
    let places: Vec<usize> = (0..record.slices.len()).collect();
    let originals: Vec<u32> = (0..record.slices.len() as u32).collect();
    gather(record, &places, &originals, dead)
}

/// The dead ones among the slices that a claim of a letter showed, which were its live ones.
pub(in crate::outbox) fn of_letter(
    old: &LetterRecord,
    live: &Bits,
    dead: &[Dead],
) -> Vec<DeadBody> {
    let places: Vec<usize> = (0..old.record.slices.len())
        .filter(|at| live.get(*at as u32))
        .collect();
    let originals: Vec<u32> = old.meta.slices.iter().map(|slice| slice.original).collect();
    gather(&old.record, &places, &originals, dead)
}

fn gather(record: &Record, places: &[usize], originals: &[u32], dead: &[Dead]) -> Vec<DeadBody> {
    let mut seen = BTreeSet::new();
    let mut bodies = Vec::new();
    for one in dead.iter().filter(|one| seen.insert(one.slice)) {
        let Some(&at) = places.get(one.slice) else {
            continue;
        };
        if let (Some(bytes), Some(&rows), Some(&original)) = (
            record.slices.get(at),
            record.rows.get(at),
            originals.get(at),
        ) {
            bodies.push(DeadBody {
                meta: DeadSlice::new(original, one),
                bytes: bytes.clone(),
                rows,
            });
        }
    }
    bodies
}

/// What dead slices weigh.
pub(in crate::outbox) fn weight(dead: &[DeadBody]) -> Tally {
    Tally {
        rows: dead.iter().map(|body| u64::from(body.rows)).sum(),
        batches: dead.len() as u64,
    }
}

/// The same as slices of a record.
pub(in crate::outbox) fn slices(dead: &[DeadBody]) -> Vec<Slice<'_>> {
    dead.iter()
        .map(|body| Slice {
            bytes: &body.bytes,
            rows: body.rows,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::{self, Frame, Name};
    use crate::seal::Keyring;

    #[test]
    fn letter_ids_print_and_parse_back() {
        let id = LetterId {
            letter: 17,
            slice: 3,
        };
        assert_eq!(id.to_string(), "17-3");
        assert_eq!("17-3".parse::<LetterId>().unwrap(), id);
        for bad in ["", "17", "17-", "-3", "a-b", "1-2-3"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_meta_part_comes_back() {
        let meta = DeadMeta {
            delivery: DeliveryId([1; 16]),
            destination: DestinationId([2; 16]),
            received: UnixMillis(3),
            label: "label".to_owned(),
            title: "title".to_owned(),
            account: Arc::from(*b"sealed"),
            replaces: Some(4),
            route: 9,
            slices: vec![DeadSlice {
                original: 5,
                attempts: 6,
                first_try: UnixMillis(7),
                last_try: UnixMillis(8),
                reason: "reason".to_owned(),
            }],
        };
        let slices = [Slice {
            bytes: b"payload",
            rows: 1,
        }];
        let keys = Keyring::ephemeral().unwrap();
        let written = |delivery| {
            let name = Name {
                kind: Kind::Dead,
                delivery,
                ordinal: 9,
            };
            let (mut bytes, mut sealer) = (Vec::new(), keys.sealer().unwrap());
            record::encode(&mut bytes, &mut sealer, name, &meta.encode(), &slices).unwrap();
            Frame::decode(&bytes).unwrap().open(&keys).unwrap()
        };
        assert_eq!(
            DeadMeta::decode(&written(meta.delivery)).as_ref(),
            Ok(&meta)
        );
        // The record says so in the clear, and its text says otherwise.
        let other = DeliveryId([7; 16]);
        assert_eq!(DeadMeta::decode(&written(other)), Err(Malformed));
    }
}
