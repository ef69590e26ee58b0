//! A lane at work: the tasks and the calls that its decisions become.
//!
//! One sender runs a lane while its destination has work. Requests fly within its own task: one of
//! its own for each would take two more task switches a request, which is as long as making it. It owns
//! every call to the outbox that it starts and awaits it; of each kind at most one is under way.

use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::board::SharedLane;
use super::entry::EntryKey;
use super::handed::Handed;
use super::lane::{Next, Ticket};
use super::moment::Stopwatch;
use super::notice::Notice;
use super::remembered::Paused;
use super::transport::{Reply, Transport};
use super::trouble::{Trouble, flatten};
use crate::backoff::Backoff;
use crate::model::DestinationId;
use crate::outbox::{Claim, Error, LaneRequest, Lease, Outbox, Settlement};
use crate::shutdown::Shutdown;

/// Waits between attempts to use an outbox that refuses.
const OUTBOX_BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(30),
};
/// Between two settlements while requests are under way, so that on a fast line many share one sync of
/// the disk. It is also how much more may be sent again after a crash.
const BETWEEN_SETTLES: Duration = Duration::from_millis(20);
/// A destination whose requests are sealed under a key that is not at hand is left to other daemons for
/// so long.
const WITHOUT_KEY: Duration = Duration::from_secs(30);
/// Between two log lines about an outbox that refuses.
const OUTBOX_LINES: Duration = Duration::from_secs(60);

/// Sends what waits for one destination.
pub(super) struct Sender<T> {
    pub destination: DestinationId,
    pub lane: Arc<SharedLane>,
    pub outbox: Outbox,
    pub transport: Arc<T>,
    pub stopwatch: Stopwatch,
    /// A request that takes longer counts as lost, whatever the transport is doing.
    pub reply_within: Duration,
    /// How long requests in flight may take to land after the shutdown has begun.
    pub deadline: Duration,
    pub rng: Rng,
}

/// A request under way, and what it comes to.
type Flight = BoxFuture<'static, (Ticket, Reply)>;
type Claiming = JoinHandle<Result<Option<Vec<Claim>>, Error>>;
type Settling = JoinHandle<Result<(), Error>>;

/// How sending for a destination has ended.
pub(super) struct Ended {
    /// The version of the outbox at which nothing was left.
    pub version: u64,
    /// It is not to begin anew before this.
    pub rest: Option<Duration>,
}

/// What is under way.
struct Work {
    changes: watch::Receiver<u64>,
    lease: Lease,
    /// The lease is another daemon's by now.
    lost: bool,
    /// As many as the lane lets fly.
    flights: FuturesUnordered<Flight>,
    claiming: Option<Claiming>,
    claims: Patience,
    /// The last claim brought nothing, and the outbox has not changed since it began.
    exhausted: bool,
    /// The outbox has changed since the claim under way began.
    outdated: bool,
    /// The version of the outbox that the last claim saw.
    seen: u64,
    settling: Option<(Vec<Settlement>, Settling)>,
    settles: Patience,
    /// The shutdown has begun, or the lease is wanted back; when it has to be over.
    stop_at: Option<Instant>,
    rest: Option<Duration>,
}

/// How the calls of one kind to the outbox have been going.
#[derive(Default)]
struct Patience {
    failures: u32,
    until: Option<Instant>,
    said: Option<Instant>,
}

