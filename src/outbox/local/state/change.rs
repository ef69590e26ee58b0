//! A change of the durable state: built against the index, made durable as one sled batch, and
//! only then put into the index. The owner is the only one that makes any, so nothing it has
//! read from the index is altered under its hands; claims touch other fields.

mod effects;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(in crate::outbox) use effects::Effects;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::delivery::Tally;
use crate::outbox::local::files::segment::Places;
use crate::outbox::local::state::delivery::Delivery;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::{
    Account, Bits, CHUNK, Counters, DeadFileRow, Letter, SegmentRow, Webhook,
};
use crate::outbox::note::NoteKey;
use crate::outbox::webhook::WebhookKey;

/// What will be different; see the module.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Change {
    added: BTreeMap<u64, Delivery>,
    removed: BTreeSet<u64>,
    counters: BTreeMap<u64, Counters>,
    segments: BTreeMap<(u64, u32), SegmentChange>,
    letters: BTreeMap<u64, Option<Letter>>,
    dead_files: BTreeMap<u32, Option<DeadFileRow>>,
    lost_entries: BTreeMap<(u64, u32), bool>,
    lost_letters: BTreeMap<u64, Option<Letter>>,
    webhooks: BTreeMap<WebhookKey, Option<Webhook>>,
    accounts: BTreeMap<DestinationId, Option<Account>>,
    notes: BTreeMap<NoteKey, Option<Arc<[u8]>>>,
    attempts: BTreeMap<DeliveryId, Option<Arc<AttemptRow>>>,
    next_position: Option<u64>,
    next_letter: Option<u64>,
}

