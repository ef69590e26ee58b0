//! A lease of the embedded backend: there is one process, so it is granted at once and always.

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::claim::{Claim, Settled, Settlement};
use crate::outbox::error::Error;
use crate::outbox::local::claim;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::Command;

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Lease {
    local: Local,
    destination: DestinationId,
}

impl Lease {
    pub fn new(local: &Local, destination: DestinationId) -> Self {
        Self {
            local: local.clone(),
            destination,
        }
    }

    pub fn claim(&self, max: usize) -> Result<Vec<Claim>, Error> {
        claim::claim(&self.local, self.destination, max)
    }

    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        self.local.ask(|reply| Command::Settle(settlements, reply))
    }

    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) {
        claim::release(&self.local, delivery, ordinals);
    }
}
