//! How long requests take: a mean and an approximate 99th percentile of the recent ones.

use std::time::Duration;

/// Buckets per doubling: a bucket's width is about a fifth of its value.
const FINENESS: f64 = 4.0;
/// From 1 ms up to more than an hour.
const BUCKETS: usize = 90;
/// When so many are counted, all counts are halved, so that old ones fade.
const FADE_AT: u64 = 4096;

/// Latencies in a logarithmic histogram. Memory is fixed.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: [u32; BUCKETS],
    count: u64,
    sum: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            count: 0,
            sum: Duration::ZERO,
        }
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(latency)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += latency;
        if self.count >= FADE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.sum /= 2;
            self.count /= 2;
        }
    }

    /// The mean; `None` before the first.
    pub fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.sum.checked_div(count)
    }

    /// The 99th percentile, rounded up by at most a fifth; `None` before the first.
    pub fn p99(&self) -> Option<Duration> {
        let total: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let mut below = (total * 99).div_ceil(100);
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count > 0 && below <= u64::from(count) {
                return Some(upper_bound(bucket));
            }
            below = below.saturating_sub(count.into());
        }
        None
    }
}

fn bucket(latency: Duration) -> usize {
    let millis = latency.as_secs_f64() * 1_000.0;
    let bucket = (millis.max(1.0).log2() * FINENESS).ceil();
    (bucket as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_secs_f64((bucket as f64 / FINENESS).exp2() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_near_and_never_below() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.mean(), latencies.p99()), (None, None));
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let p99 = latencies.p99().unwrap();
        assert!(p99 >= Duration::from_millis(990), "{p99:?}");
        assert!(p99 <= Duration::from_millis(1_190), "{p99:?}");
        let mean = latencies.mean().unwrap();
        assert!(mean.abs_diff(Duration::from_millis(500)) < Duration::from_millis(2));
    }

    #[test]
    fn old_latencies_fade_and_extremes_are_kept_within_bounds() {
        let mut latencies = Latencies::default();
        for _ in 0..10_000 {
            latencies.record(Duration::from_secs(5));
        }
        for _ in 0..60_000 {
            latencies.record(Duration::from_millis(10));
        }
        assert!(latencies.p99().unwrap() < Duration::from_millis(13));
        assert!(latencies.mean().unwrap() < Duration::from_millis(20));
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(1 << 40));
        assert!(latencies.p99().is_some());
    }
}
