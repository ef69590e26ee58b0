//! One destination's work, as a plain state machine: no I/O, no clock, no tasks.
//!
//! [`courier`](super::courier) feeds it claims, replies and settlements, and does what it says.
//! What holds at every step:
//! - An entry settles once, when all of its slices are decided: by a 202, or by a decision to send
//!   them to the dead letters. Until then it is held, and after a crash it is due again.
//! - Deliveries go in the order of their claims: nothing of the next is sent before the last entry
//!   of the one before is durably settled.
//! - Never more than `max_in_flight` requests fly, never more than twice as many entries are held
//!   with their bodies, and a destination that is down or paused holds at most one that is not
//!   being halved. So a long outage costs no memory, and the account is read afresh.

mod landing;
mod letting_go;
mod steering;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::circuit::{Circuit, CircuitSettings, Pass, Permit, State};
use super::entry::{Entry, EntryKey, Memo, Piece};
use super::latency::Latencies;
use super::moment::Moment;
use super::notice::{Notice, Notices};
use super::pace::{Pace, PaceSettings};
use super::policy::{PieceState, decide, too_old};
use super::snapshot::{Record, Snapshot, Standing};
use super::transport::{Parcel, Reply};
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::{Claim, Settlement};

/// Decided entries that may wait for the outbox: some group commits' worth. They are small.
const UNSETTLED: usize = 1024;
/// A paused destination looks for a new account at most this often.
const PEEK: Duration = Duration::from_secs(5);

/// How a destination is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// Requests in flight at most, at least 1.
    pub max_in_flight: usize,
    /// What is older than this since it was received, while its destination keeps failing, goes to
    /// the dead letters. An operator's pause is no failure.
    pub max_age: Option<Duration>,
    /// The rate.
    pub pace: PaceSettings,
    /// Waits and probes.
    pub circuit: CircuitSettings,
}

/// Names a request in flight.
pub type Ticket = u64;

/// What to do next about sending.
pub enum Next {
    /// Send this, and hand the reply to [`Lane::replied`].
    Send(Ticket, Parcel),
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
    /// The newest account seen: it is the same destination, so it holds for all that waits here.
    account: Option<Arc<[u8]>>,
    /// The account of the last refused request.
    refused: Option<Arc<[u8]>>,
    entries: HashMap<EntryKey, Entry>,
    /// Of entries that were given back, until they are claimed anew.
    memos: HashMap<EntryKey, Memo>,
    /// Entries by delivery that are not durably settled.
    held: HashMap<DeliveryId, usize>,
    head: Option<DeliveryId>,
    ready: VecDeque<Piece>,
    flying: HashMap<Ticket, Flight>,
    next_ticket: Ticket,
    settlements: Vec<Settlement>,
    settling: usize,
    releases: Vec<EntryKey>,
    notices: Notices,
    /// What the outbox holds is too old by now, and is being taken out.
    expiring: bool,
    /// Deliveries that were cancelled: a claim may have been under way.
    cancelled: HashSet<DeliveryId>,
    /// The outbox has changed since a paused destination last looked for a new account.
    stirred: bool,
    peeked: Duration,
    stopping: bool,
    record: Record,
    latencies: Latencies,
}

