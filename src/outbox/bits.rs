//! Which of a number of entries, or slices, are meant: one bit each, cut into rows.

use crate::outbox::codec::{Decoder, Encoder, Malformed};

/// Entries whose settled bits share a row.
pub(in crate::outbox) const CHUNK: u32 = 1024;

/// One bit for each of a number of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Bits(Vec<u8>);

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

pub(in crate::outbox) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Encoder::for_row();
    out.blob(bytes);
    out.row()
}

pub(in crate::outbox) fn decode_bytes(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut read = Decoder::of_row(value)?;
    let bytes = read.blob()?.to_vec();
    read.end().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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
