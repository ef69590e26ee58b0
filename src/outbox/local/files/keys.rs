//! Which keys an outbox needs: each file says in its header under which key its records are
//! sealed. Asked before anything is opened, so that a missing key is told from damage and nothing
//! is given up for it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::outbox::error::OpenError;
use crate::outbox::local::files::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::segment::{read_header, read_whole};
use crate::outbox::record;
use crate::seal::{KeyId, Keyring};

/// How many files are sealed under which key.
pub type KeyUse = BTreeMap<KeyId, u64>;

/// The keys under which files of the outbox at `path` are sealed; none, when there is no outbox.
/// Files in `damaged/` are not counted: no daemon reads them again.
///
/// # Errors
/// The system refuses to list the files.
pub fn needed_keys(path: &Path) -> Result<KeyUse, OpenError> {
    needed(&Layout::new(path)).map_err(failed(path))
}

/// Refuses when a key is missing.
pub(in crate::outbox) fn check_keys(
    path: &Path,
    layout: &Layout,
    keys: &Keyring,
) -> Result<(), OpenError> {
    let needed = needed(layout).map_err(failed(path))?;
    match needed.into_iter().find(|(id, _)| !keys.holds(*id)) {
        None => Ok(()),
        Some((key, files)) => {
            let held: Vec<_> = keys.ids().map(|id| id.to_string()).collect();
            Err(OpenError::MissingKey {
                path: path.to_owned(),
                key,
                files,
                held: held.join(", "),
            })
        }
    }
}

pub(in crate::outbox) fn needed(layout: &Layout) -> io::Result<KeyUse> {
    let mut found = KeyUse::new();
    for directory in [
        layout.segments(),
        layout.dead_directory(),
        layout.rejected_directory(),
    ] {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if is_ours(&path)
                && let Some(id) = key_of(&path)
            {
                *found.entry(id).or_default() += 1;
            }
        }
    }
    Ok(found)
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        matches!(parse_segment_name(name), Some(SegmentName::Segment(..)))
            || parse_dead_name(name).is_some()
            || parse_rejected_name(name).is_some()
    })
}

/// What the header says, or the first sound record when the header is damaged. A file that has
/// neither needs no key.
fn key_of(path: &Path) -> Option<KeyId> {
    let file = File::open(path).ok()?;
    if let Some(header) = read_header(&file) {
        return Some(header.key);
    }
    let bytes = read_whole(&file).ok()?;
    record::scan(&bytes).find_map(|(_, _, frame)| frame.key_id())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        path: path.to_owned(),
        doing: "its files could not be listed",
        source,
    }
}
