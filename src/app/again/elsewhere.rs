//! What other daemons on the same outbox do: failed deliveries that they have left, and repeats that they
//! have received. Who asks Looker first is settled by the journal, which only one of them can begin.

use super::ask::AskAgain;
use super::entry::Entry;
use crate::again::Journal;
use crate::causes::with_causes;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

/// The newest failed deliveries that are looked at. What is older was looked at before, or by a start.
const NEWEST: usize = 100;

impl AskAgain {
    /// Looks at all of it. Blocks on the outbox.
    pub(super) fn look_elsewhere(&self) {
        self.look_at_arrivals();
        if self.outbox.is_shared() {
            self.look_at_failed();
        }
    }

    /// Looks at what has come in and nobody has told the end of: another daemon may have received it.
    /// Blocks on the outbox.
    fn look_at_arrivals(&self) {
        let now = UnixMillis::now();
        let arriving: Vec<(DeliveryId, Journal)> = {
            let ledger = self.ledger();
            let entries = ledger.entries.iter();
            let arriving = entries.filter(|(_, entry)| entry.journal.is_arriving());
            arriving
                .map(|(id, entry)| (*id, entry.journal.clone()))
                .collect()
        };
        for (id, before) in arriving {
            let Some(journal) = self.after_arrival(&before, now) else {
                continue;
            };
            let mut ledger = self.ledger();
            let as_it_was = |entry: &Entry| entry.journal == before;
            if ledger.entries.get(&id).is_some_and(as_it_was) {
                self.put(&mut ledger, id, journal);
            }
        }
    }

    /// A delivery whose daemon was killed is found by whoever looks first. Takes up those for which nobody
    /// has asked Looker yet, and leaves those to others for which they have.
    fn look_at_failed(&self) {
        let failed = match self.outbox.failed(None, NEWEST) {
            Ok(failed) => failed,
            Err(error) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "failed deliveries of other daemons cannot be read now"
                );
                return;
            }
        };
        let now = UnixMillis::now();
        for attempt in failed {
            let mut ledger = self.ledger();
            let theirs = |entry: &Entry| !entry.dirty && *entry.written != *attempt.journal;
            if ledger.entries.get(&attempt.id).is_some_and(theirs) {
                ledger.entries.remove(&attempt.id);
                continue;
            }
            let known = ledger.entries.contains_key(&attempt.id);
            drop(ledger);
            if !known && attempt.journal.is_empty() {
                self.take_up(&attempt, now);
                let mut ledger = self.ledger();
                self.supersede(&mut ledger, attempt.id);
            }
        }
    }
}
