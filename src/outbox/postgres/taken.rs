//! An outbox that is taken in, column by column, as the statement that makes it visible takes it.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::Marks;
use crate::clock::UnixMillis;
use crate::model::DestinationId;
use crate::outbox::carried::{Carried, CarriedAccount};
use crate::seal::{KeyId, Keyring};

/// The place of each turn in the queue of its destination.
pub(super) struct Turns(BTreeMap<DestinationId, BTreeMap<u64, i64>>);

impl Turns {
    pub fn of(carried: &Carried) -> Self {
        let mut turns: BTreeMap<DestinationId, BTreeSet<u64>> = BTreeMap::new();
        for delivery in &carried.deliveries {
            let queue = turns.entry(delivery.info.destination).or_default();
            queue.insert(delivery.turn);
        }
        for letter in &carried.letters {
            let queue = turns.entry(letter.destination).or_default();
            queue.extend(letter.queued);
        }
        let numbered = turns.into_iter().map(|(destination, turns)| {
            let places = (0..).zip(turns).map(|(place, turn)| (turn, place));
            (destination, places.collect())
        });
        Self(numbered.collect())
    }

    fn place(&self, destination: DestinationId, turn: u64) -> i64 {
        let queue = self.0.get(&destination);
        queue
            .and_then(|queue| queue.get(&turn))
            .copied()
            .unwrap_or_default()
    }
}

/// The destinations of its deliveries.
#[derive(Default)]
pub(super) struct Destinations<'a> {
    pub ids: Vec<&'a [u8]>,
    pub labels: Vec<&'a str>,
    pub accounts: Vec<&'a [u8]>,
    pub turns: Vec<i64>,
    /// When its newest delivery was committed.
    pub newest: Vec<i64>,
    /// Those with letters that are to be sent again.
    pub queued: Vec<&'a [u8]>,
}

impl<'a> Destinations<'a> {
    pub fn of(carried: &'a Carried, turns: &'a Turns) -> Self {
        let mut newest: BTreeMap<DestinationId, (i64, &str)> = BTreeMap::new();
        for delivery in &carried.deliveries {
            let committed = delivery.committed.0 as i64;
            let seen = newest.entry(delivery.info.destination).or_default();
            if committed >= seen.0 {
                *seen = (committed, &delivery.info.label);
            }
        }
        let accounts: BTreeMap<DestinationId, &CarriedAccount> = carried
            .accounts
            .iter()
            .map(|account| (account.destination, account))
            .collect();
        let mut columns = Self::default();
        for (id, queue) in &turns.0 {
            let account = accounts.get(id);
            let (committed, label) = newest.get(id).copied().unwrap_or_default();
            columns.ids.push(&id.0);
            columns
                .labels
                .push(account.map_or(label, |account| &account.label));
            columns
                .accounts
                .push(account.map_or(&[], |account| &account.sealed));
            columns.turns.push(queue.len() as i64);
            columns.newest.push(committed);
        }
        let waiting = carried.letters.iter().filter(|one| one.queued.is_some());
        let queued: BTreeSet<&[u8]> = waiting.map(|one| &one.destination.0[..]).collect();
        columns.queued = queued.into_iter().collect();
        columns
    }
}

/// Rows of progress, column by column.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub ids: Vec<&'a [u8]>,
    pub turns: Vec<i64>,
    pub open: Vec<bool>,
    pub cleared: Vec<bool>,
    pub frontiers: Vec<i64>,
    pub beyond: Vec<Vec<u8>>,
    pub tallies: [Vec<i64>; 12],
    pub held: Vec<bool>,
    pub erased_rejected: Vec<i64>,
    pub cancelled_at: Vec<Option<i64>>,
    pub finished: Vec<Option<i64>>,
}

impl<'a> Rows<'a> {
    pub fn of(carried: &'a Carried, turns: &Turns) -> Self {
        let mut columns = Self::default();
        for delivery in &carried.deliveries {
            let counters = &delivery.counters;
            let mut marks = Marks::default();
            marks.set_all(delivery.totals.requests, |ordinal| {
                u32::try_from(ordinal).is_ok_and(|ordinal| !delivery.settled.get(ordinal))
            });
            let open = counters.settled() != delivery.totals.mapped();
            columns.ids.push(&delivery.info.id.0);
            columns
                .turns
                .push(turns.place(delivery.info.destination, delivery.turn));
            columns.open.push(open);
            columns.cleared.push(!open && delivery.requests_left() == 0);
            columns.frontiers.push(marks.frontier() as i64);
            columns.beyond.push(marks.beyond().to_vec());
            let tallies = [
                counters.delivered,
                counters.dead,
                counters.discarded,
                counters.damaged,
                counters.cancelled,
                counters.erased,
            ];
            let pairs = tallies.map(|tally| [tally.rows as i64, tally.batches as i64]);
            for (column, value) in columns.tallies.iter_mut().zip(pairs.concat()) {
                column.push(value);
            }
            columns.held.push(delivery.held && open);
            columns
                .erased_rejected
                .push(counters.erased_rejected as i64);
            let millis = |at: UnixMillis| at.0 as i64;
            columns.cancelled_at.push(counters.cancelled_at.map(millis));
            columns.finished.push(counters.finished.map(millis));
        }
        columns
    }
}

