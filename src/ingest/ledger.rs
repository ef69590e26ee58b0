//! What became of earlier deliveries, as the outbox knows it.

use crate::changes::{Ending, Ledger, Missing};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{self, Outbox};

impl Ledger for Outbox {
    fn ending(&self, delivery: DeliveryId) -> Ending {
        match Outbox::ending(self, delivery) {
            outbox::Ending::Unknown => Ending::Unknown,
            outbox::Ending::Open => Ending::Open,
            outbox::Ending::Settled(requests) => Ending::Settled(Missing::Requests(requests)),
            outbox::Ending::InDoubt => Ending::Settled(Missing::InDoubt),
        }
    }

    fn lost(&self) -> Option<UnixMillis> {
        self.state_lost()
    }
}
