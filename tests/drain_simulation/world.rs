//! A world in virtual time: destinations' lanes, a model of the outbox for each, and a server that
//! a test scripts. Every rule of the drain is checked at every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use looker_feed::backoff::Backoff;
use looker_feed::clock::UnixMillis;
use looker_feed::drain::circuit::CircuitSettings;
use looker_feed::drain::lane::{Lane, LaneSettings, Next, Ticket};
use looker_feed::drain::moment::Moment;
use looker_feed::drain::notice::Notice;
use looker_feed::drain::pace::PaceSettings;
use looker_feed::drain::{Reply, Request, SendState};
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::{Claim, Settlement};

pub const SECOND: Duration = Duration::from_secs(1);
const WALL: u64 = 1_795_000_000_000;

pub fn settings(max_in_flight: usize, batches_per_second: u32) -> LaneSettings {
    LaneSettings {
        max_in_flight,
        max_age: None,
        pace: PaceSettings {
            batches_per_second,
            burst: 100,
        },
        circuit: CircuitSettings {
            backoff: Backoff {
                base: SECOND / 2,
                cap: 30 * SECOND,
            },
            retry_after_max: 300 * SECOND,
            down_after: 3,
            probe: Backoff {
                base: SECOND,
                cap: 60 * SECOND,
            },
            paused_probe: 300 * SECOND,
            pause_after_rejected: 100,
        },
    }
}

/// One batch: the delivery, the entry and the slice that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Batch {
    pub delivery: u64,
    pub entry: u64,
    pub slice: usize,
}

impl Batch {
    fn write(self) -> Bytes {
        format!("{}:{}:{}", self.delivery, self.entry, self.slice).into()
    }

    fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut parts = text.split(':').map(|part| part.parse::<u64>().unwrap());
        let mut next = || parts.next().unwrap();
        Self {
            delivery: next(),
            entry: next(),
            slice: next() as usize,
        }
    }
}

/// What the server does with a request: how long it takes, and what it says.
pub trait Server {
    fn receive(&mut self, now: Duration, account: u8, batches: &[Batch]) -> (Duration, Reply);
}

impl<F: FnMut(Duration, u8, &[Batch]) -> (Duration, Reply)> Server for F {
    fn receive(&mut self, now: Duration, account: u8, batches: &[Batch]) -> (Duration, Reply) {
        self(now, account, batches)
    }
}

pub fn accepted() -> Reply {
    Reply::Accepted { percent_used: None }
}

pub fn unavailable() -> Reply {
    Reply::unavailable("status 503")
}

pub fn rejected() -> Reply {
    Reply::Rejected {
        status: 400,
        words: "no".into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Claimed,
    Settled,
}

struct Entry {
    slices: usize,
    place: Place,
}

struct Flight {
    lands: Duration,
    ticket: Ticket,
    batches: Vec<Batch>,
    reply: Reply,
    probe: bool,
}

/// What was seen of a request when it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Duration,
    pub batches: Vec<Batch>,
    pub reply: Reply,
    pub standing: SendState,
}

impl Sent {
    pub fn reply_is_accepted(&self) -> bool {
        matches!(self.reply, Reply::Accepted { .. })
    }
}

/// One lane and its part of the outbox.
pub struct Station {
    pub lane: Lane,
    settings: LaneSettings,
    pub account: u8,
    deliveries: BTreeMap<u64, Vec<Entry>>,
    received: BTreeMap<u64, Duration>,
    next_delivery: u64,
    /// Entries by delivery that have not settled, and those among them that may be claimed.
    unsettled: BTreeMap<u64, usize>,
    waiting: BTreeSet<(u64, u64)>,
    flying: Vec<Flight>,
    settling: Option<(Duration, bool, Vec<Settlement>)>,
    claiming: Option<(Duration, Vec<Claim>)>,
    /// The outbox has changed since the claim under way began.
    outdated: bool,
    accepted: BTreeSet<Batch>,
    /// Batches that the server rejected when they were alone.
    condemned: BTreeSet<Batch>,
    pub dead: BTreeMap<Batch, String>,
    pub sent: Vec<Sent>,
    window: VecDeque<(Duration, usize)>,
    in_window: usize,
    pub notices: Vec<(Duration, Notice)>,
    pub most_open: usize,
    exhausted: bool,
    /// How long the outbox takes.
    rng: Rng,
}

