//! Records: what the files of the outbox hold between header and footer, drawn on the page of
//! [`local`](crate::outbox::local).
//!
//! A record is read in two steps. A [`Frame`] is what its checksum vouches for: whose it is, how
//! many batches and rows. That needs no key. [`Frame::open`] opens what is sealed, which tells
//! damage by accident or by hand, and a record that lies where another belongs. Nothing that is
//! not sealed is accepted in its place. Each record opens by itself.

use bytes::Bytes;

use crate::model::DeliveryId;
use crate::outbox::codec::{Decoder, Encoder, Malformed};
use crate::seal::{KeyError, KeyId, Keyring, STAMP, Sealer, TAG};

/// Bytes in front of what the length counts.
pub(in crate::outbox) const PREFIX: usize = 12;
/// First bytes of every record.
pub(in crate::outbox) const MARKER: [u8; 4] = *b"LFr2";
/// Most bytes that the slices of one record may have together.
pub(in crate::outbox) const MAX_RAW: usize = 32 << 20;
/// Most slices of one record.
pub(in crate::outbox) const MAX_SLICES: usize = 8192;
/// Most bytes of the meta part of one record.
const MAX_META: usize = 32 << 20;
/// Below this a body is not worth compressing.
const MIN_COMPRESSED: usize = 64;
const LZ4: u8 = 1;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Kind {
    Entry = 1,
    Dead = 2,
    Rejected = 3,
}

/// Which record it is: what it must be when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Name {
    pub kind: Kind,
    pub delivery: DeliveryId,
    pub ordinal: u32,
}

/// One batch of a ready request.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The batch as it will be sent.
    pub bytes: &'a [u8],
    /// Rows of the delivery that went into it.
    pub rows: u32,
}

/// A record, read back, checked and opened.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Record {
    pub name: Name,
    pub meta: Bytes,
    pub slices: Vec<Bytes>,
    pub rows: Vec<u32>,
}

impl Record {
    /// Which of the destination's addresses an entry goes to.
    ///
    /// # Errors
    /// The meta part is that of another kind of record.
    pub fn route(&self) -> Result<u8, Malformed> {
        match *self.meta {
            [route] => Ok(route),
            _ => Err(Malformed),
        }
    }
}

/// A record whose checksum is right, not opened yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct Frame<'a> {
    pub name: Name,
    flags: u8,
    meta: usize,
    raw: usize,
    table: &'a [u8],
    stamp: &'a [u8; STAMP],
    /// What is authenticated beside the sealed part.
    clear: &'a [u8],
    sealed: &'a [u8],
}

/// A record was not written.
#[derive(Debug)]
pub(in crate::outbox) enum EncodeError {
    /// It passes [`MAX_RAW`], [`MAX_SLICES`] or the bound of its meta part.
    TooLarge,
    Seal(KeyError),
}

