//! How a delivery ended, request by request, as far as it can be told.

use std::collections::BTreeSet;

use super::Outbox;
use super::dead::LetterId;
use super::delivery::Tally;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is not listed: never committed, or forgotten.
    Unknown,
    /// Something of it waits or flies.
    Open,
    /// Nothing of it waits or flies, and all arrived but for something in these requests (from 0,
    /// ascending), which lies in the dead letters.
    Settled(Vec<u32>),
    /// Nothing of it waits or flies, and what did not arrive cannot be told by its request:
    /// discarded, cancelled or damaged.
    InDoubt,
}

impl Outbox {
    /// How a delivery ended.
    pub fn ending(&self, id: DeliveryId) -> Ending {
        let damaged = self
            .damage()
            .iter()
            .any(|damage| damage.delivery == Some(id));
        let index = self.shared.index();
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
        let mut told = delivery.counters.delivered;
        told += dead;
        let mapped = delivery.row.totals.mapped();
        if damaged || told != mapped {
            return Ending::InDoubt;
        }
        Ending::Settled(requests.into_iter().collect())
    }

    /// The deliveries of these dead letters, as far as they are there.
    pub fn deliveries_of(&self, letters: &[LetterId]) -> Vec<DeliveryId> {
        let index = self.shared.index();
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
    pub fn state_lost(&self) -> Option<UnixMillis> {
        let damage = self.damage();
        let lost = damage.iter().filter(|damage| damage.delivery.is_none());
        lost.map(|damage| damage.found).max()
    }
}
