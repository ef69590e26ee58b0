//! What a lane has taken from the outbox and not settled there: entries with their bodies, the
//! pieces of them that are ready to be sent, and what goes back undecided.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::entry::{Entry, EntryKey, Memo, Piece};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{Claim, Settlement};

/// Entries by key, and their undecided pieces in the order in which they are sent.
#[derive(Default)]
pub(super) struct Held {
    entries: HashMap<EntryKey, Entry>,
    ready: VecDeque<Piece>,
    /// Of entries that were given back, until they are claimed again.
    memos: HashMap<EntryKey, Memo>,
    /// Entries by delivery that are not durably settled, with or without their bodies here.
    unsettled: HashMap<DeliveryId, usize>,
    /// The delivery that is being sent.
    head: Option<DeliveryId>,
    /// To be given back to the outbox.
    releases: Vec<EntryKey>,
}

impl Held {
    /// Entries with their bodies.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Entries that are not durably settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled.values().sum()
    }

    /// Pieces that are ready to be sent.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Nothing is unsettled, and nothing is to be given back.
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty() && self.releases.is_empty()
    }

    /// Whether the body of an entry is here.
    pub fn has(&self, key: &EntryKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Begins with a claimed entry: it counts as unsettled, and is to be kept or settled. Returns it
    /// with the pieces that are left to send and the account.
    pub fn take(&mut self, claim: Claim) -> (EntryKey, Entry, Vec<Piece>, Arc<[u8]>) {
        let memo = self.memos.remove(&(claim.delivery, claim.ordinal));
        *self.unsettled.entry(claim.delivery).or_default() += 1;
        Entry::take(claim, memo)
    }

    /// Keeps an entry; its pieces are sent after those that are ready.
    pub fn keep(&mut self, key: EntryKey, entry: Entry, pieces: Vec<Piece>) {
        self.entries.insert(key, entry);
        self.ready.extend(pieces);
    }

    /// Gives back what was claimed and not begun with.
    pub fn refuse(&mut self, key: EntryKey) {
        self.releases.push(key);
    }

    /// The place and the batches of the first piece that may go out by the order of deliveries.
    pub fn sendable(&mut self) -> Option<(usize, usize)> {
        if self.head.is_none() {
            self.head = self.ready.front().map(|piece| piece.entry.0);
        }
        let head = self.head?;
        let mut ready = self.ready.iter().enumerate();
        ready
            .find(|(_, piece)| piece.entry.0 == head)
            .map(|(at, piece)| (at, piece.slices.len()))
    }

    /// Takes the piece at a place: it is in flight until it has [landed](Held::landed).
    pub fn send(&mut self, at: usize, now: UnixMillis) -> Option<(Piece, &Entry)> {
        let mut piece = self.ready.remove(at)?;
        let entry = self.entries.get_mut(&piece.entry)?;
        entry.flying += 1;
        piece.tried(now);
        Some((piece, entry))
    }

    /// A piece is no longer in flight. Returns when its delivery was received; `None` if its entry is
    /// not held any more.
    pub fn landed(&mut self, piece: &Piece) -> Option<UnixMillis> {
        let entry = self.entries.get_mut(&piece.entry)?;
        entry.flying -= 1;
        Some(entry.received)
    }

    /// A piece is sent again before all others.
    pub fn send_first(&mut self, piece: Piece) {
        self.ready.push_front(piece);
    }

    /// A piece is sent again after all others.
    pub fn send_last(&mut self, piece: Piece) {
        self.ready.push_back(piece);
    }

    /// The server has taken a piece over. Returns the settlement if its entry is decided by that.
    pub fn deliver(&mut self, piece: &Piece) -> Option<Settlement> {
        let decided = self.entries.get_mut(&piece.entry)?.deliver(piece);
        decided.then(|| self.settlement(piece.entry)).flatten()
    }

    /// A piece goes to the dead letters. Returns the settlement if its entry is decided by that.
    pub fn make_dead(
        &mut self,
        piece: &Piece,
        reason: &str,
        now: UnixMillis,
    ) -> Option<Settlement> {
        let entry = self.entries.get_mut(&piece.entry)?;
        let decided = entry.make_dead(piece, reason, now);
        decided.then(|| self.settlement(piece.entry)).flatten()
    }

    fn settlement(&mut self, key: EntryKey) -> Option<Settlement> {
        self.entries.remove(&key).map(|entry| entry.settlement(key))
    }

    /// An entry of a delivery is durably settled, or with the outbox again. After its last one the
    /// next delivery may be sent.
    pub fn let_go(&mut self, delivery: DeliveryId) {
        if let Some(unsettled) = self.unsettled.get_mut(&delivery) {
            *unsettled -= 1;
            if *unsettled == 0 {
                self.unsettled.remove(&delivery);
                if self.head == Some(delivery) {
                    self.head = None;
                }
            }
        }
    }

    /// Gives back what need not be held while only probes go out: all that is idle but the first
    /// `spare`, and what is being halved too if `halved`. What was decided of it is remembered.
    pub fn shed(&mut self, mut spare: usize, halved: bool) {
        let mut shed: Vec<EntryKey> = Vec::new();
        for piece in &self.ready {
            let Some(entry) = self.entries.get(&piece.entry) else {
                continue;
            };
            let idle = entry.flying == 0 && (halved || entry.untouched());
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
            self.give_back(key);
        }
    }

    /// Gives back what has not been begun of a delivery; what is in flight or decided in part goes on
    /// to its end.
    pub fn cancel(&mut self, delivery: DeliveryId) {
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
            self.give_back(key);
        }
    }

    /// Gives back all that is undecided, and forgets what was remembered.
    pub fn abandon(&mut self) {
        self.ready.clear();
        self.memos.clear();
        let keys: Vec<_> = self.entries.drain().map(|(key, _)| key).collect();
        for key in keys {
            self.give_back(key);
        }
        self.releases.sort_unstable();
    }

    fn give_back(&mut self, key: EntryKey) {
        self.let_go(key.0);
        self.releases.push(key);
    }

    /// Entries to be given back to the outbox.
    pub fn take_releases(&mut self) -> Vec<EntryKey> {
        std::mem::take(&mut self.releases)
    }
}
