//! What a daemon remembers that is not written down yet: deliveries that have begun and are not visible, and
//! schedules that are to be left.

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

/// Who is about to leave a schedule, and whether it is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub schedule: [u8; 16],
    pub holder: [u8; 16],
    pub forget: bool,
}
