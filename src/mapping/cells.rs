//! One cell of a row, written as the literal that its place in a batch wants.

use super::html;
use super::notes::{Lists, Note, Tally};
use super::tags::{self, DeviceType};
use super::time::Times;
use super::typed::Type;
use super::values::{self, quoted};
use super::{list, number};
use crate::model::{Literal, Row, Text, Value};
use crate::record::{add_setting, begin_setting, end_setting};

/// Characters of an attribute's value that mParticle takes. ("Default Service Limits")
pub(super) const MOST_VALUE_CHARACTERS: usize = 4096;
/// Bytes of the quotes around a JSON string.
const QUOTES: usize = 2;

/// Notes a cell that should be there or should have a single value. Returns whether it is so.
pub(super) fn note_missing(value: Value<'_>, slot: usize, row: u64, tally: &mut Tally) -> bool {
    match value {
        Value::Absent => tally.add(Note::Absent, slot, row),
        Value::Failed(_) => tally.add(Note::Failed, slot, row),
        Value::Pivoted(_) => tally.add(Note::Pivoted, slot, row),
        Value::Null => {}
        _ => return false,
    }
    true
}

/// How strings are written; the default is as Looker wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spelling {
    /// The text alone of a value that holds HTML.
    pub(super) strip_html: bool,
    /// In the one spelling that equal texts share.
    pub(super) canonical: bool,
}

/// A string of at most `most` characters to which nothing is to be done, quotes and all; nearly all are
/// like this.
#[inline]
pub(super) fn as_it_stands<'a>(
    row: &Row<'a>,
    slot: usize,
    most: usize,
    spelling: Spelling,
) -> Option<Literal<'a>> {
    let fits = |literal: &Literal<'_>| !spelling.strip_html && literal.len() <= most + QUOTES;
    row.plain(slot).filter(fits)
}

/// Writes a value as a JSON string of at most `most` characters; `false` and nothing when it is
/// null or empty.
pub(super) fn text_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    most: usize,
    spelling: Spelling,
    tally: &mut Tally,
) -> bool {
    if let Some(literal) = as_it_stands(row, slot, most, spelling) {
        let is_there = literal.len() > QUOTES;
        if is_there {
            literal.append_to(out);
        }
        return is_there;
    }
    match row.value(slot) {
        Value::String(text) if text.raw.is_empty() => false,
        Value::String(text) => {
            let start = out.len();
            string_value(out, text, most, spelling, (slot, row.number), tally);
            if out.len() == start + 2 {
                // HTML without a text.
                out.truncate(start);
                return false;
            }
            true
        }
        Value::Number(literal) if literal.len() <= most => {
            let start = out.len();
            out.push(b'"');
            if number::push_text(out, literal) && out.len() - start <= most + 1 {
                out.push(b'"');
                return true;
            }
            out.truncate(start);
            tally.add(Note::NotANumber, slot, row.number);
            false
        }
        Value::Bool(truth) => {
            quoted(out, if truth { "true" } else { "false" });
            true
        }
        Value::List(_) | Value::Object(_) | Value::Number(_) => {
            tally.add(Note::NotASingleValue, slot, row.number);
            false
        }
        value => {
            note_missing(value, slot, row.number, tally);
            false
        }
    }
}

/// Writes a string of at most `most` characters; `place` is its slot and row.
fn string_value(
    out: &mut Vec<u8>,
    text: Text<'_>,
    most: usize,
    spelling: Spelling,
    place: (usize, u64),
    tally: &mut Tally,
) {
    let (slot, row) = place;
    let html = match spelling.strip_html {
        true => html::text_of(text),
        false => None,
    };
    let written = match html {
        Some(plain) => {
            tally.add(Note::HtmlTakenOut, slot, row);
            let cut = values::plain_within(out, &plain, most);
            values::Written {
                cut,
                ..values::Written::default()
            }
        }
        None if spelling.canonical => values::canonical_within(out, text, most),
        None => values::string_within(out, text, most),
    };
    if written.cut {
        tally.add(Note::Cut, slot, row);
    }
    if written.replaced {
        tally.add(Note::Replaced, slot, row);
    }
}

