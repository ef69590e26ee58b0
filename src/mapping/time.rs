//! The times of events and consents, in the forms that warehouses and Looker give them, to milliseconds
//! since 1970; and what a value may be that is no such time.
//!
//! A whole number is taken for seconds, milliseconds, microseconds or nanoseconds by its size: each
//! unit covers the years 1973 to 5138, and none of them overlap. What then lies outside the window of
//! plausible times is refused, since mParticle would file it under a year in which nothing happened.
//!
//! The time zone database is compiled in, so that the same delivery means the same times on every
//! machine. A time that the clocks skip in spring is moved ahead by the gap; of one that occurs
//! twice in autumn the first is taken.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use super::guess::{self, Guess};
use super::notes::Note;
use super::number::{self, Number};
use super::values;
use crate::clock::UnixMillis;
use crate::model::Value;

/// The smallest number that is taken for seconds; what is smaller is not a time in any unit. Milliseconds,
/// microseconds and nanoseconds begin a thousand times higher each.
const LEAST_SECONDS: u64 = 100_000_000;
/// A date without a time, as it begins every text that is read as a time.
const DATE: usize = "2026-11-20".len();
/// Texts with slashes in their date are copied to be read; none that is a time is longer.
const LONGEST: usize = 64;

/// A moment that cannot be counted from 1970: the last day of the year 9999, which stands for none.
const BEYOND: Guess = Guess::Placeholder;

/// Which times of events are plausible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plausible {
    /// The earliest, in milliseconds since 1970.
    pub earliest: i64,
    /// How far in the future an event may lie, in milliseconds.
    pub ahead: i64,
}

impl Default for Plausible {
    /// From 2000-01-01 on, and up to a year ahead.
    fn default() -> Self {
        Self {
            earliest: 946_684_800_000,
            ahead: 365 * 24 * 3_600_000,
        }
    }
}

/// How the times of one delivery are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// The zone of dates without an offset, as far as it is known.
    zone: Option<TimeZone>,
    earliest: i64,
    latest: i64,
}

/// A time, and how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Milliseconds since 1970.
    pub(super) millis: i64,
    /// What to tell of it; `None`: it was milliseconds.
    pub(super) note: Option<Note>,
}

/// The units of a number, by its size.
const UNITS: [(u64, Option<Note>); 4] = [
    (LEAST_SECONDS, Some(Note::FromSeconds)),
    (LEAST_SECONDS * 1000, None),
    (LEAST_SECONDS * 1_000_000, Some(Note::FromMicros)),
    (LEAST_SECONDS * 1_000_000_000, Some(Note::FromNanos)),
];

impl Times {
    /// For a delivery that came in at `now` and whose dates are in the zone of this name.
    pub(super) fn new(zone: Option<&str>, plausible: Plausible, now: UnixMillis) -> Self {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        Self {
            zone: zone.and_then(|name| TimeZone::get(name).ok()),
            earliest: plausible.earliest,
            latest: now.saturating_add(plausible.ahead),
        }
    }

    /// Reads a cell; `None` if there is nothing in it. `is_day`: its column holds days, so that
    /// 20261120 can be one.
    ///
    /// # Errors
    /// It holds something that is not a plausible time: what it may be.
    pub(super) fn read(&self, value: Value<'_>, is_day: bool) -> Option<Result<Moment, Guess>> {
        match value {
            Value::Absent | Value::Null | Value::Pivoted(_) | Value::Failed(_) => None,
            Value::Number(literal) => Some(match self.plain_millis(literal.as_bytes()) {
                Some(millis) => Ok(Moment { millis, note: None }),
                None => Number::read(literal)
                    .map_or(Err(Guess::Unreadable), |number| self.number(number, is_day)),
            }),
            Value::String(text) => {
                let text = text.decoded();
                let text = text.trim();
                if text.is_empty() {
                    return None;
                }
                Some(match Number::read(text) {
                    Some(number) => self.number(number, is_day),
                    None => self.text(text),
                })
            }
            Value::Bool(_) | Value::List(_) | Value::Object(_) => Some(Err(Guess::Unreadable)),
        }
    }

    /// The time of a number that is to be sent as it stands, as most are.
    #[inline]
    pub(super) fn plain_millis(&self, literal: &[u8]) -> Option<i64> {
        let whole = number::short_whole(literal)?;
        let [_, (least, _), (more, _), _] = UNITS;
        let is_millis = (least..more).contains(&whole.unsigned_abs());
        (is_millis && self.is_plausible(whole)).then_some(whole)
    }

    fn number(&self, number: Number<'_>, is_day: bool) -> Result<Moment, Guess> {
        let whole = number.truncated().ok_or(Guess::Unreadable)?;
        let size = whole.unsigned_abs();
        let (millis, note) = match UNITS.iter().rposition(|(least, _)| size >= *least) {
            // Eleven digits at most.
            Some(0) => {
                let part = number.thousandths();
                let part = if number.negative { -part } else { part };
                (whole * 1000 + part, UNITS[0].1)
            }
            Some(unit) => (whole / [1, 1, 1000, 1_000_000][unit], UNITS[unit].1),
            None => (whole, None),
        };
        if self.is_plausible(millis) {
            return Ok(Moment { millis, note });
        }
        if is_day
            && number.is_integral()
            && let Some(day) = guess::day_of(whole)
            && let Ok(moment) = self.civil(day.to_datetime(jiff::civil::Time::midnight()))
        {
            let note = Some(Note::FromDay);
            return Ok(Moment { note, ..moment });
        }
        Err(match guess::of_number(whole, number.is_integral()) {
            Some(guess) => guess,
            None if size < LEAST_SECONDS => Guess::Unreadable,
            None => guess::of_moment(millis, self.earliest),
        })
    }

