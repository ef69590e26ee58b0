//! Seals what goes into one file, piece by piece, in place.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey};

use super::key::{Key, KeyError, KeyId, Purpose, SALT, new_salt};
use super::nonce;

/// Bytes of a stamp: key id 8, salt 32, count 8 (little-endian).
pub const STAMP: usize = 8 + SALT + 8;
/// Bytes of a tag.
pub const TAG: usize = 16;

/// Seals under a key that nobody else has; see the room's page for why its nonces do not repeat.
pub struct Sealer {
    key: LessSafeKey,
    id: KeyId,
    salt: [u8; SALT],
    count: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Sealer");
        shown.field("id", &self.id).field("count", &self.count);
        shown.finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(key: &Key) -> Result<Self, KeyError> {
        let salt = new_salt()?;
        let derived = key.derive(Purpose::Records, &salt);
        Ok(Self {
            key: derived.ok_or(KeyError::Cipher)?,
            id: key.id(),
            salt,
            count: 0,
        })
    }

    /// Under which key what it seals opens.
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// For the next piece.
    pub fn next_piece(&mut self) -> OneSeal<'_> {
        let count = self.count;
        // No file has 2^64 pieces.
        self.count += 1;
        let mut stamp = [0; STAMP];
        let parts = self.id.0.iter().chain(&self.salt);
        let count_bytes = count.to_le_bytes();
        for (place, byte) in stamp.iter_mut().zip(parts.chain(&count_bytes)) {
            *place = *byte;
        }
        OneSeal {
            key: &self.key,
            count,
            stamp,
        }
    }
}

/// Seals one piece, and is used up by it.
pub struct OneSeal<'a> {
    key: &'a LessSafeKey,
    count: u64,
    stamp: [u8; STAMP],
}

impl OneSeal<'_> {
    /// What must lie beside the piece so that it opens again.
    pub fn stamp(&self) -> &[u8; STAMP] {
        &self.stamp
    }

    /// Seals `plain` in place for `context`, and returns the tag, which belongs behind it.
    pub fn seal(self, context: &[u8], plain: &mut [u8]) -> Result<[u8; TAG], KeyError> {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.count), Aad::from(context), plain)
            .map_err(|_| KeyError::Cipher)?;
        debug_assert_eq!(AES_256_GCM.tag_len(), TAG);
        tag.as_ref().try_into().map_err(|_| KeyError::Cipher)
    }
}
