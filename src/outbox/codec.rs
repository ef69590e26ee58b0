//! Fixed-width little-endian fields, as all values and files of the outbox use them, and the
//! frame of a state row: version byte, body, CRC32C of both.

use crate::clock::UnixMillis;

/// Version of every state row. A row of another version is malformed.
const ROW_VERSION: u8 = 1;

/// The bytes do not follow the format: cut short, altered, or written by something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes do not follow the format")]
pub struct Malformed;

/// Writes fields one after the other.
#[derive(Default)]
pub(in crate::outbox) struct Encoder {
    pub bytes: Vec<u8>,
}

impl Encoder {
    /// The beginning of a state row; end it with [`Encoder::row`].
    pub fn for_row() -> Self {
        Self {
            bytes: vec![ROW_VERSION],
        }
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn time(&mut self, value: UnixMillis) -> &mut Self {
        self.u64(value.0)
    }

    /// Bytes of a width that the reader knows.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Bytes with their length in front. The callers bound them far below 4 GiB.
    pub fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.raw(value)
    }

    pub fn text(&mut self, value: &str) -> &mut Self {
        self.blob(value.as_bytes())
    }

    pub fn optional_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(text) => self.u8(1).text(text),
            None => self.u8(0),
        }
    }

    /// Ends a state row.
    pub fn row(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.bytes);
        self.u32(crc);
        self.bytes
    }
}

/// Reads fields one after the other; every step checks that the bytes are there.
pub(in crate::outbox) struct Decoder<'a> {
    pub rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Checks a state row's frame and reads on in its body.
    pub fn of_row(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (framed, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
        if crc32c::crc32c(framed) != u32::from_le_bytes(*crc) {
            return Err(Malformed);
        }
        match framed.split_first() {
            Some((&ROW_VERSION, body)) => Ok(Self { rest: body }),
            _ => Err(Malformed),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn time(&mut self) -> Result<UnixMillis, Malformed> {
        self.u64().map(UnixMillis)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        let text = std::str::from_utf8(self.blob()?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }

    pub fn optional_text(&mut self) -> Result<Option<String>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(Malformed),
        }
    }

    /// Nothing may be left over: a row that is longer than we know was not written by us.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

/// `text` cut to at most `limit` bytes, at a character's edge.
pub(in crate::outbox) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut out = Encoder::for_row();
        out.u8(7)
            .u16(300)
            .u32(70_000)
            .u64(u64::MAX)
            .text("é")
            .optional_text(None)
            .optional_text(Some("x"));
        let row = out.row();
        let mut read = Decoder::of_row(&row).unwrap();
        assert_eq!(read.u8(), Ok(7));
        assert_eq!(read.u16(), Ok(300));
        assert_eq!(read.u32(), Ok(70_000));
        assert_eq!(read.u64(), Ok(u64::MAX));
        assert_eq!(read.text().as_deref(), Ok("é"));
        assert_eq!(read.optional_text(), Ok(None));
        assert_eq!(read.optional_text(), Ok(Some("x".to_owned())));
        assert_eq!(read.end(), Ok(()));
    }

    #[test]
    fn a_row_with_any_bit_flipped_or_any_end_cut_is_malformed() {
        let mut out = Encoder::for_row();
        out.u64(5).text("abc");
        let row = out.row();
        for at in 0..row.len() {
            assert!(Decoder::of_row(&row[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = row.clone();
                bad[at] ^= 1 << bit;
                assert!(Decoder::of_row(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 3), "aé");
        assert_eq!(cut("ab", 9), "ab");
    }
}
