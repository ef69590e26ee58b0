//! One destination's work, as a plain state machine: no I/O, no clock, no tasks.
//!
//! [`sender`](super::sender) feeds it claims, replies and settlements, and does what it says.
//! What holds at every step:
//! - An entry settles once, when all of its slices are decided: by a 202, or by a decision to send
//!   them to the dead letters. Until then it is held, and after a crash it is due again.
//! - Deliveries go in the order of their claims: nothing of the next is sent before the last entry
//!   of the one before is durably settled.
//! - Never more than `max_in_flight` requests fly, never more than twice as many entries are held
//!   with their bodies, and a destination that is down or paused holds at most one that is not
//!   being halved. So a long outage costs no memory, and the account is read afresh.
//!
//! What it decides upon stands in parts that hold their own: what is `held`, what `flights` are under
//! way, which `settlements` are to be written, which `accounts` were seen, and the `history`.

mod accounts;
mod flights;
mod held;
mod history;
mod settlements;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::circuit::{Change, Circuit, CircuitSettings, Pass, Permit, State};
use super::entry::{EntryKey, Piece};
use super::handed::Handed;
use super::moment::Moment;
use super::notice::Notice;
use super::pace::{Pace, PaceSettings};
use super::policy::{Fate, PieceState, Signal, decide, too_old};
use super::snapshot::{SendState, Snapshot};
use super::transport::{Reply, Request};
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::{Claim, Settlement};
use accounts::Accounts;
pub use flights::Ticket;
use flights::{Flight, Flights};
use held::Held;
use history::History;
use settlements::Settlements;

/// Decided entries that may wait for the outbox: some group commits' worth. They are small.
const UNSETTLED: usize = 1024;

/// How a destination is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// Requests in flight at most, at least 1.
    pub max_in_flight: usize,
    /// What is older than this since it was received, while its destination keeps failing, goes to
    /// the dead letters. An operator's pause is not a failure.
    pub max_age: Option<Duration>,
    /// The rate.
    pub pace: PaceSettings,
    /// Waits and probes.
    pub circuit: CircuitSettings,
}

/// What to do next about sending.
pub enum Next {
    /// Send this, and hand the reply to [`Lane::replied`].
    Send(Ticket, Request),
    /// Nothing to send before this tick.
    At(Duration),
    /// Nothing to send until something else happens.
    Blocked,
}

/// The work and the standing of one destination.
pub struct Lane {
    settings: LaneSettings,
    destination: DestinationId,
    label: String,
    circuit: Circuit,
    pace: Pace,
    accounts: Accounts,
    held: Held,
    flights: Flights,
    settlements: Settlements,
    history: History,
    /// What the outbox holds is too old by now, and is being taken out.
    expiring: bool,
    /// Deliveries that were cancelled: a claim may have been under way.
    cancelled: HashSet<DeliveryId>,
    stopping: bool,
}

impl Lane {
    /// A lane with nothing to do. `rng` gives all of its jitter.
    pub fn new(
        settings: LaneSettings,
        destination: DestinationId,
        label: String,
        now: Moment,
        rng: Rng,
    ) -> Self {
        let settings = LaneSettings {
            max_in_flight: settings.max_in_flight.max(1),
            ..settings
        };
        Self {
            settings,
            destination,
            label,
            circuit: Circuit::new(settings.circuit, rng),
            pace: Pace::new(settings.pace, now.tick),
            accounts: Accounts::new(now.tick),
            held: Held::default(),
            flights: Flights::default(),
            settlements: Settlements::default(),
            history: History::default(),
            expiring: false,
            cancelled: HashSet::new(),
            stopping: false,
        }
    }

