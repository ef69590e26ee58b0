//! `[looker.api]`: the Lookers that can be asked again. The section's own keys name the first; each
//! section within it names another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::accept::{accept, secret_of};
use super::error::ConfigError;
use super::raw::{Entry, Raw};
use super::secret::Secret;
use super::values::{line, looker_url, path};

/// The keys of one Looker.
pub(super) const KEYS: [&str; 6] = [
    "url",
    "client_id",
    "client_secret",
    "client_secret_file",
    "ca_file",
    "hub_id",
];

/// `[looker.api]`
#[derive(Clone, Debug)]
pub struct LookerApiSettings {
    /// The Lookers that can be asked; none: what fails is not asked for again.
    pub instances: Vec<LookerInstance>,
    /// How often Looker is asked for one failed delivery, at least 1.
    pub tries: u32,
    /// And no longer than this after it failed.
    pub within: Duration,
    /// The first pause; with each try it grows fourfold.
    pub pause: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// What was asked for must begin to come in within this.
    pub arrival: Duration,
    /// Failures that were missed are looked for so far back; zero: they are not looked for.
    pub missed_back: Duration,
    /// And this often.
    pub missed_every: Duration,
}

/// One Looker, and an API key for it.
#[derive(Clone, Debug)]
pub struct LookerInstance {
    /// The section's name; empty for `[looker.api]` itself.
    pub name: String,
    /// Its address, without a path.
    pub url: Url,
    /// Of an API key.
    pub client_id: String,
    /// Of the same.
    pub client_secret: Secret,
    /// Certificates of authorities that are trusted beside the public ones; not opened at load.
    pub ca_file: Option<PathBuf>,
    /// This hub's id in that Looker; `None`: it is found by its address.
    pub hub_id: Option<String>,
}

/// Reads one Looker; `None`: nothing is said of it.
///
/// # Errors
/// Something is missing, unknown or wrong; the error names it.
pub(super) fn instance(
    name: &str,
    mut entries: BTreeMap<String, Entry>,
) -> Result<Option<LookerInstance>, ConfigError> {
    let shown = match name {
        "" => "[looker.api]".to_owned(),
        name => format!("[looker.api.{name}]"),
    };
    let mut take = |key: &str| {
        let entry = entries.remove(key)?;
        (entry.raw != Raw::Text(String::new())).then_some(entry)
    };
    let [url, id, secret, secret_file, ca_file, hub] = KEYS.map(&mut take);
    if let Some((key, entry)) = entries.into_iter().next() {
        return Err(ConfigError::Unknown {
            key: format!("looker.api.{name}.{key}"),
            origin: entry.origin,
            known: format!("the keys of {shown} are {}", KEYS.join(", ")),
        });
    }
    let nothing = [&url, &id, &secret, &secret_file]
        .iter()
        .all(|entry| entry.is_none());
    if nothing && name.is_empty() {
        return Ok(None);
    }
    let missing = |what: &'static str| ConfigError::Relation {
        key: "looker.api",
        value: format!("used ({shown})"),
        rule: format!(
            "`{what}` is not set there: a Looker needs `url`, `client_id` and `client_secret` (or `client_secret_file`)"
        ),
    };
    let url = accept(
        "looker.api.url",
        url.ok_or_else(|| missing("url"))?,
        looker_url,
    )?;
    let client_id = id.ok_or_else(|| missing("client_id"))?;
    let client_id = accept("looker.api.client_id", client_id, line)?;
    let client_secret = match (secret, secret_file) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::Relation {
                key: "looker.api.client_secret_file",
                value: format!("set ({shown})"),
                rule: "`client_secret` is set too; one of them must go".to_owned(),
            });
        }
        (
            Some(Entry {
                raw: Raw::Text(text),
                ..
            }),
            None,
        ) if !text.trim().is_empty() => Secret::new(text),
        (Some(entry), None) => {
            return Err(ConfigError::Value {
                key: "looker.api.client_secret",
                origin: entry.origin,
                found: "something else (not shown)".to_owned(),
                accepted: "text that is not empty".to_owned(),
            });
        }
        (None, Some(file)) => secret_of(
            &accept("looker.api.client_secret_file", file, path)?,
            "looker.api.client_secret_file",
        )?,
        (None, None) => return Err(missing("client_secret")),
    };
    let ca_file = ca_file.map(|entry| accept("looker.api.ca_file", entry, path));
    let hub_id = hub.map(|entry| accept("looker.api.hub_id", entry, line));
    Ok(Some(LookerInstance {
        name: name.to_owned(),
        url,
        client_id,
        client_secret,
        ca_file: ca_file.transpose()?,
        hub_id: hub_id.transpose()?,
    }))
}
