//! What a person does with dead letters: list them, look at one, send them again, throw them
//! away.
//!
//! A replay moves no payload: the slices become a letter of their own that waits in the queue of
//! its destination, behind what waits there already, and is claimed out of the dead-letter file.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::Outbox;
use super::change::Change;
use super::dead::{DeadFilter, DeadLetter, DeadPage, LetterId};
use super::delivery::Tally;
use super::error::Error;
use super::index::Index;
use super::owner::{Command, Loss, Owner, Reply};
use super::state::{Bits, Letter};
use crate::model::DeliveryId;

/// Letters moved with one sync.
const MOVE: usize = 4096;

/// How many dead letters a call has moved. One that is not there, not dead any more, or damaged,
/// does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Batches.
    pub letters: u64,
    /// Rows in them.
    pub rows: u64,
}

impl Outbox {
    /// The dead letters behind `after`, at most `limit` (and at least one, if there is one).
    /// Those that are being sent again are not among them. Blocks on the disk.
    ///
    /// # Errors
    /// A damaged letter was met and the state that says so could not be made durable.
    pub fn dead_letters(
        &self,
        filter: DeadFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        let limit = limit.max(1);
        let records = self.shared.index().dead_after(filter, after, limit);
        let more_records = records.len() > limit;
        let mut page = DeadPage::default();
        let mut lost = Vec::new();
        'records: for (id, delivery, letter) in records.into_iter().take(limit) {
            let Ok(read) = self.shared.read_letter(delivery, &letter) else {
                lost.push(Loss::Letter(id));
                continue;
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
        }
        if page.next.is_none() && more_records {
            page.next = page.letters.last().map(|last| last.id);
        }
        if !lost.is_empty() {
            self.ask(|reply| Command::Lost(lost, reply))?;
            if page.letters.is_empty() {
                return self.dead_letters(filter, after, limit);
            }
        }
        Ok(page)
    }

    /// One dead letter with its payload; `None`: it is not there, or it waits to be sent again.
    ///
    /// # Errors
    /// It is damaged and the state that says so could not be made durable.
    pub fn dead_letter(&self, id: LetterId) -> Result<Option<(DeadLetter, Bytes)>, Error> {
        let letter = self.shared.index().letter(id.letter);
        let Some((delivery, letter)) = letter.filter(|(_, letter)| letter.is_dead(id.slice)) else {
            return Ok(None);
        };
        match self.shared.read_letter(delivery, &letter) {
            Ok(read) => Ok(read.slice(id)),
            Err(_) => {
                self.ask(|reply| Command::Lost(vec![Loss::Letter(id.letter)], reply))?;
                Ok(None)
            }
        }
    }

    /// Sends dead letters again, with the payload they have. They queue behind what waits for
    /// their destination now. Those of a cancelled delivery stay where they are. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The state could not be made durable. Of many letters the first may have been moved; the
    /// call can be made again.
    pub fn replay(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.move_all(ids, Command::Replay)
    }

    /// Throws dead letters away. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Outbox::replay`].
    pub fn discard(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.move_all(ids, Command::Discard)
    }

    fn move_all(
        &self,
        ids: &[LetterId],
        command: impl Fn(Vec<(LetterId, u32)>, Reply<Moved>) -> Command,
    ) -> Result<Moved, Error> {
        let ids: BTreeSet<LetterId> = ids.iter().copied().collect();
        let ids: Vec<LetterId> = ids.into_iter().collect();
        let mut moved = Moved::default();
        for part in ids.chunks(MOVE) {
            let weighed = self.weigh(part)?;
            let part = self.ask(|reply| command(weighed, reply))?;
            moved.letters += part.letters;
            moved.rows += part.rows;
        }
        Ok(moved)
    }

