//! How often a source may fail to show a hub key. A good key is never held back: behind a proxy all
//! callers have one address, and a stranger must not lock Looker out. What is bounded is the work
//! and the log that strangers cause.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A person who mistypes a key a few times is answered as such.
const AT_ONCE: u32 = 10;
/// After so long a source may fail once more.
const REGAIN: Duration = Duration::from_secs(6);
/// Sources that are told apart, some 100 bytes each; the others share one allowance.
const SOURCES: usize = 4096;

/// What a failed request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within the allowance.
    Refuse,
    /// Beyond it, for the first time since the source was quiet.
    HoldFirst,
    /// Beyond it, again.
    Hold,
}

impl Verdict {
    /// Seconds until the source may fail again, for `Retry-After`.
    pub(super) const RETRY_AFTER: u64 = REGAIN.as_secs();
}

/// Failures by source.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    sources: HashMap<IpAddr, Bucket>,
    others: Option<Bucket>,
}

/// Failures that have not been forgiven yet.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    failures: u32,
    since: Instant,
    held: bool,
}

impl Throttle {
    /// Counts a failure of `source` at `now`.
    pub(super) fn failed(&self, source: IpAddr, now: Instant) -> Verdict {
        // Whole after any panic: each change is a single assignment.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        if table.sources.len() >= SOURCES && !table.sources.contains_key(&source) {
            table.sources.retain(|_, bucket| !bucket.is_forgiven(now));
            if table.sources.len() >= SOURCES {
                let others = table.others.get_or_insert(Bucket::new(now));
                return others.failed(now);
            }
        }
        let bucket = table.sources.entry(source).or_insert(Bucket::new(now));
        bucket.failed(now)
    }
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            failures: 0,
            since: now,
            held: false,
        }
    }

    fn forgiven(&self, now: Instant) -> u32 {
        let past = now.saturating_duration_since(self.since).as_millis() / REGAIN.as_millis();
        u32::try_from(past).unwrap_or(u32::MAX)
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.forgiven(now) >= self.failures
    }

    fn failed(&mut self, now: Instant) -> Verdict {
        let forgiven = self.forgiven(now);
        if forgiven >= self.failures {
            *self = Self::new(now);
        } else {
            self.failures -= forgiven;
            self.since += REGAIN * forgiven;
        }
        if self.failures < AT_ONCE {
            self.failures += 1;
            return Verdict::Refuse;
        }
        match std::mem::replace(&mut self.held, true) {
            false => Verdict::HoldFirst,
            true => Verdict::Hold,
        }
    }
}

/// Who has one IPv6 address has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_source_is_held_after_ten_failures_and_forgiven_one_by_one() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..AT_ONCE {
            assert_eq!(throttle.failed(v4(1), start), Verdict::Refuse);
        }
        assert_eq!(throttle.failed(v4(1), start), Verdict::HoldFirst);
        assert_eq!(throttle.failed(v4(1), start), Verdict::Hold);
        assert_eq!(throttle.failed(v4(2), start), Verdict::Refuse);
        let later = start + REGAIN;
        assert_eq!(throttle.failed(v4(1), later), Verdict::Refuse);
        assert_eq!(throttle.failed(v4(1), later), Verdict::Hold);
        let quiet = later + REGAIN * AT_ONCE;
        for _ in 0..AT_ONCE {
            assert_eq!(throttle.failed(v4(1), quiet), Verdict::Refuse);
        }
        assert_eq!(throttle.failed(v4(1), quiet), Verdict::HoldFirst);
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for n in 0..AT_ONCE {
            let address = format!("2001:db8:1:2::{n:x}").parse().unwrap();
            assert_eq!(throttle.failed(address, now), Verdict::Refuse);
        }
        let address = "2001:db8:1:2:ffff::1".parse().unwrap();
        assert_eq!(throttle.failed(address, now), Verdict::HoldFirst);
        let other = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(throttle.failed(other, now), Verdict::Refuse);
        assert_eq!(network("::ffff:1.2.3.4".parse().unwrap()), v4(0x0102_0304));
    }

    #[test]
    fn the_table_stays_small_and_what_does_not_fit_shares_one_allowance() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for n in 0..SOURCES as u32 {
            assert_eq!(throttle.failed(v4(n), now), Verdict::Refuse);
        }
        for n in 0..AT_ONCE {
            assert_eq!(throttle.failed(v4(1 << 20 | n), now), Verdict::Refuse);
        }
        assert_eq!(throttle.failed(v4(1 << 21), now), Verdict::HoldFirst);
        assert_eq!(throttle.0.lock().unwrap().sources.len(), SOURCES);
        // Those who were quiet make room.
        assert_eq!(throttle.failed(v4(1 << 21), now + REGAIN), Verdict::Refuse);
        assert_eq!(throttle.0.lock().unwrap().sources.len(), 1);
    }
}