    /// How many entries to claim now: enough to keep `max_in_flight` requests busy, and none while half
    /// as many are ready. The caller makes one claim at a time, and calls [`Lane::stir`] if it fails.
    pub fn wanted(&mut self, now: Moment) -> usize {
        let full = self.settlements.len() >= UNSETTLED;
        if self.stopping || self.circuit.held().is_some() || full {
            return 0;
        }
        let most = self.settings.max_in_flight;
        if self.circuit.shut() && !self.expiring {
            let probe = self.circuit.permit(now.tick) == Permit::Probe && self.held.ready() == 0;
            let due = probe || self.look_at().is_some_and(|at| at <= now.tick);
            if due {
                self.accounts.look(now.tick);
            }
            return usize::from(due);
        }
        // By halves: a claim is a call to another thread, too much for each request.
        if self.held.ready() * 2 > most {
            return 0;
        }
        (2 * most).saturating_sub(self.held.entries())
    }

    /// Takes entries over from the outbox: what a claim brought, also when it brought nothing.
    pub fn claimed(&mut self, now: Moment, claims: Vec<Claim>) {
        self.expiring &= !claims.is_empty();
        for claim in claims {
            let key = (claim.delivery, claim.ordinal);
            if self.held.has(&key) {
                continue;
            }
            if self.cancelled.contains(&key.0) {
                self.held.refuse(key);
                continue;
            }
            let (key, mut entry, pieces, account) = self.held.take(claim);
            self.accounts.seen(account);
            let expired = self.circuit.shut() && self.too_old(now, entry.received);
            if expired || pieces.is_empty() {
                let reason = too_old(&self.why());
                for piece in &pieces {
                    entry.make_dead(piece, &reason, now.wall);
                    self.history.dead_letters(now, piece);
                }
                self.settlements.push(entry.settlement(key));
            } else {
                self.expiring = false;
                self.held.keep(key, entry, pieces);
            }
        }
        if self.circuit.refused() && self.accounts.another() {
            self.circuit.retry_now(now.tick);
        }
        if self.circuit.permit(now.tick) != Permit::Probe {
            self.shed();
        }
    }

    /// What to send now.
    pub fn next(&mut self, now: Moment) -> Next {
        if self.stopping || self.flights.len() >= self.settings.max_in_flight {
            return Next::Blocked;
        }
        match self.circuit.permit(now.tick) {
            Permit::Go | Permit::Probe => {}
            Permit::At(tick) => {
                // A look that is due waits for a claim, not for a time.
                let look = self.look_at().filter(|&look| look > now.tick);
                return Next::At(look.map_or(tick, |look| look.min(tick)));
            }
            Permit::Shut => return Next::Blocked,
        }
        let Some((at, cost)) = self.held.sendable() else {
            return Next::Blocked;
        };
        if let Err(tick) = self.pace.admit(now.tick, cost) {
            return Next::At(tick);
        }
        match self.send(now, at) {
            Some((ticket, request)) => Next::Send(ticket, request),
            None => Next::Blocked,
        }
    }

    fn send(&mut self, now: Moment, at: usize) -> Option<(Ticket, Request)> {
        let account = self.accounts.newest()?;
        let (piece, entry) = self.held.send(at, now.wall)?;
        let request = Request {
            destination: self.destination,
            account: Arc::clone(&account),
            delivery: piece.entry.0,
            attempt: piece.attempts,
            route: entry.route,
            batches: entry.batches(&piece),
        };
        self.history.sent(request.batches.len());
        let ticket = self.flights.begin(Flight {
            piece,
            pass: self.circuit.sent(),
            sent: now.tick,
            account,
        });
        Some((ticket, request))
    }

    /// The reply to a request.
    pub fn replied(&mut self, now: Moment, ticket: Ticket, reply: Reply) {
        let Some(flight) = self.flights.end(ticket) else {
            return;
        };
        let batches = flight.piece.slices.len();
        let latency = now.tick.saturating_sub(flight.sent);
        self.history.replied(now, latency, batches, &reply);
        let Some(received) = self.held.landed(&flight.piece) else {
            return;
        };
        let expired = self.circuit.troubled() && self.too_old(now, received);
        let decision = decide(
            reply,
            PieceState {
                batches,
                expired,
                doubted: self.circuit.doubted(),
            },
        );
        self.heard(now, flight.pass, flight.account, decision.destination);
        self.landed(now, flight.piece, decision.piece, expired);
        self.shed();
    }

