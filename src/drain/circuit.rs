//! When a destination may be sent to: at once, later, one probe at a time, or not at all.
//!
//! Requests fly in parallel, so one cause brings several bad replies. Only the first of a round
//! counts: a request carries the [`Pass`] that it was sent with, and a pass from before the last
//! change is stale. What it says can make a wait longer, but never counts as another failure.
//!
//! Rejected batches concern the batches, until there are too many of them: when so many in a row
//! were rejected, each on its own, and nothing was accepted between, then the server, something on
//! the way to it, or the delivery as a whole is wrong. The destination is *doubted*: it is paused,
//! and no further batch becomes a dead letter before something is accepted or an operator resumes.

use std::time::Duration;

use fastrand::Rng;

use super::moment::Moment;
use super::policy::Signal;
use crate::backoff::{Backoff, obeyed};
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
    /// Interval between the probes of a destination that refuses everything, and the longest one
    /// of a destination that is doubted.
    pub paused_probe: Duration,
    /// Batches that are rejected in a row, each on its own and with nothing accepted between, before
    /// the destination is doubted; 0: it never is.
    pub pause_after_rejected: u32,
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
    /// Takes nothing until a person changes something: probed at a slow rate.
    Paused {
        /// What a person is needed for.
        cause: Cause,
        /// Tick of the next probe.
        probe_at: Duration,
        /// What happened, as a clause.
        why: String,
        /// When it began.
        since: Moment,
    },
}