    fn text(&self, text: &str) -> Result<Moment, Guess> {
        let mut copy = [0; LONGEST];
        let text = with_dashes(text, &mut copy);
        if !begins_with_a_date(text) {
            return Err(guess::of_text(text));
        }
        let (civil, zone) = split_zone(text);
        // With an offset. First, since a civil time would be read without regard to it.
        if may_have_offset(civil)
            && let Ok(time) = civil.parse::<Timestamp>()
        {
            return self.moment(time, Note::FromDate);
        }
        let time = civil_time(civil).ok_or(Guess::Unreadable)?;
        let Some(zone) = zone else {
            return self.civil(time);
        };
        let time = match offset(zone) {
            Some(offset) => offset.to_timestamp(time),
            None => named(zone).ok_or(Guess::UnknownZone)?.to_timestamp(time),
        };
        self.moment(time.map_err(|_| BEYOND)?, Note::FromDate)
    }

    /// A time in the delivery's zone.
    fn civil(&self, time: DateTime) -> Result<Moment, Guess> {
        let (zone, note) = match &self.zone {
            Some(zone) => (zone, Note::FromDate),
            None => (&TimeZone::UTC, Note::FromDateAsUtc),
        };
        let time = zone.to_timestamp(time).map_err(|_| BEYOND)?;
        self.moment(time, note)
    }

    fn moment(&self, time: Timestamp, note: Note) -> Result<Moment, Guess> {
        let millis = time.as_millisecond();
        if self.is_plausible(millis) {
            let note = Some(note);
            return Ok(Moment { millis, note });
        }
        Err(guess::of_moment(millis, self.earliest))
    }

    fn is_plausible(&self, millis: i64) -> bool {
        (self.earliest..=self.latest).contains(&millis)
    }

    /// A local time as ISO 8601 with the offset that it has in the delivery's zone; `None`: it is none,
    /// or has an offset already, or no zone is known.
    pub(super) fn iso(&self, text: &str) -> Option<String> {
        let text = text.trim();
        if text.len() <= DATE || !begins_with_a_date(text) || text.parse::<Timestamp>().is_ok() {
            return None;
        }
        let (civil, zone) = split_zone(text);
        let time = civil_time(civil)?;
        let zone = match zone {
            Some(zone) => match offset(zone) {
                Some(offset) => TimeZone::fixed(offset),
                None => named(zone)?,
            },
            None => self.zone.clone()?,
        };
        let zoned = zone.to_zoned(time).ok()?;
        let seconds = zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z");
        Some(seconds.to_string())
    }
}

/// `2026/11/20` is read as `2026-11-20`: with the year in front there is no other reading.
fn with_dashes<'a>(text: &'a str, copy: &'a mut [u8; LONGEST]) -> &'a str {
    let bytes = text.as_bytes();
    if bytes.get(4) != Some(&b'/') || bytes.get(7) != Some(&b'/') {
        return text;
    }
    let Some(copy) = copy.get_mut(..bytes.len()) else {
        return text;
    };
    copy.copy_from_slice(bytes);
    copy[4] = b'-';
    copy[7] = b'-';
    std::str::from_utf8(copy).unwrap_or(text)
}

/// Shorter texts would be read as months or years.
fn begins_with_a_date(text: &str) -> bool {
    let bytes = text.as_bytes().iter().take(DATE).enumerate();
    text.len() >= DATE
        && bytes.into_iter().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// Whether an offset or a `Z` can stand behind the date: to have it refused for want of one costs an
/// allocation.
fn may_have_offset(text: &str) -> bool {
    let behind = text.bytes().skip(DATE);
    behind
        .into_iter()
        .any(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'))
}

/// Takes an offset or the name of a zone off that stands behind a space.
fn split_zone(text: &str) -> (&str, Option<&str>) {
    let Some((civil, last)) = text.rsplit_once(char::is_whitespace) else {
        return (text, None);
    };
    let is_zone =
        last.starts_with(|letter: char| letter.is_ascii_alphabetic() || "+-".contains(letter));
    match is_zone {
        true => (civil.trim_end(), Some(last)),
        false => (text, None),
    }
}

fn civil_time(text: &str) -> Option<DateTime> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    // ISO 8601 calls the end of a day so, and so do several databases.
    let (date, time) = text.split_at_checked(DATE)?;
    let time = time.get(1..)?.strip_prefix("24:00")?;
    let is_midnight = time.bytes().all(|byte| matches!(byte, b'0' | b':' | b'.'));
    let date: Date = date.parse().ok()?;
    let next = date.tomorrow().ok()?;
    is_midnight.then(|| next.to_datetime(jiff::civil::Time::midnight()))
}

/// `+02:00`, `-0700`, `+00`
fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let two = |text: &str| -> Option<i32> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (hours, rest) = digits.split_at_checked(2)?;
    let hours = two(hours).filter(|hours| *hours < 24)?;
    let minutes = match rest.strip_prefix(':').unwrap_or(rest) {
        "" => 0,
        minutes => two(minutes).filter(|minutes| *minutes < 60)?,
    };
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// A zone by its name in the time zone database, in any case; those of databases without one are in it.
fn named(name: &str) -> Option<TimeZone> {
    let is_utc = ["UTC", "GMT", "Z"]
        .iter()
        .any(|utc| utc.eq_ignore_ascii_case(name));
    match is_utc {
        true => Some(TimeZone::UTC),
        false => TimeZone::get(name).ok(),
    }
}

/// The text of a value that is not a time, short enough for a message.
pub(super) fn quoted(value: Value<'_>) -> String {
    const MOST: usize = 40;
    let text = match value {
        Value::List(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        value => values::literal_text(value).unwrap_or_default(),
    };
    let text = text.trim();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
