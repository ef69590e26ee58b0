//! Permits in batches per second, and the rate they come at.
//!
//! The permits are governor's: a bucket that holds one request's cost, starts drained, and is asked
//! with `check_n` by the one task that sends for the destination. Its clock is the tick that
//! [`Pace::admit`] is handed, so that the whole drain runs on one clock, real, paused or made up.
//! A quota can't be changed, so a new rate means a new limiter, made so that it holds as many
//! permits as the old one did: in no second do more than the limit and one request's cost pass.
//!
//! The rate is additive increase, multiplicative decrease, below the configured limit:
//! - The first request of all goes at once, whatever it costs, so that it is soon known whether the
//!   destination works; at a low rate its permits alone would take seconds. Where another daemon sent
//!   before, it goes at once when that one's last second is over.
//! - It starts low, also after an outage or a long silence, and doubles every [`DOUBLING`], since
//!   mParticle limits the growth of the rate too (`acceleration`).
//! - A reply that names a speed limit cuts it to [`CUT`] once for a round of requests, and the rate
//!   at which that happened is remembered as the ceiling. From there on growth is additive, and
//!   slow close to the ceiling: senders that share a limit meet it rarely, and each time the
//!   faster one gives up more. How often they meet it is a matter of time and not of the requests'
//!   size (two senders at 270 a second: some five times a minute), so with large requests it is a
//!   larger share of them. Growing more slowly would keep a sender from what another gives up.
//! - `acceleration` says nothing of the rate itself: the growth is slowed instead.
//! - A high share in use slows the growth while our own rate does not account for it. It never
//!   lowers the rate: alone at the limit, the share is high and all is well.
//!
//! A daemon that stops sending to a destination leaves its rate and permits to the next ([`Handed`]), so
//! that both together keep to the limit and the next one need not begin low. After one that could not
//! leave anything the next begins with no permit, and low.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::handed::Handed;
use super::transport::Exceeded;

/// Limits from here up are the same as none: a limiter would cost more than it holds back.
pub const UNPACED: u32 = 100_000;

/// How long the rate takes to double while it ramps up.
const DOUBLING: Duration = Duration::from_secs(2);
/// What a speed limit leaves of the rate.
const CUT: f64 = 0.8;
/// What `acceleration` leaves of the rate.
const ACCELERATION_CUT: f64 = 0.9;
/// Additive increase, as a share of the limit per second.
const INCREASE: f64 = 1.0 / 30.0;
/// The same, close to the ceiling or while others use up the limit.
const GENTLE_INCREASE: f64 = 1.0 / 540.0;
/// From this share of the ceiling on, growth is gentle.
const NEAR: f64 = 0.9;
/// Once this far above the ceiling without a complaint, the ceiling is history.
const PAST: f64 = 1.1;
/// A share in use from which on the limit counts as used up.
const USED_UP: u8 = 95;
/// Our own share of the limit from which on we are what uses it up.
const OURS: f64 = 0.85;
/// Slowest growth, as a share of the normal one.
const SLOWEST: f64 = 1.0 / 16.0;
/// A silence after which the rate ramps up again.
const SILENCE: Duration = Duration::from_secs(10);
/// How long slowed growth takes to double back.
const FORGIVE: Duration = Duration::from_secs(60);
/// What another daemon sent is in the same second for so long.
const WINDOW: Duration = Duration::from_secs(1);
/// The rate is not changed more often than this.
const STEP: Duration = Duration::from_millis(250);

/// What a destination may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    /// Batches per second, never passed. 0, or [`UNPACED`] and more: no limit.
    pub batches_per_second: u32,
    /// Batches of the largest request: what the bucket holds.
    pub burst: u32,
}

/// The permits of one destination.
#[derive(Debug)]
pub struct Pace {
    limit: f64,
    burst: NonZeroU32,
    clock: Tick,
    limiter: Option<Limiter>,
    /// Nothing has been sent yet, and from this tick on the first request goes at once.
    fresh: Option<Duration>,
    rate: f64,
    /// The rate that the limiter was made for.
    applied: f64,
    mode: Mode,
    /// The rate at which a speed limit was met last.
    ceiling: Option<f64>,
    /// 1, or less after `acceleration`.
    growth: f64,
    growth_changed: Duration,
    stepped: Duration,
    /// Whether the rate has held a request back since the last step.
    pressed: bool,
    percent_used: Option<u8>,
    /// When the last request went out, or may go out if it was held back.
    quiet_since: Option<Duration>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Tick, StateInformationMiddleware>;

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The rate doubles, up to here.
    Ramp { until: f64 },
    /// The rate grows by addition.
    Probe,
}