impl Station {
    pub fn new(settings: LaneSettings, seed: u64) -> Self {
        let destination = DestinationId([seed as u8; 16]);
        let (begin, mut rng) = (at(Duration::ZERO), Rng::with_seed(seed));
        Self {
            lane: Lane::new(settings, destination, "test".into(), begin, rng.fork()),
            settings,
            account: 0,
            deliveries: BTreeMap::new(),
            received: BTreeMap::new(),
            next_delivery: 0,
            unsettled: BTreeMap::new(),
            waiting: BTreeSet::new(),
            flying: Vec::new(),
            settling: None,
            claiming: None,
            outdated: false,
            accepted: BTreeSet::new(),
            condemned: BTreeSet::new(),
            dead: BTreeMap::new(),
            sent: Vec::new(),
            window: VecDeque::new(),
            in_window: 0,
            notices: Vec::new(),
            most_open: 0,
            exhausted: false,
            rng,
        }
    }

    /// Commits a delivery whose entries have so many slices.
    pub fn deliver(&mut self, now: Duration, entries: impl IntoIterator<Item = usize>) -> u64 {
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        let place = Place::Waiting;
        let entries = entries.into_iter().map(|slices| Entry { slices, place });
        let entries: Vec<_> = entries.collect();
        self.unsettled.insert(delivery, entries.len());
        let waiting = 0..entries.len() as u64;
        self.waiting.extend(waiting.map(|entry| (delivery, entry)));
        self.deliveries.insert(delivery, entries);
        self.received.insert(delivery, now);
        self.changed();
        delivery
    }

    pub fn changed(&mut self) {
        self.exhausted = false;
        self.outdated = true;
        self.lane.stir();
    }

    pub fn is_done(&self) -> bool {
        self.head().is_none() && self.settling.is_none() && self.flying.is_empty()
    }

    pub fn batches(&self) -> usize {
        let entries = self.deliveries.values().flatten();
        entries.map(|entry| entry.slices).sum()
    }

    /// Everything has settled, and each batch is where it belongs.
    pub fn check_all_settled(&self) {
        let settled = |entry: &Entry| entry.place == Place::Settled;
        assert!(self.deliveries.values().flatten().all(settled), "lost");
        for batch in self.dead.keys() {
            let delivered = self.accepted.contains(batch);
            assert!(!delivered, "{batch:?} is dead and delivered");
        }
        assert_eq!(self.accepted.len() + self.dead.len(), self.batches());
        assert!(self.lane.is_empty());
    }

    fn head(&self) -> Option<u64> {
        self.unsettled.keys().next().copied()
    }

    fn claim(&mut self, max: usize) -> Vec<Claim> {
        let Some(head) = self.head() else {
            return Vec::new();
        };
        let waiting = self.waiting.range((head, 0)..(head + 1, 0));
        let picked: Vec<_> = waiting.take(max).copied().collect();
        picked
            .into_iter()
            .map(|(delivery, entry)| {
                self.waiting.remove(&(delivery, entry));
                *self.place(id(delivery), entry) = Place::Claimed;
                let slices = self.deliveries[&delivery][entry as usize].slices;
                let batch = |slice| Batch {
                    delivery,
                    entry,
                    slice,
                };
                Claim {
                    delivery: id(delivery),
                    ordinal: entry,
                    account: Arc::new([self.account]),
                    route: route(entry),
                    slices: (0..slices).map(|slice| batch(slice).write()).collect(),
                    rows: vec![1; slices],
                    received: at(self.received[&delivery]).wall,
                }
            })
            .collect()
    }

    fn place(&mut self, delivery: DeliveryId, ordinal: u64) -> &mut Place {
        let entries = self.deliveries.get_mut(&number(delivery)).unwrap();
        &mut entries[ordinal as usize].place
    }

