//! A delivery on its way into the outbox.

use crate::model::DeliveryId;
use crate::outbox::delivery::{Receipt, Totals};
use crate::outbox::entry::{Appended, Entry};
use crate::outbox::error::Error;
use crate::outbox::local;
use crate::outbox::postgres;
use crate::outbox::rejected::RejectedRow;

/// A delivery that has begun: visible to nobody until it is committed, gone whole when it is not.
/// Dropping it aborts it.
#[derive(Debug)]
pub struct Staging {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Local(Box<local::staging::Staging>),
    Postgres(Box<postgres::Staging>),
}

impl Staging {
    pub(in crate::outbox) fn local(staging: local::staging::Staging) -> Self {
        Self {
            backend: Backend::Local(Box::new(staging)),
        }
    }

    pub(in crate::outbox) fn postgres(staging: postgres::Staging) -> Self {
        Self {
            backend: Backend::Postgres(Box::new(staging)),
        }
    }

    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        match &self.backend {
            Backend::Local(staging) => staging.id(),
            Backend::Postgres(staging) => staging.id(),
        }
    }

    /// Appends one ready request. Blocks on the disk at times.
    ///
    /// # Errors
    /// The entry is too large (the delivery can go on without it), the outbox or the disk is
    /// full, or the disk failed: then the delivery can only be aborted.
    pub fn append(&mut self, entry: Entry<'_>) -> Result<Appended, Error> {
        match &mut self.backend {
            Backend::Local(staging) => staging.append(entry),
            Backend::Postgres(staging) => staging.append(entry),
        }
    }

    /// Keeps a row that could not be mapped; beyond
    /// [`Settings::rejected_rows`](super::Settings::rejected_rows) it is only counted.
    pub fn reject(&mut self, row: RejectedRow<'_>) -> Result<(), Error> {
        match &mut self.backend {
            Backend::Local(staging) => staging.reject(row),
            Backend::Postgres(staging) => staging.reject(row),
        }
    }

    /// Once it is committed, nothing of the delivery is sent before somebody releases it
    /// ([`Outbox::release_delivery`](super::Outbox::release_delivery)). Deliveries behind it go on.
    pub fn hold(&mut self) {
        match &mut self.backend {
            Backend::Local(staging) => staging.hold(),
            Backend::Postgres(staging) => staging.hold(),
        }
    }

    /// Makes the delivery durable and visible to the drain. When this returns `Ok` it survives
    /// the loss of power.
    ///
    /// # Errors
    /// The totals do not match what was given, or the disk failed. The delivery is gone then. If a
    /// server stays away for so long that it is not known, it goes as soon as the server is back,
    /// unless it was visible already.
    pub fn commit(self, totals: Totals) -> Result<Receipt, Error> {
        match self.backend {
            Backend::Local(staging) => staging.commit(totals),
            Backend::Postgres(staging) => staging.commit(totals),
        }
    }

    /// Ends the delivery without a trace; the same as dropping it, but done on return if it can be.
    pub fn abort(self) {
        match self.backend {
            Backend::Local(_) => {}
            Backend::Postgres(staging) => staging.abort(),
        }
    }
}
