//! The keys of the installation: where they lie, and what happens when they change.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::about::About;
use super::{StartError, beside};
use crate::config::{Config, OutboxBackend};
use crate::outbox::{self, MAX_LINK, Outbox};
use crate::seal::{Key, Keyring};

/// What credentials are sealed for.
pub(super) const ACCOUNT_CONTEXT: &[u8] = b"looker-feed account v1";
/// What the origins of deliveries are sealed for: links name filters, and those can name people.
const LINK_CONTEXT: &[u8] = b"looker-feed link v1";

/// Beside the outbox and not in it, so that a copy of the outbox holds no key.
fn key_file(config: &Config) -> PathBuf {
    let named = config.seal.key_file.clone();
    named.unwrap_or_else(|| beside(&config.outbox.path, ".key"))
}

/// Reads the keys; makes the current one if there is none and no file of the outbox needs it, and says
/// whether it has.
pub(crate) fn load(config: &Config) -> Result<(Arc<Keyring>, bool), StartError> {
    let previous = config.seal.previous_key_files.iter();
    let previous: Vec<Key> = previous
        .map(|path| Key::load(path))
        .collect::<Result<_, _>>()?;
    let path = key_file(config);
    let there = !matches!(path.try_exists(), Ok(false));
    if !there && config.outbox.backend == OutboxBackend::Postgres {
        return Err(StartError::NoKey { path });
    }
    if !there {
        let needed = outbox::needed_keys(&config.outbox.path)?;
        let is_there = |id| previous.iter().any(|key| key.id() == id);
        if let Some((&key, &files)) = needed.iter().find(|(id, _)| !is_there(**id)) {
            return Err(StartError::KeyGone {
                path,
                outbox: config.outbox.path.clone(),
                key,
                files,
            });
        }
    }
    let (key, made) = Key::load_or_create(&path)?;
    if made {
        tracing::warn!(
            path = %path.display(),
            "made a key that seals credentials and people's data in the outbox; keep a copy of it, and not beside the outbox: without it the outbox cannot be read"
        );
    }
    Ok((Arc::new(Keyring::new(key, previous)), made))
}

/// Seals credentials that are sealed under a previous key with the current one, and says which
/// previous keys are still needed. Returns how many. Blocks on the disk.
///
/// # Errors
/// The state of the outbox could not be made durable, or its files not be listed.
pub(super) fn renew(outbox: &Outbox, config: &Config, keys: &Keyring) -> Result<usize, StartError> {
    let resealed = outbox.reseal_accounts(|destination, sealed| {
        if keys.is_current(sealed) {
            return None;
        }
        let opened = keys.open_text(sealed, ACCOUNT_CONTEXT);
        let resealed = opened
            .map_err(|error| error.to_string())
            .and_then(|plain| {
                let sealed = keys.seal_text(&plain, ACCOUNT_CONTEXT);
                sealed.map_err(|error| error.to_string())
            });
        // Nothing waits for it, or the outbox would not have opened.
        resealed
            .inspect_err(|error| {
                tracing::warn!(%destination, error, "credentials cannot be opened; the next delivery brings them again");
            })
            .ok()
    })?;
    if resealed > 0 {
        tracing::info!(
            accounts = resealed,
            "credentials were resealed under the current key"
        );
    }
    if config.seal.previous_key_files.is_empty() {
        return Ok(resealed);
    }
    let needed = match outbox.shared_keys()? {
        Some(needed) => needed,
        None => outbox::needed_keys(&config.outbox.path)?,
    };
    // The current key is the first.
    let previous = config.seal.previous_key_files.iter();
    for (path, key) in previous.zip(keys.ids().skip(1)) {
        match needed.get(&key).filter(|_| key != keys.current()) {
            Some(pieces) => tracing::info!(
                path = %path.display(), %key, pieces,
                "this previous key is still needed"
            ),
            None => tracing::info!(
                path = %path.display(), %key,
                "nothing needs this previous key any more; it can be taken out of seal.previous_key_files"
            ),
        }
    }
    Ok(resealed)
}

/// Where a delivery comes from, as the outbox keeps it: a line each for the link back to Looker, the
/// schedule's id and what tells its data. Without the link if it would be too long; `None` if it
/// cannot be sealed, or nothing is known.
pub(super) fn seal_origin(keys: &Keyring, about: &About) -> Option<String> {
    let part = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.replace(['\n', '\r'], " ")
    };
    let (schedule, data) = (part(&about.schedule), part(&about.data));
    if about.link.is_none() && schedule.is_empty() {
        return None;
    }
    let seal = |link: &str| {
        let lines = format!("{link}\n{schedule}\n{data}");
        let sealed = keys
            .seal_text(lines.trim_end().as_bytes(), LINK_CONTEXT)
            .ok()?;
        let text = BASE64.encode(sealed);
        (text.len() <= MAX_LINK).then_some(text)
    };
    seal(&part(&about.link)).or_else(|| seal(""))
}

/// What [`seal_origin`] has sealed; nothing if its key was taken away since.
pub(super) fn open_origin(keys: &Keyring, sealed: &str) -> About {
    let open = || {
        let sealed = BASE64.decode(sealed).ok()?;
        let plain = keys.open_text(&sealed, LINK_CONTEXT).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    };
    let text = open().unwrap_or_default();
    let mut lines = text.split('\n');
    let mut part = || {
        let line = lines.next().unwrap_or_default();
        (!line.is_empty()).then(|| line.to_owned())
    };
    About {
        link: part(),
        schedule: part(),
        data: part(),
        ..About::default()
    }
}
