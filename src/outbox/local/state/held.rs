//! Deliveries that are held: nothing of them is given out before somebody releases them.

use crate::outbox::delivery::DeliveryState;
use crate::outbox::local::state::delivery::Delivery;
use crate::outbox::local::state::index::Index;

impl Index {
    /// Whether nothing of a delivery is sent before somebody releases it. Those behind it go on.
    pub fn is_held(&self, position: u64) -> bool {
        !self.held.is_empty()
            && self
                .deliveries
                .get(&position)
                .is_some_and(|delivery| self.held.contains(&delivery.row.info.id))
    }

    /// How many deliveries are held.
    pub fn held_deliveries(&self) -> u64 {
        let held = self.held.iter();
        held.filter(|id| self.by_id.contains_key(id)).count() as u64
    }

    /// A delivery as it is shown.
    pub fn state_of(&self, position: u64, delivery: &Delivery) -> DeliveryState {
        DeliveryState {
            held: self.held.contains(&delivery.row.info.id),
            ..delivery.state(position)
        }
    }
}