impl Pace {
    /// A pace at its low start, with no permit to begin with.
    pub fn new(settings: PaceSettings, now: Duration) -> Self {
        let paced = (1..UNPACED).contains(&settings.batches_per_second);
        let limit = f64::from(settings.batches_per_second);
        let mut pace = Self {
            limit,
            burst: NonZeroU32::new(settings.burst).unwrap_or(NonZeroU32::MIN),
            clock: Tick::default(),
            limiter: None,
            fresh: Some(now),
            rate: start_rate(limit),
            applied: 0.0,
            mode: Mode::Ramp { until: limit },
            ceiling: None,
            growth: 1.0,
            growth_changed: now,
            stepped: now,
            pressed: false,
            percent_used: None,
            quiet_since: None,
        };
        if paced {
            pace.rebuild(now, 0);
        }
        pace
    }

    /// Takes `cost` permits, or says until when there won't be enough.
    ///
    /// # Errors
    /// The tick at which to ask again.
    pub fn admit(&mut self, now: Duration, cost: usize) -> Result<(), Duration> {
        if self.limiter.is_none() {
            return Ok(());
        }
        let cost =
            NonZeroU32::new(u32::try_from(cost).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        if cost > self.burst {
            // An entry made under another configuration; the bucket must hold it to let it pass.
            self.burst = cost;
            self.rebuild(now, 0);
        }
        if self.fresh.is_some_and(|at| at <= now) {
            self.fresh = None;
            self.stepped = now;
            self.quiet_since = Some(now);
            self.rebuild(now, 0);
            return Ok(());
        }
        if self.quiet_since.is_some_and(|last| now > last + SILENCE) {
            self.restart(now);
        }
        self.clock.set(now);
        let Some(Ok(answer)) = self.limiter.as_ref().map(|limiter| limiter.check_n(cost)) else {
            return Ok(());
        };
        match answer {
            Ok(state) => {
                self.fresh = None;
                self.quiet_since = Some(now);
                if self.rate != self.applied {
                    self.rebuild(now, state.remaining_burst_capacity());
                }
                Ok(())
            }
            Err(not_until) => {
                self.pressed = true;
                // Never the same tick again: a caller that sleeps until then would spin.
                let least = now + Duration::from_nanos(1);
                let next = not_until.earliest_possible();
                let next = self.fresh.map_or(next, |at| at.min(next)).max(least);
                self.quiet_since = Some(next);
                Err(next)
            }
        }
    }

    /// A request was taken without complaint: the rate may grow.
    pub fn clean(&mut self, now: Duration, percent_used: Option<u8>) {
        self.percent_used = percent_used;
        let since = now.saturating_sub(self.stepped);
        if self.limiter.is_none() || since < STEP {
            return;
        }
        self.stepped = now;
        if self.growth < 1.0 && now.saturating_sub(self.growth_changed) >= FORGIVE {
            self.growth = (self.growth * 2.0).min(1.0);
            self.growth_changed = now;
        }
        // A rate that holds nothing back has not been tried, so it is no reason to grow.
        if std::mem::take(&mut self.pressed) {
            self.grow(since.as_secs_f64().min(1.0));
        }
    }

    /// The first complaint of a round of requests.
    pub fn throttled(&mut self, now: Duration, exceeded: Option<&Exceeded>) {
        if self.limiter.is_none() {
            return;
        }
        if exceeded == Some(&Exceeded::Acceleration) {
            self.growth = (self.growth / 2.0).max(SLOWEST);
            self.growth_changed = now;
            self.rate = (self.rate * ACCELERATION_CUT).max(self.floor());
        } else {
            self.ceiling = Some(self.rate);
            self.rate = (self.rate * CUT).max(self.floor());
            self.mode = Mode::Probe;
        }
        self.stepped = now;
        self.pressed = false;
        self.rebuild(now, 0);
    }

    /// The server was away, or we were: begin low and ramp up.
    pub fn restart(&mut self, now: Duration) {
        if self.limiter.is_none() {
            return;
        }
        let until = self.ceiling.map_or(self.limit, |ceiling| ceiling * CUT);
        self.rate = start_rate(self.limit).min(self.rate);
        self.mode = Mode::Ramp {
            until: until.max(self.rate),
        };
        self.stepped = now;
        self.pressed = false;
        self.quiet_since = None;
        self.rebuild(now, 0);
    }

    /// What the daemon that sends next is to know; `None` without a limit. Nothing may be sent after it.
    pub fn hand_over(&mut self, now: Duration) -> Option<Handed> {
        self.clock.set(now);
        let asked = self.limiter.as_ref()?.check_n(NonZeroU32::MIN);
        let permits = match asked {
            Ok(Ok(state)) => state.remaining_burst_capacity(),
            _ => 0,
        };
        Some(Handed {
            rate: self.rate,
            ceiling: self.ceiling,
            ramps: matches!(self.mode, Mode::Ramp { .. }),
            permits,
        })
    }

    /// Another daemon has sent until `handed` was left so long ago; or, if there is none, maybe until now.
    pub fn take_over(&mut self, now: Duration, handed: Option<(Handed, Duration)>) {
        if self.limiter.is_none() {
            return;
        }
        let (handed, ago) = handed.unzip();
        let ago = ago.unwrap_or_default();
        self.rate = start_rate(self.limit);
        self.ceiling = handed.and_then(|handed| handed.ceiling);
        self.growth = 1.0;
        self.growth_changed = now;
        let mut permits = 0;
        if let Some(handed) = handed {
            let rate = handed.rate.clamp(self.floor(), self.limit);
            permits = (f64::from(handed.permits) + rate * ago.as_secs_f64()) as u32;
            if ago <= SILENCE {
                self.rate = rate;
            }
        }
        let until = self.ceiling.map_or(self.limit, |ceiling| ceiling * CUT);
        self.mode = match handed {
            Some(Handed { ramps: false, .. }) if ago <= SILENCE => Mode::Probe,
            _ => Mode::Ramp {
                until: until.clamp(self.rate, self.limit.max(self.rate)),
            },
        };
        self.stepped = now;
        self.pressed = false;
        self.percent_used = None;
        self.quiet_since = None;
        self.fresh = Some(now + WINDOW.saturating_sub(ago));
        self.rebuild(now, permits.min(self.burst.get()));
    }

    /// Batches per second just now; `None` without a limit.
    pub fn rate(&self) -> Option<f64> {
        self.limiter.as_ref().map(|_| self.rate)
    }

    /// The rate that the present growth leads to, as far as the server has not complained; `None`
    /// without a limit.
    pub fn heading(&self) -> Option<f64> {
        let heading = match self.mode {
            Mode::Ramp { until } => until,
            Mode::Probe => self.ceiling.unwrap_or(self.limit).min(self.limit),
        };
        self.rate().map(|rate| rate.max(heading))
    }

    /// The configured limit; `None` without one.
    pub fn limit(&self) -> Option<u32> {
        self.limiter.as_ref().map(|_| self.limit as u32)
    }

    fn grow(&mut self, seconds: f64) {
        let others =
            self.percent_used.is_some_and(|used| used >= USED_UP) && self.rate < self.limit * OURS;
        match self.mode {
            Mode::Ramp { until } if !others => {
                let doublings = self.growth * seconds / DOUBLING.as_secs_f64();
                self.rate = (self.rate * doublings.exp2()).min(until);
                if self.rate >= until {
                    self.mode = Mode::Probe;
                }
            }
            _ => {
                let near = |ceiling| self.rate >= ceiling * NEAR;
                let share = match others || self.ceiling.is_some_and(near) {
                    true => GENTLE_INCREASE,
                    false => INCREASE,
                };
                self.rate += self.limit * share * self.growth * seconds;
            }
        }
        self.rate = self.rate.min(self.limit);
        self.ceiling = self.ceiling.filter(|ceiling| self.rate <= ceiling * PAST);
    }

    fn floor(&self) -> f64 {
        (self.limit / 50.0).max(1.0).min(self.limit)
    }

    /// Makes a limiter for the present rate that holds `permits` at `now`: one that was drained
    /// just as long ago as these take to gather.
    fn rebuild(&mut self, now: Duration, permits: u32) {
        let period = Duration::from_nanos((1e9 / self.rate).ceil() as u64);
        let Some(quota) = Quota::with_period(period) else {
            return;
        };
        self.clock.set(now.saturating_sub(period * permits));
        let limiter =
            RateLimiter::direct_with_clock(quota.allow_burst(self.burst), self.clock.clone())
                .with_middleware::<StateInformationMiddleware>();
        let _drained = limiter.check_n(self.burst);
        self.clock.set(now);
        self.limiter = Some(limiter);
        self.applied = self.rate;
    }
}

fn start_rate(limit: f64) -> f64 {
    (limit / 10.0).max(1.0).min(limit.max(1.0))
}

/// A clock for governor that shows the tick it was set to.
#[derive(Clone, Debug, Default)]
struct Tick(Arc<AtomicU64>);

impl Tick {
    fn set(&self, tick: Duration) {
        let nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Clock for Tick {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