#[derive(Debug)]
struct SegmentChange {
    row: SegmentRow,
    bits: Bits,
    touched: BTreeSet<u32>,
    gone: bool,
    /// Its file is another one.
    rewritten: bool,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.counters.is_empty()
            && self.segments.is_empty()
            && self.letters.is_empty()
            && self.dead_files.is_empty()
            && self.lost_entries.is_empty()
            && self.lost_letters.is_empty()
            && self.webhooks.is_empty()
            && self.accounts.is_empty()
            && self.notes.is_empty()
            && self.attempts.is_empty()
    }

    /// The next free place in the queues.
    pub fn take_position(&mut self, index: &Index) -> u64 {
        let position = self.next_position.unwrap_or(index.next_position);
        self.next_position = Some(position + 1);
        position
    }

    fn take_letter(&mut self, index: &Index) -> u64 {
        let letter = self.next_letter.unwrap_or(index.next_letter);
        self.next_letter = Some(letter + 1);
        letter
    }

    /// Adds a delivery; its account becomes the newest of its destination.
    pub fn add_delivery(&mut self, index: &Index, position: u64, delivery: Delivery) {
        let row = &delivery.row;
        let info = &row.info;
        let newest = match self.accounts.get(&info.destination) {
            Some(account) => account.as_ref(),
            None => index.accounts.get(&info.destination),
        };
        if newest.is_none_or(|account| account.position <= position) && !info.account.is_empty() {
            let account = Account {
                position,
                label: (*info.label).to_owned(),
                sealed: info.account.clone(),
            };
            self.accounts.insert(info.destination, Some(account));
        }
        if let Some(key) = info.webhook {
            let webhook = Webhook {
                delivery: info.id,
                rows: row.totals.rows_in,
                committed: row.committed,
            };
            self.webhooks.insert(key, Some(webhook));
        }
        if index.attempts.contains_key(&info.id) {
            self.attempts.insert(info.id, None);
        }
        self.counters.insert(position, delivery.counters());
        self.next_position = Some(
            self.next_position
                .unwrap_or(index.next_position)
                .max(position + 1),
        );
        self.added.insert(position, delivery);
    }

    pub fn put_account(&mut self, destination: DestinationId, account: Account) {
        self.accounts.insert(destination, Some(account));
    }

    /// Forgets a delivery that has settled, and its account if nobody needs that any more.
    pub fn remove_delivery(&mut self, index: &Index, position: u64) {
        let Some(delivery) = index.deliveries.get(&position) else {
            return;
        };
        self.removed.insert(position);
        self.forget_lost(index, position);
        let destination = delivery.row.info.destination;
        let needed = index.deliveries.iter().any(|(other, delivery)| {
            delivery.row.info.destination == destination && !self.removed.contains(other)
        });
        if !needed {
            self.accounts.insert(destination, None);
        }
    }

    /// Whether a note is not yet as wanted.
    pub fn alters_note(&self, index: &Index, key: NoteKey, text: Option<&Arc<[u8]>>) -> bool {
        let there = match self.notes.get(&key) {
            Some(note) => note.as_ref(),
            None => index.notes.get(&key),
        };
        there != text
    }

    /// Writes or removes a note.
    pub fn note(&mut self, key: NoteKey, text: Option<Arc<[u8]>>) {
        self.notes.insert(key, text);
    }

    /// What is to be of a delivery that is not committed; the outer `None`: what is.
    pub fn attempt(&self, id: DeliveryId) -> Option<Option<&Arc<AttemptRow>>> {
        self.attempts.get(&id).map(Option::as_ref)
    }

    pub fn put_attempt(&mut self, row: Arc<AttemptRow>) {
        self.attempts.insert(row.id(), Some(row));
    }

    pub fn drop_attempt(&mut self, id: DeliveryId) {
        self.attempts.insert(id, None);
    }

    pub fn forget_webhook(&mut self, key: WebhookKey) {
        self.webhooks.insert(key, None);
    }

    fn counters(&mut self, index: &Index, position: u64) -> &mut Counters {
        self.counters.entry(position).or_insert_with(|| {
            index
                .deliveries
                .get(&position)
                .map(|delivery| delivery.counters())
                .unwrap_or_default()
        })
    }

    fn segment(&mut self, index: &Index, position: u64, number: u32) -> Option<&mut SegmentChange> {
        use std::collections::btree_map::Entry;
        match self.segments.entry((position, number)) {
            Entry::Occupied(there) => Some(there.into_mut()),
            Entry::Vacant(free) => {
                let delivery = index.deliveries.get(&position)?;
                let segment = delivery.segments.get(number)?;
                let bits = segment
                    .settled
                    .clone()
                    .unwrap_or_else(|| Bits::none(segment.row.summary.entries));
                Some(free.insert(SegmentChange {
                    row: segment.row,
                    bits,
                    touched: BTreeSet::new(),
                    gone: false,
                    rewritten: false,
                }))
            }
        }
    }

    /// Settles one entry of the weight `all`, of which `dead` and `damaged` did not arrive.
    /// Returns false, and changes nothing, when it has settled before or is not there.
    pub fn settle_entry(
        &mut self,
        index: &Index,
        position: u64,
        ordinal: u32,
        all: Tally,
        outcome: Outcome,
    ) -> bool {
        let Some(number) = index
            .deliveries
            .get(&position)
            .and_then(|delivery| delivery.segment_of(ordinal))
            .map(|segment| segment.row.summary.number)
        else {
            return false;
        };
        let Some(segment) = self.segment(index, position, number) else {
            return false;
        };
        let local = ordinal - segment.row.summary.first;
        if !segment.bits.set(local, true) {
            return false;
        }
        segment.touched.insert(local / CHUNK);
        segment.row.settled_entries += 1;
        segment.row.settled += all;
        segment.row.damaged |= outcome.damaged != Tally::default();
        if outcome.damaged != Tally::default() {
            self.lost_entries.insert((position, ordinal), true);
        }
        self.counters(index, position).settle(all, outcome);
        true
    }

    /// Gives up what cannot be found any more of a segment, of which `places` says what can.
    /// Returns the weight that is lost.
    pub fn give_up_missing(
        &mut self,
        index: &Index,
        position: u64,
        number: u32,
        places: Option<&Places>,
    ) -> Tally {
        let Some(segment) = self.segment(index, position, number) else {
            return Tally::default();
        };
        segment.row.damaged = true;
        let mut lost = segment.row.left();
        let mut ordinals = Vec::new();
        for local in 0..segment.row.summary.entries {
            if segment.bits.get(local) {
                continue;
            }
            let ordinal = segment.row.summary.first + local;
            match places.and_then(|places| places.place(ordinal)) {
                Some(place) => lost -= place.tally(),
                None => {
                    segment.bits.set(local, true);
                    segment.touched.insert(local / CHUNK);
                    ordinals.push(ordinal);
                }
            }
        }
        if ordinals.is_empty() {
            return Tally::default();
        }
        segment.row.settled_entries += ordinals.len() as u32;
        segment.row.settled += lost;
        for ordinal in ordinals {
            self.lost_entries.insert((position, ordinal), true);
        }
        self.counters(index, position).damaged += lost;
        lost
    }

    /// Takes out a delivery, and all that belongs to it, that was withdrawn and never accepted.
    pub fn purge_delivery(&mut self, index: &Index, position: u64) {
        let Some(delivery) = index.deliveries.get(&position) else {
            return;
        };
        for number in delivery.segments.numbers() {
            if let Some(segment) = self.segment(index, position, number) {
                segment.gone = true;
            }
        }
        for (&key, webhook) in &index.webhooks {
            if webhook.delivery == delivery.row.info.id {
                self.webhooks.insert(key, None);
            }
        }
        self.removed.insert(position);
        self.forget_lost(index, position);
    }

    /// Cancels what neither flies nor has settled of a delivery, replayed letters included, and
    /// marks it so that nothing of it is given out again. Returns what it has cancelled.
    pub fn cancel(&mut self, index: &Index, position: u64, now: UnixMillis) -> Tally {
        let mut sum = Tally::default();
        let Some(delivery) = index.deliveries.get(&position) else {
            return sum;
        };
        for number in delivery.segments.numbers() {
            if let Some(segment) = self.segment(index, position, number) {
                sum += segment.cancel(delivery);
            }
        }
        for (&id, letter) in &index.letters {
            let waits = letter.position == position && letter.queued.is_some();
            if waits && !index.claimed_letters.contains(&id) && !self.letters.contains_key(&id) {
                sum += letter.tally;
                self.letters.insert(id, None);
            }
        }
        self.counters(index, position).cancelled += sum;
        self.mark_cancelled(index, position, now);
        sum
    }

    /// From now on nothing of the delivery is given out.
    pub fn mark_cancelled(&mut self, index: &Index, position: u64, now: UnixMillis) {
        let counters = self.counters(index, position);
        counters.cancelled_at.get_or_insert(now);
    }

    /// A segment was written anew, `bytes` long, without batches that were erased. Returns how much of
    /// what had not settled is gone.
    pub fn rewritten(
        &mut self,
        index: &Index,
        (position, number): (u64, u32),
        places: &Places,
        bytes: u64,
    ) -> Tally {
        let Some(segment) = self.segment(index, position, number) else {
            return Tally::default();
        };
        let (mut left, mut settled) = (Tally::default(), Tally::default());
        for local in 0..segment.row.summary.entries {
            let tally = places.tally(segment.row.summary.first + local);
            if segment.bits.get(local) {
                settled += tally;
            } else if tally == Tally::default() {
                segment.bits.set(local, true);
                segment.touched.insert(local / CHUNK);
                segment.row.settled_entries += 1;
            } else {
                left += tally;
            }
        }
        let mut erased = segment.row.left();
        erased -= left;
        segment.row.settled = settled;
        segment.row.summary.tally = settled;
        segment.row.summary.tally += left;
        segment.row.summary.bytes = bytes;
        segment.rewritten = true;
        self.counters(index, position).erased += erased;
        erased
    }

    /// So many of the rows of a delivery that could not be mapped are erased.
    pub fn erase_rejected(&mut self, index: &Index, position: u64, rows: u64) {
        let counters = self.counters(index, position);
        counters.erased_rejected = counters.erased_rejected.saturating_add(rows);
    }

    /// So much of a letter is erased.
    pub fn erase_letter(&mut self, index: &Index, letter: &Letter, gone: Tally) {
        let counters = self.counters(index, letter.position);
        if letter.queued.is_none() {
            counters.dead -= gone;
        }
        counters.erased += gone;
    }

    /// Adds a dead-letter record and returns its name.
    pub fn add_letter(&mut self, index: &Index, letter: Letter) -> u64 {
        let id = self.take_letter(index);
        self.letters.insert(id, Some(letter));
        id
    }

    /// A letter as it will be.
    pub fn letter(&self, index: &Index, id: u64) -> Option<Letter> {
        match self.letters.get(&id) {
            Some(letter) => letter.clone(),
            None => index.letters.get(&id).cloned(),
        }
    }

    pub fn put_letter(&mut self, id: u64, letter: Letter) {
        self.letters.insert(id, Some(letter));
    }

    pub fn drop_letter(&mut self, id: u64) {
        self.letters.insert(id, None);
    }

    /// Ends a replayed letter of which `outcome` did not arrive. Returns false when it is gone.
    pub fn settle_letter(&mut self, index: &Index, id: u64, outcome: Outcome) -> bool {
        let Some(letter) = self.letter(index, id) else {
            return false;
        };
        if letter.queued.is_none() {
            return false;
        }
        self.counters(index, letter.position)
            .settle(letter.tally, outcome);
        self.letters.insert(id, None);
        true
    }

    /// Gives a letter up whose record cannot be read.
    pub fn give_up_letter(&mut self, index: &Index, id: u64) -> Option<Letter> {
        let letter = self.letter(index, id)?;
        let counters = self.counters(index, letter.position);
        if letter.queued.is_none() {
            counters.dead -= letter.tally;
        }
        counters.damaged += letter.tally;
        self.letters.insert(id, None);
        self.lost_letters.insert(id, Some(letter.clone()));
        let row = DeadFileRow {
            damaged: true,
            ..self.dead_file(index, letter.file)
        };
        self.dead_files.insert(letter.file, Some(row));
        Some(letter)
    }

    /// What was given up of a delivery has been found again: `tally` of it is in the dead letters,
    /// or waits, from now on.
    pub fn found(&mut self, index: &Index, lost: Lost, position: u64, letter: Letter) -> u64 {
        match lost {
            Lost::Entry(ordinal) => {
                self.lost_entries.insert((position, ordinal), false);
            }
            Lost::Letter(id) => {
                self.lost_letters.insert(id, None);
            }
        }
        let counters = self.counters(index, position);
        counters.damaged -= letter.tally;
        if letter.queued.is_none() {
            counters.dead += letter.tally;
        }
        self.add_letter(index, letter)
    }

    /// What was given up of a delivery is forgotten with it.
    fn forget_lost(&mut self, index: &Index, position: u64) {
        for key in index
            .lost_entries
            .range((position, 0)..=(position, u32::MAX))
        {
            self.lost_entries.insert(*key, false);
        }
        for (id, letter) in &index.lost_letters {
            if letter.position == position {
                self.lost_letters.insert(*id, None);
            }
        }
    }

    /// Moves rows of a delivery out of its dead letters.
    pub fn undead(&mut self, index: &Index, position: u64, tally: Tally, discarded: bool) {
        let counters = self.counters(index, position);
        counters.dead -= tally;
        if discarded {
            counters.discarded += tally;
        }
    }

    /// The state had been lost with what was known of `tally`: it was taken as delivered, and a
    /// dead letter says otherwise.
    pub fn delivered_was_dead(&mut self, index: &Index, position: u64, tally: Tally) {
        let counters = self.counters(index, position);
        counters.delivered -= tally;
        counters.dead += tally;
    }

    /// The state had been lost with what was known of `tally`: it was taken as erased, since its segment
    /// does not have it any more, and a dead letter that has settled says otherwise.
    pub fn erased_was_dead(&mut self, index: &Index, position: u64, tally: Tally) {
        self.counters(index, position).erased -= tally;
    }

    /// Says how long a dead-letter file is.
    pub fn set_dead_file(&mut self, index: &Index, number: u32, length: u64) {
        let row = DeadFileRow {
            length,
            ..self.dead_file(index, number)
        };
        self.dead_files.insert(number, Some(row));
    }

    pub fn forget_dead_file(&mut self, number: u32) {
        self.dead_files.insert(number, None);
    }

    fn dead_file(&self, index: &Index, number: u32) -> DeadFileRow {
        match self.dead_files.get(&number) {
            Some(row) => row.unwrap_or_default(),
            None => index
                .dead_files
                .get(&number)
                .map(|file| file.row)
                .unwrap_or_default(),
        }
    }

    /// Marks the segments that have settled as gone, and deliveries that have settled whole as
    /// finished `now` (`None`: nobody knows when). The last segment of a delivery stays until all
    /// others have settled: its footer is what proves the delivery. Call it last.
    pub fn close(&mut self, index: &Index, now: Option<UnixMillis>) {
        for (position, counters) in &mut self.counters {
            let known = self.added.get(position);
            let Some(delivery) = known.or_else(|| index.deliveries.get(position).map(|one| &**one))
            else {
                continue;
            };
            if counters.settled() == delivery.row.totals.mapped() {
                counters.finished = counters.finished.or(now);
            } else {
                counters.finished = None;
            }
        }
        let positions: BTreeSet<u64> = self
            .segments
            .keys()
            .map(|(position, _)| *position)
            .collect();
        for position in positions {
            let Some(delivery) = index.deliveries.get(&position) else {
                continue;
            };
            let Some(last) = delivery.segments.last() else {
                continue;
            };
            let settled =
                |change: &Self, number: u32| match change.segments.get(&(position, number)) {
                    Some(segment) => segment.row.is_settled(),
                    None => delivery
                        .segments
                        .get(number)
                        .is_some_and(|segment| segment.row.is_settled()),
                };
            let all = delivery
                .segments
                .numbers()
                .all(|number| settled(self, number));
            for number in delivery.segments.numbers() {
                let gone = all || (number != last.row.summary.number && settled(self, number));
                if gone && let Some(segment) = self.segment(index, position, number) {
                    segment.gone = true;
                }
            }
        }
    }
}

