//! Decided entries on their way into the outbox.

use crate::outbox::Settlement;

/// Settlements that wait to be written down, and how many are being written.
#[derive(Default)]
pub(super) struct Settlements {
    waiting: Vec<Settlement>,
    under_way: usize,
}

impl Settlements {
    /// Not known to be durable.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    pub fn push(&mut self, settlement: Settlement) {
        self.waiting.push(settlement);
    }

    /// What waits; it counts as being written from now on.
    pub fn take(&mut self) -> Vec<Settlement> {
        let batch = std::mem::take(&mut self.waiting);
        self.under_way += batch.len();
        batch
    }

    /// So many are durable.
    pub fn settled(&mut self, count: usize) {
        self.under_way = self.under_way.saturating_sub(count);
    }

    /// These could not be written: they wait again, before all others.
    pub fn unsettled(&mut self, mut batch: Vec<Settlement>) {
        self.settled(batch.len());
        batch.append(&mut self.waiting);
        self.waiting = batch;
    }
}
