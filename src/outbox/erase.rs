//! Looking for somebody in an outbox, and erasing them from it: what both are told, and what they say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;

/// Says of what lies in an outbox whether it speaks of whom is looked for.
pub trait Matcher: Sync {
    /// A batch, as it is sent.
    fn batch(&self, batch: &[u8]) -> bool;

    /// The text of a rejected row.
    fn row(&self, text: &[u8]) -> bool;
}

/// How far a search or an erasure has come. Shared by the one who works and those who look.
#[derive(Debug, Default)]
pub struct Scan {
    read: AtomicU64,
    total: AtomicU64,
    waits: AtomicBool,
    stop: AtomicBool,
}

impl Scan {
    /// Bytes of records that have been read, and those that were there at the start. An erasure may read
    /// more: what it has to look at twice, and what has come in since.
    pub fn progress(&self) -> (u64, u64) {
        (self.read.load(Relaxed), self.total.load(Relaxed))
    }

    /// Whether it waits for requests under way to land, or for deliveries that are being received.
    pub fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Ends it soon, with [`Error::Stopped`](super::Error::Stopped).
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether it is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// So many bytes have been read.
    pub fn add(&self, bytes: u64) {
        self.read.fetch_add(bytes, Relaxed);
    }

    /// So many more bytes are to be read.
    pub fn will_read(&self, bytes: u64) {
        self.total.fetch_add(bytes, Relaxed);
    }

    /// Says whether it waits.
    pub fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Relaxed);
    }
}

/// What lies in the outbox of one delivery and was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Which.
    pub delivery: DeliveryId,
    /// Not sent yet, or replayed and not sent yet.
    pub waiting: Tally,
    /// Claimed by the drain.
    pub in_flight: Tally,
    /// Decided: accepted, cancelled or discarded. It is there as long as its file has other work, so
    /// that there is none is no proof that nothing was sent.
    pub decided: Tally,
    /// In the dead letters.
    pub dead: Tally,
    /// Rows that could not be mapped.
    pub rejected: u64,
}

impl Occurrence {
    pub(in crate::outbox) fn none(delivery: DeliveryId) -> Self {
        Self {
            delivery,
            waiting: Tally::default(),
            in_flight: Tally::default(),
            decided: Tally::default(),
            dead: Tally::default(),
            rejected: 0,
        }
    }
}

/// What an erasure has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// It waited, replayed dead letters included, and is not sent.
    pub waiting: Tally,
    /// It was in the dead letters.
    pub dead: Tally,
    /// Rows that could not be mapped.
    pub rejected: u64,
    /// Batches that had been decided and whose bytes were still there.
    pub copies: u64,
    /// Files that were set aside as damaged. They are not searched.
    pub set_aside: u64,
}