struct Flight {
    piece: Piece,
    pass: Pass,
    sent: Duration,
    account: Arc<[u8]>,
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
            account: None,
            refused: None,
            entries: HashMap::new(),
            memos: HashMap::new(),
            held: HashMap::new(),
            head: None,
            ready: VecDeque::new(),
            flying: HashMap::new(),
            next_ticket: 0,
            settlements: Vec::new(),
            settling: 0,
            releases: Vec::new(),
            notices: Notices::default(),
            expiring: false,
            cancelled: HashSet::new(),
            stirred: false,
            peeked: now.tick,
            stopping: false,
            record: Record::default(),
            latencies: Latencies::default(),
        }
    }

    /// How many entries to claim now: enough to keep `max_in_flight` requests busy, and none while half
    /// as many are ready. The caller makes
    /// one claim at a time, and calls [`Lane::stir`] if it fails.
    pub fn wanted(&mut self, now: Moment) -> usize {
        let unsettled = self.settlements.len() + self.settling;
        if self.stopping || self.circuit.held().is_some() || unsettled >= UNSETTLED {
            return 0;
        }
        let most = self.settings.max_in_flight;
        if self.circuit.shut() && !self.expiring {
            let probe = self.circuit.permit(now.tick) == Permit::Probe && self.ready.is_empty();
            let due = probe || self.peek_at().is_some_and(|at| at <= now.tick);
            if due {
                // Before the claim, so that a change during it is not taken for seen.
                self.stirred = false;
                self.peeked = now.tick;
            }
            return usize::from(due);
        }
        // By halves: a claim is a call to another thread, too much for each request.
        if self.ready.len() * 2 > most {
            return 0;
        }
        (2 * most).saturating_sub(self.entries.len())
    }

    /// Takes entries over from the outbox: what a claim brought, also when it brought nothing.
    pub fn claimed(&mut self, now: Moment, claims: Vec<Claim>) {
        self.expiring &= !claims.is_empty();
        for claim in claims {
            let key = (claim.delivery, claim.ordinal);
            if self.entries.contains_key(&key) {
                continue;
            }
            if self.cancelled.contains(&key.0) {
                self.releases.push(key);
                continue;
            }
            let memo = self.memos.remove(&key);
            let (key, mut entry, pieces, account) = Entry::take(claim, memo);
            self.account = Some(account);
            *self.held.entry(key.0).or_default() += 1;
            let expired = self.circuit.shut() && self.too_old(now, entry.received);
            if expired || pieces.is_empty() {
                let reason = too_old(&self.why());
                for piece in &pieces {
                    entry.bury(piece, &reason, now.wall);
                    self.buried(now, piece);
                }
                self.settlements.push(entry.settlement(key));
            } else {
                self.expiring = false;
                self.entries.insert(key, entry);
                self.ready.extend(pieces);
            }
        }
        let another = self.account.is_some() && self.account != self.refused;
        if self.circuit.refused() && another {
            // Once for each account: if it is refused too, it is the refused one.
            self.refused.clone_from(&self.account);
            self.circuit.retry_now(now.tick);
        }
        let waits_for_probe = self.circuit.permit(now.tick) != Permit::Probe;
        if self.circuit.shut() && waits_for_probe && !self.expiring {
            self.shed();
        }
    }

    /// What to send now.
    pub fn next(&mut self, now: Moment) -> Next {
        if self.stopping || self.flying.len() >= self.settings.max_in_flight {
            return Next::Blocked;
        }
        match self.circuit.permit(now.tick) {
            Permit::Go | Permit::Probe => {}
            Permit::At(tick) => {
                // A look that is due waits for a claim, not for a time.
                let peek = self.peek_at().filter(|&peek| peek > now.tick);
                return Next::At(peek.map_or(tick, |peek| peek.min(tick)));
            }
            Permit::Shut => return Next::Blocked,
        }
        let Some(at) = self.sendable() else {
            return Next::Blocked;
        };
        let Some(cost) = self.ready.get(at).map(|piece| piece.slices.len()) else {
            return Next::Blocked;
        };
        if let Err(tick) = self.pace.admit(now.tick, cost) {
            return Next::At(tick);
        }
        match self.take_off(now, at) {
            Some((ticket, parcel)) => Next::Send(ticket, parcel),
            None => Next::Blocked,
        }
    }

    /// The reply to a request.
    pub fn replied(&mut self, now: Moment, ticket: Ticket, reply: Reply) {
        let Some(flight) = self.flying.remove(&ticket) else {
            return;
        };
        let latency = now.tick.saturating_sub(flight.sent);
        self.latencies.record(latency);
        self.record.replies.count(&reply);
        if matches!(reply, Reply::Accepted { .. }) {
            self.record.accepted_batches += flight.piece.slices.len() as u64;
        }
        let key = flight.piece.entry;
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.flying -= 1;
        let received = entry.received;
        let expired = self.circuit.troubled() && self.too_old(now, received);
        let verdict = decide(
            reply,
            PieceState {
                batches: flight.piece.slices.len(),
                expired,
                doubted: self.circuit.doubted(),
            },
        );
        self.heard(now, flight.pass, flight.account, verdict.destination);
        self.landed(now, flight.piece, verdict.piece, expired);
        if self.circuit.shut() && !self.expiring {
            self.shed();
        }
    }

    /// Decided entries, to be settled in one go; then [`Lane::settled`] or [`Lane::unsettled`].
    pub fn take_settlements(&mut self) -> Vec<Settlement> {
        let batch = std::mem::take(&mut self.settlements);
        self.settling += batch.len();
        batch
    }

    /// These are durable now.
    pub fn settled(&mut self, batch: &[Settlement]) {
        self.settling = self.settling.saturating_sub(batch.len());
        for settlement in batch {
            self.let_go(settlement.delivery);
        }
    }

    /// The outbox could not write these down: they are still to be settled.
    pub fn unsettled(&mut self, mut batch: Vec<Settlement>) {
        self.settling = self.settling.saturating_sub(batch.len());
        batch.append(&mut self.settlements);
        self.settlements = batch;
    }

    /// Entries to be given back to the outbox, before anything else is claimed.
    pub fn take_releases(&mut self) -> Vec<EntryKey> {
        std::mem::take(&mut self.releases)
    }

    /// What is worth a log line.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.take()
    }

    /// The outbox has changed: there may be a new account.
    pub fn stir(&mut self) {
        self.stirred = true;
    }

    /// Begins the end: nothing more is claimed or sent, what is in flight may land.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Nothing is held, in flight, or to be told to the outbox.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.flying.is_empty() && self.releases.is_empty()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Entries held with their bodies.
    pub fn open_entries(&self) -> usize {
        self.entries.len()
    }

    /// What can be seen from outside.
    pub fn snapshot(&self, now: Moment) -> Snapshot {
        Snapshot {
            destination: self.destination,
            label: self.label.clone(),
            state: Standing::of(&self.circuit, now),
            rate: self.pace.rate(),
            limit: self.pace.limit(),
            in_flight: self.flying.len(),
            held: self.held.values().sum(),
            record: self.record.clone(),
            latency_mean: self.latencies.mean(),
            latency_p99: self.latencies.p99(),
        }
    }

    /// The first piece that may go out by the order of deliveries.
    fn sendable(&mut self) -> Option<usize> {
        if self.head.is_none() {
            self.head = self.ready.front().map(|piece| piece.entry.0);
        }
        let head = self.head?;
        self.ready.iter().position(|piece| piece.entry.0 == head)
    }

    fn take_off(&mut self, now: Moment, at: usize) -> Option<(Ticket, Parcel)> {
        let mut piece = self.ready.remove(at)?;
        let entry = self.entries.get_mut(&piece.entry)?;
        let account = self.account.clone()?;
        entry.flying += 1;
        piece.tried(now.wall);
        let parcel = Parcel {
            destination: self.destination,
            account: account.clone(),
            delivery: piece.entry.0,
            attempt: piece.attempts,
            route: entry.route,
            batches: entry.batches(&piece),
        };
        self.record.requests += 1;
        self.record.batches += parcel.batches.len() as u64;
        let flight = Flight {
            piece,
            pass: self.circuit.sent(),
            sent: now.tick,
            account,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.flying.insert(ticket, flight);
        Some((ticket, parcel))
    }

    /// When a paused destination looks whether there is a new account.
    fn peek_at(&self) -> Option<Duration> {
        let looks = self.circuit.refused() && self.stirred && self.ready.is_empty();
        looks.then_some(self.peeked + PEEK)
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
