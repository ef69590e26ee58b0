//! When a destination may be sent to: at once, later, one probe at a time, or not at all.
//!
//! Requests fly in parallel, so one cause brings several bad replies. Only the first of a round
//! counts: a request carries the [`Pass`] that it was sent with, and a pass from before the last
//! change is stale. What it says can make a wait longer, but never counts as another failure.

use std::time::Duration;

use fastrand::Rng;

use super::backoff::{Backoff, obeyed};
use super::moment::Moment;
use super::policy::Bearing;
use crate::clock::UnixMillis;

/// When a destination is given up on for a while, and how it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Waits after a failure or a throttled reply while the destination is thought to be up.
    pub backoff: Backoff,
    /// Longest wait that a `Retry-After` may ask for.
    pub retry_after_max: Duration,
    /// Failures in a row, without a good reply between, that make a destination count as down.
    pub down_after: u32,
    /// Intervals between the probes of a destination that is down.
    pub probe: Backoff,
    /// Interval between the probes of a destination that refuses everything.
    pub paused_probe: Duration,
}

/// How a destination stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests go out as the pace allows.
    Flowing,
    /// After a failure or a throttled reply: nothing goes out until then.
    Waiting {
        /// Tick at which requests go out again.
        until: Duration,
        /// What happened, as a clause.
        why: String,
    },
    /// Not available for longer: one request at a time, at growing intervals.
    Down {
        /// Tick of the next probe.
        probe_at: Duration,
        /// Failures in a row.
        failures: u32,
        /// What happened last, as a clause.
        why: String,
        /// When it began.
        since: Moment,
    },
    /// Refuses everything until a person changes something: probed at a slow rate.
    Paused {
        /// Tick of the next probe.
        probe_at: Duration,
        /// What happened, as a clause.
        why: String,
        /// When it began.
        since: Moment,
    },
}

/// Whether a request may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Go,
    /// Yes, one, to see whether the destination is back.
    Probe,
    /// Ask again at this tick.
    At(Duration),
    /// Not before something happens: a probe is out, or an operator has paused the destination.
    Shut,
}

/// What a request was sent with; goes back to [`Circuit::heard`] with its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    round: u64,
    probe: bool,
}

/// What a reply, or an operator, has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The first throttled reply of a round: the pace must be lowered.
    Throttled,
    /// The destination counts as down from now on.
    WentDown,
    /// Still down after another probe.
    StillDown,
    /// The destination refuses everything from now on.
    WentPaused,
    /// It is back after so long; the pace must ramp up.
    Recovered(Duration),
}

/// The gate of one destination.
#[derive(Debug)]
pub struct Circuit {
    settings: CircuitSettings,
    rng: Rng,
    state: State,
    round: u64,
    failures: u32,
    throttles: u32,
    probing: bool,
    held: Option<UnixMillis>,
}

impl Circuit {
    /// A destination that is thought to be up. `rng` gives the jitter.
    pub fn new(settings: CircuitSettings, rng: Rng) -> Self {
        Self {
            settings,
            rng,
            state: State::Flowing,
            round: 0,
            failures: 0,
            throttles: 0,
            probing: false,
            held: None,
        }
    }

    /// How the destination stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Since when an operator has paused the destination.
    pub fn held(&self) -> Option<UnixMillis> {
        self.held
    }

    /// Whether the destination has been failing for so long that what is too old may be given up.
    pub fn troubled(&self) -> bool {
        let streak = self.failures.max(self.throttles) >= self.settings.down_after;
        streak || self.shut()
    }

    /// Down or paused: only probes go out.
    pub fn shut(&self) -> bool {
        self.shut_since().is_some()
    }

    /// Tick since which only probes go out.
    pub fn shut_since(&self) -> Option<Duration> {
        match &self.state {
            State::Down { since, .. } | State::Paused { since, .. } => Some(since.tick),
            State::Flowing | State::Waiting { .. } => None,
        }
    }

    /// Whether a request may go out now. Ends a wait that is over.
    pub fn permit(&mut self, now: Duration) -> Permit {
        if self.held.is_some() {
            return Permit::Shut;
        }
        match self.state {
            State::Flowing => Permit::Go,
            State::Waiting { until, .. } if until <= now => {
                self.state = State::Flowing;
                Permit::Go
            }
            State::Waiting { until, .. } => Permit::At(until),
            State::Down { .. } | State::Paused { .. } if self.probing => Permit::Shut,
            State::Down { probe_at, .. } | State::Paused { probe_at, .. } => {
                if probe_at <= now {
                    Permit::Probe
                } else {
                    Permit::At(probe_at)
                }
            }
        }
    }

