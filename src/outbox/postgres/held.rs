//! What the owner of a destination knows of it: the turns of its queue, how far each delivery has
//! come, and what flies. Only the owner changes these rows on the server, so what was read once under
//! its fence stays true until it changes it itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::blocks::Block;
use super::lock::lock;
use super::marks::Marks;
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::counters::Counters;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;

/// Deliveries that have settled and are kept in mind, about.
const KEPT: usize = 512;
/// An erasure asks again long before that, or its daemon is not there any more.
const ERASING: Duration = Duration::from_secs(60);

/// A destination that this daemon sends to.
#[derive(Debug)]
pub(super) struct Held {
    pub destination: DestinationId,
    pub epoch: i64,
    until: Mutex<Instant>,
    lost: AtomicBool,
    /// Who takes part in it; changed under the lock of the table of leases.
    pub users: AtomicUsize,
    /// A person asked that another daemon take it, or this one has more than its share.
    pub wanted: AtomicBool,
    /// There may be deliveries that have not been looked at.
    pub stale: AtomicBool,
    flight: Mutex<Flight>,
    /// Locked while a change of the destination is under way.
    pub work: tokio::sync::Mutex<Work>,
    /// For the lane, until it has taken them.
    lane: Mutex<Vec<LaneRequest>>,
    /// What the holder before has left and how long ago, until it is taken; then what the next one is to
    /// find.
    left: Mutex<Option<(Vec<u8>, Duration)>>,
}

/// What the lane has and has not settled.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub deliveries: HashMap<DeliveryId, Flying>,
    pub letters: HashMap<u64, (DeliveryId, Tally)>,
    /// Cancelled deliveries of which something was given back.
    pub given_back: BTreeSet<DeliveryId>,
    /// Requests that are not given out while somebody is erased from them, and until when at the latest.
    pub erasing: HashMap<(DeliveryId, u64), Instant>,
    /// The same for letters.
    pub erasing_letters: HashMap<u64, Instant>,
}

/// The claims on one delivery.
#[derive(Debug, Default)]
pub(super) struct Flying {
    pub claimed: HashMap<u64, Tally>,
    pub released: BTreeSet<u64>,
    /// All from here on have not been claimed yet.
    pub cursor: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub account: Arc<[u8]>,
    pub open: HashMap<DeliveryId, Open>,
    pub turns: BTreeMap<u64, Turn>,
    /// Those that wait to be sent again.
    pub letters: BTreeMap<u64, Letter>,
    /// The block that was read last.
    pub block: Option<(DeliveryId, Arc<Block>)>,
    /// A change ended without an answer: what is here may be older than what is on the server.
    pub doubt: bool,
    /// Deliveries have been read since it was last looked whether they are cancelled.
    pub fresh: bool,
    pub loaded: bool,
    pub more: bool,
    pub seen: i64,
}

/// A turn in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Delivery(DeliveryId),
    /// Letters that were replayed together.
    Letters(BTreeSet<u64>),
}

/// A delivery and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub brief: Arc<Brief>,
    pub progress: Progress,
}

/// What of a delivery does not change.
#[derive(Debug)]
pub(super) struct Brief {
    pub id: DeliveryId,
    pub destination: DestinationId,
    pub label: String,
    pub title: String,
    pub received: UnixMillis,
    pub requests: u64,
    pub mapped: Tally,
}

/// What of it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub position: u64,
    pub version: i64,
    pub marks: Marks,
    /// Nothing of it is sent before a person releases it; those behind it go on.
    pub held: bool,
    pub counters: Counters,
}

/// A dead letter without its body.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub delivery: DeliveryId,
    pub ordinal: u32,
    pub live: Bits,
    pub tally: Tally,
    pub queued: Option<u64>,
}

impl Held {
    pub fn new(
        destination: DestinationId,
        epoch: i64,
        until: Instant,
        account: Arc<[u8]>,
        left: Option<(Vec<u8>, Duration)>,
    ) -> Self {
        Self {
            destination,
            epoch,
            until: Mutex::new(until),
            lost: AtomicBool::new(false),
            users: AtomicUsize::new(1),
            wanted: AtomicBool::new(false),
            stale: AtomicBool::new(true),
            flight: Mutex::default(),
            work: tokio::sync::Mutex::new(Work {
                account,
                seen: -1,
                ..Work::default()
            }),
            lane: Mutex::default(),
            left: Mutex::new(left),
        }
    }

