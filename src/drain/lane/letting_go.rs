//! What a lane gives back to the outbox undecided: because only probes go out, because a delivery
//! was cancelled, or because its run ends.

use std::collections::{HashSet, VecDeque};

use super::super::circuit::State;
use super::super::entry::EntryKey;
use super::super::moment::Moment;
use super::Lane;
use crate::model::DeliveryId;

impl Lane {
    /// Ends the lane's run: what has not landed is given up on, what is undecided is given back.
    /// The lane can be used again afterwards.
    pub fn abandon(&mut self) {
        for (_, flight) in self.flying.drain() {
            self.circuit.abandoned(flight.pass);
        }
        self.ready.clear();
        self.memos.clear();
        let keys: Vec<_> = self.entries.drain().map(|(key, _)| key).collect();
        for key in keys {
            self.let_go(key.0);
            self.releases.push(key);
        }
        self.releases.sort_unstable();
        self.expiring = false;
        self.cancelled.clear();
        self.stopping = false;
    }

    /// A delivery was cancelled in the outbox, which gives nothing of it out any more: what has not
    /// been begun is given back, what is in flight or decided in part goes on to its end.
    pub fn cancel(&mut self, now: Moment, delivery: DeliveryId) {
        self.circuit.cancelled(now.tick);
        // Kept until the lane has had nothing to do; a person cancels few.
        self.cancelled.insert(delivery);
        self.memos.retain(|key, _| key.0 != delivery);
        let untouched: HashSet<EntryKey> = self
            .entries
            .iter()
            .filter(|(key, entry)| key.0 == delivery && entry.flying == 0 && entry.untouched())
            .map(|(key, _)| *key)
            .collect();
        self.ready.retain(|piece| !untouched.contains(&piece.entry));
        for key in untouched {
            self.entries.remove(&key);
            self.let_go(key.0);
            self.releases.push(key);
        }
    }

    /// Gives back what need not be held while only probes go out. When paused, all of it, so that
    /// the next claim brings the account as it is then; when down, all but the first, and what is
    /// being halved.
    pub(super) fn shed(&mut self) {
        let paused = matches!(self.circuit.state(), State::Paused { .. });
        let mut spare = usize::from(!paused);
        let mut shed: Vec<EntryKey> = Vec::new();
        for piece in &self.ready {
            let Some(entry) = self.entries.get(&piece.entry) else {
                continue;
            };
            let idle = entry.flying == 0 && (paused || entry.untouched());
            if !idle || shed.contains(&piece.entry) {
                continue;
            }
            if spare > 0 {
                spare -= 1;
            } else {
                shed.push(piece.entry);
            }
        }
        for key in shed {
            let (pieces, rest): (VecDeque<_>, _) =
                self.ready.drain(..).partition(|piece| piece.entry == key);
            self.ready = rest;
            if let Some(entry) = self.entries.remove(&key) {
                self.memos.insert(key, entry.memo(Vec::from(pieces)));
            }
            self.let_go(key.0);
            self.releases.push(key);
        }
    }

    pub(super) fn let_go(&mut self, delivery: DeliveryId) {
        if let Some(held) = self.held.get_mut(&delivery) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&delivery);
                if self.head == Some(delivery) {
                    self.head = None;
                }
            }
        }
    }
}
