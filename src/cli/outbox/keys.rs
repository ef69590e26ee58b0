//! Where `looker-feed outbox` takes the keys from that an outbox is sealed under.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{ConfigArgument, Failure, load};
use crate::app::beside;
use crate::outbox;
use crate::seal::{Key, KeyError, Keyring};

#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    /// A file with a key that the outbox is sealed under; may be given again for previous keys.
    /// Without it: those of the configuration, and else the one beside the outbox, <DIR>.key
    #[arg(long = "key-file", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

impl Keys {
    /// The keys that are named, which must be there, or the one beside `outbox`, if it is there.
    pub fn load(&self, outbox: &Path) -> Result<Option<Arc<Keyring>>, Failure> {
        let mut files = self.files.clone();
        if files.is_empty() {
            let seal = load(&self.config)?.seal;
            files.extend(seal.key_file);
            files.extend(seal.previous_key_files);
        }
        if files.is_empty() {
            return match Key::load(&key_file(outbox)) {
                Ok(key) => Ok(Some(Arc::new(Keyring::new(key, Vec::new())))),
                Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Ok(None)
                }
                Err(error) => Err(Failure::of(&error)),
            };
        }
        let keys: Result<Vec<Key>, _> = files.iter().map(|path| Key::load(path)).collect();
        let mut keys = keys.map_err(|error| Failure::of(&error))?;
        let current = keys.remove(0);
        Ok(Some(Arc::new(Keyring::new(current, keys))))
    }

    /// The keys that are named, or the one beside `outbox`, for what has none of its own.
    pub fn require_given(&self, outbox: &Path) -> Result<Arc<Keyring>, Failure> {
        self.load(outbox)?.ok_or_else(|| {
            Failure::Usage(
                "Name the key of the daemons on the database (seal.key_file) with --key-file."
                    .to_owned(),
            )
        })
    }

    /// The same, for what cannot do without.
    pub fn require(&self, outbox: &Path) -> Result<Arc<Keyring>, Failure> {
        if let Some(keys) = self.load(outbox)? {
            return Ok(keys);
        }
        let needed = outbox::needed_keys(outbox).map_err(|error| Failure::of(&error))?;
        if needed.is_empty() {
            // Nothing in it has to be opened.
            let keys = Keyring::ephemeral().map_err(|error| Failure::of(&error))?;
            return Ok(Arc::new(keys));
        }
        let ids: Vec<String> = needed.keys().map(ToString::to_string).collect();
        Err(Failure::Other(format!(
            "The outbox {} is sealed under the key {}, and {} is not there; name the file that holds the key with --key-file.",
            outbox.display(),
            ids.join(" and the key "),
            key_file(outbox).display()
        )))
    }
}

/// Where a daemon has its key when it is not told.
pub(super) fn key_file(outbox: &Path) -> PathBuf {
    beside(outbox, ".key")
}
