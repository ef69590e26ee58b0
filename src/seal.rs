//! Keeps secrets sealed at rest: AES-256-GCM under a key that lives outside the outbox.
//!
//! A sealed text is `version (1) · nonce (12, random) · ciphertext · tag (16)`. The context that
//! it was sealed for is authenticated with it, so that one sealed text cannot stand in for
//! another. Random nonces of 96 bits are safe for some 2^32 texts under one key; here one text is
//! sealed for each delivery.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const NONCE: usize = 12;
const KEY: usize = 32;

/// Seals and opens under one key. Cheap to share behind an `Arc`; never prints its key.
pub struct Seal {
    cipher: Aes256Gcm,
}

/// The key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or made.
    #[error("The key file {path} cannot be read or made")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has not the 64 hexadecimal digits of a key.
    #[error(
        "The key file {path} does not hold a key of 64 hexadecimal digits. If it was damaged, restore it from a backup: without it, waiting deliveries cannot be signed in to mParticle until Looker sends the credentials again."
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// Other users of the machine may read it.
    #[error("The key file {path} can be read by others; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no random bytes.
    #[error("The operating system gives no random bytes for a key")]
    Random(getrandom::Error),
}

/// A sealed text does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Written by a later version.
    #[error("the sealed text has version {0}, which this looker-feed does not know")]
    Version(u8),
    /// Another key, another context, or changed bytes.
    #[error("the sealed text was sealed under another key, or it is damaged")]
    Refused,
}

impl Seal {
    /// With the key in `path`; makes the file, readable by its owner only, when there is none.
    /// Returns whether it was made.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), KeyError> {
        let io_error = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        match File::open(path) {
            Ok(file) => Ok((Self::load(path, file)?, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seal = Self::create(path)?;
                Ok((seal, true))
            }
            Err(error) => Err(io_error(error)),
        }
    }

    /// With a key that lives as long as the process.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn ephemeral() -> Result<Self, KeyError> {
        Ok(Self::with_key(&*new_key()?))
    }

    /// Seals `plain` for `context`.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut sealed = vec![VERSION; 1 + NONCE];
        getrandom::fill(&mut sealed[1..]).map_err(KeyError::Random)?;
        let payload = Payload {
            msg: plain,
            aad: context,
        };
        let nonce = Nonce::from_slice(&sealed[1..]);
        // AES-GCM refuses only texts beyond 64 GiB.
        let body = self.cipher.encrypt(nonce, payload).unwrap_or_default();
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what was sealed for `context`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (&version, rest) = sealed.split_first().ok_or(OpenError::Refused)?;
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let (nonce, body) = rest.split_at_checked(NONCE).ok_or(OpenError::Refused)?;
        let payload = Payload {
            msg: body,
            aad: context,
        };
        self.cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Refused)
    }

    fn with_key(key: &[u8; KEY]) -> Self {
        Self {
            cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key)),
        }
    }

    fn load(path: &Path, file: File) -> Result<Self, KeyError> {
        let io_error = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let mode = file.metadata().map_err(io_error)?.permissions().mode();
        // A credential of systemd's has an ACL for the unit's user, which shows as the group's bit.
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .is_some_and(|directory| path.starts_with(directory));
        let others = if credential { 0o037 } else { 0o077 };
        if mode & others != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(1024)
            .read_to_string(&mut text)
            .map_err(io_error)?;
        let key = parse_key(text.trim()).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
        })?;
        Ok(Self::with_key(&key))
    }

    /// Writes a new key beside `path` and moves it there, so that a crash leaves no half of one.
    fn create(path: &Path) -> Result<Self, KeyError> {
        let key = new_key()?;
        let write = || -> io::Result<()> {
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            std::fs::create_dir_all(directory)?;
            let mut text = Zeroizing::new(String::with_capacity(2 * KEY + 1));
            for byte in key.iter() {
                text.push_str(&format!("{byte:02x}"));
            }
            text.push('\n');
            let draft = path.with_extension("new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&draft, path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|source| KeyError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::with_key(&key))
    }
}

fn new_key() -> Result<Zeroizing<[u8; KEY]>, KeyError> {
    let mut key = Zeroizing::new([0; KEY]);
    getrandom::fill(&mut *key).map_err(KeyError::Random)?;
    Ok(key)
}

fn parse_key(text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    if text.len() != 2 * KEY || !text.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY]);
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_again_only_whole_and_in_its_context() {
        let seal = Seal::ephemeral().unwrap();
        let sealed = seal.seal(b"secret", b"here").unwrap();
        assert_eq!(&seal.open(&sealed, b"here").unwrap()[..], b"secret");
        assert_eq!(
            seal.open(&sealed, b"there").unwrap_err(),
            OpenError::Refused
        );
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(
                seal.open(&changed, b"here").unwrap_err(),
                OpenError::Refused
            );
        }
        for length in 0..sealed.len() {
            assert!(seal.open(&sealed[..length], b"here").is_err());
        }
        let mut later = sealed.clone();
        later[0] = 9;
        assert_eq!(
            seal.open(&later, b"here").unwrap_err(),
            OpenError::Version(9)
        );
        assert!(Seal::ephemeral().unwrap().open(&sealed, b"here").is_err());
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
    }

    #[test]
    fn the_key_file_is_made_once_private_and_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a").join("seal.key");
        let (first, made) = Seal::load_or_create(&path).unwrap();
        assert!(made);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, made) = Seal::load_or_create(&path).unwrap();
        assert!(!made);
        let sealed = first.seal(b"x", b"").unwrap();
        assert_eq!(&second.open(&sealed, b"").unwrap()[..], b"x");
    }

    #[test]
    fn a_key_file_that_others_can_read_or_that_holds_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        std::fs::write(&path, "zz").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(
            Seal::load_or_create(&path),
            Err(KeyError::NotAKey { .. })
        ));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(
            Seal::load_or_create(&path),
            Err(KeyError::Exposed { .. })
        ));
    }
}
