//! Time: read in one place, so that the rooms take it as a value, or a [`Clock`] that they are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::DeliveryId;

/// Milliseconds since 1970, UTC.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Now, by the machine's clock. A clock before 1970 reads as 0.
    pub fn now() -> Self {
        Self(since_1970().as_millis() as u64)
    }

    /// So much later; the end of time is not passed.
    pub fn plus(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// So much earlier, not before 1970.
    pub fn minus(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

/// The clocks that a room is given: the machine's, which is the default, or a test's, which goes only
/// when it is moved. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Stopped>>);

/// A clock that goes by hand.
#[derive(Debug)]
struct Stopped {
    wall: UnixMillis,
    steady: Instant,
    /// Milliseconds that it was moved on.
    passed: AtomicU64,
}

impl Clock {
    /// A clock that shows `wall` and stands still.
    pub fn stopped(wall: UnixMillis) -> Self {
        Self(Some(Arc::new(Stopped {
            wall,
            steady: Instant::now(),
            passed: AtomicU64::new(0),
        })))
    }

    /// Moves a stopped clock on, by whole milliseconds. The machine's goes by itself.
    pub fn advance(&self, time: Duration) {
        if let Some(stopped) = &self.0 {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            stopped.passed.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The wall clock: for what a person reads and what outlives the process. It may be set back.
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            None => UnixMillis::now(),
            Some(stopped) => UnixMillis(stopped.wall.0.saturating_add(stopped.passed())),
        }
    }

    /// The wall clock in nanoseconds since 1970: for traces.
    pub fn nanos(&self) -> u64 {
        match &self.0 {
            None => nanos(since_1970()),
            Some(_) => nanos(Duration::from_millis(self.now().0)),
        }
    }

    /// The steady clock: for waits. It never goes back.
    pub fn instant(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(stopped) => stopped.steady + Duration::from_millis(stopped.passed()),
        }
    }
}

impl Stopped {
    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A new delivery id: `now` in front, so that ids sort by time, and 80 random bits behind.
pub fn new_delivery_id(now: UnixMillis) -> Result<DeliveryId, getrandom::Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id[6..])?;
    id[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    Ok(DeliveryId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_goes_only_when_it_is_moved_and_so_do_its_clones() {
        let clock = Clock::stopped(UnixMillis(1_000));
        let (other, before) = (clock.clone(), clock.instant());
        assert_eq!((clock.now(), clock.instant()), (UnixMillis(1_000), before));
        let second = Duration::from_secs(1);
        clock.advance(second);
        assert_eq!(other.now(), UnixMillis(2_000));
        assert_eq!(other.instant(), before + second);
        Clock::default().advance(Duration::MAX);
    }

    #[test]
    fn delivery_ids_sort_by_time() {
        let earlier = new_delivery_id(UnixMillis(1_000)).unwrap();
        let later = new_delivery_id(UnixMillis(2_000)).unwrap();
        assert!(earlier < later);
        assert_ne!(
            new_delivery_id(UnixMillis(1)).unwrap(),
            new_delivery_id(UnixMillis(1)).unwrap()
        );
    }
}
