//! Whether a delivery that came now would be taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::outbox::{self, Outbox};

/// What was written and synced so recently is not tried again: whoever looks at the daemon asks this, some
/// each second.
const TRIED: Duration = Duration::from_secs(10);

/// Asked before a delivery is begun, and for the probes.
pub(super) struct Readiness {
    outbox: Outbox,
    leaving: AtomicBool,
    stopping: AtomicBool,
    /// When a file was last written and synced where deliveries go.
    wrote: Mutex<Option<Instant>>,
}

/// Why no delivery is taken now. Each is a sentence that Looker and the operator are told.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// It is going to stop: the next delivery is for another daemon.
    #[error("looker-feed is about to be stopped.")]
    Leaving,
    /// The shutdown has begun.
    #[error("looker-feed is being stopped; send the delivery again.")]
    Stopping,
    /// No room, or the disk has failed.
    #[error(transparent)]
    Outbox(outbox::Error),
}

impl NotReady {
    /// The database of the outbox does not answer, or not as it should.
    pub fn away(self) -> Option<outbox::Error> {
        match self {
            Self::Outbox(error @ (outbox::Error::Away { .. } | outbox::Error::Database { .. })) => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl Readiness {
    pub fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            wrote: Mutex::default(),
        }
    }

    /// From now on the probes say that it is not ready, and deliveries are still taken.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// From now on nothing new is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether a delivery would be taken: what it would need of the disk is tried, unless that was done
    /// a moment ago. Blocks on the disk, and not for long if that does not answer.
    pub fn check(&self) -> Result<(), NotReady> {
        self.admit()?;
        if self.leaving.load(Ordering::Relaxed) {
            return Err(NotReady::Leaving);
        }
        let recently = self.wrote().is_some_and(|at| at.elapsed() < TRIED);
        if !recently {
            self.outbox.try_writing().map_err(NotReady::Outbox)?;
            *self.wrote() = Some(Instant::now());
        }
        Ok(())
    }

    /// Whole after any panic: it is only ever replaced.
    fn wrote(&self) -> MutexGuard<'_, Option<Instant>> {
        self.wrote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether a delivery would be taken, as far as that is known without trying. Does not block.
    pub fn admit(&self) -> Result<(), NotReady> {
        if self.is_stopping() {
            return Err(NotReady::Stopping);
        }
        self.outbox.admit().map_err(NotReady::Outbox)
    }
}
