//! The keys that an installation has: the one that seals, and those of before.

use ring::aead::{Aad, LessSafeKey};
use zeroize::Zeroizing;

use super::key::{Key, KeyError, KeyId, Purpose, SALT, new_salt};
use super::nonce;
use super::sealer::{STAMP, Sealer, TAG};

/// Version of a sealed text: `version (1) · key id (8) · salt (32) · ciphertext · tag (16)`.
const VERSION: u8 = 2;

/// Seals under its current key, opens under all of its keys. Never prints one.
#[derive(Debug)]
pub struct Keyring {
    current: Key,
    previous: Vec<Key>,
}

/// Something sealed does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Written by a later version.
    #[error("the sealed text has version {0}, which this looker-feed does not know")]
    Version(u8),
    /// Sealed under a key that is not there.
    #[error(
        "it is sealed under the key {0}, which is not among the keys at hand (seal.key_file, seal.previous_key_files)"
    )]
    UnknownKey(KeyId),
    /// Meant for another place, or changed.
    #[error("it does not open under its key: it was changed, or put in another's place")]
    Refused,
}

impl Keyring {
    /// Seals with `current` and opens with `previous` too.
    pub fn new(current: Key, previous: Vec<Key>) -> Self {
        Self { current, previous }
    }

    /// With a key that lives as long as the process.
    pub fn ephemeral() -> Result<Self, KeyError> {
        Ok(Self::new(Key::random()?, Vec::new()))
    }

    /// The key that seals.
    pub fn current(&self) -> KeyId {
        self.current.id()
    }

    /// All keys that open, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .map(Key::id)
    }

    /// Whether this key is among them.
    pub fn holds(&self, id: KeyId) -> bool {
        self.ids().any(|held| held == id)
    }

    /// For one new file, or for what one process adds to a file.
    pub fn sealer(&self) -> Result<Sealer, KeyError> {
        Sealer::new(&self.current)
    }

    /// Opens in place what a [`Sealer`] has sealed for `context`; `sealed` ends with the tag.
    pub fn open<'a>(
        &self,
        stamp: &[u8; STAMP],
        context: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (id, rest) = stamp.split_first_chunk().ok_or(OpenError::Refused)?;
        let (salt, count) = rest.split_first_chunk().ok_or(OpenError::Refused)?;
        let count = count.first_chunk().ok_or(OpenError::Refused)?;
        let key = self.key(KeyId(*id), Purpose::Records, salt)?;
        let count = u64::from_le_bytes(*count);
        key.open_in_place(nonce(count), Aad::from(context), sealed)
            .map_err(|_| OpenError::Refused)
    }

    /// Seals a short text for `context`, with which alone it opens.
    pub fn seal_text(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        let salt = new_salt()?;
        let key = self.current.derive(Purpose::Texts, &salt);
        let key = key.ok_or(KeyError::Cipher)?;
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
        body.extend_from_slice(plain);
        // The salt makes a key for this text alone.
        key.seal_in_place_append_tag(nonce(0), Aad::from(context), &mut *body)
            .map_err(|_| KeyError::Cipher)?;
        let head = [&[VERSION][..], &self.current().0, &salt].concat();
        Ok([&head[..], &body].concat())
    }

    /// Opens what [`Keyring::seal_text`] has sealed for `context`.
    pub fn open_text(
        &self,
        sealed: &[u8],
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (id, rest) = text_head(sealed)?;
        let (salt, body) = rest.split_first_chunk().ok_or(OpenError::Refused)?;
        let key = self.key(id, Purpose::Texts, salt)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(nonce(0), Aad::from(context), &mut body)
            .map_err(|_| OpenError::Refused)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// The key that a sealed text is sealed under; `None`: it is no sealed text of this version.
    pub fn key_of_text(sealed: &[u8]) -> Option<KeyId> {
        text_head(sealed).ok().map(|(id, _)| id)
    }

    /// Whether a sealed text is sealed under the current key.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        text_head(sealed).is_ok_and(|(id, _)| id == self.current())
    }

    fn key(
        &self,
        id: KeyId,
        purpose: Purpose,
        salt: &[u8; SALT],
    ) -> Result<LessSafeKey, OpenError> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|key| key.id() == id)
            .ok_or(OpenError::UnknownKey(id))?
            .derive(purpose, salt)
            .ok_or(OpenError::Refused)
    }
}

