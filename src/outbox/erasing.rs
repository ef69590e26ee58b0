//! Finding and erasing what is known of somebody.

use super::{Backend, Outbox, local};
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::erase::{Erased, Matcher, Occurrence, Scan};
use crate::outbox::error::Error;

impl Outbox {
    /// What `matcher` means of all that is here, delivery by delivery, the oldest first. Changes nothing.
    /// Blocks on the disk for as long as it takes to read everything.
    ///
    /// # Errors
    /// A file cannot be read, or the search was stopped.
    pub fn find(&self, matcher: &dyn Matcher, scan: &Scan) -> Result<Vec<Occurrence>, Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::find(local, matcher, scan),
            Backend::Postgres(shared) => shared.find(matcher, scan),
        }
    }

    /// Begins an erasure: writes down `what` is to be erased, in the caller's own form, which is given
    /// back after a crash. Durable on return. `false`: another daemon has begun one, and it has not ended.
    pub fn begin_erasure(&self, what: &[u8]) -> Result<bool, Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::begin(local, what).map(|()| true),
            Backend::Postgres(shared) => shared.begin_erasure(what),
        }
    }

    /// What an erasure that has not ended is to erase.
    pub fn pending_erasure(&self) -> Result<Option<Vec<u8>>, Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::pending(local),
            Backend::Postgres(shared) => shared.pending_erasure(),
        }
    }

    /// What an erasure is to erase that nobody works on any more: it is this daemon's from then on. Of an
    /// outbox that is one process's, ask once, at the start.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn take_erasure(&self) -> Result<Option<Vec<u8>>, Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::pending(local),
            Backend::Postgres(shared) => shared.take_erasure(),
        }
    }

    /// Removes what `matcher` means, durably and from every file but those that were set aside as
    /// damaged: what waits, dead letters, rejected rows, and what is left in files of what was decided
    /// before. What is in flight lands first, and then goes; so does what is in deliveries that are being
    /// received at the call. Nothing that is meant is given out any more once it has been found.
    /// `give_back` must have the sender give back what it holds of a delivery and has not begun, and
    /// forget what it remembers of its requests. Can be called again after a failure or a crash. Blocks
    /// on the disk, and for as long as something is in flight.
    ///
    /// # Errors
    /// A file cannot be read, the outbox refuses writes, the disk failed, or it was stopped; what has been
    /// erased until then is.
    pub fn erase(
        &self,
        matcher: &dyn Matcher,
        scan: &Scan,
        give_back: &dyn Fn(DestinationId, DeliveryId),
    ) -> Result<Erased, Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::erase(local, matcher, scan, give_back),
            Backend::Postgres(shared) => shared.erase(matcher, scan, give_back),
        }
    }

    /// Ends an erasure. Durable on return.
    pub fn end_erasure(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(local) => local::erase::end(local),
            Backend::Postgres(shared) => shared.end_erasure(),
        }
    }
}
