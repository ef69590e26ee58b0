//! What a value may be that is not a plausible time, in words for the person who tagged its column.

use jiff::civil::Date;

/// What a value looks like that is not a plausible time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guess {
    /// It is neither a number nor a date.
    Unreadable,
    /// `2026`
    Year,
    /// `2026-11`, `202611`
    Month,
    /// `2026-Q4`
    Quarter,
    /// `2026-W47`
    Week,
    /// `FY2026-Q4`
    Fiscal,
    /// `20261120`
    Day,
    /// `20261120130500`
    Compact,
    /// `46346.545`: days since the end of 1899.
    SpreadsheetDay,
    /// `17`: an hour, a day of the month, a week.
    Part,
    /// `0`, `-1`, and dates that databases have for none.
    Placeholder,
    /// `03.11.2026`
    DayFirst,
    /// A date with letters behind it that name no zone.
    UnknownZone,
    /// Before the earliest time that is plausible.
    TooEarly,
    /// Further ahead than is plausible.
    TooLate,
}

impl Guess {
    /// What there is to say, behind "the timestamp in column x".
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "is neither a whole number of milliseconds since 1970 nor a date (2026-11-20, 2026-11-20 13:05:00, 2026-11-20T13:05:00Z) nor seconds"
            }
            Self::Year => {
                "looks like a year: choose the timeframe time or raw of its dimension group"
            }
            Self::Month => {
                "looks like a month: choose the timeframe time or raw of its dimension group"
            }
            Self::Quarter => {
                "looks like a quarter: choose the timeframe time or raw of its dimension group"
            }
            Self::Week => {
                "looks like a week: choose the timeframe time or raw of its dimension group"
            }
            Self::Fiscal => {
                "looks like a fiscal period: choose the timeframe time or raw of its dimension group"
            }
            Self::Day => {
                "looks like a day as yyyymmdd, which is read as one only where the column's name or type says date or day"
            }
            Self::Compact => {
                "looks like a time as yyyymmddhhmmss: make it a timestamp in the dimension's SQL"
            }
            Self::SpreadsheetDay => {
                "looks like the day number of a spreadsheet: make it a timestamp in the dimension's SQL"
            }
            Self::Part => {
                "looks like a part of a time, such as an hour of the day: choose the timeframe time or raw of its dimension group"
            }
            Self::Placeholder => {
                "looks like a placeholder for no time: make it null in the dimension's SQL"
            }
            Self::DayFirst => {
                "looks like a date with its day or month in front, which has two readings: have it written as 2026-11-20"
            }
            Self::UnknownZone => {
                "ends in a time zone that is not known: have an offset such as -0800 written, or a name such as America/Los_Angeles"
            }
            Self::TooEarly => "lies before mparticle.earliest_event",
            Self::TooLate => "lies further ahead than mparticle.latest_event_ahead",
        }
    }
}

/// The day that a number means as yyyymmdd.
pub(super) fn day_of(number: i64) -> Option<Date> {
    let year = i16::try_from(number / 10_000).ok()?;
    let part = |number: i64| i8::try_from(number % 100).ok();
    let is_year = (1900..2200).contains(&year);
    let date = Date::new(year, part(number / 100)?, part(number)?).ok()?;
    is_year.then_some(date)
}

/// A number that is not a plausible time in any unit; `None`: it looks like nothing.
pub(super) fn of_number(whole: i64, is_integral: bool) -> Option<Guess> {
    // Day 36,526 is the first of 2000.
    if (20_000..80_000).contains(&whole) {
        return Some(Guess::SpreadsheetDay);
    }
    let is_month = (1900..2200).contains(&(whole / 100)) && (1..=12).contains(&(whole % 100));
    let cuts = [100, 10_000, 1_000_000];
    let is_time = cuts.iter().any(|cut| day_of(whole / cut).is_some());
    match whole {
        _ if !is_integral => None,
        -1..=0 => Some(Guess::Placeholder),
        1..=366 => Some(Guess::Part),
        1900..2200 => Some(Guess::Year),
        _ if is_month => Some(Guess::Month),
        _ if day_of(whole).is_some() => Some(Guess::Day),
        _ => is_time.then_some(Guess::Compact),
    }
}

/// A time that is not plausible.
pub(super) fn of_moment(millis: i64, earliest: i64) -> Guess {
    const DAY: i64 = 86_400_000;
    // Zones differ by less than a day from each other. Years 1 and 9999, and what cannot be told from them.
    const YEAR_2: i64 = -62_103_628_800_000;
    const YEAR_9999: i64 = 253_370_764_800_000;
    const FIRST_OF_1900: i64 = -2_208_988_800_000;
    let is_near = |other: i64| (millis - other).abs() <= DAY;
    if !(YEAR_2..YEAR_9999 - DAY).contains(&millis) || is_near(0) || is_near(FIRST_OF_1900) {
        return Guess::Placeholder;
    }
    match millis < earliest {
        true => Guess::TooEarly,
        false => Guess::TooLate,
    }
}

/// A text that does not begin with a date.
pub(super) fn of_text(text: &str) -> Guess {
    // `9` stands for a digit.
    let shape: String = text
        .chars()
        .take(10)
        .map(|letter| match letter {
            letter if letter.is_ascii_digit() => '9',
            '/' | '.' => '.',
            letter => letter.to_ascii_uppercase(),
        })
        .collect();
    let is = |shapes: &[&str]| shapes.contains(&shape.as_str());
    if shape.starts_with("FY") {
        Guess::Fiscal
    } else if is(&["9999-Q9", "Q9", "9999Q9", "Q9 9999"]) {
        Guess::Quarter
    } else if is(&["9999-W99", "9999W99"]) {
        Guess::Week
    } else if is(&["9999-99", "9999.99"]) {
        Guess::Month
    } else if shape.starts_with("99.99.9999")
        || shape.starts_with("9.99.9999")
        || shape.starts_with("9.9.9999")
        || shape.starts_with("99.9.9999")
    {
        Guess::DayFirst
    } else {
        Guess::Unreadable
    }
}
