//! A lease as its holder has it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::held::{Held, LaneRequest};
use super::lease::{enter, leave};
use super::lock::lock;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::claim::{Claim, Settled, Settlement};
use crate::outbox::error::Error;

/// A destination that this daemon sends to, until it is given back, dropped, or lost.
#[derive(Debug)]
pub struct Lease {
    outbox: SharedOutbox,
    held: Arc<Held>,
    given_back: bool,
}

impl SharedOutbox {
    /// Takes the lease of a destination; `None`: another daemon has it, or should.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn lease(&self, destination: DestinationId) -> Result<Option<Lease>, Error> {
        let inner = Arc::clone(&self.inner);
        let held = self.run(async move {
            if !inner.may_take(destination) {
                return Ok(None);
            }
            enter(&inner, destination).await
        })?;
        Ok(held.map(|held| Lease {
            outbox: self.clone(),
            held,
            given_back: false,
        }))
    }
}

impl Lease {
    /// Of which destination.
    pub fn destination(&self) -> DestinationId {
        self.held.destination
    }

    /// Grows with each owner of the destination.
    pub fn epoch(&self) -> u64 {
        self.held.epoch as u64
    }

    /// Nothing may be sent under it from then on, unless it has been renewed by then.
    pub fn until(&self) -> Instant {
        self.held.until()
    }

    /// Whether another daemon has it.
    pub fn is_lost(&self) -> bool {
        self.held.is_lost()
    }

    /// Claims up to `max_entries` requests of what stands first in the queue; empty when nothing waits,
    /// or when the rest of the first delivery is in flight. A request whose record is damaged is not
    /// among them: it is counted, logged and left behind.
    ///
    /// # Errors
    /// The lease is lost, or its time is over; a key is missing; the server cannot be asked.
    pub fn claim(&self, max_entries: usize) -> Result<Vec<Claim>, Error> {
        let (inner, held) = self.parts();
        self.outbox
            .run(async move { super::claim::claim(&inner, &held, max_entries).await })
    }

    /// Records how claims ended: slices not named dead are delivered. Durable on return. A settlement
    /// of an entry that is not claimed is taken all the same: it is what happened.
    ///
    /// # Errors
    /// A slice does not exist: nothing of the call has been applied then. Or the lease is lost, or
    /// the server cannot be asked: then it may have been applied, and the call can be made again.
    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        let (inner, held) = self.parts();
        self.outbox
            .run(async move { super::settle::settle(&inner, &held, &settlements).await })
    }

    /// Gives claims back, unsettled: they can be claimed again. Claims that are not held are passed
    /// over.
    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) {
        super::claim::release(&self.held, delivery, ordinals);
    }

    /// What the lane is to be told, each once.
    pub fn requests(&self) -> Vec<LaneRequest> {
        let mut requests = self.held.take_lane_requests();
        if self.held.wanted.load(Ordering::Acquire) {
            requests.push(LaneRequest::GiveBack);
        }
        requests
    }

    /// Gives it back, so that another daemon can take it at once. What is claimed counts as given back.
    ///
    /// # Errors
    /// The server cannot be asked: others wait until the lease runs out.
    pub fn give_back(mut self) -> Result<(), Error> {
        self.given_back = true;
        let (inner, held) = self.parts();
        self.outbox.run(async move { leave(&inner, &held).await })
    }

    fn parts(&self) -> (Arc<Inner>, Arc<Held>) {
        (Arc::clone(&self.outbox.inner), Arc::clone(&self.held))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given_back {
            lock(&self.outbox.inner.letting_go).push(Arc::clone(&self.held));
            self.outbox.inner.nudge.notify_one();
        }
    }
}