pub(super) fn event_type(row: &Row<'_>, slot: usize, tally: &mut Tally) -> Option<&'static str> {
    let value = row.value(slot);
    let Some(text) = values::plain_text(value) else {
        if !note_missing(value, slot, row.number, tally) {
            tally.add(Note::NotASingleValue, slot, row.number);
        }
        return None;
    };
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let known = tags::EVENT_TYPES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(text));
    if known.is_none() {
        tally.add(Note::UnknownEventType, slot, row.number);
    }
    known
}

/// A whole number of 64 bits; `None` when there is no value, an error when it is another.
pub(super) fn integer_value(row: &Row<'_>, slot: usize) -> Option<Result<i64, ()>> {
    match row.value(slot) {
        Value::Absent | Value::Null | Value::Pivoted(_) | Value::Failed(_) => None,
        Value::Number(literal) => Some(number::integer(literal).ok_or(())),
        Value::String(text) => {
            let text = text.decoded();
            if text.trim().is_empty() {
                return None;
            }
            let digits = values::integer(&text).ok_or(());
            Some(digits.and_then(|digits| digits.parse().map_err(|_| ())))
        }
        Value::Bool(_) | Value::List(_) | Value::Object(_) => Some(Err(())),
    }
}

/// What an attribute's place takes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    /// User attributes may be lists; of custom attributes the JSON text is sent.
    pub(super) lists: bool,
    /// What is written for null; nothing leaves it out.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
    /// What values are turned into, by slot; empty: they stay as they are.
    pub(super) types: &'a [Type],
    pub(super) times: &'a Times,
}

/// Writes an attribute's value as the setting of `place`, which it leaves out when there is none; whether
/// there is one.
#[inline]
pub(super) fn attribute_setting(
    out: &mut Vec<u8>,
    place: u16,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
    how: &Attribute<'_>,
) -> bool {
    match attribute_as_it_stands(row, slot, how) {
        Some(literal) => {
            add_setting(out, place, literal);
            true
        }
        None => other_setting(out, place, row, slot, tally, how),
    }
}

/// The same of one to which something is to be done.
#[inline(never)]
fn other_setting(
    out: &mut Vec<u8>,
    place: u16,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
    how: &Attribute<'_>,
) -> bool {
    let start = begin_setting(out, place);
    attribute_literal(out, row.value(slot), (slot, row.number), tally, how);
    !end_setting(out, start).is_empty()
}

/// Writes an attribute's value; nothing when there is none.
#[inline]
pub(super) fn attribute_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
    how: &Attribute<'_>,
) {
    match attribute_as_it_stands(row, slot, how) {
        Some(literal) => literal.append_to(out),
        None => attribute_literal(out, row.value(slot), (slot, row.number), tally, how),
    }
}

/// An attribute's value to which nothing is to be done.
#[inline]
fn attribute_as_it_stands<'a>(
    row: &Row<'a>,
    slot: usize,
    how: &Attribute<'_>,
) -> Option<Literal<'a>> {
    let is_finite = |literal: &Literal<'_>| number::is_finite(literal.bytes());
    match as_it_stands(row, slot, MOST_VALUE_CHARACTERS, how.spelling) {
        Some(literal) => how.types.is_empty().then_some(literal),
        None => row.number(slot).filter(is_finite),
    }
}

/// Writes a value as an attribute's; `place` is its slot and row.
pub(super) fn attribute_literal(
    out: &mut Vec<u8>,
    value: Value<'_>,
    place: (usize, u64),
    tally: &mut Tally,
    how: &Attribute<'_>,
) {
    match value {
        Value::String(text) => {
            if let Some(wanted) = how.types.get(place.0)
                && wanted.write(out, text, how.times, place, tally)
            {
                return;
            }
            string_value(out, text, MOST_VALUE_CHARACTERS, how.spelling, place, tally);
        }
        Value::Number(literal) if number::is_finite(literal) => {
            out.extend_from_slice(literal.as_bytes());
        }
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::List(raw) if how.lists => list_value(out, raw, place.0, place.1, tally),
        Value::List(raw) | Value::Object(raw) => json_value(out, raw, place.0, place.1, tally),
        Value::Number(_) => tally.add(Note::NotANumber, place.0, place.1),
        Value::Null => out.extend_from_slice(how.null),
        Value::Absent | Value::Pivoted(_) | Value::Failed(_) => {
            note_missing(value, place.0, place.1, tally);
        }
    }
}