/// Why a destination is paused, other than by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It refuses the credentials, or answers what is not documented.
    Refused,
    /// It is doubted.
    Doubted {
        /// Probes that have not been accepted.
        probes: u32,
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
    /// The destination is doubted from now on, after so many rejected batches.
    WentDoubted(u32),
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
    /// Batches that were rejected on their own since the last accepted request.
    rejected: u32,
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
            rejected: 0,
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

    /// So much was rejected in a row that no batch may be given up for it.
    pub fn doubted(&self) -> bool {
        self.settings.pause_after_rejected > 0
            && self.rejected >= self.settings.pause_after_rejected
    }

    /// Paused until there are other credentials.
    pub fn refused(&self) -> bool {
        let cause = Cause::Refused;
        matches!(&self.state, State::Paused { cause: now, .. } if *now == cause)
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
    pub fn heard(&mut self, now: Moment, pass: Pass, signal: Signal) -> Change {
        let fresh = pass.round == self.round;
        if fresh && pass.probe {
            self.probing = false;
        }
        let doubt = self.paused_by_doubt().is_some();
        if matches!(signal, Signal::Works { .. }) {
            self.rejected = 0;
        }
        match signal {
            // Also one from before: it does take something, and that is what was in doubt.
            Signal::Works { .. } if fresh || doubt => self.works(now),
            Signal::Rejects { alone, why } => self.rejects(now, fresh, alone, why),
            Signal::Throttles { retry_after, .. } if fresh && doubt => {
                self.probe_again(now, retry_after);
                Change::None
            }
            Signal::Throttles { retry_after, .. } if fresh => self.throttled(now, retry_after),
            Signal::Throttles { retry_after, .. } => {
                self.wait_longer(now, retry_after);
                Change::None
            }
            Signal::Fails { why, retry_after } if fresh => self.failed(now, why, retry_after),
            Signal::Fails { retry_after, .. } => {
                self.wait_longer(now, retry_after);
                Change::None
            }
            // From before the wait: the destination is alive, so there is no streak.
            Signal::Works { .. } if !self.shut() => {
                self.failures = 0;
                self.throttles = 0;
                Change::None
            }
            // Refused credentials are no accident, so even a stale reply counts, once.
            Signal::Refuses { why, .. } if fresh || !self.shut() => self.refuses(now, why),
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

    /// Ends an operator's pause, and tries at once whatever else was waited for. What is doubted
    /// goes on all the same, until as much is rejected once more. Returns whether it was doubted.
    pub fn resume(&mut self, now: Duration) -> bool {
        self.held = None;
        self.rejected = 0;
        let doubted = self.paused_by_doubt().is_some();
        if doubted {
            self.enter(State::Flowing);
        }
        self.retry_now(now);
        doubted
    }

    /// Something of what was rejected is gone: a destination that is doubted is probed at once.
    pub fn cancelled(&mut self, now: Duration) {
        if self.paused_by_doubt().is_some() {
            self.retry_now(now);
        }
    }

    /// Probes without success, if the destination is paused because it is doubted.
    fn paused_by_doubt(&self) -> Option<u32> {
        match self.state {
            State::Paused {
                cause: Cause::Doubted { probes },
                ..
            } => Some(probes),
            _ => None,
        }
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

    /// Something of a request was not taken: `alone`, if it held one batch only.
    fn rejects(&mut self, now: Moment, fresh: bool, alone: bool, why: String) -> Change {
        if let Some(probes) = self.paused_by_doubt() {
            if fresh {
                self.doubt(now, probes.saturating_add(1), why);
            }
            return Change::None;
        }
        if alone {
            self.rejected = self.rejected.saturating_add(1);
        }
        if self.doubted() && (fresh || !self.shut()) {
            self.failures = 0;
            self.throttles = 0;
            self.doubt(now, 1, why);
            return Change::WentDoubted(self.rejected);
        }
        // It is up, whatever it thinks of the batches.
        if fresh {
            return self.works(now);
        }
        if !self.shut() {
            self.failures = 0;
            self.throttles = 0;
        }
        Change::None
    }

    fn doubt(&mut self, now: Moment, probes: u32, last: String) {
        let since = self.paused_by_doubt().and(self.paused_since());
        let rejected = self.rejected;
        let probe_at = now.tick + self.doubtful_probe(probes);
        self.enter(State::Paused {
            cause: Cause::Doubted { probes },
            probe_at,
            why: format!(
                "{rejected} batches in a row were rejected and none was accepted, the last one \
                 {last}; cancel the delivery if it is wrong, or resume to go on all the same"
            ),
            since: since.unwrap_or(now),
        });
    }

    fn doubtful_probe(&mut self, probes: u32) -> Duration {
        let intervals = Backoff {
            base: self.settings.probe.base,
            cap: self.settings.paused_probe,
        };
        intervals.probe(probes, &mut self.rng)
    }

    fn paused_since(&self) -> Option<Moment> {
        match &self.state {
            State::Paused { since, .. } => Some(*since),
            _ => None,
        }
    }

    fn throttled(&mut self, now: Moment, retry_after: Option<Duration>) -> Change {
        self.failures = 0;
        self.throttles = self.throttles.saturating_add(1);
        let wait = match retry_after {
            Some(asked) => obeyed(asked, self.settings.retry_after_max, &mut self.rng),
            None => {
                let backoff = &self.settings.backoff;
                backoff.full_jitter(self.throttles, &mut self.rng)
            }
        };
        self.enter(State::Waiting {
            until: now.tick + wait,
            why: "the rate limit was exceeded".to_owned(),
        });
        Change::Throttled
    }

    /// What a `Retry-After` comes to; nothing, if there is none.
    fn asked(&mut self, retry_after: Option<Duration>) -> Duration {
        retry_after.map_or(Duration::ZERO, |asked| {
            obeyed(asked, self.settings.retry_after_max, &mut self.rng)
        })
    }

    fn wait_longer(&mut self, now: Moment, retry_after: Option<Duration>) {
        let (State::Waiting { until, .. }, Some(asked)) = (&mut self.state, retry_after) else {
            return;
        };
        let wait = obeyed(asked, self.settings.retry_after_max, &mut self.rng);
        *until = (*until).max(now.tick + wait);
    }

    fn failed(&mut self, now: Moment, why: String, retry_after: Option<Duration>) -> Change {
        self.throttles = 0;
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        match &self.state {
            State::Paused { .. } => {
                self.probe_again(now, retry_after);
                Change::None
            }
            State::Down { since, .. } => {
                let since = *since;
                self.go_down(now, since, why, retry_after);
                Change::StillDown
            }
            _ if failures >= self.settings.down_after => {
                self.go_down(now, now, why, retry_after);
                Change::WentDown
            }
            _ => {
                let wait = self.settings.backoff.full_jitter(failures, &mut self.rng);
                let asked = self.asked(retry_after);
                self.enter(State::Waiting {
                    until: now.tick + wait.max(asked),
                    why,
                });
                Change::None
            }
        }
    }

    /// A probe of a paused destination has shown nothing of what it is paused for.
    fn probe_again(&mut self, now: Moment, retry_after: Option<Duration>) {
        let wait = self.asked(retry_after).max(self.slow_probe());
        if let State::Paused { probe_at, .. } = &mut self.state {
            *probe_at = now.tick + wait;
        }
        self.begin_round();
    }

    fn go_down(&mut self, now: Moment, since: Moment, why: String, retry_after: Option<Duration>) {
        let beyond = self.failures.saturating_sub(self.settings.down_after) + 1;
        let interval = self.settings.probe.probe(beyond, &mut self.rng);
        let interval = interval.max(self.asked(retry_after));
        self.enter(State::Down {
            probe_at: now.tick + interval,
            failures: self.failures,
            why,
            since,
        });
    }

    fn refuses(&mut self, now: Moment, why: String) -> Change {
        let refused_since = self.paused_since().filter(|_| self.refused());
        self.failures = 0;
        self.throttles = 0;
        let probe_at = now.tick + self.slow_probe();
        self.enter(State::Paused {
            cause: Cause::Refused,
            probe_at,
            why,
            since: refused_since.unwrap_or(now),
        });
        match refused_since {
            Some(_) => Change::None,
            None => Change::WentPaused,
        }
    }

    fn slow_probe(&mut self) -> Duration {
        let share = 0.9 + 0.2 * self.rng.f64();
        self.settings.paused_probe.mul_f64(share)
    }

    /// Begins a new round: replies to what is still in flight are stale from now on.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        self.round += 1;
        self.probing = false;
    }
}

#[cfg(test)]
mod tests;
