//! Values that are accepted or refused, and files that hold them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::ConfigError;
use super::raw::{Entry, Raw};
use super::secret::Secret;

/// Far above any configuration or secret; keeps a path such as `/dev/zero` from filling memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The typed value of an entry.
///
/// # Errors
/// The key does not take it.
pub(super) fn accept<T>(
    key: &'static str,
    entry: Entry,
    parse: impl Fn(&Raw) -> Result<T, String>,
) -> Result<T, ConfigError> {
    parse(&entry.raw).map_err(|accepted| ConfigError::Value {
        key,
        origin: entry.origin,
        found: match entry.raw {
            // A url may hold a password.
            Raw::Text(text) if text.contains('@') => "a text with an @ (not shown)".to_owned(),
            Raw::Text(text) => format!("{text:?}"),
            Raw::Whole(number) => number.to_string(),
            Raw::Fraction(number) => number.to_string(),
            Raw::Truth(truth) => truth.to_string(),
            Raw::List(items) => format!("{items:?}"),
            Raw::Other(kind) => kind.to_owned(),
        },
        accepted,
    })
}

/// Reads a small file whole; its text may be, or hold, a secret.
pub(super) fn read(
    what: &'static str,
    path: &Path,
    key: Option<&'static str>,
) -> Result<Secret, ConfigError> {
    let mut text = String::new();
    let result =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    let text = Secret::new(text);
    match result {
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB",
        )),
        Ok(_) => Ok(text),
        Err(error) => Err(error),
    }
    .map_err(|source| ConfigError::Read {
        what,
        path: path.to_owned(),
        key,
        source,
    })
}

/// A secret out of a file that holds nothing else, which `key` names.
pub(super) fn secret_of(file: &Path, key: &'static str) -> Result<Secret, ConfigError> {
    let text = read("the secret's file", file, Some(key))?;
    // Editors and `echo` end a file with a newline that nobody means.
    let text = text.expose().trim_end_matches(['\r', '\n']).to_owned();
    if text.trim().is_empty() {
        return Err(ConfigError::Read {
            what: "the secret's file",
            path: file.to_owned(),
            key: Some(key),
            source: io::Error::new(io::ErrorKind::InvalidData, "it is empty"),
        });
    }
    Ok(Secret::new(text))
}
