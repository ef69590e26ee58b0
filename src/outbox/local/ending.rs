//! How a delivery ended, request by request, as far as it can be told.

use std::collections::BTreeSet;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::delivery::{Ending, Tally};
use crate::outbox::error::Error;
use crate::outbox::letter::LetterId;
use crate::outbox::local::handle::Local;

/// How a delivery ended.
pub(in crate::outbox) fn ending(local: &Local, id: DeliveryId) -> Ending {
    let damaged = local
        .shared
        .damage()
        .iter()
        .any(|damage| damage.delivery == Some(id));
    let index = local.shared.index();
    let Some((position, delivery)) = index.delivery(id) else {
        return Ending::Unknown;
    };
    if !delivery.is_settled() {
        return Ending::Open;
    }
    let mut requests = BTreeSet::new();
    let mut dead = Tally::default();
    for letter in index
        .letters
        .values()
        .filter(|letter| letter.position == position)
    {
        requests.insert(letter.ordinal);
        dead += letter.tally;
    }
    let mut told = delivery.counters().delivered;
    told += dead;
    // What is known of users who were erased is gone as well.
    told += delivery.counters().erased;
    let mapped = delivery.row.totals.mapped();
    if damaged || told != mapped {
        return Ending::InDoubt;
    }
    Ending::Settled(requests.into_iter().collect())
}

/// Lets a delivery that is held go; `None`: it is not listed. Returns whether it was held.
pub(in crate::outbox) fn release(local: &Local, id: DeliveryId) -> Result<Option<bool>, Error> {
    let shared = &local.shared;
    shared.check_healthy()?;
    {
        let index = shared.index();
        if index.delivery(id).is_none() {
            return Ok(None);
        }
        if !index.held.contains(&id) {
            return Ok(Some(false));
        }
    }
    shared
        .disk
        .remove(&shared.layout.held(id))
        .and_then(|()| shared.disk.sync_directory(&shared.layout.segments()))
        .map_err(Error::io("a delivery could not be released"))?;
    shared.index().held.remove(&id);
    shared.changed.send_modify(|changes| *changes += 1);
    Ok(Some(true))
}

/// The deliveries of these dead letters, as far as they are there.
pub(in crate::outbox) fn deliveries_of(local: &Local, letters: &[LetterId]) -> Vec<DeliveryId> {
    let index = local.shared.index();
    let ids: BTreeSet<DeliveryId> = letters
        .iter()
        .filter_map(|id| {
            let letter = index.letters.get(&id.letter)?;
            Some(index.deliveries.get(&letter.position)?.row.info.id)
        })
        .collect();
    ids.into_iter().collect()
}

/// When it was last found, since the outbox was opened, that the state as a whole was lost or
/// could not be read.
pub(in crate::outbox) fn state_lost(local: &Local) -> Option<UnixMillis> {
    let damage = local.shared.damage();
    let lost = damage.iter().filter(|damage| damage.delivery.is_none());
    lost.map(|damage| damage.found).max()
}