    /// All that happens without time passing. Returns when the lane wants to be asked again.
    fn step(&mut self, now: Duration, server: &mut impl Server) -> Option<Duration> {
        self.land(now);
        self.settle(now);
        self.claim_some(now);
        let next = loop {
            let standing = self.lane.snapshot(at(now)).state;
            match self.lane.next(at(now)) {
                Next::Send(ticket, request) => self.send(now, ticket, request, standing, server),
                Next::At(tick) => {
                    assert!(tick > now, "a wait that is over already: a busy loop");
                    break Some(tick);
                }
                Next::Blocked => break None,
            }
        };
        let notices = self.lane.take_notices();
        self.notices
            .extend(notices.into_iter().map(|notice| (now, notice)));
        self.most_open = self.most_open.max(self.lane.open_entries());
        assert!(self.lane.open_entries() <= 2 * self.settings.max_in_flight);
        next
    }

    fn claim_some(&mut self, now: Duration) {
        if let Some((done, _)) = &self.claiming
            && *done <= now
            && let Some((_, claims)) = self.claiming.take()
        {
            self.exhausted = claims.is_empty() && !self.outdated;
            self.lane.claimed(at(now), claims);
        }
        if self.claiming.is_some() {
            return;
        }
        for (delivery, ordinal) in self.lane.take_releases() {
            let place = self.place(delivery, ordinal);
            assert_eq!(*place, Place::Claimed, "released without a claim");
            *place = Place::Waiting;
            self.waiting.insert((number(delivery), ordinal));
            self.exhausted = false;
        }
        if self.exhausted {
            return;
        }
        let wanted = self.lane.wanted(at(now));
        if wanted > 0 {
            self.outdated = false;
            let takes = Duration::from_millis(self.rng.u64(1..10));
            self.claiming = Some((now + takes, self.claim(wanted)));
        }
    }

    fn send(
        &mut self,
        now: Duration,
        ticket: Ticket,
        request: Request,
        standing: SendState,
        server: &mut impl Server,
    ) {
        let batches: Vec<_> = request.batches.iter().map(|b| Batch::read(b)).collect();
        assert!(!batches.is_empty());
        assert_eq!(request.route, route(batches[0].entry));
        let head = self.head();
        for batch in &batches {
            assert_eq!(Some(batch.delivery), head, "a delivery was overtaken");
            let accepted = self.accepted.contains(batch);
            assert!(!accepted, "{batch:?} was sent after its 202");
            let flies = self.flying.iter().any(|f| f.batches.contains(batch));
            assert!(!flies, "sent twice at once");
        }
        let probe = matches!(standing, SendState::Down { .. } | SendState::Paused { .. });
        if probe {
            assert!(!self.flying.iter().any(|f| f.probe), "one probe at a time");
        }
        assert!(self.flying.len() < self.settings.max_in_flight);
        self.check_rate(now, batches.len());

        let (takes, reply) = server.receive(now, request.account[0], &batches);
        self.sent.push(Sent {
            at: now,
            batches: batches.clone(),
            reply: reply.clone(),
            standing,
        });
        self.flying.push(Flight {
            lands: now + takes,
            ticket,
            batches,
            reply,
            probe,
        });
    }

    fn check_rate(&mut self, now: Duration, cost: usize) {
        let PaceSettings {
            batches_per_second,
            burst,
        } = self.settings.pace;
        self.window.push_back((now, cost));
        self.in_window += cost;
        while let Some(&(sent, cost)) = self.window.front()
            && sent + SECOND <= now
        {
            self.in_window -= cost;
            self.window.pop_front();
        }
        let (most, sent) = ((batches_per_second + burst) as usize, self.in_window);
        let in_pace = batches_per_second == 0 || sent <= most;
        assert!(in_pace, "{sent} batches in one second");
    }

    fn land(&mut self, now: Duration) {
        while let Some(at_index) = self.flying.iter().position(|flight| flight.lands <= now) {
            let flight = self.flying.swap_remove(at_index);
            match &flight.reply {
                Reply::Accepted { .. } => self.accepted.extend(&flight.batches),
                Reply::Rejected { .. } | Reply::TooLarge { .. } if flight.batches.len() == 1 => {
                    self.condemned.extend(&flight.batches);
                }
                _ => {}
            }
            self.lane.replied(at(now), flight.ticket, flight.reply);
        }
    }

