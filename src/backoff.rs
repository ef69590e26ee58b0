//! How long to wait: exponential, jittered, capped, without end.
//!
//! Full jitter (a uniform draw from zero to the cap of the attempt) spreads many waiters best; it
//! is used between attempts while the server is thought to be alive. A probe of a server that is
//! down keeps at least half of its interval, so that intervals grow visibly.

use std::time::Duration;

use fastrand::Rng;

/// Bounds of an exponential wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The largest wait after the first failure.
    pub base: Duration,
    /// The largest wait ever.
    pub cap: Duration,
}

impl Backoff {
    /// A wait after the `failures`-th failure in a row: uniform from nothing up to
    /// `min(cap, base * 2^(failures - 1))`.
    pub fn full_jitter(&self, failures: u32, rng: &mut Rng) -> Duration {
        self.ceiling(failures).mul_f64(rng.f64())
    }

    /// A wait before the next probe: uniform from half to the whole of
    /// `min(cap, base * 2^(failures - 1))`.
    pub fn probe(&self, failures: u32, rng: &mut Rng) -> Duration {
        self.ceiling(failures).mul_f64(0.5 + 0.5 * rng.f64())
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

/// What a server's `Retry-After` comes to: never above `max`, and up to a tenth (at least 100 ms)
/// later than asked, so that senders that were told the same do not come back together.
pub fn obeyed(retry_after: Duration, max: Duration, rng: &mut Rng) -> Duration {
    let asked = retry_after.min(max);
    let spread = (asked / 10).max(Duration::from_millis(100));
    (asked + spread.mul_f64(rng.f64())).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap_and_never_overflow() {
        let backoff = Backoff {
            base: SECOND,
            cap: 60 * SECOND,
        };
        for (failures, most) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (6, 32),
            (7, 60),
            (u32::MAX, 60),
        ] {
            let mut rng = Rng::with_seed(failures.into());
            let mut longest = Duration::ZERO;
            let mut shortest = Duration::MAX;
            for _ in 0..1_000 {
                let full = backoff.full_jitter(failures, &mut rng);
                let probe = backoff.probe(failures, &mut rng);
                assert!(full <= most * SECOND, "{failures}: {full:?}");
                assert!(
                    probe <= most * SECOND && probe >= most * SECOND / 2,
                    "{failures}: {probe:?}"
                );
                longest = longest.max(full);
                shortest = shortest.min(full);
            }
            assert!(longest > most * SECOND * 9 / 10, "the jitter is full");
            assert!(shortest < most * SECOND / 10, "the jitter is full");
        }
    }

    #[test]
    fn an_enormous_base_is_capped() {
        let backoff = Backoff {
            base: Duration::MAX,
            cap: SECOND,
        };
        assert!(backoff.full_jitter(40, &mut Rng::with_seed(1)) <= SECOND);
    }

    #[test]
    fn retry_after_is_obeyed_within_its_bound() {
        let mut rng = Rng::with_seed(7);
        for (asked, least, most) in [
            (0, 0, 100),
            (1_000, 1_000, 1_100),
            (10_000, 10_000, 11_000),
            (60_000, 60_000, 60_000),
            (u64::MAX, 60_000, 60_000),
        ] {
            for _ in 0..100 {
                let wait = obeyed(Duration::from_millis(asked), 60 * SECOND, &mut rng);
                assert!(wait >= Duration::from_millis(least), "{asked}: {wait:?}");
                assert!(wait <= Duration::from_millis(most), "{asked}: {wait:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let backoff = Backoff {
            base: SECOND,
            cap: 60 * SECOND,
        };
        let waits = |seed| {
            let mut rng = Rng::with_seed(seed);
            (1..20)
                .map(|failures| backoff.full_jitter(failures, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }
}
