//! What is carried from one outbox to another: its rows, without the bodies.

use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::bits::Bits;
use crate::outbox::counters::Counters;
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::outbox::note::Note;
use crate::outbox::webhook::WebhookKey;
use crate::seal::KeyId;

/// All that an outbox holds, but the bodies.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Carried {
    /// In the order of their turns.
    pub deliveries: Vec<CarriedDelivery>,
    /// In the order of their ids.
    pub letters: Vec<CarriedLetter>,
    pub accounts: Vec<CarriedAccount>,
    pub notes: Vec<Note>,
    pub webhooks: Vec<CarriedWebhook>,
    /// Deliveries that failed.
    pub attempts: Vec<Arc<AttemptRow>>,
    /// No letter has had this id or a higher one.
    pub next_letter: u64,
}

/// A committed delivery.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct CarriedDelivery {
    /// Without the account, which its destination has.
    pub info: Arc<Info>,
    pub totals: Totals,
    pub committed: UnixMillis,
    pub counters: Counters,
    /// Nothing of it is sent before a person releases it.
    pub held: bool,
    /// Its turn in the queue of its destination; only the order counts.
    pub turn: u64,
    /// Which of its requests have settled: no body of these is carried.
    pub settled: Bits,
    /// What its records are sealed under.
    pub key: KeyId,
}

/// A dead letter, or one that waits to be sent again.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct CarriedLetter {
    pub id: u64,
    pub delivery: DeliveryId,
    pub destination: DestinationId,
    pub ordinal: u32,
    /// Which slices of its record are meant.
    pub live: Bits,
    pub tally: Tally,
    /// Its turn, if it waits.
    pub queued: Option<u64>,
}

/// The newest sealed account of a destination.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct CarriedAccount {
    pub destination: DestinationId,
    pub label: String,
    pub sealed: Arc<[u8]>,
}

/// A webhook id whose delivery is durable.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct CarriedWebhook {
    pub key: WebhookKey,
    pub delivery: DeliveryId,
    pub rows: u64,
    pub committed: UnixMillis,
}

impl CarriedDelivery {
    /// Requests that have not settled.
    pub fn requests_left(&self) -> u64 {
        let settled = u64::from(self.settled.count());
        self.totals.requests.saturating_sub(settled)
    }

    /// Rows and batches that wait to be sent.
    pub fn waiting(&self) -> Tally {
        let mut left = self.totals.mapped();
        left -= self.counters.settled();
        left
    }
}