impl<T: Transport> Sender<T> {
    /// Works until nothing is left for the destination, or until the shutdown.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Ended {
        let changes = self.outbox.subscribe();
        let seen = *changes.borrow();
        let Some(lease) = self.lease(&mut shutdown).await else {
            return Ended {
                version: seen,
                rest: None,
            };
        };
        let mut work = Work::new(changes, lease);
        // Only a sender that was cut down leaves anything here.
        self.lane.lock().abandon();
        self.obey(&mut work);
        loop {
            let now = Instant::now();
            let sends_at = self.step(&mut work, now);
            if self.is_over(&work) {
                break;
            }
            let wake = work.wake(sends_at, now);
            tokio::select! {
                // The rare and the urgent first, so that a busy line can't starve them.
                biased;
                () = shutdown.wait(), if work.stop_at.is_none() => self.stop(&mut work),
                claims = join(&mut work.claiming) => {
                    // What was said before these were given out.
                    self.obey(&mut work);
                    self.claimed(&mut work, claims);
                }
                settled = join_settling(&mut work.settling) => self.settled(&mut work, settled),
                changed = work.changes.changed(), if work.stop_at.is_none() => {
                    work.outbox_changed();
                    self.obey(&mut work);
                    self.lane.lock().stir();
                    if changed.is_err() {
                        self.stop(&mut work);
                    }
                }
                Some(landed) = work.flights.next() => self.landed(&mut work, landed),
                () = self.lane.nudged.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        self.end(work).await
    }

    /// The right to send; `None`: another daemon has it, or the shutdown has begun.
    async fn lease(&mut self, shutdown: &mut Shutdown) -> Option<Lease> {
        let mut asked = Patience::default();
        loop {
            let (outbox, destination) = (self.outbox.clone(), self.destination);
            let now = self.stopwatch.now();
            let asking = move || {
                let Some(lease) = outbox.lease(destination)? else {
                    return Ok(None);
                };
                // What a person has told another daemon since this one looked last.
                let paused = match lease.until() {
                    Some(_) => Some(Paused::of(&outbox, destination, now.wall)?),
                    None => None,
                };
                let left = lease.left();
                Ok(Some((lease, paused, left)))
            };
            match flatten(spawn_blocking(asking).await) {
                Ok(None) => return None,
                Ok(Some((lease, paused, left))) => {
                    // Of one that another daemon has sent to, or this one under another lease.
                    if lease.epoch() > 1 {
                        let left = left.and_then(|(text, ago)| Some((Handed::decode(&text)?, ago)));
                        self.lane.lock().take_over(self.stopwatch.now(), left);
                    }
                    if let Some(paused) = paused {
                        self.lane.keep_pause(now, paused);
                    }
                    return Some(lease);
                }
                Err(Trouble::Outbox(Error::Closed)) => return None,
                Err(error) => {
                    if asked.failed(&mut self.rng) {
                        warn!(
                            destination = %self.destination, %error,
                            "The outbox does not say who sends to this destination; it is asked again. Nothing is lost.",
                        );
                    }
                }
            }
            tokio::select! {
                () = shutdown.wait() => return None,
                () = sleep_until(asked.until.unwrap_or_else(Instant::now)) => {}
            }
        }
    }

    /// Does all that can be done now. Returns when sending goes on.
    fn step(&mut self, work: &mut Work, now: Instant) -> Option<Instant> {
        let notices = self.lane.lock().take_notices();
        for notice in notices {
            self.say(notice);
        }
        if work.lost_at().is_some_and(|at| at <= now) {
            self.lose(work);
        }
        if work.stop_at.is_some_and(|at| at <= now) {
            // The lane gives the requests back when it ends.
            work.flights.clear();
        }
        let sends_at = self.send(work);
        // With nothing under way and nothing to send, no request could share the sync that is waited for.
        let alone = sends_at.is_none() && work.flights.is_empty() && work.settles.failures == 0;
        if work.settling.is_none() && (alone || work.settles.over(now)) {
            self.settle(work);
        }
        if work.claiming.is_none() && work.claims.over(now) {
            self.claim(work);
        }
        sends_at
    }

    /// Does what the holder of the lease is told.
    fn obey(&self, work: &mut Work) {
        for request in work.lease.requests() {
            let now = self.stopwatch.now();
            match request {
                LaneRequest::Pause => self.lane.lock().pause(now),
                LaneRequest::Resume => self.lane.lock().resume(now),
                LaneRequest::Retry => self.lane.lock().retry_now(now),
                LaneRequest::Cancelled(delivery) => self.lane.lock().cancel(now, delivery),
                LaneRequest::Forget(delivery) => self.lane.lock().give_back(delivery),
                LaneRequest::GiveBack if work.stop_at.is_none() => {
                    info!(
                        destination = %self.destination,
                        "Another daemon has less to do and goes on with this destination.",
                    );
                    self.stop(work);
                }
                LaneRequest::GiveBack => {}
            }
        }
    }

    fn send(&self, work: &mut Work) -> Option<Instant> {
        // Of a lease that ends.
        let lease = work.lease.until().map(|_| work.lease.clone());
        let mut lane = self.lane.lock();
        loop {
            match lane.next(self.stopwatch.now()) {
                Next::Send(ticket, request) => {
                    let transport = Arc::clone(&self.transport);
                    let (within, lease) = (self.reply_within, lease.clone());
                    let sending = async move {
                        let mut sending = pin!(transport.send(request));
                        // Nothing is written to the wire once the lease is over, however late this
                        // task is woken; what flies is dropped then.
                        let sending = poll_fn(move |context| match &lease {
                            Some(lease) if is_over(lease) => Poll::Pending,
                            _ => sending.as_mut().poll(context),
                        });
                        timeout(within, sending).await.unwrap_or_else(|_| {
                            Reply::unavailable(format!("no reply within {within:?}"))
                        })
                    };
                    let landing = AssertUnwindSafe(sending).catch_unwind().map(move |reply| {
                        let panicked =
                            |_| Reply::unavailable("what sends the request has panicked");
                        (ticket, reply.unwrap_or_else(panicked))
                    });
                    work.flights.push(landing.boxed());
                }
                Next::At(tick) => return Some(self.stopwatch.instant(tick)),
                Next::Blocked => return None,
            }
        }
    }

    fn landed(&self, work: &mut Work, first: (Ticket, Reply)) {
        // No lock is held while flights are looked at: that goes on with them.
        let mut landed = vec![first];
        while let Some(Some(next)) = work.flights.next().now_or_never() {
            landed.push(next);
        }
        let mut lane = self.lane.lock();
        for (ticket, reply) in landed {
            lane.replied(self.stopwatch.now(), ticket, reply);
        }
    }

    fn claim(&self, work: &mut Work) {
        // Marked as seen below, so it is taken note of here.
        let changed = work.changes.has_changed().unwrap_or(false);
        if changed {
            self.obey(work);
        }
        let mut lane = self.lane.lock();
        let releases = lane.take_releases();
        if changed {
            lane.stir();
        }
        if changed || !releases.is_empty() {
            work.outbox_changed();
        }
        let wanted = match work.exhausted || work.stop_at.is_some() {
            true => 0,
            false => lane.wanted(self.stopwatch.now()),
        };
        drop(lane);
        if wanted == 0 && releases.is_empty() {
            return;
        }
        work.seen = *work.changes.borrow_and_update();
        work.outdated = false;
        let lease = work.lease.clone();
        work.claiming = Some(spawn_blocking(move || {
            release(&lease, releases)?;
            if wanted == 0 {
                return Ok(None);
            }
            lease.claim(wanted).map(Some)
        }));
    }

    fn claimed(
        &mut self,
        work: &mut Work,
        claims: Result<Result<Option<Vec<Claim>>, Error>, JoinError>,
    ) {
        work.claiming = None;
        match flatten(claims) {
            Ok(None) => work.claims.succeeded(),
            Ok(Some(claims)) => {
                work.claims.succeeded();
                work.exhausted = claims.is_empty() && !work.outdated;
                self.lane.lock().claimed(self.stopwatch.now(), claims);
            }
            Err(error) => {
                self.lane.lock().stir();
                let due = work.claims.failed(&mut self.rng);
                // What cannot be read the outbox itself names, once a minute for all destinations.
                if due && !matches!(error, Trouble::Outbox(Error::Unreadable { .. })) {
                    warn!(
                        destination = %self.destination, error = %error,
                        "The outbox gives no work to send; it is asked again. Nothing is lost.",
                    );
                }
                self.stop_if_closed(work, &error);
            }
        }
    }

    fn settle(&self, work: &mut Work) {
        let batch = self.lane.lock().take_settlements();
        if batch.is_empty() {
            return;
        }
        let lease = work.lease.clone();
        let call = batch.clone();
        let settling = spawn_blocking(move || lease.settle(call).map(drop));
        work.settling = Some((batch, settling));
    }

    fn settled(
        &mut self,
        work: &mut Work,
        (batch, result): (Vec<Settlement>, Result<Result<(), Error>, JoinError>),
    ) {
        match flatten(result) {
            Ok(()) => {
                work.settles.succeeded();
                work.settles.until = Some(Instant::now() + BETWEEN_SETTLES);
                work.outbox_changed();
                self.lane.lock().settled(&batch);
            }
            Err(error) => {
                if work.settles.failed(&mut self.rng) {
                    error!(
                        destination = %self.destination, entries = batch.len(), error = %error,
                        "The outbox can't write down what was delivered; look at its disk, or at its database. It is \
                         tried again, and after a restart these requests are sent once more, with \
                         the same ids.",
                    );
                }
                self.lane.lock().unsettled(batch);
                self.stop_if_closed(work, &error);
            }
        }
    }

    fn stop(&self, work: &mut Work) {
        self.lane.lock().stop();
        work.stop_at = Some(Instant::now() + self.deadline);
    }

    fn stop_if_closed(&self, work: &mut Work, error: &Trouble) {
        match error {
            Trouble::Outbox(Error::LeaseLost) => self.lose(work),
            Trouble::Outbox(Error::MissingKey { .. }) if work.stop_at.is_none() => {
                work.rest = Some(WITHOUT_KEY);
                self.stop(work);
            }
            Trouble::Outbox(Error::Closed) if work.stop_at.is_none() => self.stop(work),
            _ => {}
        }
    }

    /// Another daemon sends from here on: what flies is dropped, and it sends that again.
    fn lose(&self, work: &mut Work) {
        if !std::mem::replace(&mut work.lost, true) {
            warn!(
                destination = %self.destination,
                "Another daemon sends to this destination by now, or the outbox has not been heard of for too long; sending stops here. Nothing is lost.",
            );
            self.lane.lock().stop();
        }
        work.stop_at = Some(Instant::now());
    }

    fn is_over(&self, work: &Work) -> bool {
        let busy = work.claiming.is_some() || work.settling.is_some() || !work.flights.is_empty();
        if busy {
            return false;
        }
        // Stopping: what is decided has been settled, or can't be.
        work.stop_at.is_some() || (work.exhausted && self.lane.lock().is_empty())
    }

    /// Gives back what has not been decided.
    async fn end(self, work: Work) -> Ended {
        let (releases, unwritten, handed) = {
            let mut lane = self.lane.lock();
            lane.abandon();
            let handed = work
                .lease
                .until()
                .and_then(|_| lane.hand_over(self.stopwatch.now()));
            (lane.take_releases(), lane.take_settlements(), handed)
        };
        if !unwritten.is_empty() {
            warn!(
                destination = %self.destination, entries = unwritten.len(),
                "The outbox could not write down what was delivered; after the restart these \
                 requests are sent once more, with the same ids.",
            );
            self.lane.lock().settled(&unwritten);
        }
        let lease = work.lease;
        if let Some(handed) = handed {
            lease.leave(handed.encode());
        }
        let ending = move || {
            let released = release(&lease, releases);
            released.and(lease.give_back())
        };
        match flatten(spawn_blocking(ending).await) {
            // They are the next holder's.
            Ok(()) | Err(Trouble::Outbox(Error::LeaseLost)) => {}
            Err(error) => {
                error!(destination = %self.destination, %error, "Giving claims back has failed.");
            }
        }
        Ended {
            version: work.seen,
            rest: work.rest,
        }
    }

    fn say(&self, notice: Notice) {
        let destination = self.destination;
        match notice {
            Notice::Throttled { rounds } => warn!(
                %destination, rounds,
                "mParticle says that the rate is too high; sending more slowly.",
            ),
            Notice::Down { why, probes } => warn!(
                %destination, why, probes,
                "mParticle is not available; it is tried again at intervals. Nothing is lost.",
            ),
            Notice::Paused { status } => error!(
                %destination, status,
                "mParticle refuses what is sent here, so sending is paused; check the credentials \
                 and the address. Nothing is lost. The status page has the server's words.",
            ),
            Notice::Doubted { batches } => error!(
                %destination, batches,
                "mParticle has rejected so many batches in a row, and accepted nothing between, that \
                 sending is paused; no more of them become dead letters. The status page has the \
                 server's words. If the delivery is wrong, cancel it; else wait, for it is tried \
                 again at intervals. Resuming the destination goes on all the same.",
            ),
            Notice::Recovered { after } => info!(
                %destination, after = ?after, "mParticle takes requests again.",
            ),
            Notice::DeadLetters { delivery, batches } => error!(
                %destination, %delivery, batches,
                "Batches were rejected for good and are kept as dead letters; look at them, then \
                 replay or discard them.",
            ),
        }
    }
}

impl Work {
    fn new(changes: watch::Receiver<u64>, lease: Lease) -> Self {
        Self {
            changes,
            lease,
            lost: false,
            flights: FuturesUnordered::new(),
            claiming: None,
            claims: Patience::default(),
            exhausted: false,
            outdated: false,
            seen: 0,
            settling: None,
            settles: Patience::default(),
            stop_at: None,
            rest: None,
        }
    }