    /// What a reply says of the destination.
    fn heard(&mut self, now: Moment, pass: Pass, account: Arc<[u8]>, signal: Signal) {
        let mut status = 0;
        let mut exceeded = None;
        match &signal {
            Signal::Works { percent_used } => self.pace.clean(now.tick, *percent_used),
            Signal::Rejects { .. } => self.pace.clean(now.tick, None),
            Signal::Throttles {
                exceeded: which, ..
            } => {
                exceeded.clone_from(which);
                let sentence = "The rate limit was exceeded.".to_owned();
                self.history.complain(now, sentence);
            }
            Signal::Fails { why, .. } => {
                self.history.complain(now, format!("Not available: {why}."));
            }
            Signal::Refuses { status: code, why } => {
                status = *code;
                self.accounts.refused(account);
                self.history.complain(now, format!("Refused: {why}."));
            }
        }
        let shut_since = self.circuit.shut_since();
        let change = self.circuit.heard(now, pass, signal);
        let why = self.why();
        let notices = &mut self.history.notices;
        match change {
            Change::None => {}
            Change::Throttled => {
                // A server that throttles a probe is back.
                if let Some(since) = shut_since {
                    notices.recovered(now.tick.saturating_sub(since));
                }
                notices.throttled(now);
                self.pace.throttled(now.tick, exceeded.as_ref());
            }
            Change::WentDown => {
                notices.down(now, why);
                self.pace.restart(now.tick);
            }
            Change::StillDown => notices.still_down(now, why),
            Change::WentPaused => {
                notices.paused(status);
                self.pace.restart(now.tick);
            }
            Change::WentDoubted(batches) => {
                notices.doubted(batches);
                self.pace.restart(now.tick);
                self.history
                    .complain(now, format!("Sending is paused: {why}."));
            }
            Change::Recovered(after) => {
                notices.recovered(after);
                self.pace.restart(now.tick);
            }
        }
    }

    /// What becomes of a piece whose reply has come.
    fn landed(&mut self, now: Moment, piece: Piece, fate: Fate, expired: bool) {
        let settlement = match fate {
            Fate::Delivered => self.held.deliver(&piece),
            Fate::Dead(reason) => {
                self.expiring |= expired && self.circuit.shut();
                self.history.dead_letters(now, &piece);
                self.history
                    .complain(now, format!("A batch went to the dead letters: {reason}."));
                self.held.make_dead(&piece, &reason, now.wall)
            }
            // While there is doubt, probes come soon to a single batch, and the next ones to
            // another: this one may really be bad.
            Fate::Again if self.circuit.doubted() => {
                self.held.send_last(piece);
                None
            }
            Fate::Again => {
                self.held.send_first(piece);
                None
            }
            Fate::Halve => {
                let [left, right] = piece.halves();
                if self.circuit.doubted() {
                    self.held.send_last(right);
                } else {
                    self.held.send_first(right);
                }
                self.held.send_first(left);
                None
            }
        };
        if let Some(settlement) = settlement {
            self.settlements.push(settlement);
        }
    }

    /// Decided entries, to be settled in one go; then [`Lane::settled`] or [`Lane::unsettled`].
    pub fn take_settlements(&mut self) -> Vec<Settlement> {
        self.settlements.take()
    }

    /// These are durable now.
    pub fn settled(&mut self, batch: &[Settlement]) {
        self.settlements.settled(batch.len());
        for settlement in batch {
            self.held.let_go(settlement.delivery);
        }
    }

    /// The outbox could not write these down: they are still to be settled.
    pub fn unsettled(&mut self, batch: Vec<Settlement>) {
        self.settlements.unsettled(batch);
    }

    /// Entries to be given back to the outbox, before anything else is claimed.
    pub fn take_releases(&mut self) -> Vec<EntryKey> {
        self.held.take_releases()
    }

