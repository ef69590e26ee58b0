//! Marks of cancelled deliveries, met at an open.

use crate::clock::UnixMillis;
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::error::StateError;

/// Marks that the state has not heard of, and marks that have done their work.
pub(in crate::outbox) fn take_up(recovery: &mut Recovery<'_>) -> Result<(), StateError> {
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