/// Appends one record to `out`.
///
/// # Errors
/// See [`EncodeError`]; `out` is as it was.
pub(in crate::outbox) fn encode(
    out: &mut Vec<u8>,
    sealer: &mut Sealer,
    name: Name,
    meta: &[u8],
    slices: &[Slice<'_>],
) -> Result<(), EncodeError> {
    let raw: usize = slices.iter().map(|slice| slice.bytes.len()).sum();
    if raw > MAX_RAW || slices.len() > MAX_SLICES || meta.len() > MAX_META {
        return Err(EncodeError::TooLarge);
    }
    let seal = sealer.next_piece();
    let start = out.len();
    let mut encoder = Encoder {
        bytes: std::mem::take(out),
    };
    encoder.raw(&MARKER).u32(0).u32(0);
    encoder.u8(name.kind as u8).u8(0).u16(0).u32(name.ordinal);
    encoder
        .raw(&name.delivery.0)
        .u32(meta.len() as u32)
        .u32(slices.len() as u32)
        .u32(raw as u32);
    for slice in slices {
        encoder.u32(slice.bytes.len() as u32).u32(slice.rows);
    }
    encoder.raw(seal.stamp());
    *out = encoder.bytes;
    let clear = out.len();
    out.extend_from_slice(meta);
    out[start + PREFIX + 1] = put_body(out, raw, slices);
    let (head, secret) = out.split_at_mut(clear);
    match seal.seal(&head[start + PREFIX..], secret) {
        Ok(tag) => out.extend_from_slice(&tag),
        Err(error) => {
            out.truncate(start);
            return Err(EncodeError::Seal(error));
        }
    }
    frame(&mut out[start..]);
    Ok(())
}

/// Puts length and checksum in front of what they are of.
fn frame(record: &mut [u8]) {
    let length = (record.len() - PREFIX) as u32;
    record[4..8].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(length, &record[PREFIX..]);
    record[8..PREFIX].copy_from_slice(&crc.to_le_bytes());
}

/// Any bytes with a record's marker, length and checksum in front: as one who knows the format
/// writes them.
pub(in crate::outbox) fn framed(payload: &[u8]) -> Vec<u8> {
    let mut record = [&MARKER[..], &[0; PREFIX - 4], payload].concat();
    frame(&mut record);
    record
}

/// Appends the slices, compressed where that makes them shorter; returns the record's flags.
fn put_body(out: &mut Vec<u8>, raw: usize, slices: &[Slice<'_>]) -> u8 {
    let put_plain = |out: &mut Vec<u8>| {
        out.reserve(raw);
        for slice in slices {
            out.extend_from_slice(slice.bytes);
        }
    };
    if raw < MIN_COMPRESSED {
        put_plain(out);
        return 0;
    }
    let mut body = Vec::with_capacity(raw);
    put_plain(&mut body);
    let at = out.len();
    // Compressed in place; what does not fit is not shorter.
    out.resize(at + lz4_flex::block::get_maximum_output_size(raw), 0);
    match lz4_flex::block::compress_into(&body, &mut out[at..]) {
        Ok(packed) if packed < raw => {
            out.truncate(at + packed);
            LZ4
        }
        _ => {
            out.truncate(at);
            out.extend_from_slice(&body);
            0
        }
    }
}

/// How long the record is that begins with `prefix`, prefix included.
pub(in crate::outbox) fn length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
    let mut read = Decoder::new(prefix);
    if read.array::<4>()? != MARKER {
        return Err(Malformed);
    }
    let length = read.u32()? as usize;
    // The table is the only large part beside meta and body, and lz4 is used only where it is
    // shorter.
    if length > MAX_RAW + MAX_META + MAX_SLICES * 8 + 256 {
        return Err(Malformed);
    }
    Ok(length + PREFIX)
}

impl<'a> Frame<'a> {
    /// Reads the record that fills `bytes` from end to end.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (prefix, payload) = bytes.split_first_chunk::<PREFIX>().ok_or(Malformed)?;
        if length(prefix)? != bytes.len() {
            return Err(Malformed);
        }
        let mut read = Decoder::new(&prefix[4..]);
        let (length, crc) = (read.u32()?, read.u32()?);
        if checksum(length, payload) != crc {
            return Err(Malformed);
        }
        let mut read = Decoder::new(payload);
        let kind = match read.u8()? {
            1 => Kind::Entry,
            2 => Kind::Dead,
            3 => Kind::Rejected,
            _ => return Err(Malformed),
        };
        let (flags, _zero, ordinal) = (read.u8()?, read.u16()?, read.u32()?);
        let delivery = DeliveryId(read.array()?);
        let (meta, count, raw) = (read.u32()?, read.u32()? as usize, read.u32()? as usize);
        let meta = meta as usize;
        if flags & !LZ4 != 0 || count > MAX_SLICES || raw > MAX_RAW || meta > MAX_META {
            return Err(Malformed);
        }
        let table = read.take(count * 8)?;
        let (stamp, sealed) = read.rest.split_first_chunk().ok_or(Malformed)?;
        let clear = payload.len() - sealed.len();
        if sealed.len() < meta + TAG {
            return Err(Malformed);
        }
        let frame = Self {
            name: Name {
                kind,
                delivery,
                ordinal,
            },
            flags,
            meta,
            raw,
            table,
            stamp,
            clear: payload.get(..clear).ok_or(Malformed)?,
            sealed,
        };
        let slices: u64 = frame.table().map(|(length, _)| u64::from(length)).sum();
        if slices != raw as u64 {
            return Err(Malformed);
        }
        Ok(frame)
    }

    /// How many slices it has.
    pub fn slices(&self) -> u32 {
        (self.table.len() / 8) as u32
    }

    /// Rows in each slice.
    pub fn rows(&self) -> impl Iterator<Item = u32> + 'a {
        self.table().map(|(_, rows)| rows)
    }

    /// Rows in all of them.
    pub fn total_rows(&self) -> u64 {
        self.rows().map(u64::from).sum()
    }

    /// The key that opens it.
    pub fn key_id(&self) -> Option<KeyId> {
        self.stamp.first_chunk().copied().map(KeyId)
    }

    /// Opens what is sealed.
    ///
    /// # Errors
    /// It was changed, belongs elsewhere, or is sealed under a key that is not among `keys`.
    pub fn open(&self, keys: &Keyring) -> Result<Record, Malformed> {
        let mut sealed = self.sealed.to_vec();
        let opened = keys.open(self.stamp, self.clear, &mut sealed);
        let length = opened.map_err(|_| Malformed)?.len();
        sealed.truncate(length);
        let plain = Bytes::from(sealed);
        if plain.len() < self.meta {
            return Err(Malformed);
        }
        let (meta, mut body) = (plain.slice(..self.meta), plain.slice(self.meta..));
        if self.flags & LZ4 != 0 {
            body = lz4_flex::block::decompress(&body, self.raw)
                .map_err(|_| Malformed)?
                .into();
        }
        if body.len() != self.raw {
            return Err(Malformed);
        }
        let mut slices = Vec::with_capacity(self.table.len() / 8);
        let mut at = 0usize;
        for (length, _) in self.table() {
            let end = at + length as usize;
            if end > self.raw {
                return Err(Malformed);
            }
            slices.push(body.slice(at..end));
            at = end;
        }
        Ok(Record {
            name: self.name,
            meta,
            slices,
            rows: self.rows().collect(),
        })
    }

    /// Length and rows of each slice.
    fn table(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.table.chunks_exact(8).map(|row| {
            let mut read = Decoder::new(row);
            // A row has eight bytes.
            (read.u32().unwrap_or(0), read.u32().unwrap_or(0))
        })
    }
}

