//! What became of earlier deliveries, as the outbox knows it.

use std::io;

use crate::changes::{Ending, Ledger, Missing};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{self, Outbox};

/// Deliveries that are looked at in one go.
const PAGE: usize = 500;

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

    fn unfinished(&self) -> io::Result<Vec<DeliveryId>> {
        let mut unfinished = Vec::new();
        let mut after = None;
        loop {
            let page = self.deliveries(after, PAGE).map_err(io::Error::other)?;
            for delivery in &page.deliveries {
                // What is damaged may be brought back from what was set aside.
                if !delivery.settled || delivery.dead.rows > 0 || delivery.damaged.rows > 0 {
                    unfinished.push(delivery.id);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(unfinished);
            }
        }
    }

    fn lost(&self) -> Option<UnixMillis> {
        self.state_lost()
    }
}
