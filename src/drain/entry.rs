//! An entry while the drain has it, and the pieces that it is sent in.
//!
//! An entry is sent whole at first. If something in it is bad it is halved, and the halves are
//! sent, and halved, on their own; it settles once, when every slice of it is decided.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{Claim, Dead, Settlement};

/// Names an entry: its delivery, and its place in it.
pub type EntryKey = (DeliveryId, u64);

/// An entry with at least one slice undecided.
pub struct Entry {
    slices: Vec<Bytes>,
    /// Which of the destination's addresses it goes to.
    pub route: u8,
    /// When Looker's delivery came in.
    pub received: UnixMillis,
    /// Pieces of it in flight.
    pub flying: usize,
    undecided: usize,
    dead: Vec<Dead>,
}

/// What was decided and tried of an entry that is back in the outbox: what has its 202 is not sent
/// again when the entry is claimed again. It holds no bodies.
#[derive(Debug)]
pub struct Memo {
    pieces: Vec<Piece>,
    dead: Vec<Dead>,
}

/// A run of slices of one entry that is sent as one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose slices.
    pub entry: EntryKey,
    /// Which, never empty.
    pub slices: Range<usize>,
    /// Requests that held these slices so far.
    pub attempts: u32,
    /// When the first of them was sent.
    pub first_try: Option<UnixMillis>,
    /// When the last of them was sent.
    pub last_try: Option<UnixMillis>,
}

impl Entry {
    /// Takes a claim apart: the entry, the pieces that are left to send, and the account.
    pub fn take(claim: Claim, memo: Option<Memo>) -> (EntryKey, Self, Vec<Piece>, Arc<[u8]>) {
        let key = (claim.delivery, claim.ordinal);
        let count = claim.slices.len();
        let memo = memo.unwrap_or_else(|| Memo {
            pieces: Piece::whole(key, count).into_iter().collect(),
            dead: Vec::new(),
        });
        let entry = Self {
            slices: claim.slices,
            route: claim.route,
            received: claim.received,
            flying: 0,
            undecided: memo.pieces.iter().map(|piece| piece.slices.len()).sum(),
            dead: memo.dead,
        };
        (key, entry, memo.pieces, claim.account)
    }

    /// What is to be remembered of an entry that goes back to the outbox; its undecided slices are
    /// in `pieces`.
    pub fn memo(self, pieces: Vec<Piece>) -> Memo {
        Memo {
            pieces,
            dead: self.dead,
        }
    }

    /// The batches of a piece.
    pub fn batches(&self, piece: &Piece) -> Vec<Bytes> {
        self.slices
            .get(piece.slices.clone())
            .unwrap_or_default()
            .to_vec()
    }

    /// Nothing of it has been decided yet.
    pub fn untouched(&self) -> bool {
        self.undecided == self.slices.len()
    }

    /// The server has taken a piece over. Returns whether the entry is decided.
    pub fn deliver(&mut self, piece: &Piece) -> bool {
        self.undecided = self.undecided.saturating_sub(piece.slices.len());
        self.undecided == 0
    }

    /// A piece goes to the dead letters. Returns whether the entry is decided.
    pub fn make_dead(&mut self, piece: &Piece, reason: &str, now: UnixMillis) -> bool {
        self.dead.extend(piece.slices.clone().map(|slice| Dead {
            slice,
            reason: reason.to_owned(),
            attempts: piece.attempts,
            first_try: piece.first_try.unwrap_or(now),
            last_try: piece.last_try.unwrap_or(now),
        }));
        self.deliver(piece)
    }

    /// What the outbox is told of a decided entry.
    pub fn settlement(self, (delivery, ordinal): EntryKey) -> Settlement {
        Settlement {
            delivery,
            ordinal,
            dead: self.dead,
        }
    }
}

impl Piece {
    /// All of an entry; none if it is empty.
    fn whole(entry: EntryKey, slices: usize) -> Option<Self> {
        (slices > 0).then_some(Self {
            entry,
            slices: 0..slices,
            attempts: 0,
            first_try: None,
            last_try: None,
        })
    }

    /// Counts an attempt.
    pub fn tried(&mut self, now: UnixMillis) {
        self.attempts = self.attempts.saturating_add(1);
        self.first_try.get_or_insert(now);
        self.last_try = Some(now);
    }

    /// Two pieces of the same slices, for a piece of at least two.
    pub fn halves(self) -> [Self; 2] {
        let middle = self.slices.start + self.slices.len() / 2;
        let mut left = self.clone();
        let mut right = self;
        left.slices.end = middle;
        right.slices.start = middle;
        [left, right]
    }
}