    /// A request goes out, with the permit that was just given.
    pub fn sent(&mut self) -> Pass {
        let probe = self.shut();
        self.probing |= probe;
        Pass {
            round: self.round,
            probe,
        }
    }

    /// A request was abandoned without a reply.
    pub fn abandoned(&mut self, pass: Pass) {
        if pass.probe && pass.round == self.round {
            self.probing = false;
        }
    }

    /// A reply to a request that went out with `pass`.
    pub fn heard(&mut self, now: Moment, pass: Pass, bearing: Bearing) -> Change {
        let fresh = pass.round == self.round;
        if fresh && pass.probe {
            self.probing = false;
        }
        match bearing {
            Bearing::Works { .. } if fresh => self.works(now),
            Bearing::Throttles { retry_after, .. } if fresh => self.throttled(now, retry_after),
            Bearing::Throttles { retry_after, .. } => {
                self.wait_longer(now, retry_after);
                Change::None
            }
            Bearing::Fails { why } if fresh => self.failed(now, why),
            // From before the wait: the destination is alive, so there is no streak.
            Bearing::Works { .. } if !self.shut() => {
                self.failures = 0;
                self.throttles = 0;
                Change::None
            }
            // Refused credentials are no accident, so even a stale reply counts, once.
            Bearing::Refuses { why, .. } if fresh || !self.shut() => self.refused(now, why),
            _ => Change::None,
        }
    }

    /// Tries at once what is waiting for its time. Does nothing to a pause by an operator.
    pub fn retry_now(&mut self, now: Duration) {
        match &mut self.state {
            State::Flowing => {}
            State::Waiting { .. } => self.state = State::Flowing,
            State::Down { probe_at, .. } | State::Paused { probe_at, .. } => *probe_at = now,
        }
    }

    /// An operator pauses the destination: nothing goes out until [`Circuit::resume`].
    pub fn pause(&mut self, now: Moment) {
        self.held.get_or_insert(now.wall);
    }

    /// Ends an operator's pause, and tries at once whatever else was waited for.
    pub fn resume(&mut self, now: Duration) {
        self.held = None;
        self.retry_now(now);
    }

    fn works(&mut self, now: Moment) -> Change {
        self.failures = 0;
        self.throttles = 0;
        let Some(since) = self.shut_since() else {
            return Change::None;
        };
        self.enter(State::Flowing);
        Change::Recovered(now.tick.saturating_sub(since))
    }

    fn throttled(&mut self, now: Moment, retry_after: Option<Duration>) -> Change {
        self.failures = 0;
        self.throttles = self.throttles.saturating_add(1);
        let wait = match retry_after {
            Some(asked) => obeyed(asked, self.settings.retry_after_max, &mut self.rng),
            None => self
                .settings
                .backoff
                .full_jitter(self.throttles, &mut self.rng),
        };
        self.enter(State::Waiting {
            until: now.tick + wait,
            why: "the rate limit was exceeded".to_owned(),
        });
        Change::Throttled
    }

    fn wait_longer(&mut self, now: Moment, retry_after: Option<Duration>) {
        let (State::Waiting { until, .. }, Some(asked)) = (&mut self.state, retry_after) else {
            return;
        };
        let wait = obeyed(asked, self.settings.retry_after_max, &mut self.rng);
        *until = (*until).max(now.tick + wait);
    }

    fn failed(&mut self, now: Moment, why: String) -> Change {
        self.throttles = 0;
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        match &self.state {
            State::Paused { why, since, .. } => {
                let (why, since) = (why.clone(), *since);
                let probe_at = now.tick + self.slow_probe();
                self.enter(State::Paused {
                    probe_at,
                    why,
                    since,
                });
                Change::None
            }
            State::Down { since, .. } => {
                let since = *since;
                self.go_down(now, since, why);
                Change::StillDown
            }
            _ if failures >= self.settings.down_after => {
                self.go_down(now, now, why);
                Change::WentDown
            }
            _ => {
                let wait = self.settings.backoff.full_jitter(failures, &mut self.rng);
                self.enter(State::Waiting {
                    until: now.tick + wait,
                    why,
                });
                Change::None
            }
        }
    }

