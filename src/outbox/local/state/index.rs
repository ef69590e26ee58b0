//! What is known of the outbox in memory: the listed deliveries, the queue of each destination,
//! the claims. Bodies stay on the disk; of the entries there is one bit each, and that only in
//! segments where some have settled.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::letter::{DeadFilter, LetterId};
use crate::outbox::local::state::attempt::Registered;
use crate::outbox::local::state::delivery::{Delivery, Pick, Segment};
use crate::outbox::local::state::rows::{Account, DeadFileRow, Letter, Webhook};
use crate::outbox::note::NoteKey;
use crate::outbox::webhook::WebhookKey;

/// Everything in memory. Changed by the owner's durable changes, and by claims.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Index {
    /// Boxed: the map has room for half as many again, and some are large.
    pub deliveries: BTreeMap<u64, Box<Delivery>>,
    pub by_id: HashMap<DeliveryId, u64>,
    pub queues: HashMap<DestinationId, BTreeMap<u64, Work>>,
    pub accounts: HashMap<DestinationId, Account>,
    pub notes: BTreeMap<NoteKey, Arc<[u8]>>,
    pub webhooks: HashMap<WebhookKey, Webhook>,
    /// Deliveries that are being received.
    pub receiving: HashMap<DeliveryId, Registered>,
    /// Deliveries that have begun and are not committed: those of `receiving` that were reserved, and
    /// those that failed.
    pub attempts: BTreeMap<DeliveryId, Arc<AttemptRow>>,
    /// Of these the state on the disk does not say yet what stands here.
    pub unsaved: BTreeSet<DeliveryId>,
    pub letters: BTreeMap<u64, Letter>,
    pub claimed_letters: HashSet<u64>,
    pub dead_files: BTreeMap<u32, DeadFile>,
    /// Entries and letters that were given up as damaged, of listed deliveries: what a salvage may
    /// bring back.
    pub lost_entries: BTreeSet<(u64, u32)>,
    pub lost_letters: BTreeMap<u64, Letter>,
    /// Deliveries that are being cancelled: nothing of them is given out from the moment of the
    /// decision, before it is durable.
    pub cancelling: HashSet<u64>,
    /// Deliveries of which nothing is given out before somebody releases them.
    pub held: HashSet<DeliveryId>,
    /// Entries and letters that are being erased: they are not given out.
    pub erasing: BTreeSet<(u64, u32)>,
    pub erasing_letters: HashSet<u64>,
    pub next_position: u64,
    pub next_letter: u64,
}

/// A dead-letter file as the state knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct DeadFile {
    pub row: DeadFileRow,
    /// Letters that lie in it.
    pub letters: u64,
}

/// One turn in the queue of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Work {
    /// The delivery at this position.
    Delivery,
    /// Letters that were replayed together.
    // Boxed, since there are few of them beside very many deliveries.
    #[allow(clippy::box_collection)]
    Replay(Box<BTreeSet<u64>>),
}

impl Index {
    /// Claims up to `max` pieces of what stands first in the queue of `destination`.
    pub fn pick(&mut self, destination: DestinationId, max: usize) -> Pick {
        let Some((&position, work)) = self
            .queues
            .get(&destination)
            .and_then(|queue| queue.iter().find(|(position, _)| !self.is_held(**position)))
        else {
            return Pick::Nothing;
        };
        let cancelled = self.is_cancelled(position);
        match work {
            Work::Delivery if cancelled => Pick::Nothing,
            Work::Delivery => self
                .deliveries
                .get_mut(&position)
                .map_or(Pick::Nothing, |delivery| {
                    delivery.pick(position, max, &self.erasing)
                }),
            Work::Replay(letters) => {
                let free: Vec<u64> = letters
                    .iter()
                    .filter(|id| !self.claimed_letters.contains(id))
                    .filter(|id| !self.erasing_letters.contains(id))
                    .filter(|id| {
                        let letter = self.letters.get(id);
                        !letter.is_some_and(|letter| self.is_cancelled(letter.position))
                    })
                    .take(max)
                    .copied()
                    .collect();
                self.pick_letters(&free)
            }
        }
    }

    /// Whether what is left of a delivery is not to be sent.
    pub fn is_cancelled(&self, position: u64) -> bool {
        self.cancelling.contains(&position)
            || self
                .deliveries
                .get(&position)
                .is_some_and(|delivery| delivery.counters().cancelled_at.is_some())
    }

    fn pick_letters(&mut self, ids: &[u64]) -> Pick {
        let mut picked = Vec::new();
        for &id in ids {
            let Some(letter) = self.letters.get(&id) else {
                continue;
            };
            let Some(delivery) = self.deliveries.get_mut(&letter.position) else {
                continue;
            };
            delivery.flight_mut().tally += letter.tally;
            self.claimed_letters.insert(id);
            picked.push((id, letter.clone(), Arc::clone(&delivery.row)));
        }
        if picked.is_empty() {
            return Pick::Nothing;
        }
        Pick::Letters(picked)
    }

    /// Gives a claim back. One that is not held is not an error.
    pub fn release_entry(&mut self, id: DeliveryId, ordinal: u32) {
        if let Some(delivery) = self.delivery_mut(id) {
            delivery.release(ordinal);
        }
    }

    /// Gives the claim on a replayed letter back.
    pub fn release_letter(&mut self, id: u64) {
        if self.claimed_letters.remove(&id)
            && let Some(letter) = self.letters.get(&id)
            && let Some(delivery) = self.deliveries.get_mut(&letter.position)
        {
            delivery.flight_mut().tally -= letter.tally;
        }
    }

