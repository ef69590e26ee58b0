//! Lists as CSV (RFC 4180), for spreadsheets and scripts: a head with the names of the columns, a record
//! a line, ends of lines as CR LF. Pure.
//!
//! Times are RFC 3339 in UTC, numbers have no grouping, what is not known is empty. Text that a
//! spreadsheet would run as a formula (it begins with `=`, `+`, `-`, `@`, a tab or CR) has an apostrophe
//! in front, as OWASP advises (*CSV Injection*): titles and reasons come from outside.

use std::borrow::Cow;

use super::view::{DeadLetter, Delivery, FailedDelivery, RejectedRow};
use crate::clock::UnixMillis;

/// `Content-Type` of CSV with a head.
pub const CONTENT_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// The value in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Not known, or there is none.
    Empty,
    /// Stays a number.
    Number(u64),
    /// May come from outside.
    Text(Cow<'a, str>),
}

/// A column's name, and its value in a record.
pub type Column<T> = (&'static str, for<'a> fn(&'a T) -> Cell<'a>);

/// What a list holds, as columns.
pub trait Record: Sized + 'static {
    /// In their order. New ones are put at the end.
    const COLUMNS: &'static [Column<Self>];
}

/// The first line.
pub fn head<T: Record>() -> String {
    line(T::COLUMNS.iter().map(|(name, _)| Cell::from(*name)))
}

/// One record.
pub fn record<T: Record>(item: &T) -> String {
    line(T::COLUMNS.iter().map(|(_, value)| value(item)))
}

fn line<'a>(cells: impl Iterator<Item = Cell<'a>>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            line.push(',');
        }
        match cell {
            Cell::Empty => {}
            Cell::Number(number) => line.push_str(&number.to_string()),
            Cell::Text(text) => push(&mut line, &text),
        }
    }
    line.push_str("\r\n");
    line
}

fn push(line: &mut String, text: &str) {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_quoted = text.contains([',', '"', '\r', '\n']);
    if is_quoted {
        line.push('"');
    }
    if is_formula {
        line.push('\'');
    }
    if is_quoted {
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Cell<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Cell<'_> {
    fn from(is: bool) -> Self {
        Self::from(if is { "true" } else { "false" })
    }
}

/// 0 stands for a time that is not known; so does one that no calendar has.
impl From<UnixMillis> for Cell<'_> {
    fn from(time: UnixMillis) -> Self {
        let millis = i64::try_from(time.0).ok().filter(|millis| *millis > 0);
        let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        time.map_or(Self::Empty, |time| Self::from(format!("{time:.3}")))
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Into::into)
    }
}

impl Record for Delivery {
    const COLUMNS: &'static [Column<Self>] = &[
        ("id", |one| (&one.id).into()),
        ("title", |one| (&one.title).into()),
        ("state", |one| (&one.state).into()),
        ("standing", |one| one.standing.name().into()),
        ("destination", |one| (&one.destination).into()),
        ("destination_label", |one| (&one.destination_label).into()),
        ("received", |one| one.received.into()),
        ("committed", |one| one.committed.into()),
        ("finished", |one| one.finished.into()),
        ("rows_in", |one| one.rows_in.into()),
        ("rows_delivered", |one| one.rows.delivered.into()),
        ("rows_waiting", |one| one.rows.waiting.into()),
        ("rows_in_flight", |one| one.rows.in_flight.into()),
        ("rows_dead", |one| one.rows.dead.into()),
        ("rows_rejected", |one| one.rows.rejected.into()),
        ("rows_damaged", |one| one.rows.damaged.into()),
        ("rows_cancelled", |one| one.rows.cancelled.into()),
        ("rows_unchanged", |one| one.rows.unchanged.into()),
        ("rows_erased", |one| one.rows.erased.into()),
        ("dead_waiting", |one| one.dead_waiting.into()),
        ("users", |one| one.users.into()),
        ("batches", |one| one.batches.into()),
        ("batches_delivered", |one| one.batches_delivered.into()),
        ("requests", |one| one.requests.into()),
        ("held", |one| one.held.into()),
        ("blocked", |one| one.blocked.as_ref().into()),
        ("notes", |one| one.notes.join("\n").into()),
        ("link", |one| one.link.as_ref().into()),
        ("repeat_of", |one| {
            one.repeat_of.as_ref().map(|of| &of.delivery).into()
        }),
    ];
}

impl Record for FailedDelivery {
    const COLUMNS: &'static [Column<Self>] = &[
        ("id", |one| (&one.id).into()),
        ("title", |one| (&one.title).into()),
        ("received", |one| one.received.into()),
        ("ended", |one| one.ended.into()),
        ("reason", |one| (&one.reason).into()),
        ("message", |one| (&one.message).into()),
        ("passing", |one| one.passing.into()),
        ("rows", |one| one.rows.into()),
        ("bytes", |one| one.bytes.into()),
        ("instance", |one| one.instance.as_ref().into()),
        ("schedule", |one| one.schedule.as_ref().into()),
        ("destination", |one| one.destination.as_ref().into()),
        ("link", |one| one.link.as_ref().into()),
        ("again_state", |one| {
            one.again.as_ref().map(|again| &again.state).into()
        }),
        ("again_count", |one| {
            let count = one.again.as_ref().map(|again| again.count);
            count.map(u64::from).into()
        }),
        ("again_next", |one| {
            one.again.as_ref().and_then(|again| again.next).into()
        }),
        ("why_not", |one| one.why_not.as_ref().into()),
        ("repeat_of", |one| {
            one.repeat_of.as_ref().map(|of| &of.delivery).into()
        }),
    ];
}

impl Record for DeadLetter {
    const COLUMNS: &'static [Column<Self>] = &[
        ("id", |one| (&one.id).into()),
        ("delivery", |one| (&one.delivery).into()),
        ("title", |one| (&one.title).into()),
        ("reason", |one| (&one.reason).into()),
        ("attempts", |one| u64::from(one.attempts).into()),
        ("first_try", |one| one.first_try.into()),
        ("last_try", |one| one.last_try.into()),
        ("may_have_arrived", |one| one.may_have_arrived.into()),
        ("rows", |one| one.rows.into()),
        ("bytes", |one| one.bytes.into()),
    ];
}

impl Record for RejectedRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("row", |one| one.row.into()),
        ("reason", |one| (&one.reason).into()),
        ("text", |one| (&one.text).into()),
    ];
}