    pub fn take_left(&self) -> Option<(Vec<u8>, Duration)> {
        lock(&self.left).take()
    }

    pub fn leave(&self, text: Vec<u8>) {
        *lock(&self.left) = Some((text, Duration::ZERO));
    }

    pub fn until(&self) -> Instant {
        *lock(&self.until)
    }

    pub fn renew(&self, until: Instant) {
        *lock(&self.until) = until;
    }

    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether anything may be sent under it.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_lost() || Instant::now() >= self.until() {
            return Err(Error::LeaseLost);
        }
        Ok(())
    }

    pub fn flight(&self) -> MutexGuard<'_, Flight> {
        lock(&self.flight)
    }

    pub fn tell_lane(&self, request: LaneRequest) {
        let mut lane = lock(&self.lane);
        if !lane.contains(&request) {
            lane.push(request);
        }
    }

    pub fn take_lane_requests(&self) -> Vec<LaneRequest> {
        std::mem::take(&mut lock(&self.lane))
    }
}

impl Flight {
    /// From now on these are not given out. Returns whether one of them flies.
    pub fn keep_back(&mut self, id: DeliveryId, ordinals: impl Iterator<Item = u64>) -> bool {
        let until = Instant::now() + ERASING;
        let mut flies = false;
        for ordinal in ordinals {
            self.erasing.insert((id, ordinal), until);
            let flying = self.deliveries.get(&id);
            flies |= flying.is_some_and(|flying| flying.claimed.contains_key(&ordinal));
        }
        flies
    }

    /// The same for a letter.
    pub fn keep_letter_back(&mut self, letter: u64) -> bool {
        let until = Instant::now() + ERASING;
        self.erasing_letters.insert(letter, until);
        self.letters.contains_key(&letter)
    }

    /// Forgets what was kept back for an erasure that is not heard of any more.
    pub fn forget_erasing(&mut self) {
        let now = Instant::now();
        self.erasing.retain(|_, until| now < *until);
        self.erasing_letters.retain(|_, until| now < *until);
    }

    /// What flies of a delivery.
    pub fn tally(&self, id: DeliveryId) -> Tally {
        let mut sum = Tally::default();
        if let Some(flying) = self.deliveries.get(&id) {
            flying.claimed.values().for_each(|tally| sum += *tally);
        }
        for (delivery, tally) in self.letters.values() {
            if *delivery == id {
                sum += *tally;
            }
        }
        sum
    }
}

impl Open {
    pub fn is_open(&self) -> bool {
        self.progress.counters.settled() != self.brief.mapped
    }

    /// Requests of it have not settled, and are to be sent.
    fn has_turn(&self) -> bool {
        let requests = self.brief.requests;
        !self.progress.held && self.progress.marks.settled(requests) < requests
    }

    pub fn is_cancelled(&self) -> bool {
        self.progress.counters.cancelled_at.is_some()
    }
}

impl Work {
    /// Takes over how far a delivery has come, with its turn.
    pub fn put(&mut self, open: Open) {
        let (id, position) = (open.brief.id, open.progress.position);
        if open.has_turn() {
            if position as i64 <= self.seen {
                self.turns.insert(position, Turn::Delivery(id));
            }
        } else {
            self.turns.remove(&position);
        }
        let needed = open.is_open();
        self.open.insert(id, open);
        if !needed && self.open.len() > KEPT {
            self.open.remove(&id);
        }
    }

    /// Takes over a letter that waits.
    pub fn put_letter(&mut self, id: u64, letter: Letter) {
        self.remove_letter(id);
        if let Some(turn) = letter.queued {
            let turn = self
                .turns
                .entry(turn)
                .or_insert_with(|| Turn::Letters(BTreeSet::new()));
            if let Turn::Letters(letters) = turn {
                letters.insert(id);
            }
            self.letters.insert(id, letter);
        }
    }

    pub fn remove_letter(&mut self, id: u64) {
        let Some(turn) = self.letters.remove(&id).and_then(|letter| letter.queued) else {
            return;
        };
        if let Some(Turn::Letters(letters)) = self.turns.get_mut(&turn) {
            letters.remove(&id);
            if letters.is_empty() {
                self.turns.remove(&turn);
            }
        }
    }
}
