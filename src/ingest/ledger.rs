//! What became of earlier deliveries, as the outbox knows it.

use crate::changes::{Ending, Ledger, Missing};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{self, Outbox};

impl Ledger for Outbox {
    fn ending(&self, delivery: DeliveryId) -> Ending {
        match Outbox::ending(self, delivery) {
            Ok(outbox::Ending::Unknown) => Ending::Unknown,
            Ok(outbox::Ending::Open) => Ending::Open,
            Ok(outbox::Ending::Settled(requests)) => Ending::Settled(Missing::Requests(requests)),
            Ok(outbox::Ending::InDoubt) => Ending::Settled(Missing::InDoubt),
            // As long as it is not known, nothing is concluded.
            Err(_) => Ending::Open,
        }
    }

    fn lost(&self) -> Option<UnixMillis> {
        self.state_lost()
    }
}
