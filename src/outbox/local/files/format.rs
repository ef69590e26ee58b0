//! Header and footer of the files of the outbox, as the page of [`local`](crate::outbox::local) draws them.

use crate::clock::UnixMillis;
use crate::outbox::codec::{Decoder, Encoder, Malformed};
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::seal::KeyId;

/// Version of the files and of the directory.
pub(in crate::outbox) const VERSION: u16 = 2;
const MAGIC: [u8; 8] = *b"LFOUTBOX";
const END: [u8; 4] = *b"LFe1";
const CODEC_SEALED: u8 = 1;
/// Bytes at the very end of a file that has a footer.
pub(in crate::outbox) const TRAILER: usize = 16;
const FIXED: usize = 32;
/// Most bytes that a header may have.
pub(in crate::outbox) const MAX_HEADER: usize = FIXED + 16 * 1024;

/// Which kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum FileKind {
    Segment = 1,
    Dead = 2,
    Rejected = 3,
}

/// What stands at the beginning of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Header {
    pub kind: FileKind,
    pub number: u32,
    pub first: u32,
    pub key: KeyId,
    pub info: Option<Info>,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut info = Encoder::default();
        if let Some(delivery) = &self.info {
            delivery.encode(&mut info);
        }
        let mut out = Encoder::default();
        out.raw(&MAGIC)
            .u16(VERSION)
            .u8(self.kind as u8)
            .u8(CODEC_SEALED)
            .u32(self.number)
            .u32(self.first)
            .raw(&self.key.0)
            .blob(&info.bytes);
        let crc = crc32c::crc32c(&out.bytes);
        out.u32(crc);
        out.bytes
    }

    /// Reads the header at the beginning of `bytes`; the second value is its length.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        let mut read = Decoder::new(bytes);
        if read.array()? != MAGIC || read.u16()? != VERSION {
            return Err(Malformed);
        }
        let kind = match read.u8()? {
            1 => FileKind::Segment,
            2 => FileKind::Dead,
            3 => FileKind::Rejected,
            _ => return Err(Malformed),
        };
        if read.u8()? != CODEC_SEALED {
            return Err(Malformed);
        }
        let (number, first) = (read.u32()?, read.u32()?);
        let key = KeyId(read.array()?);
        let info = read.blob()?;
        let framed = bytes.len() - read.rest.len();
        let crc = read.u32()?;
        if crc32c::crc32c(bytes.get(..framed).ok_or(Malformed)?) != crc {
            return Err(Malformed);
        }
        let info = if info.is_empty() {
            None
        } else {
            let mut read = Decoder::new(info);
            let delivery = Info::decode(&mut read)?;
            read.end()?;
            Some(delivery)
        };
        let header = Self {
            kind,
            number,
            first,
            key,
            info,
        };
        Ok((header, framed + 4))
    }
}

/// Where one entry lies in its segment, and what it weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Place {
    pub offset: u32,
    /// 0: the entry is not to be found any more.
    pub length: u32,
    pub batches: u32,
    pub rows: u32,
}

impl Place {
    pub fn tally(self) -> Tally {
        Tally {
            rows: u64::from(self.rows),
            batches: u64::from(self.batches),
        }
    }
}

/// What makes a delivery accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Commit {
    pub position: u64,
    pub committed: UnixMillis,
    /// Segments of the delivery, this one included.
    pub segments: u32,
    pub totals: Totals,
}

/// What stands at the end of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Footer {
    pub places: Vec<Place>,
    pub commit: Option<Commit>,
    /// What was erased from the file, which was written anew each time.
    pub erased: Tally,
}

impl Footer {
    pub fn encode(&self, data_crc: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u32(self.places.len() as u32);
        for place in &self.places {
            out.u32(place.offset)
                .u32(place.length)
                .u32(place.batches)
                .u32(place.rows);
        }
        match &self.commit {
            None => {
                out.u8(0);
            }
            Some(commit) => {
                out.u8(1)
                    .u64(commit.position)
                    .time(commit.committed)
                    .u32(commit.segments);
                commit.totals.encode(&mut out);
            }
        }
        if self.erased != Tally::default() {
            self.erased.encode(&mut out);
        }
        let length = out.bytes.len() as u32;
        out.u32(length).u32(data_crc);
        let crc = crc32c::crc32c(&out.bytes);
        out.u32(crc).raw(&END);
        out.bytes
    }

    /// How long the body is, by the trailer.
    pub fn body_length(trailer: &[u8; TRAILER]) -> Result<u32, Malformed> {
        let mut read = Decoder::new(trailer);
        let length = read.u32()?;
        if read.rest.get(8..) != Some(&END) {
            return Err(Malformed);
        }
        Ok(length)
    }

    /// Cuts a whole file into what is before the footer, and the footer.
    pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
        let (_, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or(Malformed)?;
        let footer = Self::body_length(trailer)? as usize + TRAILER;
        let at = bytes.len().checked_sub(footer).ok_or(Malformed)?;
        bytes.split_at_checked(at).ok_or(Malformed)
    }

    /// Reads body and trailer together; the second value is the checksum of what is before them.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let (body, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or(Malformed)?;
        if Self::body_length(trailer)? as usize != body.len() {
            return Err(Malformed);
        }
        let mut end = Decoder::new(&trailer[4..]);
        let (data_crc, crc) = (end.u32()?, end.u32()?);
        let framed = bytes.get(..bytes.len() - 8).ok_or(Malformed)?;
        if crc32c::crc32c(framed) != crc {
            return Err(Malformed);
        }
        let mut read = Decoder::new(body);
        let mut footer = Self::default();
        for _ in 0..read.u32()? {
            footer.places.push(Place {
                offset: read.u32()?,
                length: read.u32()?,
                batches: read.u32()?,
                rows: read.u32()?,
            });
        }
        if read.u8()? == 1 {
            footer.commit = Some(Commit {
                position: read.u64()?,
                committed: read.time()?,
                segments: read.u32()?,
                totals: Totals::decode(&mut read)?,
            });
        }
        if !read.rest.is_empty() {
            footer.erased = Tally::decode(&mut read)?;
        }
        read.end()?;
        Ok((footer, data_crc))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{DeliveryId, DestinationId};

    fn header() -> Header {
        Header {
            kind: FileKind::Segment,
            number: 3,
            first: 70,
            key: KeyId([5; 8]),
            info: Some(Info {
                id: DeliveryId([1; 16]),
                destination: DestinationId([2; 16]),
                label: "label".into(),
                account: Arc::from(*b"sealed"),
                webhook: None,
                title: "title".into(),
                link: Some("link".into()),
                received: UnixMillis(77),
            }),
        }
    }

    fn footer() -> Footer {
        Footer {
            places: vec![
                Place {
                    offset: 100,
                    length: 50,
                    batches: 2,
                    rows: 9,
                };
                3
            ],
            commit: Some(Commit {
                position: 8,
                committed: UnixMillis(5),
                segments: 4,
                totals: Totals {
                    rows_in: 30,
                    notes: vec!["note".to_owned()],
                    ..Totals::default()
                },
            }),
            erased: Tally {
                rows: 3,
                batches: 1,
            },
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_is_seen() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok((header(), bytes.len())));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Header::decode(&bad).is_err(), "byte {at}");
            assert!(Header::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_footer_comes_back_and_any_flipped_bit_is_seen() {
        let bytes = footer().encode(99);
        assert_eq!(Footer::decode(&bytes), Ok((footer(), 99)));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Footer::decode(&bad).is_err(), "byte {at}");
            assert!(Footer::decode(&bytes[at + 1..]).is_err(), "cut at {at}");
        }
    }
}
