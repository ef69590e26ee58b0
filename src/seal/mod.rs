//! Keeps secrets and people's data sealed at rest: AES-256-GCM (ring), under one key of the
//! installation that lives outside the outbox.
//!
//! The key itself seals nothing. It is put through HKDF-SHA256 with a salt of 32 random bytes and a
//! label, and what comes out seals: credentials have one label, what the outbox's files hold has
//! another, so that neither can stand in for the other. Every text has a salt of its own; a
//! [`Sealer`], which writes one file, has one salt and counts. **No nonce can repeat**: the nonce is
//! the count, it lives in the sealer alone, is used up by being asked for ([`Sealer::next_piece`] hands
//! out something that seals once), and dies with the sealer; the next sealer has another salt and
//! so another key, also when it writes on where a crash, a failed sync or a cut has ended the last
//! one. Two salts of 256 random bits do not meet. Nothing is derived from a place in a file, so
//! writing a place twice does no harm.
//!
//! What is sealed carries its *stamp* in the clear: the key's id, the salt and the count. So each
//! record opens by itself, whatever has become of the file around it. A key's id gives nothing
//! of the key away and tells a missing key from damage.
//!
//! **Rotation**: a [`Keyring`] seals with its current key and opens with the previous ones too.
//!
//! **Temporary files** ([`Scratch`]) are sealed under a random key each, which is in memory only:
//! they have no name, but their blocks reach the disk and stay there until they are overwritten.
//!
//! Keys are wiped when they are dropped; what ring derives from them in its own memory is not.

mod key;
mod keyring;
mod scratch;
mod sealer;
mod space;

use ring::aead::{NONCE_LEN, Nonce};

pub use key::{Key, KeyError, KeyId};
pub use keyring::{Keyring, OpenError};
pub use scratch::{Reader, Scratch, Stretch};
pub use sealer::{OneSeal, STAMP, Sealer, TAG};
pub use space::{Space, SpaceOp};

/// The nonce of a count.
fn nonce(count: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(place) = nonce.last_chunk_mut() {
        *place = count.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}