/// Writes a list of single values as a list. Another one is sent as text, and then all of its column
/// are: an attribute that is now a list and now a text is of no use to anybody.
fn list_value(out: &mut Vec<u8>, raw: &str, slot: usize, row: u64, tally: &mut Tally) {
    let start = out.len();
    let done = list::write(out, raw);
    let this = match done {
        Some(_) => Lists::AsLists,
        None => Lists::AsText,
    };
    match (tally.lists(slot, this), done) {
        (Lists::AsText, _) => {
            out.truncate(start);
            json_value(out, raw, slot, row, tally);
        }
        (Lists::AsLists, None) => tally.add(Note::MixedLists, slot, row),
        (Lists::AsLists, Some(done)) => {
            for (is_so, note) in [
                (done.left_out, Note::EntriesLeftOut),
                (done.written.cut, Note::EntriesCut),
                (done.written.replaced, Note::Replaced),
            ] {
                if is_so {
                    tally.add(note, slot, row);
                }
            }
        }
    }
}

/// Writes the text of a list or an object, unless it is too long: cut, it would be none.
fn json_value(out: &mut Vec<u8>, raw: &str, slot: usize, row: u64, tally: &mut Tally) {
    let fits =
        raw.len() <= MOST_VALUE_CHARACTERS || raw.chars().nth(MOST_VALUE_CHARACTERS).is_none();
    if !fits {
        return tally.add(Note::TooLong, slot, row);
    }
    tally.add(Note::SentAsText, slot, row);
    values::canonical(out, raw);
}

/// Writes a device field's value; nothing when it is null or does not fit its type.
pub(super) fn device_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    kind: DeviceType,
    spelling: Spelling,
    times: &Times,
    tally: &mut Tally,
) {
    let number = row.number;
    match kind {
        DeviceType::Text => {
            text_value(out, row, slot, MOST_VALUE_CHARACTERS, spelling, tally);
            return;
        }
        DeviceType::Time => return time_value(out, row, slot, times, tally),
        _ => {}
    }
    let value = row.value(slot);
    let Some(text) = values::plain_text(value) else {
        if !note_missing(value, slot, number, tally) {
            tally.add(Note::NotASingleValue, slot, number);
        }
        return;
    };
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    let (literal, is_text, note) = match kind {
        DeviceType::Integer => (values::integer(text), false, Note::NotAnInteger),
        DeviceType::Boolean => (values::boolean(text), false, Note::NotABoolean),
        DeviceType::Uuid => (
            Some(text).filter(|text| values::is_uuid(text)),
            true,
            Note::NotAUuid,
        ),
        DeviceType::Word(words) => {
            let known = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            (known.copied(), true, Note::NotAKnownWord)
        }
        DeviceType::Text | DeviceType::Time => (None, true, Note::NotASingleValue),
    };
    match literal {
        Some(literal) if is_text => quoted(out, literal),
        Some(literal) => out.extend_from_slice(literal.as_bytes()),
        None => tally.add(note, slot, number),
    }
}

/// Writes a time that is not an event's; nothing when there is none.
fn time_value(out: &mut Vec<u8>, row: &Row<'_>, slot: usize, times: &Times, tally: &mut Tally) {
    let value = row.value(slot);
    let note = match times.read(value, false) {
        Some(Ok(moment)) => {
            out.extend_from_slice(itoa::Buffer::new().format(moment.millis).as_bytes());
            moment.note
        }
        Some(Err(_)) => Some(Note::NotATime),
        None => {
            note_missing(value, slot, row.number, tally);
            None
        }
    };
    if let Some(note) = note {
        tally.add(note, slot, row.number);
    }
}