    fn go_down(&mut self, now: Moment, since: Moment, why: String) {
        let beyond = self.failures.saturating_sub(self.settings.down_after) + 1;
        let interval = self.settings.probe.probe(beyond, &mut self.rng);
        self.enter(State::Down {
            probe_at: now.tick + interval,
            failures: self.failures,
            why,
            since,
        });
    }

    fn refused(&mut self, now: Moment, why: String) -> Change {
        let paused_since = match &self.state {
            State::Paused { since, .. } => Some(*since),
            _ => None,
        };
        self.failures = 0;
        self.throttles = 0;
        let probe_at = now.tick + self.slow_probe();
        self.enter(State::Paused {
            probe_at,
            why,
            since: paused_since.unwrap_or(now),
        });
        match paused_since {
            Some(_) => Change::None,
            None => Change::WentPaused,
        }
    }

    fn slow_probe(&mut self) -> Duration {
        self.settings
            .paused_probe
            .mul_f64(0.9 + 0.2 * self.rng.f64())
    }

    /// Begins a new round: replies to what is still in flight are stale from now on.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.round += 1;
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn circuit() -> Circuit {
        let settings = CircuitSettings {
            backoff: Backoff {
                base: SECOND,
                cap: 60 * SECOND,
            },
            retry_after_max: 120 * SECOND,
            down_after: 3,
            probe: Backoff {
                base: SECOND,
                cap: 60 * SECOND,
            },
            paused_probe: 300 * SECOND,
        };
        Circuit::new(settings, Rng::with_seed(1))
    }

    fn at(tick: Duration) -> Moment {
        Moment {
            tick,
            wall: UnixMillis(1_000_000 + tick.as_millis() as u64),
        }
    }

    fn fails() -> Bearing {
        Bearing::Fails { why: "503".into() }
    }

    fn works() -> Bearing {
        Bearing::Works { percent_used: None }
    }

    fn refuses() -> Bearing {
        Bearing::Refuses {
            status: 401,
            why: "401".into(),
        }
    }

    fn throttles(seconds: u32) -> Bearing {
        Bearing::Throttles {
            retry_after: Some(seconds * SECOND),
            exceeded: None,
        }
    }

    /// Waits as long as the circuit says, then sends one request that gets this reply.
    fn one(circuit: &mut Circuit, now: &mut Duration, bearing: Bearing) -> Change {
        if let Permit::At(tick) = circuit.permit(*now) {
            *now = tick;
        }
        assert!(matches!(circuit.permit(*now), Permit::Go | Permit::Probe));
        let pass = circuit.sent();
        circuit.heard(at(*now), pass, bearing)
    }

    #[test]
    fn one_cause_counts_once_however_many_requests_it_hits() {
        let mut circuit = circuit();
        let passes: Vec<_> = (0..8).map(|_| circuit.sent()).collect();
        for pass in passes {
            circuit.heard(at(SECOND), pass, fails());
        }
        assert!(matches!(circuit.state(), State::Waiting { .. }));
        assert_eq!(circuit.failures, 1);
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_one_good_probe_closes_it() {
        let mut circuit = circuit();
        let mut now = Duration::ZERO;
        assert_eq!(one(&mut circuit, &mut now, fails()), Change::None);
        assert_eq!(one(&mut circuit, &mut now, fails()), Change::None);
        assert_eq!(one(&mut circuit, &mut now, fails()), Change::WentDown);
        let down_since = now;
        let mut before = now;
        let mut intervals = Vec::new();
        for _ in 0..10 {
            assert_eq!(one(&mut circuit, &mut now, fails()), Change::StillDown);
            intervals.push(now - before);
            before = now;
        }
        assert!(intervals[0] <= SECOND);
        for (probe, &interval) in intervals.iter().enumerate() {
            let most = (SECOND * (1 << probe)).min(60 * SECOND);
            assert!(interval >= most / 2 && interval <= most, "{intervals:?}");
        }

        let Permit::At(tick) = circuit.permit(now) else {
            panic!("down")
        };
        assert_eq!(circuit.permit(tick), Permit::Probe);
        let probe = circuit.sent();
        assert_eq!(
            circuit.permit(tick + 900 * SECOND),
            Permit::Shut,
            "one probe at a time"
        );
        let change = circuit.heard(at(tick), probe, works());
        assert_eq!(change, Change::Recovered(tick - down_since));
        assert_eq!(circuit.permit(tick), Permit::Go);
    }

    #[test]
    fn a_good_reply_between_failures_keeps_the_circuit_closed() {
        let mut circuit = circuit();
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            one(&mut circuit, &mut now, fails());
            one(&mut circuit, &mut now, fails());
            assert_eq!(one(&mut circuit, &mut now, works()), Change::None);
        }
        assert_eq!(circuit.permit(now), Permit::Go);
    }

