//! A lane for each destination that has waiting work.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::{self, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::board::{Board, Handle};
use super::circuit::CircuitSettings;
use super::lane::LaneSettings;
use super::moment::Stopwatch;
use super::pace::PaceSettings;
use super::sender::{Ended, Sender};
use super::transport::Transport;
use super::trouble::{Trouble, flatten};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::model::DestinationId;
use crate::outbox::{DestinationState, Error, Outbox};
use crate::shutdown::Shutdown;

/// The outbox is asked for destinations at most this often, however busy it is.
const LOOK: Duration = Duration::from_millis(50);
/// It is asked again after this when a call has failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How the drain works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For each destination.
    pub lane: LaneSettings,
    /// A request that takes longer counts as lost, whatever the transport does; longer than the
    /// transport's own timeouts.
    pub reply_within: Duration,
    /// How long requests in flight may take to land once the shutdown has begun.
    pub deadline: Duration,
    /// Seeds all jitter; `None`: from the system.
    pub seed: Option<u64>,
    /// Tells the time of the day; waits run on tokio's clock.
    pub clock: Clock,
}

impl Default for Settings {
    /// mParticle's documented limits, eight requests at a time.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            lane: LaneSettings {
                max_in_flight: 8,
                max_age: None,
                pace: PaceSettings {
                    batches_per_second: 270,
                    burst: 100,
                },
                circuit: CircuitSettings {
                    backoff: Backoff {
                        base: Duration::from_millis(500),
                        cap: seconds(30),
                    },
                    retry_after_max: seconds(300),
                    down_after: 3,
                    probe: Backoff {
                        base: seconds(1),
                        cap: seconds(60),
                    },
                    paused_probe: seconds(300),
                    pause_after_rejected: 100,
                },
            },
            reply_within: seconds(90),
            deadline: seconds(20),
            seed: None,
            clock: Clock::default(),
        }
    }
}

/// Takes what waits in the outbox to where it goes.
pub struct Drain<T> {
    settings: Settings,
    outbox: Outbox,
    transport: Arc<T>,
    board: Arc<Board>,
    rng: Rng,
}

/// The senders under way.
#[derive(Default)]
struct Senders {
    tasks: JoinSet<Ended>,
    destinations: HashMap<task::Id, DestinationId>,
    running: HashSet<DestinationId>,
    /// The version of the outbox at which a sender found nothing left.
    finished: HashMap<DestinationId, u64>,
    /// Not to begin anew before this.
    resting: HashMap<DestinationId, Instant>,
}

impl<T: Transport> Drain<T> {
    /// A drain that has not begun. Its waits run on tokio's clock, so this needs no runtime yet, but
    /// time counts from here.
    ///
    /// # Errors
    /// The outbox does not say which destinations an operator has paused.
    pub fn new(settings: Settings, outbox: Outbox, transport: Arc<T>) -> Result<Self, Error> {
        let mut rng = settings.seed.map_or_else(Rng::new, Rng::with_seed);
        let board = Board::new(
            Stopwatch::start(settings.clock.clone()),
            outbox.clone(),
            settings.lane,
            rng.fork(),
        )?;
        Ok(Self {
            settings,
            outbox,
            transport,
            board: Arc::new(board),
            rng,
        })
    }

    /// For the status page and for operators.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.board))
    }

    /// Works until the shutdown: then nothing more is claimed, requests in flight may land until
    /// [`Settings::deadline`], what they brought is settled, and the rest is given back. Returns
    /// when all of that is done and every task has ended.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut changes = self.outbox.subscribe();
        let mut senders = Senders::default();
        let mut look_at = Some(Instant::now());
        // Said once, however long it lasts.
        let mut said = false;
        while !shutdown.begun() {
            if look_at.is_some_and(|at| at <= Instant::now()) {
                let version = *changes.borrow_and_update();
                look_at = match self.destinations().await {
                    Ok(destinations) => {
                        said = false;
                        self.start(&mut senders, destinations, version, &shutdown);
                        None
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut said, true) {
                            warn!(%error, "The outbox does not say where there is work; it is asked again.");
                        }
                        Some(Instant::now() + LOOK_AGAIN)
                    }
                };
            }
            let rested_at = senders.resting.values().min().copied();
            tokio::select! {
                () = shutdown.wait() => {}
                changed = changes.changed(), if look_at.is_none() => {
                    if changed.is_err() {
                        // The outbox is gone; senders notice that themselves.
                        break;
                    }
                    look_at = Some(Instant::now() + LOOK);
                }
                Some(ended) = senders.tasks.join_next_with_id() => {
                    senders.ended(ended);
                    look_at.get_or_insert_with(|| Instant::now() + LOOK);
                }
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
                () = sleep_until(rested_at.unwrap_or_else(Instant::now)), if rested_at.is_some() && look_at.is_none() => {
                    look_at = Some(Instant::now());
                }
            }
        }
        while let Some(ended) = senders.tasks.join_next_with_id().await {
            senders.ended(ended);
        }
    }

    async fn destinations(&self) -> Result<Vec<DestinationState>, Trouble> {
        let outbox = self.outbox.clone();
        flatten(spawn_blocking(move || outbox.destinations()).await)
    }

    fn start(
        &mut self,
        senders: &mut Senders,
        destinations: Vec<DestinationState>,
        version: u64,
        shutdown: &Shutdown,
    ) {
        let known: HashSet<_> = destinations.iter().map(|state| state.id).collect();
        senders.finished.retain(|id, _| known.contains(id));
        let now = Instant::now();
        senders.resting.retain(|_, until| *until > now);
        self.board
            .keep(|id| known.contains(id) || senders.running.contains(id));
        for state in destinations {
            let idle = senders.running.contains(&state.id)
                || senders.resting.contains_key(&state.id)
                || senders.finished.get(&state.id) == Some(&version);
            if idle || !has_work(&state) {
                continue;
            }
            let (id, label) = (state.id, state.label);
            let lane = self.board.lane(id);
            lane.lock().relabel(label);
            let sender = Sender {
                destination: id,
                lane,
                outbox: self.outbox.clone(),
                transport: Arc::clone(&self.transport),
                stopwatch: self.board.stopwatch.clone(),
                reply_within: self.settings.reply_within,
                deadline: self.settings.deadline,
                rng: self.rng.fork(),
            };
            let task = senders.tasks.spawn(sender.run(shutdown.clone()));
            senders.destinations.insert(task.id(), id);
            senders.running.insert(id);
        }
    }
}

impl Senders {
    fn ended(&mut self, ended: Result<(task::Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(error) => {
                error!(%error, "Sending for a destination has ended by a fault of this program; it starts over.");
                (error.id(), None)
            }
        };
        if let Some(destination) = self.destinations.remove(&id) {
            self.running.remove(&destination);
            if let Some(ended) = ended {
                self.finished.insert(destination, ended.version);
                let until = ended.rest.map(|rest| Instant::now() + rest);
                self.resting.extend(until.map(|until| (destination, until)));
            }
        }
    }
}

/// Whether something waits that no other daemon sends.
fn has_work(state: &DestinationState) -> bool {
    state.deliveries > 0 && state.holder.as_ref().is_none_or(|holder| holder.own)
}
