//! The times of events, in the forms that warehouses and Looker give them, to milliseconds since
//! 1970.
//!
//! The time zone database is compiled in, so that the same delivery means the same times on every
//! machine. A time that the clocks skip in spring is moved ahead by the gap; of one that occurs
//! twice in autumn the first is taken.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The zone that a delivery's dates are in; `None` when Looker named none that is known.
pub(super) fn zone(name: Option<&str>) -> Option<TimeZone> {
    TimeZone::get(name?).ok()
}

/// What a text that is not a whole number means as a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A date, with an offset or in the delivery's zone.
    Date(i64),
    /// A date without an offset, where no zone is known.
    DateAsUtc(i64),
    /// Seconds with a fraction.
    Seconds(i64),
}

/// Whether the digits of a whole number are seconds: from 1973 to 5138. As milliseconds they would
/// all lie before 4 March 1973, where nobody has events.
pub(super) fn are_seconds(digits: &str) -> bool {
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    (9..=11).contains(&digits.len())
}

/// Reads a date, a date with a time, or seconds with a fraction.
pub(super) fn moment(text: &str, zone: Option<&TimeZone>) -> Option<Moment> {
    let text = text.trim();
    if let Some(millis) = seconds(text) {
        return Some(Moment::Seconds(millis));
    }
    // Ten characters make the shortest date. Shorter texts would be read as months or years.
    let begins_with_a_date = text.len() >= 10
        && text
            .bytes()
            .take(10)
            .enumerate()
            .all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
    if !begins_with_a_date {
        return None;
    }
    // BigQuery's way to write Z.
    if let Some(utc) = text.strip_suffix(" UTC") {
        let time: DateTime = utc.parse().ok()?;
        let time = TimeZone::UTC.to_timestamp(time).ok()?;
        return Some(Moment::Date(time.as_millisecond()));
    }
    // With an offset. First, since a civil time would be read without regard to it.
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(Moment::Date(time.as_millisecond()));
    }
    let time: DateTime = text.parse().ok()?;
    let millis = |zone: &TimeZone| Some(zone.to_timestamp(time).ok()?.as_millisecond());
    match zone {
        Some(zone) => millis(zone).map(Moment::Date),
        None => millis(&TimeZone::UTC).map(Moment::DateAsUtc),
    }
}

/// Seconds with a fraction, to milliseconds; digits beyond are dropped.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.')?;
    let (negative, digits) = match whole.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(digits) || !all_digits(fraction) || !are_seconds(digits) {
        return None;
    }
    let whole: i64 = digits.parse().ok()?;
    let millis = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let value = whole.checked_mul(1000)?.checked_add(millis)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_with_their_offset_or_in_the_deliverys_zone() {
        let berlin = zone(Some("Europe/Berlin"));
        assert!(berlin.is_some());
        for (text, want) in [
            ("2026-11-20", Some(1_795_129_200_000)),
            ("2026-11-20 13:05:00", Some(1_795_176_300_000)),
            ("2026-11-20T13:05:00", Some(1_795_176_300_000)),
            ("2026-11-20 13:05", Some(1_795_176_300_000)),
            ("2026-11-20 13:05:00.25", Some(1_795_176_300_250)),
            ("2026-11-20T13:05:00Z", Some(1_795_179_900_000)),
            ("2026-11-20 13:05:00 UTC", Some(1_795_179_900_000)),
            ("2026-11-20T13:05:00+02:00", Some(1_795_172_700_000)),
            ("2026-11-20 13:05:00-0500", Some(1_795_197_900_000)),
            // Summer time; a time that does not exist; one that exists twice.
            ("2026-07-01 00:00:00", Some(1_782_856_800_000)),
            ("2026-03-29 02:30:00", Some(1_774_747_800_000)),
            ("2026-10-25 02:30:00", Some(1_792_888_200_000)),
            ("1969-12-31", Some(-90_000_000)),
            ("2026-11-31", None),
            ("2026-11", None),
            ("2026", None),
            ("20261120", None),
            ("2026-11-20 25:00:00", None),
            ("2026-11-20 and more", None),
            ("yesterday", None),
            ("", None),
        ] {
            let want = want.map(Moment::Date);
            assert_eq!(moment(text, berlin.as_ref()), want, "{text}");
        }
    }

    #[test]
    fn without_a_known_zone_dates_are_utc_and_that_is_said() {
        assert_eq!(zone(None), None);
        assert_eq!(zone(Some("Mars/Olympus_Mons")), None);
        assert_eq!(
            moment("2026-11-20", None),
            Some(Moment::DateAsUtc(1_795_132_800_000))
        );
        assert_eq!(
            moment("2026-11-20T00:00:00Z", None),
            Some(Moment::Date(1_795_132_800_000))
        );
    }

    #[test]
    fn seconds_are_told_from_milliseconds_by_their_size() {
        for (digits, want) in [
            ("1760000000", true),
            ("100000000", true),
            ("99999999999", true),
            ("-1760000000", true),
            ("0", false),
            ("99999999", false),
            ("100000000000", false),
            ("1760000000000", false),
        ] {
            assert_eq!(are_seconds(digits), want, "{digits}");
        }
        for (text, want) in [
            ("1760000000.5", Some(1_760_000_000_500)),
            ("1760000000.1239", Some(1_760_000_000_123)),
            ("-1760000000.5", Some(-1_760_000_000_500)),
            ("1760000000000.5", None),
            ("1760000000.", None),
            ("1760000000.x", None),
            ("--760000000.5", None),
            ("1.5", None),
        ] {
            assert_eq!(moment(text, None), want.map(Moment::Seconds), "{text}");
        }
    }
}
