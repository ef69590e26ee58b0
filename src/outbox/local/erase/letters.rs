//! Files of dead letters that are searched, and left by the letters that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::found::{Dead, Found, at, check, one};
use super::holds::Holds;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::erase::{Erased, Matcher, Scan};
use crate::outbox::error::Error;
use crate::outbox::local::files::read::{ReadError, ReadFile, exists, sound};
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Leaving};
use crate::outbox::local::state::rows::Letter;
use crate::outbox::record::{self, Kind};

/// Letters that leave their file with one sync.
const LEAVE: usize = 256;

/// Counts what is meant of letters, and says which batches they are.
pub(super) fn find(
    local: &Local,
    matcher: &dyn Matcher,
    scan: &Scan,
    found: &mut Found,
) -> Result<Dead, Error> {
    let letters: Vec<(u64, Letter)> = {
        let index = local.shared.index();
        let letters = index.letters.iter();
        letters.map(|(id, letter)| (*id, letter.clone())).collect()
    };
    let mut dead = Dead::new();
    for (id, letter) in letters {
        check(scan)?;
        let Some(delivery) = local.shared.index().letter(id).map(|(id, _)| id) else {
            continue;
        };
        let read = match local.shared.read_letter(delivery, &letter) {
            Ok(read) => read,
            Err(ReadError::Damaged) => continue,
            Err(ReadError::Unreadable(error)) => return Err(local.unreadable(error)),
        };
        scan.add(u64::from(letter.length));
        let flies = local.shared.index().claimed_letters.contains(&id);
        for (bytes, rows, meta) in read.live(&letter.live) {
            dead.insert((letter.position, letter.ordinal, meta.original));
            if !matcher.batch(bytes) {
                continue;
            }
            let Some(occurrence) = at(local, found, letter.position) else {
                break;
            };
            match (letter.queued, flies) {
                (None, _) => occurrence.dead += one(rows),
                (Some(_), true) => occurrence.in_flight += one(rows),
                (Some(_), false) => occurrence.waiting += one(rows),
            }
        }
    }
    Ok(dead)
}

/// Erases what is meant of letters: those that stay leave the file, which goes with the last of them.
/// Returns whether it has to be done again.
pub(super) fn erase(
    local: &Local,
    matcher: &dyn Matcher,
    scan: &Scan,
    give_back: &dyn Fn(DestinationId, DeliveryId),
    holds: &mut Holds<'_>,
    sum: &mut Erased,
) -> Result<bool, Error> {
    let files: Vec<u32> = local.shared.index().dead_files.keys().copied().collect();
    let mut again = false;
    for file in files {
        check(scan)?;
        let meant = search(local, file, matcher, scan)?;
        if meant.is_empty() {
            continue;
        }
        // What comes to the dead letters meanwhile comes to another file.
        again = true;
        leave(local, file, &meant, give_back, holds, sum)?;
    }
    Ok(again)
}

/// Which batches of a file are meant, by the offset of their record.
fn search(
    local: &Local,
    file: u32,
    matcher: &dyn Matcher,
    scan: &Scan,
) -> Result<BTreeMap<u64, BTreeSet<u32>>, Error> {
    let shared = &local.shared;
    let read =
        ReadFile::open(&shared.disk, &shared.layout.dead(file)).and_then(|file| file.whole());
    let read = sound(read).map_err(|error| local.unreadable(error))?;
    // Gone: its last letter went.
    let bytes = read.unwrap_or_default();
    let mut meant: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for (offset, _, frame) in record::scan(&bytes) {
        if frame.name.kind != Kind::Dead {
            continue;
        }
        let Ok(record) = frame.open(&shared.settings.keys) else {
            continue;
        };
        let slices = (0u32..).zip(&record.slices);
        let hits: BTreeSet<u32> = slices
            .filter(|(_, slice)| matcher.batch(slice))
            .map(|(at, _)| at)
            .collect();
        if !hits.is_empty() {
            meant.insert(offset as u64, hits);
        }
    }
    scan.add(bytes.len() as u64);
    Ok(meant)
}

/// Has the letters of a file leave it, those that are not in flight.
fn leave(
    local: &Local,
    file: u32,
    meant: &BTreeMap<u64, BTreeSet<u32>>,
    give_back: &dyn Fn(DestinationId, DeliveryId),
    holds: &mut Holds<'_>,
    sum: &mut Erased,
) -> Result<(), Error> {
    let letters: Vec<(u64, Letter, DestinationId, DeliveryId)> = {
        let index = local.shared.index();
        let here = index.letters.iter().filter(|(_, one)| one.file == file);
        here.filter_map(|(id, letter)| {
            let info = &index.deliveries.get(&letter.position)?.row.info;
            Some((*id, letter.clone(), info.destination, info.id))
        })
        .collect()
    };
    if letters.is_empty() {
        // Nobody needs it: the owner removes it after the first answer, and before the second.
        for _ in 0..2 {
            local.ask(|reply| Command::Leave(file, Vec::new(), reply))?;
        }
        let path = local.shared.layout.dead(file);
        let there = exists(&local.shared.disk, &path).map_err(|error| local.unreadable(error))?;
        if there {
            let doing = "a dead-letter file that nobody needs could not be removed";
            return Err(Error::io(doing)(io::Error::other("it is still there")));
        }
        return Ok(());
    }
    for part in letters.chunks(LEAVE) {
        let mut leaving = Vec::new();
        let mut held = Vec::new();
        for (id, letter, destination, delivery) in part {
            let flies = letter.queued.is_some() && {
                held.push(*id);
                holds.letters(&[*id])
            };
            if letter.queued.is_some() {
                give_back(*destination, *delivery);
            }
            if flies {
                continue;
            }
            let without = meant.get(&letter.offset).cloned().unwrap_or_default();
            leaving.push(Leaving { id: *id, without });
        }
        let gone: Vec<u64> = leaving.iter().map(|one| one.id).collect();
        let erased = local.ask(|reply| Command::Leave(file, leaving, reply))?;
        sum.waiting += erased.waiting;
        sum.dead += erased.dead;
        held.retain(|id| gone.contains(id));
        holds.let_go_of_letters(&held);
    }
    Ok(())
}
