//! Whether the disk would take a delivery, found out by trying what a delivery needs.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::outbox::error::Error;
use crate::outbox::local::files::disk::Disk;

/// What was found holds for so long, so that probes are cheap.
const KEPT: Duration = Duration::from_secs(3);
/// A try that takes longer means that the disk does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last try, and the one under way.
#[derive(Debug)]
pub(in crate::outbox) struct Writing {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Result<(), Error>)>,
    since: Option<Instant>,
}

impl Writing {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Makes, syncs and removes the file `probe`, unless that was done just now. One caller does it;
    /// the others meanwhile get the last answer, and no answer is an error after a while.
    pub fn attempt(&self, disk: &Disk, probe: &Path) -> Result<(), Error> {
        let now = self.clock.instant();
        {
            let mut state = self.state();
            if let Some((at, found)) = &state.last
                && now < *at + KEPT
            {
                return found.clone();
            }
            if let Some(since) = state.since {
                return match &state.last {
                    Some((_, found)) if now < since + PATIENCE => found.clone(),
                    None if now < since + PATIENCE => Ok(()),
                    _ => Err(Error::io("its disk does not answer")(io::Error::from(
                        io::ErrorKind::TimedOut,
                    ))),
                };
            }
            state.since = Some(now);
        }
        let found = attempt(disk, probe);
        let mut state = self.state();
        state.last = Some((self.clock.instant(), found.clone()));
        state.since = None;
        found
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempt(disk: &Disk, probe: &Path) -> Result<(), Error> {
    let made = (|| {
        // One that an interrupted try has left.
        disk.remove(probe)?;
        let file = disk.create(probe)?;
        disk.write(&file, probe, 0, b"probe")?;
        disk.sync(&file, probe)
    })();
    let removed = disk.remove(probe);
    made.map_err(Error::io("its disk does not take a file"))?;
    removed.map_err(Error::io("its disk does not let a file be removed"))
}
