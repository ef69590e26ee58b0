//! What lies in `damaged/` and was given up, and is sound after all: it can be brought back.
//!
//! Most of what lies there has been delivered: a segment is set aside whole when the last of it has
//! settled. What was given up of it the state remembers, entry by entry, for as long as the delivery is
//! listed; of the rest nothing is taken.

use std::collections::BTreeMap;

use crate::outbox::dead::DeadMeta;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, list, sound};
use crate::outbox::local::owner::command::GivenUp;
use crate::outbox::local::state::change::Lost;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::Bits;
use crate::outbox::record::{self, Frame, Kind, Record};
use crate::seal::Keyring;

/// Searches `damaged/` for what was given up and is sound, each once.
pub(in crate::outbox) fn given_up(
    disk: &Disk,
    layout: &Layout,
    index: &Index,
    keys: &Keyring,
) -> Result<Vec<GivenUp>, Unreadable> {
    let mut found = BTreeMap::new();
    if index.lost_entries.is_empty() && index.lost_letters.is_empty() {
        return Ok(Vec::new());
    }
    let mut files = list(disk, &layout.damaged())?;
    files.sort();
    for path in files.iter().filter(|path| !path.is_dir()) {
        let file = ReadFile::open(disk, path).and_then(|file| file.whole());
        let Some(bytes) = sound(file)? else {
            continue;
        };
        for (offset, _, frame) in record::scan(&bytes) {
            let known = lost(index, &frame, offset as u64);
            let Some(record) = known.first().and_then(|_| frame.open(keys).ok()) else {
                continue;
            };
            for (position, lost) in known {
                if let Some(one) = taken(index, position, lost, record.clone()) {
                    found.insert((position, lost), one);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

/// What was given up with this record: an entry, or letters, of which one record can hold several
/// that a person has treated differently.
fn lost(index: &Index, frame: &Frame<'_>, offset: u64) -> Vec<(u64, Lost)> {
    let Some((position, _)) = index.delivery(frame.name.delivery) else {
        return Vec::new();
    };
    let ordinal = frame.name.ordinal;
    match frame.name.kind {
        Kind::Entry => {
            let lost = index.lost_entries.contains(&(position, ordinal));
            let lost = lost.then_some((position, Lost::Entry(ordinal)));
            lost.into_iter().collect()
        }
        Kind::Dead => {
            let place = (position, ordinal, offset);
            let letters = index.lost_letters.iter();
            letters
                .filter(|(_, letter)| (letter.position, letter.ordinal, letter.offset) == place)
                .map(|(id, _)| (position, Lost::Letter(*id)))
                .collect()
        }
        Kind::Rejected => Vec::new(),
    }
}

fn taken(index: &Index, position: u64, lost: Lost, record: Record) -> Option<GivenUp> {
    let all = Bits::all(record.slices.len() as u32);
    let (meta, live, queued) = match lost {
        Lost::Entry(_) => (None, all, true),
        Lost::Letter(id) => {
            let letter = index.lost_letters.get(&id)?;
            let meta = DeadMeta::decode(&record).ok()?;
            (Some(meta), letter.live.clone(), letter.queued.is_some())
        }
    };
    Some(GivenUp {
        lost,
        position,
        record,
        meta,
        live,
        queued,
    })
}