    pub fn delivery(&self, id: DeliveryId) -> Option<(u64, &Delivery)> {
        let position = *self.by_id.get(&id)?;
        Some((position, self.deliveries.get(&position)?))
    }

    fn delivery_mut(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        let delivery = self.deliveries.get_mut(self.by_id.get(&id)?)?;
        Some(delivery)
    }

    pub fn segment_mut(&mut self, position: u64, number: u32) -> Option<&mut Segment> {
        self.deliveries.get_mut(&position)?.segments.get_mut(number)
    }

    /// Puts a letter where it belongs: into the queue, if it was replayed.
    pub fn insert_letter(&mut self, id: u64, letter: Letter) {
        if let Some(turn) = letter.queued
            && let Some(delivery) = self.deliveries.get(&letter.position)
        {
            let queue = self
                .queues
                .entry(delivery.row.info.destination)
                .or_default();
            match queue.entry(turn).or_insert(Work::Replay(Box::default())) {
                Work::Replay(letters) => {
                    letters.insert(id);
                }
                Work::Delivery => {}
            }
        }
        self.next_letter = self.next_letter.max(id + 1);
        self.dead_files.entry(letter.file).or_default().letters += 1;
        self.letters.insert(id, letter);
    }

    /// Takes a letter out, with its turn in the queue when it was the last one there, and with
    /// its claim.
    pub fn remove_letter(&mut self, id: u64) {
        self.release_letter(id);
        let Some(letter) = self.letters.remove(&id) else {
            return;
        };
        if let Some(file) = self.dead_files.get_mut(&letter.file) {
            file.letters = file.letters.saturating_sub(1);
        }
        if let Some(turn) = letter.queued
            && let Some(delivery) = self.deliveries.get(&letter.position)
            && let Some(queue) = self.queues.get_mut(&delivery.row.info.destination)
            && let Some(Work::Replay(letters)) = queue.get_mut(&turn)
        {
            letters.remove(&id);
            if letters.is_empty() {
                let destination = delivery.row.info.destination;
                self.leave_queue(destination, turn);
            }
        }
    }

    pub fn insert_delivery(&mut self, position: u64, delivery: Box<Delivery>) {
        if !delivery.segments.is_empty() {
            self.queues
                .entry(delivery.row.info.destination)
                .or_default()
                .insert(position, Work::Delivery);
        }
        self.next_position = self.next_position.max(position + 1);
        self.by_id.insert(delivery.row.info.id, position);
        self.deliveries.insert(position, delivery);
    }

    pub fn remove_delivery(&mut self, position: u64) {
        if let Some(delivery) = self.deliveries.remove(&position) {
            self.by_id.remove(&delivery.row.info.id);
            self.leave_queue(delivery.row.info.destination, position);
        }
    }

    /// Ends a turn in the queue.
    pub fn leave_queue(&mut self, destination: DestinationId, position: u64) {
        if let Some(queue) = self.queues.get_mut(&destination) {
            queue.remove(&position);
            if queue.is_empty() {
                self.queues.remove(&destination);
            }
        }
    }

    /// A letter and its delivery.
    pub(in crate::outbox) fn letter(&self, id: u64) -> Option<(DeliveryId, Letter)> {
        let letter = self.letters.get(&id)?;
        let delivery = self.deliveries.get(&letter.position)?;
        Some((delivery.row.info.id, letter.clone()))
    }

    /// Up to `limit` + 1 dead records that may hold letters behind `after`.
    pub fn dead_after(
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

    /// Whether a delivery of this id is committed or being received.
    pub fn is_known(&self, id: DeliveryId) -> bool {
        self.by_id.contains_key(&id) || self.receiving.contains_key(&id)
    }

    /// Registers that a delivery is being staged; `false` if it is known and was not reserved.
    pub fn stage(&mut self, id: DeliveryId, webhook: Option<WebhookKey>) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        match self.receiving.get_mut(&id) {
            Some(registered) => !std::mem::replace(&mut registered.staged, true),
            None => {
                self.receiving.insert(id, Registered::staged(webhook));
                true
            }
        }
    }

    /// A delivery is not being staged any more.
    pub fn unstage(&mut self, id: DeliveryId) {
        if let Some(registered) = self.receiving.get_mut(&id) {
            registered.staged = false;
            if registered.reserved.is_none() {
                self.receiving.remove(&id);
            }
        }
    }

    /// Takes the claims and the deliveries on their way in from the index before it.
    pub fn take_over(&mut self, before: &mut Index) {
        self.erasing = std::mem::take(&mut before.erasing);
        self.erasing_letters = std::mem::take(&mut before.erasing_letters);
        self.receiving = std::mem::take(&mut before.receiving);
        self.unsaved = std::mem::take(&mut before.unsaved);
        for (id, row) in std::mem::take(&mut before.attempts) {
            if self.by_id.contains_key(&id) {
                self.unsaved.remove(&id);
                continue;
            }
            // What is in memory is the newer.
            if self.attempts.insert(id, Arc::clone(&row)).as_ref() != Some(&row) {
                self.unsaved.insert(id);
            }
        }
        for (position, old) in &mut before.deliveries {
            let Some(delivery) = self.deliveries.get_mut(position) else {
                continue;
            };
            if delivery.row.info.id != old.row.info.id {
                continue;
            }
            delivery.take_over(old);
        }
        for id in std::mem::take(&mut before.claimed_letters) {
            let Some(letter) = self
                .letters
                .get(&id)
                .filter(|letter| letter.queued.is_some())
            else {
                continue;
            };
            if let Some(delivery) = self.deliveries.get_mut(&letter.position) {
                delivery.flight_mut().tally += letter.tally;
                self.claimed_letters.insert(id);
            }
        }
    }
}
