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
//!   destination works; at a low rate its permits alone would take seconds.
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

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

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
    /// Nothing has been sent yet.
    fresh: bool,
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
            fresh: true,
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
        if std::mem::take(&mut self.fresh) {
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
                let next = not_until.earliest_possible().max(least);
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
                let near = self
                    .ceiling
                    .is_some_and(|ceiling| self.rate >= ceiling * NEAR);
                let share = if near || others {
                    GENTLE_INCREASE
                } else {
                    INCREASE
                };
                self.rate += self.limit * share * self.growth * seconds;
            }
        }
        self.rate = self.rate.min(self.limit);
        if self
            .ceiling
            .is_some_and(|ceiling| self.rate > ceiling * PAST)
        {
            self.ceiling = None;
        }
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
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const LIMIT: PaceSettings = PaceSettings {
        batches_per_second: 270,
        burst: 100,
    };

    /// Sends requests of `cost` for as long as `until`, as fast as the pace lets them, with a
    /// clean reply for each; returns when each was sent.
    fn send(pace: &mut Pace, from: Duration, until: Duration, cost: usize) -> Vec<Duration> {
        let mut now = from;
        let mut sent = Vec::new();
        while now < until {
            match pace.admit(now, cost) {
                Ok(()) => {
                    sent.push(now);
                    pace.clean(now, None);
                }
                // A timer of whole milliseconds, rounded up, as tokio's is.
                Err(next) => {
                    now = Duration::from_millis(next.as_nanos().div_ceil(1_000_000) as u64);
                }
            }
        }
        sent
    }

    fn most_in_a_second(sent: &[Duration], cost: usize) -> usize {
        let mut window = VecDeque::new();
        let mut most = 0;
        for &at in sent {
            window.push_back(at);
            while window
                .front()
                .is_some_and(|&first| first + Duration::from_secs(1) <= at)
            {
                window.pop_front();
            }
            most = most.max(window.len() * cost);
        }
        most
    }

    #[test]
    fn the_rate_ramps_up_and_then_uses_the_whole_limit_and_no_more() {
        for cost in [1, 7, 20, 50, 99, 100] {
            let mut pace = Pace::new(LIMIT, Duration::ZERO);
            let end = Duration::from_secs(100);
            let sent = send(&mut pace, Duration::ZERO, end, cost);
            assert!(most_in_a_second(&sent, cost) <= 270 + 100, "cost {cost}");

            let first_second = sent.iter().filter(|at| at.as_secs() < 1).count() * cost;
            assert!(first_second <= cost.max(60), "a low start: {first_second}");
            let minute = Duration::from_secs(30)..Duration::from_secs(90);
            let used = sent.iter().filter(|at| minute.contains(*at)).count() * cost;
            assert!(used as f64 >= 0.98 * 270.0 * 60.0, "cost {cost}: {used}");
            assert!(used as f64 <= 270.0 * 60.0 + 100.0, "cost {cost}: {used}");
        }
    }

    #[test]
    fn a_round_of_complaints_lowers_the_rate_and_it_comes_back() {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
        assert_eq!(pace.rate(), Some(270.0));
        let now = Duration::from_secs(30);
        pace.throttled(now, Some(&Exceeded::Speed("account".into())));
        assert_eq!(pace.rate(), Some(270.0 * CUT));
        send(&mut pace, now, now + Duration::from_secs(60), 20);
        assert_eq!(pace.rate(), Some(270.0));
        for _ in 0..100 {
            pace.throttled(now * 3, None);
        }
        assert!(pace.rate() > Some(1.0), "it never stops altogether");
    }

    #[test]
    fn acceleration_slows_the_ramp_more_than_the_rate() {
        let reached = |complaints: usize| {
            let mut pace = Pace::new(LIMIT, Duration::ZERO);
            for _ in 0..complaints {
                pace.throttled(Duration::ZERO, Some(&Exceeded::Acceleration));
            }
            send(&mut pace, Duration::ZERO, Duration::from_secs(5), 5);
            pace.rate().unwrap()
        };
        assert!(reached(1) < reached(0) * 0.7);
        assert!(reached(1) > reached(2));
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        pace.throttled(Duration::ZERO, Some(&Exceeded::Acceleration));
        assert!(pace.rate().unwrap() >= 27.0 * ACCELERATION_CUT);
    }

    #[test]
    fn a_long_silence_begins_low_again() {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
        let later = Duration::from_secs(60);
        assert!(pace.admit(later, 20).is_err(), "drained");
        assert_eq!(pace.rate(), Some(27.0));
    }

    #[test]
    fn the_first_request_goes_at_once_and_the_second_waits_for_its_permits() {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        let start = Duration::from_secs(60);
        let sent = send(&mut pace, start, start + Duration::from_secs(5), 100);
        assert_eq!(sent[0], start);
        assert!(sent[1] >= start + Duration::from_secs(2), "{sent:?}");
        assert!(most_in_a_second(&sent, 100) <= 270 + 100);
    }

    #[test]
    fn a_request_that_takes_long_to_afford_is_not_taken_for_silence() {
        let settings = PaceSettings {
            batches_per_second: 5,
            burst: 100,
        };
        let mut pace = Pace::new(settings, Duration::ZERO);
        let sent = send(&mut pace, Duration::ZERO, Duration::from_secs(1_000), 100);
        let late = sent.iter().filter(|at| at.as_secs() >= 500).count();
        assert!(late >= 24, "{late} requests in 500 s");
    }

    #[test]
    fn a_high_share_in_use_never_lowers_the_rate() {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
        for second in 31..60 {
            let now = Duration::from_secs(second);
            assert!(pace.admit(now, 100).is_ok());
            pace.clean(now, Some(100));
            assert_eq!(pace.rate(), Some(270.0));
        }
    }

    #[test]
    fn no_limit_costs_nothing_and_a_request_above_the_burst_still_passes() {
        for batches_per_second in [0, UNPACED, u32::MAX] {
            let settings = PaceSettings {
                batches_per_second,
                burst: 100,
            };
            let mut pace = Pace::new(settings, Duration::ZERO);
            assert_eq!(pace.rate(), None);
            for _ in 0..10_000 {
                assert_eq!(pace.admit(Duration::ZERO, 100), Ok(()));
            }
            pace.throttled(Duration::ZERO, None);
            assert_eq!(pace.admit(Duration::ZERO, 100), Ok(()));
        }
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        let sent = send(&mut pace, Duration::ZERO, Duration::from_secs(60), 250);
        assert!(sent.len() > 20, "{}", sent.len());
    }

    #[test]
    fn a_changed_rate_keeps_the_permits_that_had_gathered() {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        send(&mut pace, Duration::ZERO, Duration::from_secs(30), 100);
        // 0.2 s at 270 a second: 54 permits.
        let now = Duration::from_secs(31);
        assert!(pace.admit(now, 46).is_ok());
        pace.rebuild(now, 54);
        assert!(pace.admit(now, 54).is_ok());
        let next = pace.admit(now, 27).unwrap_err();
        let wait = next - now;
        assert!(
            wait > Duration::from_millis(99) && wait < Duration::from_millis(104),
            "{wait:?}"
        );
    }
}
