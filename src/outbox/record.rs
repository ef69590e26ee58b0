//! Records: what the files of the outbox hold between header and footer.
//!
//! ```text
//! marker   4  "LFr1"
//! length   4  bytes that follow the checksum
//! crc      4  CRC32C of the length and of those bytes
//! kind     1  1 entry, 2 dead letter, 3 rejected row
//! flags    1  bit 0: the body is an lz4 block; the other bits are 0 (kept for sealing)
//! zero     2
//! ordinal  4  place in the delivery, from 0
//! meta     4  length of the meta part
//! slices   4  number of slices
//! raw      4  length of the body before compression: the sum of the slices' lengths
//! table    8 a slice: length, rows
//! meta        what the kind says; of an entry one byte, its route
//! body        the slices, one after the other
//! ```
//! All numbers are little-endian. The marker is there for salvage: a reader that has lost its
//! place looks for the next marker whose record passes its checksum.

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};

/// Bytes in front of what the length counts.
pub(super) const PREFIX: usize = 12;
/// First bytes of every record.
pub(super) const MARKER: [u8; 4] = *b"LFr1";
/// Most bytes that the slices of one record may have together.
pub(super) const MAX_RAW: usize = 32 << 20;
/// Most slices of one record.
pub(super) const MAX_SLICES: usize = 8192;
/// Most bytes of the meta part of one record.
const MAX_META: usize = 32 << 20;
/// Below this a body is not worth compressing.
const MIN_COMPRESSED: usize = 64;
const LZ4: u8 = 1;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entry = 1,
    Dead = 2,
    Rejected = 3,
}

/// One batch of a ready request.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The batch as it will be sent.
    pub bytes: &'a [u8],
    /// Rows of the delivery that went into it.
    pub rows: u32,
}

/// A record, read back and checked.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub kind: Kind,
    pub ordinal: u32,
    pub meta: Bytes,
    pub slices: Vec<Bytes>,
    pub rows: Vec<u32>,
}

/// Appends one record to `out`.
///
/// # Errors
/// It passes [`MAX_RAW`] or [`MAX_SLICES`]; `out` is as it was.
pub(super) fn encode(
    out: &mut Vec<u8>,
    kind: Kind,
    ordinal: u32,
    meta: &[u8],
    slices: &[Slice<'_>],
) -> Result<(), Malformed> {
    let raw: usize = slices.iter().map(|slice| slice.bytes.len()).sum();
    if raw > MAX_RAW || slices.len() > MAX_SLICES || meta.len() > MAX_META {
        return Err(Malformed);
    }
    let mut body = Vec::with_capacity(raw);
    for slice in slices {
        body.extend_from_slice(slice.bytes);
    }
    let mut flags = 0;
    if raw >= MIN_COMPRESSED {
        let packed = lz4_flex::block::compress(&body);
        if packed.len() < raw {
            flags = LZ4;
            body = packed;
        }
    }
    let start = out.len();
    let mut encoder = Encoder {
        bytes: std::mem::take(out),
    };
    encoder.raw(&MARKER).u32(0).u32(0);
    encoder.u8(kind as u8).u8(flags).u16(0).u32(ordinal);
    encoder
        .u32(meta.len() as u32)
        .u32(slices.len() as u32)
        .u32(raw as u32);
    for slice in slices {
        encoder.u32(slice.bytes.len() as u32).u32(slice.rows);
    }
    encoder.raw(meta).raw(&body);
    *out = encoder.bytes;
    let length = (out.len() - start - PREFIX) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(length, &out[start + PREFIX..]);
    out[start + 8..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// How long the record is that begins with `prefix`, prefix included.
pub(super) fn length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
    let mut read = Decoder::new(prefix);
    if read.array::<4>()? != MARKER {
        return Err(Malformed);
    }
    let length = read.u32()? as usize;
    // The table is the only part beside meta and body, and lz4 is used only where it is shorter.
    if length > MAX_RAW + MAX_META + MAX_SLICES * 8 + 64 {
        return Err(Malformed);
    }
    Ok(length + PREFIX)
}

/// Reads the record that fills `bytes` from end to end.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
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
    let (meta, count, raw) = (read.u32()?, read.u32()? as usize, read.u32()? as usize);
    if flags & !LZ4 != 0 || count > MAX_SLICES || raw > MAX_RAW {
        return Err(Malformed);
    }
    let mut table = Decoder::new(read.take(count * 8)?);
    let meta = Bytes::copy_from_slice(read.take(meta as usize)?);
    let body = if flags & LZ4 == 0 {
        Bytes::copy_from_slice(read.rest)
    } else {
        let plain = lz4_flex::block::decompress(read.rest, raw).map_err(|_| Malformed)?;
        Bytes::from(plain)
    };
    if body.len() != raw {
        return Err(Malformed);
    }
    let mut slices = Vec::with_capacity(count);
    let mut rows = Vec::with_capacity(count);
    let mut at = 0usize;
    for _ in 0..count {
        let end = at + table.u32()? as usize;
        if end > raw {
            return Err(Malformed);
        }
        slices.push(body.slice(at..end));
        rows.push(table.u32()?);
        at = end;
    }
    if at != raw {
        return Err(Malformed);
    }
    Ok(Record {
        kind,
        ordinal,
        meta,
        slices,
        rows,
    })
}

/// All sound records in `bytes`, each with its offset and length, in order. Where a record is
/// damaged the next sound one is searched for.
pub(super) fn scan(bytes: &[u8]) -> Scan<'_> {
    Scan { bytes, at: 0 }
}

/// See [`scan`].
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Scan<'_> {
    type Item = (usize, usize, Record);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += memchr::memmem::find(rest, &MARKER)?;
            let rest = self.bytes.get(self.at..)?;
            let prefix = rest.first_chunk::<PREFIX>()?;
            if let Ok(length) = length(prefix)
                && let Some(whole) = rest.get(..length)
                && let Ok(record) = decode(whole)
            {
                let offset = self.at;
                self.at += length;
                return Some((offset, length, record));
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

    fn record(ordinal: u32, parts: &[&[u8]]) -> Vec<u8> {
        let slices: Vec<_> = parts.iter().map(|bytes| Slice { bytes, rows: 3 }).collect();
        let mut out = Vec::new();
        encode(&mut out, Kind::Entry, ordinal, b"meta", &slices).unwrap();
        out
    }

    #[test]
    fn records_come_back_byte_by_byte() {
        let long = vec![b'x'; 100_000];
        let cases: [&[&[u8]]; 5] = [&[], &[b""], &[b"a", b"", b"b"], &[&long, b"y"], &[&[7; 63]]];
        for parts in cases {
            let bytes = record(9, parts);
            let read = decode(&bytes).unwrap();
            assert_eq!((read.kind, read.ordinal), (Kind::Entry, 9));
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
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
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
            .map(|(at, _, record)| (at, record.ordinal))
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

    #[test]
    fn too_much_for_one_record_is_refused_and_leaves_nothing_behind() {
        let mut out = b"before".to_vec();
        let huge = vec![0; MAX_RAW + 1];
        let slices = [Slice {
            bytes: &huge,
            rows: 1,
        }];
        assert!(encode(&mut out, Kind::Entry, 0, b"", &slices).is_err());
        assert_eq!(out, b"before");
    }
}