    /// What is worth a log line.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.history.notices.take()
    }

    /// The outbox has changed: there may be a new account.
    pub fn stir(&mut self) {
        self.accounts.changed();
    }

    /// Begins the end: nothing more is claimed or sent, what is in flight may land.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Ends the lane's run: what has not landed is given up on, what is undecided is given back.
    /// The lane can be used again afterwards.
    pub fn abandon(&mut self) {
        for flight in self.flights.abandon() {
            self.circuit.abandoned(flight.pass);
        }
        self.held.abandon();
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
        self.held.cancel(delivery);
    }

    /// What is held of a delivery and has not been begun is given back, and what is remembered of its
    /// requests forgotten: they may be others when they come again.
    pub fn give_back(&mut self, delivery: DeliveryId) {
        self.held.cancel(delivery);
    }

    /// Calls the destination by another name.
    pub fn relabel(&mut self, label: String) {
        self.label = label;
    }

    /// Whether an operator has stopped the destination.
    pub fn paused_by_operator(&self) -> bool {
        self.circuit.held().is_some()
    }

    /// An operator stops the destination until [`Lane::resume`]. Requests in flight land.
    pub fn pause(&mut self, now: Moment) {
        self.circuit.pause(now);
    }

    /// Ends an operator's pause, and tries at once whatever else was waited for. What is paused
    /// because too much was rejected goes on all the same.
    pub fn resume(&mut self, now: Moment) {
        if self.circuit.resume(now.tick) {
            self.pace.restart(now.tick);
        }
    }

    /// Tries at once what is waiting for its time.
    pub fn retry_now(&mut self, now: Moment) {
        self.circuit.retry_now(now.tick);
    }

    /// Another bound on requests in flight, and another rate, which is come to from below.
    pub fn adjust(&mut self, now: Moment, max_in_flight: usize, batches_per_second: u32) {
        self.settings.max_in_flight = max_in_flight.max(1);
        if self.settings.pace.batches_per_second != batches_per_second {
            self.settings.pace.batches_per_second = batches_per_second;
            self.pace = Pace::new(self.settings.pace, now.tick);
            // At the rate before, until now.
            self.pace.take_over(now.tick, None);
        }
    }

    /// Another daemon sent here before, and left this so long ago; `None`: it could leave nothing.
    pub fn take_over(&mut self, now: Moment, handed: Option<(Handed, Duration)>) {
        self.pace.take_over(now.tick, handed);
    }

    /// What the daemon that sends next is to know.
    pub fn hand_over(&mut self, now: Moment) -> Option<Handed> {
        self.pace.hand_over(now.tick)
    }

    /// Nothing is held, in flight, or to be told to the outbox.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.flights.is_empty()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Entries held with their bodies.
    pub fn open_entries(&self) -> usize {
        self.held.entries()
    }

    /// What can be seen from outside.
    pub fn snapshot(&self, now: Moment) -> Snapshot {
        Snapshot {
            destination: self.destination,
            label: self.label.clone(),
            state: SendState::of(&self.circuit, now),
            rate: self.pace.rate(),
            heading: self.pace.heading(),
            limit: self.pace.limit(),
            in_flight: self.flights.len(),
            held: self.held.unsettled(),
            record: self.history.record.clone(),
            latency_mean: self.history.latencies.mean(),
            latency_p99: self.history.latencies.p99(),
        }
    }

    /// Gives back what need not be held while only probes go out. When paused, all of it, so that
    /// the next claim brings the account as it is then; when down, all but the first, and what is
    /// being halved.
    fn shed(&mut self) {
        if !self.circuit.shut() || self.expiring {
            return;
        }
        let paused = matches!(self.circuit.state(), State::Paused { .. });
        self.held.shed(usize::from(!paused), paused);
    }

    /// When a paused destination looks whether there is a new account.
    fn look_at(&self) -> Option<Duration> {
        let looks = self.circuit.refused() && self.held.ready() == 0;
        self.accounts.look_at().filter(|_| looks)
    }

    fn too_old(&self, now: Moment, received: UnixMillis) -> bool {
        self.settings.max_age.is_some_and(|max_age| {
            u128::from(now.wall.0.saturating_sub(received.0)) > max_age.as_millis()
        })
    }

    fn why(&self) -> String {
        match self.circuit.state() {
            State::Flowing => String::new(),
            State::Waiting { why, .. } | State::Down { why, .. } | State::Paused { why, .. } => {
                why.clone()
            }
        }
    }
}
