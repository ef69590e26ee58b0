//! Moments on a command line: a date and time, or how long ago.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::outcome::Failure;
use crate::clock::UnixMillis;

/// What is listed, by schedule and time, as the API's lists take it.
#[derive(Clone, Debug, Args)]
pub(super) struct Choice {
    /// Only those of this schedule: its title, to the letter
    #[arg(long, value_name = "TITLE")]
    schedule: Option<String>,
    /// Only those received at this time or later: 2026-11-28T06:00:00Z, or so long ago: 24h
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only those received before this time: 2026-11-28T06:00:00Z, or so long ago: 1h
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

impl Choice {
    /// As parameters of an address, with the times that are meant.
    pub fn at(&self, now: UnixMillis) -> Result<Vec<(&'static str, String)>, Failure> {
        let from = self.since.map(|moment| moment.at(now));
        let until = self.until.map(|moment| moment.at(now));
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            let why = "--since is not before --until: no delivery can be between them";
            return Err(Failure::Usage(why.to_owned()));
        }
        let schedule = self.schedule.clone().filter(|title| !title.is_empty());
        let millis = |time: UnixMillis| time.0.to_string();
        let all = [
            ("schedule", schedule),
            ("from", from.map(millis)),
            ("until", until.map(millis)),
        ];
        let said = all.into_iter();
        Ok(said
            .filter_map(|(name, value)| Some((name, value?)))
            .collect())
    }
}

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(UnixMillis),
    Ago(Duration),
}

impl Moment {
    fn at(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => now.minus(span),
        }
    }
}

/// RFC 3339 with its zone, or a span as the configuration has them.
impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return match u64::try_from(time.as_millisecond()) {
                Ok(millis) => Ok(Self::At(UnixMillis(millis))),
                Err(_) => Err("it lies before 1970".to_owned()),
            };
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            "give a date and time with its zone, such as 2026-11-28T06:00:00Z or \
                 2026-11-28T06:00:00+01:00, or how long ago, such as 90min, 24h, 7d"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_with_a_zone_or_a_span_before_now() {
        let now = UnixMillis(1_700_000_000_000);
        for (text, wanted) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
            (" 24h ", 1_700_000_000_000 - 86_400_000),
            ("1h 30min", 1_700_000_000_000 - 5_400_000),
            ("7d", 1_700_000_000_000 - 604_800_000),
            ("900years", 0),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.at(now), UnixMillis(wanted), "{text}");
        }
        for wrong in ["", "yesterday", "24", "2023-11-14", "2023-11-14T22:13:20"] {
            let why = wrong.parse::<Moment>().unwrap_err();
            assert!(why.contains("24h"), "{wrong}: {why}");
        }
        let why = "1969-12-31T23:59:59Z".parse::<Moment>().unwrap_err();
        assert!(why.contains("1970"), "{why}");
    }
}