    fn settle(&mut self, now: Duration) {
        if let Some((done, _, _)) = &self.settling
            && *done <= now
            && let Some((_, fails, batch)) = self.settling.take()
        {
            if fails {
                self.lane.unsettled(batch);
            } else {
                for settlement in &batch {
                    self.check_settlement(now, settlement);
                }
                self.lane.settled(&batch);
                self.exhausted = false;
                self.outdated = true;
            }
        }
        if self.settling.is_none() {
            let batch = self.lane.take_settlements();
            if !batch.is_empty() {
                let takes = Duration::from_millis(self.rng.u64(0..20));
                self.settling = Some((now + takes, self.rng.u8(..) < 10, batch));
            }
        }
    }

    fn check_settlement(&mut self, now: Duration, settlement: &Settlement) {
        let delivery = number(settlement.delivery);
        let received = self.received[&delivery];
        let place = self.place(settlement.delivery, settlement.ordinal);
        assert_eq!(*place, Place::Claimed, "settled twice, or without a claim");
        *place = Place::Settled;
        let left = self.unsettled.get_mut(&delivery).unwrap();
        *left -= 1;
        if *left == 0 {
            self.unsettled.remove(&delivery);
        }
        let slices = self.deliveries[&delivery][settlement.ordinal as usize].slices;
        let batch = |slice| Batch {
            delivery,
            entry: settlement.ordinal,
            slice,
        };
        for dead in &settlement.dead {
            let batch = batch(dead.slice);
            assert!(dead.slice < slices && dead.first_try <= dead.last_try);
            let max_age = self.settings.max_age;
            let expired = max_age.is_some_and(|age| now - received > age);
            let condemned = self.condemned.contains(&batch);
            assert!(condemned || expired, "{batch:?} died for nothing");
            let before = self.dead.insert(batch, dead.reason.clone());
            assert_eq!(before, None, "died twice");
        }
        for slice in 0..slices {
            let batch = batch(slice);
            let decided = self.accepted.contains(&batch) || self.dead.contains_key(&batch);
            assert!(decided, "{batch:?} was settled without its 202");
        }
    }

    fn next_event(&self) -> Option<Duration> {
        let landing = self.flying.iter().map(|flight| flight.lands);
        let claim = self.claiming.as_ref().map(|(done, _)| *done);
        let settling = self.settling.as_ref().map(|(done, ..)| *done);
        landing.chain(claim).chain(settling).min()
    }
}

/// Runs the stations against one server until `until` says so or that time comes. Returns the time.
pub fn run(
    stations: &mut [Station],
    server: &mut impl Server,
    mut now: Duration,
    end: Duration,
    mut until: impl FnMut(&mut [Station], Duration) -> bool,
) -> Duration {
    let (mut second, mut steps) = (0, 0);
    loop {
        let mut next: Option<Duration> = None;
        for station in stations.iter_mut() {
            let asked = station.step(now, server);
            let events = next.into_iter().chain(asked);
            next = events.chain(station.next_event()).min();
        }
        if now >= end || until(stations, now) {
            return now;
        }
        if second != now.as_secs() {
            (second, steps) = (now.as_secs(), 0);
        }
        steps += 1;
        assert!(steps < 20_000, "a busy loop");
        let Some(next) = next else {
            return now;
        };
        // Whole milliseconds, rounded up, as tokio's timer has them.
        let millis = next.as_nanos().div_ceil(1_000_000) as u64;
        now = Duration::from_millis(millis).max(now).min(end);
    }
}

/// The same until that time.
pub fn wait(
    stations: &mut [Station],
    server: &mut impl Server,
    now: Duration,
    end: Duration,
) -> Duration {
    run(stations, server, now, end, |_, _| false)
}

/// The same until the first station is done.
pub fn finish(
    stations: &mut [Station],
    server: &mut impl Server,
    now: Duration,
    end: Duration,
) -> Duration {
    run(stations, server, now, end, |stations, _| {
        stations[0].is_done()
    })
}

pub fn at(tick: Duration) -> Moment {
    Moment {
        tick,
        wall: UnixMillis(WALL + tick.as_millis() as u64),
    }
}

fn id(number: u64) -> DeliveryId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    DeliveryId(id)
}

fn number(delivery: DeliveryId) -> u64 {
    u64::from_be_bytes(delivery.0[8..].try_into().unwrap())
}

/// Where the batches of an entry go.
fn route(entry: u64) -> u8 {
    (entry % 3) as u8
}
