//! A lease as its holder has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::held::Held;
use super::lease::{enter, leave};
use super::lock::lock;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::claim::{Claim, Settled, Settlement};
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;

/// A destination that this daemon sends to, until it is given back, dropped, or lost.
#[derive(Debug)]
pub(in crate::outbox) struct Lease {
    outbox: SharedOutbox,
    held: Arc<Held>,
    given_back: AtomicBool,
}

impl SharedOutbox {
    /// Takes the lease of a destination; `None`: another daemon has it, or should.
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
            given_back: AtomicBool::new(false),
        }))
    }
}

impl Lease {
    /// Grows with each owner of the destination.
    pub fn epoch(&self) -> u64 {
        self.held.epoch as u64
    }

    /// Nothing may be sent under it from then on, unless it has been renewed by then. Now, if it is
    /// lost.
    pub fn until(&self) -> Instant {
        match self.held.is_lost() {
            true => Instant::now(),
            false => self.held.until(),
        }
    }

    pub fn left(&self) -> Option<(Vec<u8>, Duration)> {
        self.held.take_left()
    }

    pub fn leave(&self, text: Vec<u8>) {
        self.held.leave(text);
    }

    pub fn claim(&self, max_entries: usize) -> Result<Vec<Claim>, Error> {
        let (inner, held) = self.parts();
        self.outbox
            .run(async move { super::claim::claim(&inner, &held, max_entries).await })
    }

    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        let (inner, held) = self.parts();
        self.outbox
            .run(async move { super::settle::settle(&inner, &held, &settlements).await })
    }

    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) {
        super::claim::release(&self.held, delivery, ordinals);
    }

    /// What the lane is to be told, each once but for [`LaneRequest::GiveBack`].
    pub fn requests(&self) -> Vec<LaneRequest> {
        let mut requests = self.held.take_lane_requests();
        if self.held.wanted.load(Ordering::Acquire) {
            requests.push(LaneRequest::GiveBack);
        }
        requests
    }

    /// Gives it back, so that another daemon can take it at once. What is claimed counts as given back.
    pub fn give_back(&self) -> Result<(), Error> {
        if self.given_back.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (inner, held) = self.parts();
        self.outbox.run(async move { leave(&inner, &held).await })
    }

    fn parts(&self) -> (Arc<Inner>, Arc<Held>) {
        (Arc::clone(&self.outbox.inner), Arc::clone(&self.held))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given_back.load(Ordering::Acquire) {
            lock(&self.outbox.inner.letting_go).push(Arc::clone(&self.held));
            self.outbox.inner.nudge.notify_one();
        }
    }
}
