//! Deliveries that have begun and are not committed, on the owner's thread.

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::attempt::Attempt;
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::error::Error;
use crate::outbox::local::owner::command::Reply;
use crate::outbox::local::owner::keeper::{Ack, Keeper, ack};
use crate::outbox::local::state::change::{Change, Effects};

/// Puts the row of a delivery that is about to be received into the change.
pub(in crate::outbox) fn reserve(
    keeper: &Keeper,
    row: Arc<AttemptRow>,
    reply: Reply<()>,
    change: &mut Change,
    acks: &mut Vec<Ack>,
) {
    match keeper.shared.check_healthy() {
        Ok(()) => {
            change.put_attempt(row);
            acks.push(ack(reply, |_| ()));
        }
        Err(error) => {
            let _ = reply.send(Err(error));
        }
    }
}

/// Replaces the journal of a failed delivery, if it says `before`.
pub(in crate::outbox) fn journal(
    keeper: &Keeper,
    id: DeliveryId,
    before: &[u8],
    journal: Arc<[u8]>,
    change: &mut Change,
) -> Result<bool, Error> {
    let index = keeper.shared.index();
    let row = match change.attempt(id) {
        Some(pending) => pending.cloned(),
        None => index.attempts.get(&id).cloned(),
    };
    drop(index);
    // One that cannot be opened stays as it is: its key may come back.
    let same = |row: &Arc<AttemptRow>| row.opened && *row.attempt.journal == *before;
    let Some(row) = row.filter(same) else {
        return Ok(false);
    };
    let attempt = Attempt {
        journal,
        ..row.attempt.clone()
    };
    let keys = &keeper.shared.settings.keys;
    change.put_attempt(Arc::new(AttemptRow::seal(attempt, row.webhook, keys)?));
    Ok(true)
}

/// Adds what is in memory only.
pub(in crate::outbox) fn save(keeper: &Keeper, change: &mut Change, acks: &mut Vec<Ack>) {
    let index = keeper.shared.index();
    let unsaved = index.unsaved.iter();
    let rows: Vec<_> = unsaved
        .filter(|id| change.attempt(**id).is_none())
        .filter_map(|id| index.attempts.get(id).cloned())
        .collect();
    drop(index);
    if rows.is_empty() {
        return;
    }
    for row in &rows {
        change.put_attempt(Arc::clone(row));
    }
    forget(keeper, change);
    let shared = Arc::clone(&keeper.shared);
    acks.push(Box::new(move |saved: Result<&Effects, Error>| {
        let mut index = shared.index();
        for row in rows {
            let id = row.attempt.id;
            let same = |now: &Arc<AttemptRow>| Arc::ptr_eq(now, &row);
            // One that has become another meanwhile is still to be saved.
            if saved.is_ok() && index.attempts.get(&id).is_none_or(same) {
                index.unsaved.remove(&id);
            }
        }
    }));
}

/// Takes the oldest failed deliveries beyond the history out.
fn forget(keeper: &Keeper, change: &mut Change) {
    let index = keeper.shared.index();
    let failed = index
        .attempts
        .iter()
        .filter(|(_, row)| row.attempt.end.is_some());
    let ids: Vec<DeliveryId> = failed.map(|(id, _)| *id).collect();
    let excess = ids.len().saturating_sub(keeper.shared.settings.history);
    for id in ids.into_iter().take(excess) {
        change.drop_attempt(id);
    }
}
