//! A delivery that should not have been sent: what is left of it is not given out any more.
//!
//! The decision is a mark beside its segments, `<delivery>.cancelled`, made durable before the
//! state is told, so that it holds also when the state is lost and built anew. From then on nothing
//! of the delivery is claimed; what waits becomes `cancelled` at once, what is in flight settles as
//! it ends, and what is given back unsent becomes `cancelled` then. So does, after a crash, what was
//! in flight. The mark goes with the last segment.

use std::io;

use super::Outbox;
use super::change::Change;
use super::delivery::Tally;
use super::error::{Error, StateError};
use super::owner::{Command, Owner};
use super::recover::Recovery;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

impl Outbox {
    /// Cancels what is left of a delivery: returns what has been cancelled now, replayed dead
    /// letters included; `None`: the delivery is not listed. Its dead letters stay where they are
    /// and can be looked at and discarded, but not replayed. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The outbox refuses writes, or the disk failed: then it may have been cancelled all the same,
    /// and the call can be made again.
    pub fn cancel(&self, delivery: DeliveryId) -> Result<Option<Tally>, Error> {
        self.ask(|reply| Command::Cancel(delivery, reply))
    }
}

impl Owner {
    /// Puts a cancelling into the change; `None`: there is no such delivery. The caller ends
    /// `cancelling` of the position when the change has been made or has failed.
    pub(super) fn cancel(
        &mut self,
        id: DeliveryId,
        change: &mut Change,
    ) -> Result<Option<(u64, Tally)>, Error> {
        self.shared().check_healthy()?;
        let position = {
            let mut index = self.shared().index();
            let Some((position, delivery)) = index.delivery(id) else {
                return Ok(None);
            };
            if delivery.is_settled() {
                return Ok(Some((position, Tally::default())));
            }
            index.cancelling.insert(position);
            position
        };
        if let Err(error) = self.mark(id) {
            self.shared().index().cancelling.remove(&position);
            return Err(Error::io("the cancelling could not be written down")(error));
        }
        // Letters that a command of the same group sends again are not in the index yet.
        self.sweep_due = true;
        let tally = change.cancel(&self.shared().index(), position, UnixMillis::now());
        Ok(Some((position, tally)))
    }

    fn mark(&self, id: DeliveryId) -> io::Result<()> {
        let (layout, disk) = (&self.shared().layout, &self.shared().disk);
        let path = layout.cancelled(id);
        let file = match disk.create(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::File::open(&path)?
            }
            Err(error) => return Err(error),
        };
        disk.sync(&file, &path)?;
        disk.sync_directory(&layout.segments())
    }

    /// Cancels what was given back of cancelled deliveries.
    pub(super) fn sweep(&self, change: &mut Change) {
        let index = self.shared().index();
        let now = UnixMillis::now();
        for (&position, delivery) in &index.deliveries {
            let cancelled = delivery.counters.cancelled_at.is_some();
            if cancelled && delivery.waiting() != Tally::default() {
                change.cancel(&index, position, now);
            }
        }
    }

    /// Removes the marks of deliveries that have settled whole.
    pub(super) fn remove_marks(&self, finished: &[DeliveryId]) {
        let shared = self.shared();
        for &id in finished {
            let cancelled = shared
                .index()
                .delivery(id)
                .is_some_and(|(_, delivery)| delivery.counters.cancelled_at.is_some());
            if cancelled && let Err(error) = shared.disk.remove(&shared.layout.cancelled(id)) {
                tracing::warn!(delivery = %id, %error, "the mark of a cancelled delivery could not be removed; the next start removes it");
            }
        }
    }
}

/// Marks that the state has not heard of, and marks that have done their work.
pub(super) fn take_up(recovery: &mut Recovery<'_>) -> Result<(), StateError> {
    let mut change = Change::default();
    let marks = std::mem::take(&mut recovery.files.cancelled);
    for (id, path) in marks {
        match recovery.index.delivery(id) {
            Some((position, delivery)) if !delivery.segments.is_empty() => {
                change.mark_cancelled(&recovery.index, position, UnixMillis::now());
            }
            _ => recovery.remove(&path),
        }
    }
    recovery.make(change)
}
