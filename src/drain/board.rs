//! What others may see of the drain, and what an operator may tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::lane::Lane;
use super::moment::{Moment, Stopwatch};
use super::snapshot::Snapshot;
use crate::model::{DeliveryId, DestinationId};

/// Lanes that are kept while they have nothing to do, at most.
const SEATS: usize = 1_000;
/// Destinations that can be paused before they have had work, at most.
const PAUSED: usize = 10_000;

/// A view of a running drain. Cheap to clone; outlives the drain.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Board>);

/// The lanes by destination, also those that have nothing to do just now: their rate, their
/// counters and an operator's pause are kept.
pub(super) struct Board {
    pub(super) stopwatch: Stopwatch,
    seats: Mutex<Seats>,
}

/// What an operator has changed since the start: requests in flight, batches per second.
type Adjusted = Option<(usize, u32)>;

#[derive(Default)]
struct Seats {
    taken: BTreeMap<DestinationId, Arc<Seat>>,
    adjusted: Adjusted,
    /// Paused by an operator before there was a lane.
    paused: BTreeSet<DestinationId>,
}

/// One lane, shared between its courier and the board. The lock is held for single steps of the
/// state machine, never across a wait.
pub(super) struct Seat {
    lane: Mutex<Lane>,
    /// An operator has changed something.
    pub(super) nudged: Notify,
}

impl Handle {
    /// Every destination that has had work since the start of the daemon, in the order of their
    /// ids (idle ones may be left out when there are more than 1,000).
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let seats: Vec<_> = self.0.seats().taken.values().cloned().collect();
        let now = self.0.stopwatch.now();
        seats.iter().map(|seat| seat.lane().snapshot(now)).collect()
    }

    /// One destination; `None` if it has had no work.
    pub fn snapshot(&self, destination: DestinationId) -> Option<Snapshot> {
        let seat = self.0.seats().taken.get(&destination).cloned()?;
        let now = self.0.stopwatch.now();
        Some(seat.lane().snapshot(now))
    }

    /// Stops a destination until [`Handle::resume`] or a restart of the daemon. What is in flight
    /// lands. Works for a destination that has no work yet too. Returns whether it could be done:
    /// not if more than 10,000 unknown destinations are paused already.
    pub fn pause(&self, destination: DestinationId) -> bool {
        let mut seats = self.0.seats();
        match seats.taken.get(&destination).cloned() {
            Some(seat) => {
                drop(seats);
                seat.change(|lane| lane.pause(self.0.stopwatch.now()));
                true
            }
            None => {
                if seats.paused.len() < PAUSED {
                    seats.paused.insert(destination);
                }
                seats.paused.contains(&destination)
            }
        }
    }

    /// Ends [`Handle::pause`], and tries at once whatever else the destination waited for. If it is
    /// paused because too much was rejected, it goes on all the same, until as much is once more.
    /// Returns whether the destination is known.
    pub fn resume(&self, destination: DestinationId) -> bool {
        let was_paused = self.0.seats().paused.remove(&destination);
        self.act(destination, Lane::resume) || was_paused
    }

    /// Tries at once what waits for its time: the end of a wait, or the next probe. Does not end an
    /// operator's pause. Returns whether the destination is known.
    pub fn retry_now(&self, destination: DestinationId) -> bool {
        self.act(destination, Lane::retry_now)
    }

    /// Another bound on requests in flight and another rate, for all destinations and those to come.
    pub fn adjust(&self, max_in_flight: usize, batches_per_second: u32) {
        let mut seats = self.0.seats();
        seats.adjusted = Some((max_in_flight, batches_per_second));
        let taken: Vec<_> = seats.taken.values().cloned().collect();
        drop(seats);
        let now = self.0.stopwatch.now();
        for seat in taken {
            seat.change(|lane| lane.adjust(now, max_in_flight, batches_per_second));
        }
    }

    /// Gives back what is held of a delivery and has not been begun. Call it when the outbox has
    /// cancelled the delivery.
    pub fn cancel(&self, destination: DestinationId, delivery: DeliveryId) {
        self.act(destination, |lane, now| lane.cancel(now, delivery));
    }

    fn act(&self, destination: DestinationId, act: impl FnOnce(&mut Lane, Moment)) -> bool {
        let seat = self.0.seats().taken.get(&destination).cloned();
        let now = self.0.stopwatch.now();
        seat.inspect(|seat| seat.change(|lane| act(lane, now)))
            .is_some()
    }
}

impl Board {
    pub(super) fn new(stopwatch: Stopwatch) -> Self {
        Self {
            stopwatch,
            seats: Mutex::default(),
        }
    }

    /// The lane of a destination, made if there is none.
    pub(super) fn seat(
        &self,
        destination: DestinationId,
        make: impl FnOnce(Moment) -> Lane,
    ) -> Arc<Seat> {
        let now = self.stopwatch.now();
        let mut seats = self.seats();
        let paused = seats.paused.remove(&destination);
        let adjusted = seats.adjusted;
        let seat = seats.taken.entry(destination).or_insert_with(|| {
            let mut lane = make(now);
            if let Some((max_in_flight, batches_per_second)) = adjusted {
                lane.adjust(now, max_in_flight, batches_per_second);
            }
            Arc::new(Seat {
                lane: Mutex::new(lane),
                nudged: Notify::new(),
            })
        });
        if paused {
            seat.lane().pause(now);
        }
        Arc::clone(seat)
    }

    /// Forgets lanes that have nothing to do and are not paused, once there are more than anyone
    /// looks at.
    pub(super) fn keep(&self, busy: impl Fn(&DestinationId) -> bool) {
        let mut seats = self.seats();
        if seats.taken.len() > SEATS {
            seats
                .taken
                .retain(|id, seat| busy(id) || seat.lane().paused_by_operator());
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The lane, for one step.
    pub(super) fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Lane)) {
        change(&mut self.lane());
        self.nudged.notify_one();
    }
}