/// What was given up, and is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::outbox) enum Lost {
    /// An entry of the delivery, by its ordinal.
    Entry(u32),
    /// A dead letter, by its number.
    Letter(u64),
}

/// How much of what is settled did not arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::outbox) struct Outcome {
    pub dead: Tally,
    pub damaged: Tally,
}

impl SegmentChange {
    /// Settles every entry that is not claimed; returns their weight.
    fn cancel(&mut self, delivery: &Delivery) -> Tally {
        let mut cancelled = self.row.left();
        let mut count = 0;
        for local in 0..self.row.summary.entries {
            if self.bits.get(local) {
                continue;
            }
            match delivery.claimed(self.row.summary.first + local) {
                Some(tally) => cancelled -= tally,
                None => {
                    self.bits.set(local, true);
                    self.touched.insert(local / CHUNK);
                    count += 1;
                }
            }
        }
        if count == 0 {
            return Tally::default();
        }
        self.row.settled_entries += count;
        self.row.settled += cancelled;
        cancelled
    }
}

impl Counters {
    fn settle(&mut self, all: Tally, outcome: Outcome) {
        let mut delivered = all;
        delivered -= outcome.dead;
        delivered -= outcome.damaged;
        self.delivered += delivered;
        self.dead += outcome.dead;
        self.damaged += outcome.damaged;
    }
}
