//! The rate limit: one token bucket for each API key, counted in batches.
//!
//! The rule: a bucket holds one second's worth of batches (at least one full request, so that any
//! request can pass in the end), starts full, and refills evenly at the rate. A request takes its
//! number of batches or is refused and takes nothing. So over any time `t` at most `rate * (t + 1
//! s)` batches pass. A sender that sends one request of `n` batches every `n / rate` seconds never
//! empties a bucket that is larger than `n`, and is forgiven a jitter of `1 s - n / rate`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Different API keys that are remembered; more than any test uses, and a bound on what a client
/// that makes keys up can have allocated.
const MAX_KEYS: usize = 1_024;

/// A billionth of a batch, so that refilling is exact whole-number arithmetic.
const NANOS: u128 = 1_000_000_000;

/// Told to a sender when the limit is 0, which never lets anything pass.
const NEVER_SECONDS: u64 = 60;

/// All buckets, and the rate that they share.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Option<u32>,
    largest_request: usize,
    keys: HashMap<Arc<str>, Bucket>,
}

/// What became of a request's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// They pass; this much of the bucket, 0 to 100, is in use now.
    Passed { key: Arc<str>, percentage_used: u8 },
    /// Too fast: whole seconds until they would pass.
    Refused { retry_after: u64 },
    /// More different API keys than are remembered.
    TooManyKeys,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What can be taken now, in billionths of a batch.
    level: u128,
    at: Instant,
}

impl Buckets {
    pub(super) fn new(rate: Option<u32>, largest_request: usize) -> Self {
        Self {
            rate,
            largest_request,
            keys: HashMap::new(),
        }
    }

    pub(super) fn rate(&self) -> Option<u32> {
        self.rate
    }

    /// Levels above the new capacity are cut at the next request.
    pub(super) fn set_rate(&mut self, rate: Option<u32>) {
        self.rate = rate;
    }

    pub(super) fn take(&mut self, key: &str, batches: usize, now: Instant) -> Taken {
        let capacity = self.capacity();
        let (key, mut bucket) = match self.keys.get_key_value(key) {
            Some((key, bucket)) => (Arc::clone(key), *bucket),
            None if self.keys.len() >= MAX_KEYS => return Taken::TooManyKeys,
            None => (
                Arc::from(key),
                Bucket {
                    level: capacity,
                    at: now,
                },
            ),
        };
        let taken = match self.rate {
            None => Ok(0),
            Some(rate) => bucket.take(batches, rate, capacity, now),
        };
        self.keys.insert(Arc::clone(&key), bucket);
        match taken {
            Ok(percentage_used) => Taken::Passed {
                key,
                percentage_used,
            },
            Err(retry_after) => Taken::Refused { retry_after },
        }
    }

    fn capacity(&self) -> u128 {
        let rate = self.rate.unwrap_or_default() as usize;
        rate.max(self.largest_request) as u128 * NANOS
    }
}

impl Bucket {
    /// The percentage in use, or the whole seconds to wait.
    fn take(&mut self, batches: usize, rate: u32, capacity: u128, now: Instant) -> Result<u8, u64> {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        self.level = capacity.min(self.level + elapsed * u128::from(rate));
        let cost = batches as u128 * NANOS;
        if let Some(rest) = self.level.checked_sub(cost) {
            self.level = rest;
            let used = 100 * (capacity - rest) / capacity.max(1);
            return Ok(used.min(100) as u8);
        }
        if rate == 0 {
            return Err(NEVER_SECONDS);
        }
        let missing = cost - self.level;
        Err(missing.div_ceil(u128::from(rate) * NANOS) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn passes(taken: &Taken) -> bool {
        matches!(taken, Taken::Passed { .. })
    }

    #[test]
    fn a_sender_at_exactly_the_rate_is_never_refused_and_a_faster_one_is() {
        for (batches, percent_of_rate, refused) in [
            (100, 100, false),
            (20, 100, false),
            (1, 100, false),
            (100, 103, true),
            (20, 103, true),
        ] {
            let mut buckets = Buckets::new(Some(270), 100);
            let start = Instant::now();
            let step = Duration::from_nanos(
                batches as u64 * 1_000_000_000 * 100 / (270 * percent_of_rate),
            );
            let requests = 270 * 120 / batches as u32;
            let all_pass =
                (0..requests).all(|n| passes(&buckets.take("key", batches, start + step * n)));
            // The step is cut to whole nanoseconds, which the full bucket at the start forgives.
            assert_eq!(all_pass, !refused, "{batches} at {percent_of_rate}%");
        }
    }

    #[test]
    fn over_any_time_no_more_passes_than_the_rate_and_one_second_more() {
        let mut buckets = Buckets::new(Some(270), 100);
        let start = Instant::now();
        let mut passed = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            passed += u64::from(passes(&buckets.take("key", 1, now)));
        }
        assert_eq!(passed, 270 + 270 * 9_999 / 1_000);
    }

    #[test]
    fn a_refusal_takes_nothing_and_names_the_seconds_after_which_the_request_passes() {
        let mut buckets = Buckets::new(Some(10), 100);
        let start = Instant::now();
        assert!(passes(&buckets.take("key", 100, start)));
        for _ in 0..3 {
            let taken = buckets.take("key", 25, start);
            assert_eq!(taken, Taken::Refused { retry_after: 3 });
        }
        assert!(passes(&buckets.take(
            "key",
            25,
            start + Duration::from_secs(3)
        )));
    }

    #[test]
    fn keys_do_not_share_a_bucket_and_are_bounded() {
        let mut buckets = Buckets::new(Some(1), 100);
        let now = Instant::now();
        for n in 0..MAX_KEYS {
            assert!(passes(&buckets.take(&n.to_string(), 100, now)));
        }
        assert_eq!(buckets.take("one more", 1, now), Taken::TooManyKeys);
        assert_eq!(buckets.take("0", 1, now), Taken::Refused { retry_after: 1 });
    }

    #[test]
    fn the_percentage_tells_how_much_of_the_bucket_is_in_use() {
        let mut buckets = Buckets::new(Some(200), 100);
        let now = Instant::now();
        let mut used = |batches, at| match buckets.take("key", batches, at) {
            Taken::Passed {
                percentage_used, ..
            } => percentage_used,
            other => panic!("{other:?}"),
        };
        assert_eq!(used(0, now), 0);
        assert_eq!(used(100, now), 50);
        assert_eq!(used(100, now), 100);
        assert_eq!(used(0, now + Duration::from_millis(500)), 50);
    }

    #[test]
    fn a_new_rate_holds_at_once_and_a_rate_of_zero_lets_nothing_pass() {
        let mut buckets = Buckets::new(None, 100);
        let now = Instant::now();
        assert!(passes(&buckets.take("key", 100, now)));
        buckets.set_rate(Some(0));
        assert!(passes(&buckets.take("key", 100, now)), "what was in it");
        let later = now + Duration::from_secs(9);
        assert_eq!(
            buckets.take("key", 1, later),
            Taken::Refused { retry_after: 60 }
        );
        buckets.set_rate(None);
        assert!(passes(&buckets.take("key", 100, later)));
    }
}