    /// Reads how many rows are in each of the letters that are there. Here and not on the
    /// owner's thread: it means reading their payloads.
    fn weigh(&self, ids: &[LetterId]) -> Result<Vec<(LetterId, u32)>, Error> {
        let mut weighed = Vec::new();
        let mut lost = Vec::new();
        for group in ids.chunk_by(|one, other| one.letter == other.letter) {
            let Some(first) = group.first() else {
                continue;
            };
            let letter = self.shared.index().letter(first.letter);
            let Some((delivery, letter)) = letter else {
                continue;
            };
            match self.shared.read_letter(delivery, &letter) {
                Ok(read) => weighed.extend(group.iter().filter_map(|id| {
                    let rows = read.record.rows.get(id.slice as usize)?;
                    Some((*id, *rows))
                })),
                // Its file may have gone with it since.
                Err(_) if !self.shared.index().letters.contains_key(&first.letter) => {}
                Err(_) => lost.push(Loss::Letter(first.letter)),
            }
        }
        if !lost.is_empty() {
            self.ask(|reply| Command::Lost(lost, reply))?;
        }
        Ok(weighed)
    }

    /// Sends a command to the owner and waits for the answer.
    pub(super) fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| Error::Closed)?
    }
}

impl Owner {
    /// Takes slices out of their letters; replayed ones become letters that wait.
    pub fn move_letters(
        &mut self,
        ids: &[(LetterId, u32)],
        replay: bool,
        change: &mut Change,
    ) -> Moved {
        let index = self.shared().index();
        let mut moved = Moved::default();
        let mut turn = None;
        for group in ids.chunk_by(|(one, _), (other, _)| one.letter == other.letter) {
            let Some(id) = group.first().map(|(id, _)| id.letter) else {
                continue;
            };
            let letter = change.letter(&index, id);
            let movable = |letter: &Letter| {
                letter.queued.is_none() && !(replay && index.is_cancelled(letter.position))
            };
            let Some(mut letter) = letter.filter(movable) else {
                continue;
            };
            let mut taken = Bits::none(letter.live.bytes().len() as u32 * 8);
            let mut tally = Tally::default();
            for (id, rows) in group {
                if letter.live.set(id.slice, false) {
                    taken.set(id.slice, true);
                    tally += Tally {
                        rows: u64::from(*rows),
                        batches: 1,
                    };
                }
            }
            if tally.batches == 0 {
                continue;
            }
            moved.letters += tally.batches;
            moved.rows += tally.rows;
            letter.tally -= tally;
            change.undead(&index, letter.position, tally, !replay);
            if replay {
                let turn = *turn.get_or_insert_with(|| change.take_position(&index));
                let waiting = Letter {
                    live: taken,
                    tally,
                    queued: Some(turn),
                    ..letter.clone()
                };
                change.add_letter(&index, waiting);
            }
            if letter.live.count() == 0 {
                change.drop_letter(id);
            } else {
                change.put_letter(id, letter);
            }
        }
        moved
    }
}

impl Index {
    /// A letter and its delivery.
    pub(super) fn letter(&self, id: u64) -> Option<(DeliveryId, Letter)> {
        let letter = self.letters.get(&id)?;
        let delivery = self.deliveries.get(&letter.position)?;
        Some((delivery.row.info.id, letter.clone()))
    }

    /// Up to `limit` + 1 dead records that may hold letters behind `after`.
    fn dead_after(
        &self,
        filter: DeadFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Vec<(u64, DeliveryId, Letter)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(after.letter));
        self.letters
            .range((from, Bound::Unbounded))
            .filter(|(id, letter)| {
                let left = match after {
                    Some(after) if after.letter == **id => {
                        letter.live.ones().any(|slice| slice > after.slice)
                    }
                    _ => true,
                };
                left && letter.queued.is_none() && self.matches(filter, letter)
            })
            .filter_map(|(id, _)| {
                let (delivery, letter) = self.letter(*id)?;
                Some((*id, delivery, letter))
            })
            .take(limit + 1)
            .collect()
    }

    fn matches(&self, filter: DeadFilter, letter: &Letter) -> bool {
        let Some(delivery) = self.deliveries.get(&letter.position) else {
            return false;
        };
        let info = &delivery.row.info;
        filter.delivery.is_none_or(|id| id == info.id)
            && filter.destination.is_none_or(|id| id == info.destination)
    }
}

impl Letter {
    fn is_dead(&self, slice: u32) -> bool {
        self.queued.is_none() && self.live.get(slice)
    }
}
