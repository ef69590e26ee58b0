//! The right to send what waits for one destination.
//!
//! One holder has a destination's order, pace and memory of replies. A backend that several daemons
//! share grants it for a while and fences every change by it; the embedded one, which is one process's,
//! grants it at once and always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::DeliveryId;
use crate::outbox::claim::{Claim, Settled, Settlement};
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;
use crate::outbox::local;
use crate::outbox::postgres;

/// See the module. Cloning gives another handle to the same one; it is given back with the last. Calls
/// block: a caller on tokio uses `spawn_blocking`.
#[derive(Clone, Debug)]
pub struct Lease {
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Local(local::lease::Lease),
    Postgres(Arc<postgres::Lease>),
}

impl Lease {
    pub(in crate::outbox) fn local(lease: local::lease::Lease) -> Self {
        Self {
            backend: Backend::Local(lease),
        }
    }

    pub(in crate::outbox) fn postgres(lease: postgres::Lease) -> Self {
        Self {
            backend: Backend::Postgres(Arc::new(lease)),
        }
    }

    /// Counts the holders of the destination; 0 where there is only ever one.
    pub fn epoch(&self) -> u64 {
        match &self.backend {
            Backend::Local(_) => 0,
            Backend::Postgres(lease) => lease.epoch(),
        }
    }

    /// Until when it holds, unless it is renewed; `None`: for as long as the outbox is open. Whoever
    /// holds it beyond stops sending and drops what flies.
    pub fn until(&self) -> Option<Instant> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Postgres(lease) => Some(lease.until()),
        }
    }

    /// What the holder before has left ([`Lease::leave`]), and how long ago; `None`: it left nothing, or
    /// there was none. Once.
    pub fn left(&self) -> Option<(Vec<u8>, Duration)> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Postgres(lease) => lease.left(),
        }
    }

    /// What the next holder is to find, if this one gives the lease back. Opaque here.
    pub fn leave(&self, text: Vec<u8>) {
        match &self.backend {
            // There is no other.
            Backend::Local(_) => {}
            Backend::Postgres(lease) => lease.leave(text),
        }
    }

    /// What the holder is told, each once but for [`LaneRequest::GiveBack`]. [`Outbox::subscribe`]
    /// says when to look. Answers from memory.
    ///
    /// [`Outbox::subscribe`]: super::Outbox::subscribe
    pub fn requests(&self) -> Vec<LaneRequest> {
        match &self.backend {
            Backend::Local(_) => Vec::new(),
            Backend::Postgres(lease) => lease.requests(),
        }
    }

    /// Claims up to `max` requests of what stands first in the queue; empty when nothing waits, or when
    /// the rest of the first delivery is in flight. A request whose record is damaged is not among
    /// them: it is counted, logged and left behind. One that cannot be read now is not among them
    /// either, and waits.
    ///
    /// # Errors
    /// Nothing of what waits can be read now, or the outbox refuses writes, since what is sent now
    /// could not be recorded, or [`Error::LeaseLost`], or [`Error::MissingKey`].
    pub fn claim(&self, max: usize) -> Result<Vec<Claim>, Error> {
        match &self.backend {
            Backend::Local(lease) => lease.claim(max),
            Backend::Postgres(lease) => lease.claim(max),
        }
    }

    /// Records how claims ended: slices not named dead are delivered. Durable on return. A
    /// settlement of an entry that is not claimed is taken all the same: it is what happened.
    ///
    /// # Errors
    /// A slice does not exist, or the disk failed, or [`Error::LeaseLost`]: nothing of the call has
    /// been applied then. Or a server did not answer: it may have been applied. The call can be made
    /// again.
    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        match &self.backend {
            Backend::Local(lease) => lease.settle(settlements),
            Backend::Postgres(lease) => lease.settle(settlements),
        }
    }

    /// Gives claims back, unsettled: they can be claimed again. Claims that are not held are
    /// passed over.
    ///
    /// # Errors
    /// The backend does not answer, or [`Error::LeaseLost`]: then they are given back by whoever holds
    /// it next.
    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(lease) => lease.release(delivery, ordinals),
            Backend::Postgres(lease) => lease.release(delivery, ordinals),
        }
        Ok(())
    }

    /// Ends it early, so that another daemon need not wait; what is claimed counts as released. One
    /// that is dropped ends by itself, a little later.
    ///
    /// # Errors
    /// The backend does not answer: others wait until it has run out.
    pub fn give_back(self) -> Result<(), Error> {
        match self.backend {
            Backend::Local(_) => Ok(()),
            Backend::Postgres(lease) => lease.give_back(),
        }
    }
}