/// All sound records in `bytes`, each with its offset and length, in order. Where a record is
/// damaged the next sound one is searched for.
pub(in crate::outbox) fn scan(bytes: &[u8]) -> Scan<'_> {
    Scan { bytes, at: 0 }
}

/// See [`scan`].
pub(in crate::outbox) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Scan<'a> {
    type Item = (usize, usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += memchr::memmem::find(rest, &MARKER)?;
            let rest = self.bytes.get(self.at..)?;
            let prefix = rest.first_chunk::<PREFIX>()?;
            if let Ok(length) = length(prefix)
                && let Some(whole) = rest.get(..length)
                && let Ok(frame) = Frame::decode(whole)
            {
                let offset = self.at;
                self.at += length;
                return Some((offset, length, frame));
            }
            self.at += 1;
        }
    }
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Key;

    fn keys() -> Keyring {
        Keyring::new(Key::new([1; 32]), Vec::new())
    }

    fn name(ordinal: u32) -> Name {
        Name {
            kind: Kind::Entry,
            delivery: DeliveryId([7; 16]),
            ordinal,
        }
    }

    fn record(ordinal: u32, parts: &[&[u8]]) -> Vec<u8> {
        let slices: Vec<_> = parts.iter().map(|bytes| Slice { bytes, rows: 3 }).collect();
        let (mut out, mut sealer) = (Vec::new(), keys().sealer().unwrap());
        encode(&mut out, &mut sealer, name(ordinal), b"meta", &slices).unwrap();
        out
    }

    fn open(bytes: &[u8]) -> Result<Record, Malformed> {
        Frame::decode(bytes)?.open(&keys())
    }

    #[test]
    fn records_come_back_byte_by_byte() {
        let long = vec![b'x'; 100_000];
        let cases: [&[&[u8]]; 5] = [&[], &[b""], &[b"a", b"", b"b"], &[&long, b"y"], &[&[7; 63]]];
        for parts in cases {
            let bytes = record(9, parts);
            let frame = Frame::decode(&bytes).unwrap();
            assert_eq!(frame.name, name(9));
            assert_eq!(frame.total_rows(), 3 * parts.len() as u64);
            let read = frame.open(&keys()).unwrap();
            assert_eq!(read.name, name(9));
            assert_eq!(&read.meta[..], b"meta");
            assert_eq!(read.slices, parts);
            assert_eq!(read.rows, vec![3; parts.len()]);
        }
        assert!(
            record(0, &[&long]).len() < 2_000,
            "a long run is compressed"
        );
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_refused() {
        let bytes = record(1, &[b"hello", b"world"]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(Frame::decode(&bad).is_err(), "byte {at} bit {bit}");
            }
            assert!(Frame::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_that_was_changed_by_hand_does_not_open() {
        let bytes = record(1, &[b"hello", &b"world ".repeat(100)]);
        assert!(open(&framed(&bytes[PREFIX..])).is_ok());
        for at in PREFIX..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(open(&framed(&bad[PREFIX..])).is_err(), "byte {at}");
        }
        for cut in PREFIX..bytes.len() {
            assert!(open(&framed(&bytes[PREFIX..cut])).is_err(), "cut at {cut}");
        }
        let other = Keyring::new(Key::new([2; 32]), Vec::new());
        assert!(Frame::decode(&bytes).unwrap().open(&other).is_err());
    }

    #[test]
    fn nothing_of_meta_and_body_can_be_read_without_the_key() {
        // Too short for lz4, and long enough.
        for body in [b"ada@example.com".to_vec(), b"ada@example.com ".repeat(9)] {
            let bytes = record(1, &[&body]);
            for part in [&b"ada@"[..], b"meta"] {
                assert_eq!(memchr::memmem::find(&bytes, part), None);
            }
            // The search would find it: lz4 alone hides nothing of this.
            let packed = lz4_flex::block::compress(&body);
            assert!(memchr::memmem::find(&packed, b"ada@").is_some());
        }
    }

    #[test]
    fn the_same_record_never_looks_the_same_twice() {
        let slices = [Slice {
            bytes: b"the same text",
            rows: 1,
        }];
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let mut sealer = keys().sealer().unwrap();
            for _ in 0..3 {
                let mut out = Vec::new();
                encode(&mut out, &mut sealer, name(0), b"", &slices).unwrap();
                assert!(seen.insert(out[out.len() - TAG - 13..].to_vec()));
            }
        }
    }

    #[test]
    fn too_much_for_one_record_is_refused_and_leaves_nothing_behind() {
        let mut sealer = keys().sealer().unwrap();
        let huge = vec![0; MAX_RAW + 1];
        let slices = [Slice {
            bytes: &huge,
            rows: 1,
        }];
        let mut out = b"before".to_vec();
        let refused = encode(&mut out, &mut sealer, name(0), b"", &slices);
        assert!(matches!(refused, Err(EncodeError::TooLarge)));
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_scan_finds_every_sound_record_around_a_damaged_one() {
        let mut bytes = b"garbage".to_vec();
        let mut places = Vec::new();
        for ordinal in 0..5 {
            places.push(bytes.len());
            bytes.extend_from_slice(&record(ordinal, &[b"some text here"]));
        }
        // The length of the third record: its end can no longer be known.
        bytes[places[2] + 4] ^= 0x40;
        let found: Vec<_> = scan(&bytes)
            .map(|(at, _, frame)| (at, frame.name.ordinal))
            .collect();
        assert_eq!(
            found,
            [
                (places[0], 0),
                (places[1], 1),
                (places[3], 3),
                (places[4], 4)
            ]
        );
    }
}
