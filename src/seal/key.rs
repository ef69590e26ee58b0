//! The key of an installation and its file: 64 hexadecimal digits, for the daemon's user alone.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

const KEY: usize = 32;
/// Bytes of the salt of a derived key.
pub(super) const SALT: usize = 32;
/// What a key's id is the keyed hash of.
const ID_LABEL: &[u8] = b"looker-feed key id v1";

/// Names a key without giving anything of it away. Printed as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a derived key is for: two purposes never share one.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Credentials and other short texts.
    Texts,
    /// What the files of the outbox hold.
    Records,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Texts => b"looker-feed texts v1",
            Self::Records => b"looker-feed records v1",
        }
    }
}

/// The key of an installation. Never prints more than its id.
pub struct Key {
    bytes: Zeroizing<[u8; KEY]>,
    id: KeyId,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

/// A key cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read or made.
    #[error("The key file {path} cannot be read or made")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file does not hold the 64 hexadecimal digits of a key.
    #[error(
        "The key file {path} does not hold a key of 64 hexadecimal digits. If it was damaged, restore it from a backup: without it, what waits in the outbox cannot be read."
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// Other users of the machine may read its file.
    #[error("The key file {path} can be read by others; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no random bytes.
    #[error("The operating system gives no random bytes for a key")]
    Random(getrandom::Error),
    /// The cipher refused, as it does beyond 64 GiB.
    #[error("The cipher refused to seal")]
    Cipher,
}

impl Key {
    /// The key of these bytes, which must be random.
    pub fn new(bytes: [u8; KEY]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*bytes), ID_LABEL);
        let mut id = [0; 8];
        for (place, byte) in id.iter_mut().zip(hash.as_ref()) {
            *place = *byte;
        }
        Self {
            bytes,
            id: KeyId(id),
        }
    }

    /// A new key.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
        Ok(Self::new(*bytes))
    }

    /// The key in `path`.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = File::open(path).map_err(io_error(path))?;
        let meta = file.metadata().map_err(io_error(path))?;
        // A credential of systemd's has an ACL for the unit's user, which shows as the group's bit.
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .is_some_and(|directory| path.starts_with(directory));
        // Secrets that are mounted belong to root, and to the group of who is to read them (Kubernetes' fsGroup).
        let mine = rustix::process::geteuid();
        let mounted = !mine.is_root() && meta.uid() != mine.as_raw();
        if exposed(meta.permissions().mode(), credential || mounted) {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
            });
        }
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY + 1));
        let read = file.take(1024).read_to_string(&mut text);
        read.map_err(io_error(path))?;
        let key = parse(text.trim()).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
        })?;
        Ok(Self::new(*key))
    }

    /// The key in `path`; makes the file, readable by its owner only, when there is none. Returns
    /// whether it was made.
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Self::random()?;
                key.write(path).map_err(io_error(path))?;
                Ok((key, true))
            }
            loaded => loaded.map(|key| (key, false)),
        }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key for one purpose and salt.
    pub(super) fn derive(&self, purpose: Purpose, salt: &[u8; SALT]) -> Option<LessSafeKey> {
        let info = [purpose.label()];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*self.bytes);
        let expanded = extracted.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(expanded)))
    }

    /// Writes it beside `path` and moves it there, so that a crash leaves no half of one.
    fn write(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(directory)?;
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY + 1));
        HEXLOWER.encode_append(&*self.bytes, &mut text);
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
    }
}

/// Random bytes for a derived key.
pub(super) fn new_salt() -> Result<[u8; SALT], KeyError> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(KeyError::Random)?;
    Ok(salt)
}

/// Whether a file of this mode can be read by more users than it should, or written by others. `lent`: it is
/// another user's, who has it read by the daemon's group.
fn exposed(mode: u32, lent: bool) -> bool {
    mode & if lent { 0o037 } else { 0o077 } != 0
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyError {
    move |source| KeyError::Io {
        path: path.to_owned(),
        source,
    }
}

fn parse(text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    if text.len() != 2 * KEY {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY]);
    let digits = HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut *key);
    digits.ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_is_made_once_private_and_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a").join("seal.key");
        assert!(matches!(Key::load(&path), Err(KeyError::Io { .. })));
        let (first, made) = Key::load_or_create(&path).unwrap();
        assert!(made);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, made) = Key::load_or_create(&path).unwrap();
        assert!(!made);
        assert_eq!(first.id(), second.id());
        assert_eq!(*first.bytes, *second.bytes);
        assert_ne!(first.id(), Key::random().unwrap().id());
    }

    #[test]
    fn a_key_file_that_others_can_read_or_that_holds_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let (short, odd, signed) = ("zz".to_owned(), "0".repeat(63), "+0".repeat(32));
        for text in [short, odd, signed] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let refused = Key::load_or_create(&path);
            assert!(matches!(refused, Err(KeyError::NotAKey { .. })));
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let refused = Key::load_or_create(&path);
        assert!(matches!(refused, Err(KeyError::Exposed { .. })));
    }

    #[test]
    fn the_group_may_read_only_a_file_that_another_user_lends() {
        for (mode, own, lent) in [
            (0o100400, false, false),
            (0o100600, false, false),
            (0o100440, true, false),
            (0o100640, true, false),
            (0o100460, true, true),
            (0o100404, true, true),
            (0o100644, true, true),
        ] {
            assert_eq!(exposed(mode, false), own, "{mode:o}");
            assert_eq!(exposed(mode, true), lent, "{mode:o}");
        }
    }

    #[test]
    fn a_key_prints_its_id_and_nothing_else() {
        let key = Key::new([0xab; KEY]);
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
        assert!(!format!("{key:?}").contains("abab"));
        assert_eq!(key.id().to_string().len(), 16);
    }
}
