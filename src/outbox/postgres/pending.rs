//! What a daemon remembers of deliveries that have begun and are not visible.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::model::DeliveryId;
use crate::outbox::attempt::Receiving;
use crate::outbox::attempt_row::AttemptRow;

/// What a daemon knows of deliveries that are not visible, beside the server.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Being received here.
    pub receiving: Mutex<BTreeMap<DeliveryId, Receiving>>,
    /// Being received by other daemons, as of the last sweep.
    pub elsewhere: Mutex<Vec<Receiving>>,
    /// Ended, and not written down yet.
    pub ended: Mutex<BTreeMap<DeliveryId, AttemptRow>>,
}
