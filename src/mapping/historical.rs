//! Which events are sent as historical ones, and which of them mParticle would drop.
//!
//! Ages are measured against the moment at which the delivery came in. An event only grows older
//! while it waits in the outbox, so what may go to the historical address may go there forever.

use super::error::Rejection;
use crate::clock::UnixMillis;

const HOUR: i64 = 3_600_000;
/// From this age on, in milliseconds, an event is historical. ("HTTP API")
const OLD: i64 = 30 * 24 * HOUR;
/// mParticle drops a historical event younger than 72 hours without a word. One hour more, since
/// our clock may be ahead of theirs.
const LEAST: i64 = 73 * HOUR;

/// Which events go to mParticle's address for historical events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Historical {
    /// Those that are older than 30 days when the delivery comes in.
    #[default]
    Auto,
    /// None.
    Never,
    /// All. Those that mParticle would drop there are rejected.
    Always,
}

/// The choice, and the moment that it is measured against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ages {
    pub(super) historical: Historical,
    pub(super) now: UnixMillis,
}

impl Ages {
    /// Whether the answer depends on the event.
    pub(super) fn matter(self) -> bool {
        self.historical != Historical::Never
    }

    /// Whether an event of this time (milliseconds since 1970) is sent as a historical one.
    ///
    /// # Errors
    /// mParticle would drop it there.
    pub(super) fn is_old(self, time: Option<i64>) -> Result<bool, Rejection> {
        let now = i64::try_from(self.now.0).unwrap_or(i64::MAX);
        match (self.historical, time) {
            (Historical::Never, _) | (Historical::Auto, None) => Ok(false),
            (Historical::Auto, Some(time)) => Ok(time < now.saturating_sub(OLD)),
            (Historical::Always, None) => Err(Rejection::HistoricalWithoutTime),
            (Historical::Always, Some(time)) if time < now.saturating_sub(LEAST) => Ok(true),
            (Historical::Always, Some(_)) => Err(Rejection::TooYoung),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn ask(historical: Historical, age: Option<i64>) -> Result<bool, Rejection> {
        let now = UnixMillis(NOW as u64);
        Ages { historical, now }.is_old(age.map(|age| NOW - age))
    }

    #[test]
    fn an_event_is_historical_when_it_is_older_than_thirty_days() {
        for (age, old) in [
            (None, false),
            (Some(0), false),
            (Some(-400 * 24 * HOUR), false),
            (Some(OLD), false),
            (Some(OLD + 1), true),
            (Some(NOW), true),
            (Some(NOW + OLD), true),
        ] {
            assert_eq!(ask(Historical::Auto, age), Ok(old), "{age:?}");
            assert_eq!(ask(Historical::Never, age), Ok(false), "{age:?}");
        }
    }

    #[test]
    fn what_the_historical_address_would_drop_is_rejected() {
        assert_eq!(ask(Historical::Always, Some(LEAST + 1)), Ok(true));
        for young in [LEAST, 72 * HOUR, 0, -HOUR] {
            assert_eq!(
                ask(Historical::Always, Some(young)),
                Err(Rejection::TooYoung)
            );
        }
        assert_eq!(
            ask(Historical::Always, None),
            Err(Rejection::HistoricalWithoutTime)
        );
    }
}
