//! Whether a delivery that came now would be taken.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::outbox::{self, Outbox};

/// Asked before a delivery is begun, and for the probes.
pub(super) struct Readiness {
    outbox: Outbox,
    stopping: AtomicBool,
}

/// Why no delivery is taken now. Each is a sentence that Looker and the operator are told.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// The shutdown has begun.
    #[error("looker-feed is being stopped; send the delivery again.")]
    Stopping,
    /// No room, or the disk has failed.
    #[error(transparent)]
    Outbox(outbox::Error),
}

impl Readiness {
    pub fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on nothing new is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether a delivery would be taken, as far as that is known without trying. Does not block.
    pub fn admit(&self) -> Result<(), NotReady> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(NotReady::Stopping);
        }
        self.outbox.admit().map_err(NotReady::Outbox)
    }
}
