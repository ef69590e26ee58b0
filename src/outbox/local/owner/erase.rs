//! What an erasure has written, taken over on the owner's thread.

use std::collections::BTreeMap;
use std::path::Path;

use crate::outbox::delivery::Tally;
use crate::outbox::erase::Erased;
use crate::outbox::error::Error;
use crate::outbox::local::files::read::sound;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::owner::command::{Leaving, Loss, Rewritten};
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::owner::lose;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::rows::{Bits, Letter};

/// Puts a segment that was written anew into the place of the old one. Returns what of it is not sent
/// any more; `None`: the segment is gone.
pub(in crate::outbox) fn rewritten(
    keeper: &mut Keeper,
    rewritten: &Rewritten,
    change: &mut Change,
) -> Result<Option<Tally>, Error> {
    keeper.shared.check_healthy()?;
    let known = {
        let index = keeper.shared.index();
        index
            .deliveries
            .get(&rewritten.position)
            .and_then(|delivery| {
                let segment = delivery.segments.get(rewritten.number)?;
                Some((delivery.row.info.id, segment.row.summary))
            })
    };
    let Some((id, summary)) = known else {
        return Ok(None);
    };
    let layout = keeper.shared.layout.clone();
    let path = layout.segment(id, rewritten.number);
    replace(keeper, &rewritten.draft, &path)?;
    keeper.shared.capacity.add(rewritten.bytes);
    keeper.shared.capacity.give_back(summary.bytes);
    let disk = &keeper.shared.disk;
    let file = SegmentFile::open(disk, &path, id, summary.first, summary.entries);
    match sound(file) {
        Ok(Some(file)) => {
            let index = keeper.shared.index();
            let key = (rewritten.position, rewritten.number);
            Ok(Some(change.rewritten(
                &index,
                key,
                file.places(),
                rewritten.bytes,
            )))
        }
        // The state has to be read anew: it counts on a file that is not there any more.
        Ok(None) => Err(give_up(
            keeper,
            "a segment that was written anew is damaged",
        )),
        Err(error) => {
            let error = keeper.unreadable(error);
            Err(give_up(keeper, &error.to_string()))
        }
    }
}

/// The same for rejected rows, of which so many are gone. Returns whether they are.
pub(in crate::outbox) fn rewritten_rows(
    keeper: &mut Keeper,
    rewritten: &Rewritten,
    rows: u64,
    change: &mut Change,
) -> Result<bool, Error> {
    keeper.shared.check_healthy()?;
    let id = {
        let index = keeper.shared.index();
        let delivery = index.deliveries.get(&rewritten.position);
        delivery.map(|delivery| delivery.row.info.id)
    };
    let Some(id) = id else {
        return Ok(false);
    };
    let path = keeper.shared.layout.rejected(id);
    let before = path.metadata().map_or(0, |meta| meta.len());
    replace(keeper, &rewritten.draft, &path)?;
    keeper.shared.capacity.add(rewritten.bytes);
    keeper.shared.capacity.give_back(before);
    change.erase_rejected(&keeper.shared.index(), rewritten.position, rows);
    Ok(true)
}

fn replace(keeper: &mut Keeper, draft: &Path, path: &Path) -> Result<(), Error> {
    let disk = keeper.shared.disk.clone();
    let renamed = disk.rename(draft, path);
    renamed.map_err(Error::io(
        "a file that was written anew could not be put into its place",
    ))?;
    let directory = path.parent().unwrap_or(path);
    disk.sync_directory(directory)
        .map_err(|error| give_up(keeper, &format!("a sync of a directory failed: {error}")))
}

/// What is on the disk is to be read anew.
fn give_up(keeper: &mut Keeper, what: &str) -> Error {
    keeper.shared.refuse_writes(what);
    keeper.store = None;
    keeper.shared.refusal()
}

/// Moves letters out of their file to the one at hand, each without some of its batches. One of which
/// none is left is gone. Those in flight stay.
pub(in crate::outbox) fn leave(
    keeper: &mut Keeper,
    file: u32,
    leaving: Vec<Leaving>,
    change: &mut Change,
) -> Result<Erased, Error> {
    keeper.shared.check_healthy()?;
    keeper.dead.leave(file);
    let mut erased = Erased::default();
    let mut moves: BTreeMap<u64, (Letter, Option<Letter>)> = BTreeMap::new();
    for one in leaving {
        let (known, flies) = {
            let index = keeper.shared.index();
            let known = change.letter(&index, one.id).zip(index.letter(one.id));
            (known, index.claimed_letters.contains(&one.id))
        };
        let Some((old, (delivery, _))) = known.filter(|(old, _)| old.file == file && !flies) else {
            continue;
        };
        let read = sound(keeper.shared.read_letter(delivery, &old));
        let Some(read) = read.map_err(|error| keeper.unreadable(error))? else {
            lose::lose(keeper, &[Loss::Letter(one.id)], change);
            continue;
        };
        let stays =
            |at: u32| one.without.is_empty() || (old.live.get(at) && !one.without.contains(&at));
        let (meta, slices) = read.only(stays);
        if slices.is_empty() {
            moves.insert(one.id, (old, None));
            continue;
        }
        let place = keeper.append_dead(&meta, old.ordinal, &slices)?;
        let mut new = Letter {
            file: place.file,
            offset: place.offset,
            length: place.length,
            ..old.clone()
        };
        if !one.without.is_empty() {
            new.live = Bits::all(slices.len() as u32);
            new.tally = Tally {
                rows: slices.iter().map(|slice| u64::from(slice.rows)).sum(),
                batches: slices.len() as u64,
            };
        }
        moves.insert(one.id, (old, Some(new)));
    }
    keeper.sync_dead()?;
    let index = keeper.shared.index();
    for (id, (old, new)) in moves {
        let mut gone = old.tally;
        gone -= new.as_ref().map_or(Tally::default(), |new| new.tally);
        match old.queued {
            None => erased.dead += gone,
            Some(_) => erased.waiting += gone,
        }
        change.erase_letter(&index, &old, gone);
        match new {
            // Its places are those that it had.
            Some(new) if gone == Tally::default() && new.live == old.live => {
                change.put_letter(id, new)
            }
            Some(new) => {
                change.drop_letter(id);
                change.add_letter(&index, new);
            }
            None => change.drop_letter(id),
        }
    }
    drop(index);
    if let Some((number, length)) = keeper.dead.current() {
        change.set_dead_file(&keeper.shared.index(), number, length);
    }
    keeper.dead.roll();
    Ok(erased)
}