fn text_head(sealed: &[u8]) -> Result<(KeyId, &[u8]), OpenError> {
    let (&version, rest) = sealed.split_first().ok_or(OpenError::Refused)?;
    if version != VERSION {
        return Err(OpenError::Version(version));
    }
    let (id, rest) = rest.split_first_chunk().ok_or(OpenError::Refused)?;
    Ok((KeyId(*id), rest))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn rings() -> (Keyring, Keyring, Keyring) {
        let key = |byte| Key::new([byte; 32]);
        (
            Keyring::new(key(1), Vec::new()),
            Keyring::new(key(2), vec![key(1)]),
            Keyring::new(key(2), Vec::new()),
        )
    }

    fn pieces(sealer: &mut Sealer, plain: &[u8]) -> ([u8; STAMP], Vec<u8>) {
        let mut body = plain.to_vec();
        let one = sealer.next_piece();
        let stamp = *one.stamp();
        let tag = one.seal(b"context", &mut body).unwrap();
        (stamp, [body, tag.to_vec()].concat())
    }

    #[test]
    fn a_text_opens_again_only_whole_and_in_its_context() {
        let (ring, ..) = rings();
        let sealed = ring.seal_text(b"secret", b"here").unwrap();
        assert_eq!(&ring.open_text(&sealed, b"here").unwrap()[..], b"secret");
        assert!(ring.open_text(&sealed, b"there").is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let error = ring.open_text(&changed, b"here").unwrap_err();
            match at {
                0 => assert_eq!(error, OpenError::Version(VERSION ^ 1)),
                1..9 => assert!(matches!(error, OpenError::UnknownKey(_)), "{at}"),
                _ => assert_eq!(error, OpenError::Refused, "{at}"),
            }
            assert!(ring.open_text(&sealed[..at], b"here").is_err());
        }
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
    }

    #[test]
    fn a_piece_opens_again_only_whole_under_its_stamp_and_in_its_context() {
        let (ring, ..) = rings();
        let mut sealer = ring.sealer().unwrap();
        pieces(&mut sealer, b"another");
        let (stamp, sealed) = pieces(&mut sealer, b"secret");
        let open = |stamp: &[u8; STAMP], context: &[u8], sealed: &[u8]| {
            let mut body = sealed.to_vec();
            let opened = ring.open(stamp, context, &mut body);
            opened.map(|plain| plain.to_vec())
        };
        assert_eq!(open(&stamp, b"context", &sealed).unwrap(), b"secret");
        assert_eq!(open(&stamp, b"", &sealed), Err(OpenError::Refused));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&stamp, b"context", &changed), Err(OpenError::Refused));
            assert!(open(&stamp, b"context", &sealed[..at]).is_err());
        }
        for at in 0..STAMP {
            let mut changed = stamp;
            changed[at] ^= 1;
            assert!(open(&changed, b"context", &sealed).is_err(), "stamp {at}");
        }
    }

    #[test]
    fn previous_keys_open_and_the_current_one_seals() {
        let (old, both, new) = rings();
        let text = old.seal_text(b"text", b"").unwrap();
        let (stamp, mut piece) = pieces(&mut old.sealer().unwrap(), b"piece");
        assert!(old.is_current(&text) && !both.is_current(&text));
        assert_eq!(&both.open_text(&text, b"").unwrap()[..], b"text");
        let mut again = piece.clone();
        let opened = both.open(&stamp, b"context", &mut again);
        assert_eq!(opened.unwrap(), b"piece");
        let missing = OpenError::UnknownKey(old.current());
        assert_eq!(new.open_text(&text, b"").unwrap_err(), missing);
        assert_eq!(
            new.open(&stamp, b"context", &mut piece).unwrap_err(),
            missing
        );
        assert!(both.is_current(&both.seal_text(b"", b"").unwrap()));
        assert_eq!(both.sealer().unwrap().key_id(), new.current());
        assert!(both.holds(old.current()) && !new.holds(old.current()));
    }

    #[test]
    fn texts_and_pieces_of_the_same_salt_have_different_keys() {
        let key = Key::new([1; 32]);
        let seal = |purpose| {
            let key = key.derive(purpose, &[9; SALT]).unwrap();
            let mut body = vec![0; 32];
            key.seal_in_place_append_tag(nonce(0), Aad::empty(), &mut body)
                .unwrap();
            body
        };
        assert_ne!(seal(Purpose::Texts), seal(Purpose::Records));
    }

    #[test]
    fn no_two_pieces_of_any_sealer_share_salt_and_count_and_none_looks_like_another() {
        let (ring, ..) = rings();
        let mut stamps = HashSet::new();
        let mut bodies = HashSet::new();
        // As when one process after the other writes on at the same place of the same file.
        for _ in 0..50 {
            let mut sealer = ring.sealer().unwrap();
            for _ in 0..50 {
                let (stamp, body) = pieces(&mut sealer, b"the same plain text every time");
                assert!(stamps.insert(stamp), "a stamp was used twice");
                assert!(bodies.insert(body), "a key stream was used twice");
            }
        }
    }
}