    #[test]
    fn a_good_reply_from_before_the_outage_does_not_close_the_circuit() {
        let mut circuit = circuit();
        let early = circuit.sent();
        let mut now = Duration::ZERO;
        for _ in 0..3 {
            one(&mut circuit, &mut now, fails());
        }
        assert_eq!(circuit.heard(at(now), early, works()), Change::None);
        assert!(circuit.shut());
    }

    #[test]
    fn a_good_reply_from_before_a_wait_ends_the_streak() {
        let mut circuit = circuit();
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            let early = circuit.sent();
            one(&mut circuit, &mut now, fails());
            assert!(!circuit.troubled());
            assert_eq!(circuit.heard(at(now), early, works()), Change::None);
            assert!(
                matches!(circuit.state(), State::Waiting { .. }),
                "still waits"
            );
            circuit.retry_now(now);
        }
    }

    #[test]
    fn retry_after_is_waited_for_and_a_later_one_lengthens_the_wait() {
        let mut circuit = circuit();
        let (first, second) = (circuit.sent(), circuit.sent());
        assert_eq!(
            circuit.heard(at(SECOND), first, throttles(5)),
            Change::Throttled
        );
        assert!(matches!(circuit.permit(5 * SECOND), Permit::At(tick) if tick >= 6 * SECOND));
        assert_eq!(
            circuit.heard(at(SECOND), second, throttles(9)),
            Change::None
        );
        assert!(matches!(circuit.permit(9 * SECOND), Permit::At(tick) if tick >= 10 * SECOND));
        assert_eq!(circuit.permit(11 * SECOND), Permit::Go);
        assert_eq!(circuit.throttles, 1);
    }

    #[test]
    fn refused_credentials_pause_it_once_and_a_good_probe_resumes() {
        let mut circuit = circuit();
        let (first, second) = (circuit.sent(), circuit.sent());
        assert_eq!(
            circuit.heard(at(SECOND), first, refuses()),
            Change::WentPaused
        );
        assert_eq!(circuit.heard(at(SECOND), second, refuses()), Change::None);
        let mut now = SECOND;
        for bearing in [refuses(), fails(), fails(), fails(), fails(), refuses()] {
            let before = now;
            assert_eq!(one(&mut circuit, &mut now, bearing), Change::None);
            assert!(now - before >= 270 * SECOND, "a slow rate");
            assert!(matches!(circuit.state(), State::Paused { .. }));
        }
        assert_eq!(
            one(&mut circuit, &mut now, works()),
            Change::Recovered(now - SECOND)
        );
        assert_eq!(circuit.state(), &State::Flowing);
    }

    #[test]
    fn a_throttled_probe_shows_that_the_server_is_back() {
        let mut circuit = circuit();
        let mut now = Duration::ZERO;
        for _ in 0..3 {
            one(&mut circuit, &mut now, fails());
        }
        assert_eq!(one(&mut circuit, &mut now, throttles(2)), Change::Throttled);
        assert!(matches!(circuit.state(), State::Waiting { .. }));
        one(&mut circuit, &mut now, works());
        assert_eq!(circuit.permit(now), Permit::Go);
    }

    #[test]
    fn an_operator_pauses_resumes_and_retries() {
        let mut circuit = circuit();
        circuit.pause(at(SECOND));
        assert_eq!(circuit.permit(100 * SECOND), Permit::Shut);
        circuit.retry_now(100 * SECOND);
        assert_eq!(circuit.permit(100 * SECOND), Permit::Shut);
        circuit.resume(100 * SECOND);
        assert_eq!(circuit.permit(100 * SECOND), Permit::Go);

        let pass = circuit.sent();
        circuit.heard(at(SECOND), pass, refuses());
        assert!(matches!(circuit.permit(2 * SECOND), Permit::At(_)));
        circuit.retry_now(2 * SECOND);
        assert_eq!(circuit.permit(2 * SECOND), Permit::Probe);
        let probe = circuit.sent();
        circuit.abandoned(probe);
        assert_eq!(circuit.permit(2 * SECOND), Permit::Probe);
    }
}
