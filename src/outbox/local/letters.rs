//! What a person does with dead letters: list them, look at one, send them again, throw them
//! away.
//!
//! A replay moves no payload: the slices become a letter of their own that waits in the queue of
//! its destination, behind what waits there already, and is claimed out of the dead-letter file.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::outbox::error::Error;
use crate::outbox::letter::Moved;
use crate::outbox::letter::{DeadFilter, DeadLetter, DeadPage, LetterId};
use crate::outbox::local::files::read::ReadError;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Loss, Reply};

/// Letters moved with one sync.
const MOVE: usize = 4096;

/// The dead letters behind `after`, at most `limit` (and at least one, if there is one).
/// Those that are being sent again are not among them. Blocks on the disk.
///
/// # Errors
/// A damaged letter was met and the state that says so could not be made durable.
pub(in crate::outbox) fn dead_letters(
    local: &Local,
    filter: DeadFilter,
    after: Option<LetterId>,
    limit: usize,
) -> Result<DeadPage, Error> {
    let limit = limit.max(1);
    let records = local.shared.index().dead_after(filter, after, limit);
    let more_records = records.len() > limit;
    let mut passed = None;
    let mut page = DeadPage::default();
    'records: for (id, delivery, letter) in records.into_iter().take(limit) {
        let read = match local.shared.read_letter(delivery, &letter) {
            Ok(read) => read,
            Err(ReadError::Unreadable(error)) => return Err(local.unreadable(error)),
            Err(ReadError::Damaged) => {
                if local.shared.index().letters.contains_key(&id) {
                    local.shared.suspect(delivery, id, &letter);
                    page.damaged += letter.tally.batches;
                }
                // Where the next page begins, should all of this one be damaged.
                passed = Some(LetterId {
                    letter: id,
                    slice: u32::MAX,
                });
                continue;
            }
        };
        for slice in letter.live.ones() {
            let id = LetterId { letter: id, slice };
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            if page.letters.len() == limit {
                page.next = page.letters.last().map(|last| last.id);
                break 'records;
            }
            page.letters
                .extend(read.slice(id).map(|(letter, _)| letter));
        }
        passed = page.letters.last().map(|last| last.id).max(passed);
    }
    if page.next.is_none() && more_records {
        page.next = passed;
    }
    Ok(page)
}

/// One dead letter with its payload; `None`: it is not there, or it waits to be sent again.
pub(in crate::outbox) fn dead_letter(
    local: &Local,
    id: LetterId,
) -> Result<Option<(DeadLetter, Bytes)>, Error> {
    let letter = local.shared.index().letter(id.letter);
    let Some((delivery, letter)) = letter.filter(|(_, letter)| letter.is_dead(id.slice)) else {
        return Ok(None);
    };
    match local.shared.read_letter(delivery, &letter) {
        Ok(read) => Ok(read.slice(id)),
        Err(ReadError::Unreadable(error)) => Err(local.unreadable(error)),
        // Its file may have gone with it since.
        Err(ReadError::Damaged) if !local.shared.index().letters.contains_key(&id.letter) => {
            Ok(None)
        }
        Err(ReadError::Damaged) => Err(local.shared.suspect(delivery, id.letter, &letter)),
    }
}

/// Sends dead letters again, with the payload they have. They queue behind what waits for
/// their destination now. Those of a cancelled delivery stay where they are. Durable on return. Blocks on the disk.
///
/// # Errors
/// The state could not be made durable. Of many letters the first may have been moved; the
/// call can be made again.
pub(in crate::outbox) fn replay(local: &Local, ids: &[LetterId]) -> Result<Moved, Error> {
    move_all(local, ids, Command::Replay)
}

/// Throws dead letters away. Durable on return. Blocks on the disk.
pub(in crate::outbox) fn discard(local: &Local, ids: &[LetterId]) -> Result<Moved, Error> {
    move_all(local, ids, Command::Discard)
}

fn move_all(
    local: &Local,
    ids: &[LetterId],
    command: impl Fn(Vec<(LetterId, u32)>, Reply<Moved>) -> Command,
) -> Result<Moved, Error> {
    let ids: BTreeSet<LetterId> = ids.iter().copied().collect();
    let ids: Vec<LetterId> = ids.into_iter().collect();
    let mut moved = Moved::default();
    for part in ids.chunks(MOVE) {
        let weighed = weigh(local, part)?;
        let part = local.ask(|reply| command(weighed, reply))?;
        moved.letters += part.letters;
        moved.rows += part.rows;
    }
    Ok(moved)
}

/// Reads how many rows are in each of the letters that are there. Here and not on the
/// owner's thread: it means reading their payloads.
fn weigh(local: &Local, ids: &[LetterId]) -> Result<Vec<(LetterId, u32)>, Error> {
    let mut weighed = Vec::new();
    let mut lost = Vec::new();
    for group in ids.chunk_by(|one, other| one.letter == other.letter) {
        let Some(first) = group.first() else {
            continue;
        };
        let letter = local.shared.index().letter(first.letter);
        let Some((delivery, letter)) = letter else {
            continue;
        };
        match local.shared.read_letter(delivery, &letter) {
            Ok(read) => weighed.extend(group.iter().filter_map(|id| {
                let rows = read.record.rows.get(id.slice as usize)?;
                Some((*id, *rows))
            })),
            Err(ReadError::Unreadable(error)) => return Err(local.unreadable(error)),
            // Its file may have gone with it since.
            Err(ReadError::Damaged)
                if !local.shared.index().letters.contains_key(&first.letter) => {}
            Err(ReadError::Damaged) => lost.push(Loss::Letter(first.letter)),
        }
    }
    if !lost.is_empty() {
        local.ask(|reply| Command::Lost(lost, reply))?;
    }
    Ok(weighed)
}
