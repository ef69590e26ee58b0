//! What others may see of the drain, and what an operator may tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use tokio::sync::Notify;

use super::lane::{Lane, LaneSettings};
use super::moment::{Moment, Stopwatch};
use super::remembered::Paused;
use super::snapshot::Snapshot;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::{Error, LaneRequest, Outbox};

/// Lanes that are kept while they have nothing to do, at most.
const LANES: usize = 1_000;

/// A view of a running drain. Cheap to clone; outlives the drain.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Board>);

/// The lanes by destination, also those that have nothing to do just now: their rate, their
/// counters and an operator's pause are kept.
pub(super) struct Board {
    pub(super) stopwatch: Stopwatch,
    outbox: Outbox,
    lanes: Mutex<Lanes>,
    /// Held while a pause begins or ends, so that what is written down is what is done.
    pausing: Mutex<()>,
}

struct Lanes {
    all: BTreeMap<DestinationId, Arc<SharedLane>>,
    /// Of the lanes to come.
    settings: LaneSettings,
    rng: Rng,
}

/// One lane, shared between its sender and the board. The lock is held for single steps of the
/// state machine, never across a wait.
pub(super) struct SharedLane {
    lane: Mutex<Lane>,
    /// An operator has changed something.
    pub(super) nudged: Notify,
}

impl Handle {
    /// Every destination that has had work since the start of the daemon, or is paused by an
    /// operator, in the order of their ids (idle ones may be left out when there are more than
    /// 1,000).
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let lanes: Vec<_> = self.0.lanes().all.values().cloned().collect();
        let now = self.0.stopwatch.now();
        lanes.iter().map(|lane| lane.lock().snapshot(now)).collect()
    }

    /// One destination; `None` if it has had no work.
    pub fn snapshot(&self, destination: DestinationId) -> Option<Snapshot> {
        let lane = self.0.lanes().all.get(&destination).cloned()?;
        let now = self.0.stopwatch.now();
        Some(lane.lock().snapshot(now))
    }

    /// Stops a destination until [`Handle::resume`], also over a restart, and whichever daemon sends to
    /// it. What is in flight lands. Works for a destination that has no work yet too. Blocks on the
    /// outbox.
    ///
    /// # Errors
    /// It is paused here, and that could not be written down: it ends with a restart. Or the daemon that
    /// sends to it has not been told yet.
    pub fn pause(&self, destination: DestinationId) -> Result<(), Error> {
        let _one = self.0.pausing();
        let lane = self.0.lane(destination);
        let now = self.0.stopwatch.now();
        lane.change(|lane| lane.pause(now));
        let seen = lane.lock().snapshot(now);
        Paused::write(&self.0.outbox, destination, &seen.label, &seen.state)?;
        self.tell(destination, LaneRequest::Pause).map(drop)
    }

    /// Ends [`Handle::pause`], and tries at once whatever else the destination waited for. If it is
    /// paused because too much was rejected, it goes on all the same, until as much is once more.
    /// Returns whether the destination is known. Blocks on the outbox.
    ///
    /// # Errors
    /// It goes on here, and that could not be written down: an operator's pause is there again after a
    /// restart. Or the daemon that sends to it has not been told yet.
    pub fn resume(&self, destination: DestinationId) -> Result<bool, Error> {
        let _one = self.0.pausing();
        let known = self.act(destination, Lane::resume);
        Paused::erase(&self.0.outbox, destination)?;
        let told = self.tell(destination, LaneRequest::Resume)?;
        Ok(known || told)
    }

    /// Tries at once what waits for its time: the end of a wait, or the next probe. Does not end an
    /// operator's pause. Returns whether the destination is known. Blocks on the outbox.
    ///
    /// # Errors
    /// The daemon that sends to it has not been told yet.
    pub fn retry_now(&self, destination: DestinationId) -> Result<bool, Error> {
        let known = self.act(destination, Lane::retry_now);
        let told = self.tell(destination, LaneRequest::Retry)?;
        Ok(known || told)
    }

    /// Another bound on requests in flight and another rate, for all destinations and those to come.
    pub fn adjust(&self, max_in_flight: usize, batches_per_second: u32) {
        let mut lanes = self.0.lanes();
        lanes.settings.max_in_flight = max_in_flight;
        lanes.settings.pace.batches_per_second = batches_per_second;
        let all: Vec<_> = lanes.all.values().cloned().collect();
        drop(lanes);
        let now = self.0.stopwatch.now();
        for lane in all {
            lane.change(|lane| lane.adjust(now, max_in_flight, batches_per_second));
        }
    }

    /// Gives back what is held of a delivery and has not been begun. Call it when the outbox has
    /// cancelled the delivery.
    pub fn cancel(&self, destination: DestinationId, delivery: DeliveryId) {
        self.act(destination, |lane, now| lane.cancel(now, delivery));
    }

    /// Gives back what is held of a delivery and has not been begun, and forgets what is remembered of
    /// its requests, which may be others when they are claimed again.
    pub fn give_back(&self, destination: DestinationId, delivery: DeliveryId) {
        self.act(destination, |lane, _| lane.give_back(delivery));
    }

    /// Tells the daemon that sends to a destination, if that is another one.
    fn tell(&self, destination: DestinationId, request: LaneRequest) -> Result<bool, Error> {
        self.0.outbox.tell_holder(destination, request)
    }

    fn act(&self, destination: DestinationId, act: impl FnOnce(&mut Lane, Moment)) -> bool {
        let lane = self.0.lanes().all.get(&destination).cloned();
        let now = self.0.stopwatch.now();
        lane.inspect(|lane| lane.change(|lane| act(lane, now)))
            .is_some()
    }
}

