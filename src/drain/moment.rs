//! Time as the drain's plain parts are told it: a value, never read by themselves.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, UnixMillis};

/// One point in time by both clocks: the steady one for waits and rates, the wall clock for what a
/// person reads and for ages that outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since the drain started; never goes back.
    pub tick: Duration,
    /// The machine's clock.
    pub wall: UnixMillis,
}

impl Moment {
    /// What the wall clock will show at `tick`, if nobody sets it.
    pub fn wall_at(&self, tick: Duration) -> UnixMillis {
        let shown = if tick >= self.tick {
            self.wall.0.saturating_add(millis(tick - self.tick))
        } else {
            self.wall.0.saturating_sub(millis(self.tick - tick))
        };
        UnixMillis(shown)
    }
}

/// Makes [`Moment`]s. The steady clock is tokio's, so that paused time drives the whole drain.
#[derive(Clone, Debug)]
pub struct Stopwatch {
    start: Instant,
    clock: Clock,
}

impl Stopwatch {
    /// Tick 0 is now; the wall clock is that of `clock`.
    pub fn start(clock: Clock) -> Self {
        Self {
            start: Instant::now(),
            clock,
        }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment {
            tick: self.start.elapsed(),
            wall: self.clock.now(),
        }
    }

    /// The instant of a tick, for a sleep.
    pub fn instant(&self, tick: Duration) -> Instant {
        self.start + tick
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_of_another_tick_is_counted_from_here() {
        let now = Moment {
            tick: Duration::from_secs(10),
            wall: UnixMillis(50_000),
        };
        assert_eq!(now.wall_at(Duration::from_secs(11)), UnixMillis(51_000));
        assert_eq!(now.wall_at(Duration::from_secs(9)), UnixMillis(49_000));
        assert_eq!(now.wall_at(Duration::MAX), UnixMillis(u64::MAX));
    }
}
