//! Cancelling: what neither flies nor has settled is not sent any more.

use super::change::Change;
use super::daemon::Inner;
use super::held::{Held, Open, Work};
use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;

/// Cancels what was given back of cancelled deliveries, and what was in flight when their last owner
/// ended.
pub(super) async fn cancel_given_back(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
) -> Result<(), Error> {
    let mut given_back = std::mem::take(&mut held.flight().given_back);
    if std::mem::take(&mut work.fresh) {
        given_back.extend(work.open.keys());
    }
    for id in given_back {
        let cancelled = |open: &Open| open.is_cancelled() && open.is_open();
        if !work.open.get(&id).is_some_and(cancelled) {
            continue;
        }
        let mut change = Change::default();
        if cancel(held, work, id, &mut change) == Tally::default() {
            continue;
        }
        if let Err(error) = change.carry_out(inner, held, work).await {
            held.flight().given_back.insert(id);
            return Err(error);
        }
    }
    Ok(())
}

/// Cancels what neither flies nor has settled of a delivery, replayed letters included. Returns what
/// it has cancelled.
pub(super) fn cancel(held: &Held, work: &Work, id: DeliveryId, change: &mut Change) -> Tally {
    let letters: Vec<(u64, Tally)> = {
        let flight = held.flight();
        work.letters
            .iter()
            .filter(|(letter_id, letter)| {
                letter.delivery == id && !flight.letters.contains_key(letter_id)
            })
            .map(|(letter_id, letter)| (*letter_id, letter.tally))
            .collect()
    };
    let Some(open) = change.open(work, id) else {
        return Tally::default();
    };
    // What is left waits, but for what flies.
    let mut sum = open.brief.mapped;
    sum -= open.progress.counters.settled();
    let end = open.brief.requests;
    {
        let flight = held.flight();
        sum -= flight.tally(id);
        let flying = flight.deliveries.get(&id);
        open.progress.marks.set_all(end, |ordinal| {
            flying.is_some_and(|flying| flying.claimed.contains_key(&ordinal))
        });
    }
    open.progress.counters.cancelled += sum;
    for (letter, _) in letters {
        change.drop_letter(letter);
    }
    sum
}
