//! A delivery that should not have been sent: what is left of it is not given out any more.
//!
//! The decision is a mark beside its segments, `<delivery>.cancelled`, made durable before the
//! state is told, so that it holds also when the state is lost and rebuilt. From then on nothing
//! of the delivery is claimed; what waits becomes `cancelled` at once, what is in flight settles as
//! it ends, and what is given back unsent becomes `cancelled` then. So does, after a crash, what was
//! in flight. The mark goes with the last segment.

use std::io;

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::local::owner::command::Reply;
use crate::outbox::local::owner::keeper::{Ack, Keeper};
use crate::outbox::local::state::change::Change;

/// Puts a cancelling into the change; `None`: there is no such delivery. The caller ends
/// `cancelling` of the position when the change has been made or has failed.
pub(in crate::outbox) fn cancel(
    keeper: &mut Keeper,
    id: DeliveryId,
    change: &mut Change,
) -> Result<Option<(u64, Tally)>, Error> {
    keeper.shared.check_healthy()?;
    let position = {
        let mut index = keeper.shared.index();
        let Some((position, delivery)) = index.delivery(id) else {
            return Ok(None);
        };
        if delivery.is_settled() {
            return Ok(Some((position, Tally::default())));
        }
        index.cancelling.insert(position);
        position
    };
    if let Err(error) = mark(keeper, id) {
        keeper.shared.index().cancelling.remove(&position);
        return Err(Error::io("the cancelling could not be written down")(error));
    }
    // Letters that a command of the same group sends again are not in the index yet.
    keeper.sweep_due = true;
    let tally = change.cancel(&keeper.shared.index(), position, keeper.shared.now());
    Ok(Some((position, tally)))
}

fn mark(keeper: &Keeper, id: DeliveryId) -> io::Result<()> {
    let (layout, disk) = (&keeper.shared.layout, &keeper.shared.disk);
    let path = layout.cancelled(id);
    let file = match disk.create(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::fs::File::open(&path)?,
        Err(error) => return Err(error),
    };
    disk.sync(&file, &path)?;
    disk.sync_directory(&layout.segments())
}

/// Cancels what was given back of cancelled deliveries.
pub(in crate::outbox) fn sweep(keeper: &Keeper, change: &mut Change) {
    let index = keeper.shared.index();
    let now = keeper.shared.now();
    for (&position, delivery) in &index.deliveries {
        let cancelled = delivery.counters().cancelled_at.is_some();
        if cancelled && delivery.waiting() != Tally::default() {
            change.cancel(&index, position, now);
        }
    }
}

/// Ends `cancelling`, and the command, once the change has been made or has failed.
pub(in crate::outbox) fn cancelled(
    keeper: &Keeper,
    found: Option<(u64, Tally)>,
    reply: Reply<Option<Tally>>,
) -> Ack {
    let shared = Arc::clone(&keeper.shared);
    Box::new(move |outcome| {
        if let Some((position, _)) = found {
            shared.index().cancelling.remove(&position);
        }
        let _ = reply.send(outcome.map(|_| found.map(|(_, tally)| tally)));
    })
}
