//! What a daemon remembers that is not written down yet: deliveries that have begun and are not visible, and
//! schedules that are to be left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

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
    pub ended: Mutex<BTreeMap<DeliveryId, Ended>>,
}

/// A delivery that has ended as failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub row: AttemptRow,
    /// What was written down, sealed, when it began; `None`: nothing was.
    pub begun: Option<Arc<[u8]>>,
}

/// Who is about to leave a schedule, and whether it is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub schedule: [u8; 16],
    pub holder: [u8; 16],
    pub forget: bool,
}