/// Its dead letters.
#[derive(Default)]
pub(super) struct Letters<'a> {
    pub ids: Vec<i64>,
    pub deliveries: Vec<&'a [u8]>,
    pub ordinals: Vec<i64>,
    pub live: Vec<&'a [u8]>,
    pub rows: Vec<i64>,
    pub batches: Vec<i64>,
    pub queued: Vec<Option<i64>>,
    pub keys: Vec<&'a [u8]>,
}

impl<'a> Letters<'a> {
    pub fn of(carried: &'a Carried, turns: &Turns, keys: &'a [KeyId]) -> Self {
        let mut columns = Self::default();
        for (letter, key) in carried.letters.iter().zip(keys) {
            columns.ids.push(letter.id as i64);
            columns.deliveries.push(&letter.delivery.0);
            columns.ordinals.push(i64::from(letter.ordinal));
            columns.live.push(letter.live.bytes());
            columns.rows.push(letter.tally.rows as i64);
            columns.batches.push(letter.tally.batches as i64);
            let place = |turn| turns.place(letter.destination, turn);
            columns.queued.push(letter.queued.map(place));
            columns.keys.push(&key.0);
        }
        columns
    }
}

/// Its webhook ids.
pub(super) struct Webhooks<'a> {
    pub keys: Vec<&'a [u8]>,
    pub deliveries: Vec<&'a [u8]>,
    pub rows: Vec<i64>,
    pub times: Vec<i64>,
}

impl<'a> Webhooks<'a> {
    pub fn of(carried: &'a Carried) -> Self {
        let hooks = carried.webhooks.iter();
        Self {
            keys: hooks.clone().map(|hook| &hook.key.0[..]).collect(),
            deliveries: hooks.clone().map(|hook| &hook.delivery.0[..]).collect(),
            rows: hooks.clone().map(|hook| hook.rows as i64).collect(),
            times: hooks.map(|hook| hook.committed.0 as i64).collect(),
        }
    }
}

/// Its notes.
pub(super) struct Notes<'a> {
    pub ids: Vec<&'a [u8]>,
    pub topics: Vec<i16>,
    pub texts: Vec<&'a [u8]>,
}

impl<'a> Notes<'a> {
    pub fn of(carried: &'a Carried) -> Self {
        let notes = carried.notes.iter();
        Self {
            ids: notes.clone().map(|(key, _)| &key.0.0[..]).collect(),
            topics: notes.clone().map(|(key, _)| i16::from(key.1)).collect(),
            texts: notes.map(|(_, text)| &text[..]).collect(),
        }
    }
}

/// Its deliveries that failed.
#[derive(Default)]
pub(super) struct Attempts<'a> {
    pub ids: Vec<&'a [u8]>,
    pub webhooks: Vec<Option<&'a [u8]>>,
    pub received: Vec<i64>,
    pub ended: Vec<i64>,
    pub kinds: Vec<i16>,
    pub rows: Vec<i64>,
    pub bytes: Vec<i64>,
    pub keys: Vec<Vec<u8>>,
    pub sealed: Vec<&'a [u8]>,
}

impl<'a> Attempts<'a> {
    pub fn of(carried: &'a Carried) -> Self {
        let mut columns = Self::default();
        for row in &carried.attempts {
            // One without an end is being received, which none is in an outbox that nobody has open.
            let Some(end) = &row.attempt.end else {
                continue;
            };
            columns.ids.push(&row.attempt.id.0);
            let webhook = row.webhook.as_ref();
            columns.webhooks.push(webhook.map(|key| &key.0[..]));
            columns.received.push(row.attempt.received.0 as i64);
            columns.ended.push(end.at.0 as i64);
            columns.kinds.push(i16::from(end.kind));
            columns.rows.push(end.rows as i64);
            columns.bytes.push(end.bytes as i64);
            let key = Keyring::key_of_text(&row.sealed);
            columns
                .keys
                .push(key.map_or(Vec::new(), |key| key.0.to_vec()));
            columns.sealed.push(&row.sealed);
        }
        columns
    }
}
