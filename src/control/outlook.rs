//! The speed that a destination will have: time to finish, from what is left and the pace that a destination is heading for. Pure.
//!
//! A rate that was measured while the pace still grew is no ground for a forecast: at the start of a
//! backlog it is a tenth of what follows. So the pace's own growth is followed to where it is
//! heading. Where something else than the pace holds a destination back (slow answers), what is sent
//! stays behind what the pace would let pass, and then what was measured counts.

/// Slower than one batch in a quarter of an hour is standing still.
const STILL: f64 = 0.001;

/// While the pace grows it doubles in so many seconds, but takes its steps from replies: none sooner
/// than [`STEP`] after the last, and each for one second at most (`drain`).
const DOUBLING: f64 = 2.0;
const STEP: f64 = 0.25;

/// Less than this share of what the pace let pass was sent: something else limits it. While the pace
/// grows, the share lags behind.
const STEADY_SHARE: f64 = 0.85;
const GROWING_SHARE: f64 = 0.4;

/// What is known of the speed that a destination will have. Rates are batches a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// It is neither down nor paused.
    pub moves: bool,
    /// Seconds until anything is sent.
    pub wait: f64,
    /// The present pace; 0: there is no limit.
    pub rate: f64,
    /// The pace that it is heading for.
    pub heading: f64,
    /// What was accepted of late.
    pub accepted: f64,
    /// Batches of a request, in the mean.
    pub request: f64,
    /// Whether the pace has grown of late; `None`: it need not.
    pub grows: Option<bool>,
    /// The share of what the pace let pass over the same time that was sent, when something waited
    /// all the while.
    pub used: Option<f64>,
}

impl Outlook {
    /// Seconds until so many batches are sent; `None` when that cannot be said.
    pub fn seconds(&self, batches: u64) -> Option<f64> {
        if !self.moves || batches == 0 {
            return None;
        }
        let batches = batches as f64;
        if self.rate <= 0.0 || self.is_held_back() {
            return (self.accepted > STILL).then(|| self.wait + batches / self.accepted);
        }
        let (mut rate, heading) = (self.rate, self.heading.max(self.rate));
        let (mut seconds, mut left) = (self.wait, batches);
        // One step for each reply that the pace grows by.
        while rate < heading {
            let step = (self.request.max(1.0) / rate).max(STEP);
            if left <= rate * step {
                return Some(seconds + left / rate);
            }
            seconds += step;
            left -= rate * step;
            rate = (rate * (step.min(1.0) / DOUBLING).exp2()).min(heading);
        }
        Some(seconds + left / heading)
    }

    /// Whether something else than the pace limits it.
    fn is_held_back(&self) -> bool {
        let Some(used) = self.used else {
            return false;
        };
        match self.grows {
            None => used < STEADY_SHARE,
            Some(true) => used < GROWING_SHARE,
            // Nothing presses on it, or it would.
            Some(false) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(rate: f64, heading: f64) -> Outlook {
        Outlook {
            moves: true,
            wait: 0.0,
            rate,
            heading,
            accepted: 0.0,
            request: 10.0,
            grows: (rate < heading).then_some(true),
            used: None,
        }
    }

    #[test]
    fn a_pace_that_grows_is_followed_to_where_it_is_heading() {
        // 27 a second that double each two seconds: 270 after 6.6 s, when some 700 are sent.
        let outlook = paced(27.0, 270.0);
        let seconds = |batches| outlook.seconds(batches).unwrap();
        assert!((seconds(700) - 6.6).abs() < 0.3, "{}", seconds(700));
        // 52 seconds, which the rate of the first two would have called 8 minutes.
        assert!((seconds(13_000) - 52.2).abs() < 0.5, "{}", seconds(13_000));
        assert!(seconds(1) < 0.1);
        // Large requests are few, and so are the steps: the first takes 3.7 s and counts for one.
        let large = Outlook {
            request: 100.0,
            ..outlook
        };
        assert!(
            (large.seconds(13_000).unwrap() - 60.0).abs() < 3.0,
            "{:?}",
            large.seconds(13_000)
        );
        // At the limit it is a division.
        assert_eq!(paced(270.0, 270.0).seconds(2_700), Some(10.0));
    }

    #[test]
    fn slow_answers_count_as_they_were_measured() {
        let mut outlook = paced(270.0, 270.0);
        outlook.used = Some(0.11);
        outlook.accepted = 30.0;
        assert_eq!(outlook.seconds(3_000), Some(100.0));
        outlook.used = Some(0.98);
        assert_eq!(
            outlook.seconds(2_700),
            Some(10.0),
            "refused batches are halved, and that passes"
        );
        // While it grows, the share lags behind.
        let grows = Outlook {
            used: Some(0.5),
            accepted: 30.0,
            ..paced(120.0, 270.0)
        };
        assert!(grows.seconds(2_700).unwrap() < 13.0);
    }

    #[test]
    fn what_stands_still_has_no_end_and_a_wait_is_added() {
        let mut outlook = paced(270.0, 270.0);
        outlook.wait = 5.0;
        assert_eq!(outlook.seconds(270), Some(6.0));
        outlook.moves = false;
        assert_eq!(outlook.seconds(270), None);
        assert_eq!(paced(270.0, 270.0).seconds(0), None);
        // Without a limit only what was measured says something.
        let mut outlook = paced(0.0, 0.0);
        assert_eq!(outlook.seconds(270), None);
        outlook.accepted = 27.0;
        assert_eq!(outlook.seconds(270), Some(10.0));
    }
}
