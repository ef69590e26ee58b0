//! Which keys an outbox needs: each file says in its header under which key its records are
//! sealed. Asked before anything is opened, so that a missing key is told from damage and nothing
//! is given up for it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::read::{ReadFile, Unreadable, list, sound};
use crate::outbox::local::files::segment::read_header;
use crate::outbox::record;
use crate::seal::{KeyId, Keyring};

/// How many files are sealed under which key.
pub type KeyUse = BTreeMap<KeyId, u64>;

/// The keys under which files of the outbox at `path` are sealed; none, when there is no outbox.
/// Files in `damaged/` are not counted: no daemon reads them again.
pub fn needed_keys(path: &Path) -> Result<KeyUse, OpenError> {
    needed(&Disk::default(), &Layout::new(path)).map_err(|error| error.at(path))
}

/// Refuses when a key is missing, or when a file cannot be read, so that it is not known.
pub(in crate::outbox) fn check_keys(
    disk: &Disk,
    path: &Path,
    layout: &Layout,
    keys: &Keyring,
) -> Result<(), OpenError> {
    let needed = needed(disk, layout).map_err(|error| error.at(path))?;
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

pub(in crate::outbox) fn needed(disk: &Disk, layout: &Layout) -> Result<KeyUse, Unreadable> {
    let mut found = KeyUse::new();
    for directory in [
        layout.segments(),
        layout.dead_directory(),
        layout.rejected_directory(),
    ] {
        let files = match list(disk, &directory) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => continue,
            files => files?,
        };
        for path in files {
            if is_ours(&path)
                && let Some(id) = key_of(disk, &path)?
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
fn key_of(disk: &Disk, path: &Path) -> Result<Option<KeyId>, Unreadable> {
    let Some(file) = sound(ReadFile::open(disk, path))? else {
        return Ok(None);
    };
    if let Some(header) = sound(file.twice(read_header))? {
        return Ok(Some(header.key));
    }
    let bytes = sound(file.whole())?.unwrap_or_default();
    Ok(record::scan(&bytes).find_map(|(_, _, frame)| frame.key_id()))
}