impl Board {
    /// A board with the destinations that an operator has paused.
    pub(super) fn new(
        stopwatch: Stopwatch,
        outbox: Outbox,
        settings: LaneSettings,
        rng: Rng,
    ) -> Result<Self, Error> {
        let lanes = Lanes {
            all: BTreeMap::new(),
            settings,
            rng,
        };
        let board = Self {
            stopwatch: stopwatch.clone(),
            outbox,
            lanes: Mutex::new(lanes),
            pausing: Mutex::default(),
        };
        let now = stopwatch.now();
        for (destination, paused) in Paused::all(&board.outbox, now.wall)? {
            let lane = board.lane(destination);
            let mut lane = lane.lock();
            lane.relabel(paused.label);
            lane.pause(Moment {
                wall: paused.since,
                ..now
            });
        }
        Ok(board)
    }

    /// The lane of a destination, made if there is none.
    pub(super) fn lane(&self, destination: DestinationId) -> Arc<SharedLane> {
        let now = self.stopwatch.now();
        let mut lanes = self.lanes();
        let Lanes { all, settings, rng } = &mut *lanes;
        let lane = all.entry(destination).or_insert_with(|| {
            let lane = Lane::new(*settings, destination, String::new(), now, rng.fork());
            Arc::new(SharedLane {
                lane: Mutex::new(lane),
                nudged: Notify::new(),
            })
        });
        Arc::clone(lane)
    }

    /// Forgets lanes that have nothing to do and are not paused, once there are more than anyone
    /// looks at.
    pub(super) fn keep(&self, busy: impl Fn(&DestinationId) -> bool) {
        let mut lanes = self.lanes();
        if lanes.all.len() > LANES {
            lanes
                .all
                .retain(|id, lane| busy(id) || lane.lock().paused_by_operator());
        }
    }

    fn pausing(&self) -> MutexGuard<'_, ()> {
        self.pausing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedLane {
    /// The lane, for one step.
    pub(super) fn lock(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is written down of an operator's pause: this daemon may not have been told.
    pub(super) fn keep_pause(&self, now: Moment, paused: Option<Paused>) {
        let mut lane = self.lock();
        match paused {
            Some(paused) if !lane.paused_by_operator() => lane.pause(Moment {
                wall: paused.since,
                ..now
            }),
            None if lane.paused_by_operator() => lane.resume(now),
            _ => {}
        }
    }

    fn change(&self, change: impl FnOnce(&mut Lane)) {
        change(&mut self.lock());
        self.nudged.notify_one();
    }
}