    fn outbox_changed(&mut self) {
        self.exhausted = false;
        self.outdated = true;
    }

    /// When the lease ends, unless it is renewed.
    fn lost_at(&self) -> Option<Instant> {
        let until = self.lease.until().filter(|_| !self.lost);
        until.map(Instant::from_std)
    }

    /// When to look again, after a look at `now`.
    fn wake(&self, sends_at: Option<Instant>, now: Instant) -> Option<Instant> {
        let calls = [
            self.claims.until,
            self.settles.until,
            self.stop_at,
            self.lost_at(),
        ];
        let calls = calls.into_iter().flatten().filter(|&at| at > now);
        calls.chain(sends_at).min()
    }
}

impl Patience {
    /// Whether it may be tried.
    fn over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Returns whether it is time for a log line.
    fn failed(&mut self, rng: &mut Rng) -> bool {
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        self.until = Some(now + OUTBOX_BACKOFF.probe(self.failures, rng));
        let due = self.said.is_none_or(|said| now >= said + OUTBOX_LINES);
        if due {
            self.said = Some(now);
        }
        due
    }
}

fn is_over(lease: &Lease) -> bool {
    let now = Instant::now().into_std();
    lease.until().is_some_and(|until| until <= now)
}

fn release(lease: &Lease, mut keys: Vec<EntryKey>) -> Result<(), Error> {
    keys.sort_unstable();
    for entries in keys.chunk_by(|left, right| left.0 == right.0) {
        let ordinals: Vec<_> = entries.iter().map(|&(_, ordinal)| ordinal).collect();
        if let Some(&(delivery, _)) = entries.first() {
            lease.release(delivery, &ordinals)?;
        }
    }
    Ok(())
}

/// The end of a call, if one is under way; never, if none is.
async fn join<V>(call: &mut Option<JoinHandle<V>>) -> Result<V, JoinError> {
    match call {
        Some(call) => call.await,
        None => pending().await,
    }
}

async fn join_settling(
    call: &mut Option<(Vec<Settlement>, Settling)>,
) -> (Vec<Settlement>, Result<Result<(), Error>, JoinError>) {
    let result = match call {
        Some((_, settling)) => settling.await,
        None => pending().await,
    };
    let batch = call.take().map(|(batch, _)| batch).unwrap_or_default();
    (batch, result)
}
