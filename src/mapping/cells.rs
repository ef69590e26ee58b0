//! One cell of a row, written as the literal that its place in a batch wants.

use std::borrow::Cow;

use super::html;
use super::notes::{Note, Tally};
use super::tags::{self, DeviceType};
use super::values::{self, quoted};
use crate::model::{Row, Text, Value};

/// Characters of an attribute's value that mParticle takes. ("Default Service Limits")
pub(super) const MOST_VALUE_CHARACTERS: usize = 4096;

/// Notes a cell that should be there or should have a single value. Returns whether it is so.
pub(super) fn note_missing(value: Value<'_>, slot: usize, row: u64, tally: &mut Tally) -> bool {
    match value {
        Value::Absent => tally.add(Note::Absent, slot, row),
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

/// What is done to an identity before it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cleaning {
    pub(super) strip_html: bool,
    pub(super) trim: bool,
    pub(super) lowercase: bool,
}

impl Cleaning {
    fn is_any(self) -> bool {
        self.strip_html || self.trim || self.lowercase
    }
}

/// Writes an identity as a JSON string; `false` and nothing when there is none.
pub(super) fn identity_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    cleaning: Cleaning,
    tally: &mut Tally,
) -> bool {
    let value = row.value(slot);
    match value {
        Value::String(text) if is_blank(text.raw) => false,
        Value::String(text) if cleaning.is_any() => {
            let cleaned = clean(text, cleaning, slot, row.number, tally);
            if cleaned.trim().is_empty() {
                return false;
            }
            match text.escaped || cleaning.strip_html {
                true => values::canonical(out, &cleaned),
                // What needed no escapes needs none now.
                false => quoted(out, &cleaned),
            }
            true
        }
        Value::String(text) => {
            values::canonical_string(out, text);
            true
        }
        Value::Number(literal) => {
            quoted(out, literal);
            true
        }
        Value::Bool(truth) => {
            quoted(out, if truth { "true" } else { "false" });
            true
        }
        Value::List(_) | Value::Object(_) => {
            tally.add(Note::NotASingleValue, slot, row.number);
            false
        }
        Value::Absent | Value::Null | Value::Pivoted(_) => {
            note_missing(value, slot, row.number, tally);
            false
        }
    }
}

/// An identity's text, cleaned. No copy is made of one that is clean.
fn clean<'a>(
    text: Text<'a>,
    cleaning: Cleaning,
    slot: usize,
    row: u64,
    tally: &mut Tally,
) -> Cow<'a, str> {
    let mut cleaned = text.decoded();
    if cleaning.strip_html
        && let Some(plain) = html::text_of(text)
    {
        tally.add(Note::HtmlTakenOut, slot, row);
        cleaned = Cow::Owned(plain);
    }
    if cleaning.trim && cleaned.trim().len() < cleaned.len() {
        cleaned = match cleaned {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
    }
    let is_lower = |c: char| c.is_ascii_lowercase() || (c.is_ascii() && !c.is_ascii_alphabetic());
    if cleaning.lowercase && !cleaned.chars().all(is_lower) {
        cleaned = Cow::Owned(cleaned.to_lowercase());
    }
    cleaned
}

/// Writes mParticle's own id, which is a whole number; `false` and nothing when there is none.
pub(super) fn mpid_value(out: &mut Vec<u8>, row: &Row<'_>, slot: usize, tally: &mut Tally) -> bool {
    match integer_value(row, slot) {
        Some(Ok(digits)) => {
            out.extend_from_slice(digits.as_bytes());
            true
        }
        Some(Err(())) => {
            tally.add(Note::NotAnInteger, slot, row.number);
            false
        }
        None => {
            note_missing(row.value(slot), slot, row.number, tally);
            false
        }
    }
}

/// Whether there is nothing to be seen.
fn is_blank(text: &str) -> bool {
    let seen = text.as_bytes().first().is_some_and(u8::is_ascii_graphic);
    !seen && text.trim().is_empty()
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
            quoted(out, literal);
            true
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
    // Nearly all are like this: there is nothing to do to them.
    if !text.escaped && !spelling.strip_html && text.raw.len() <= most {
        return quoted(out, text.raw);
    }
    let html = match spelling.strip_html {
        true => html::text_of(text),
        false => None,
    };
    let cut = match html {
        Some(plain) => {
            tally.add(Note::HtmlTakenOut, place.0, place.1);
            values::plain_within(out, &plain, most)
        }
        None if spelling.canonical => values::canonical_within(out, text, most),
        None => values::string_within(out, text, most),
    };
    if cut {
        tally.add(Note::Cut, place.0, place.1);
    }
}

pub(super) fn event_type(row: &Row<'_>, slot: usize, tally: &mut Tally) -> Option<&'static str> {
    let value = row.value(slot);
    if let Value::String(text) = value
        && let Some(known) = tags::EVENT_TYPES
            .into_iter()
            .find(|known| *known == text.raw)
    {
        return Some(known);
    }
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

/// The digits of a whole number; `None` when there is no value, an error when it is another.
pub(super) fn integer_value<'a>(row: &Row<'a>, slot: usize) -> Option<Result<Cow<'a, str>, ()>> {
    let value = row.value(slot);
    if matches!(value, Value::Absent | Value::Null | Value::Pivoted(_)) {
        return None;
    }
    match (value, values::plain_text(value)) {
        (Value::String(_), Some(text)) if text.trim().is_empty() => None,
        (Value::String(_), Some(text)) => Some(
            values::integer(&text)
                .map(|digits| digits.to_owned().into())
                .ok_or(()),
        ),
        (Value::Number(literal), _) => Some(values::integer(literal).map(Into::into).ok_or(())),
        _ => Some(Err(())),
    }
}

/// What an attribute's place takes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    /// User attributes may be lists; of custom attributes the JSON text is sent.
    pub(super) lists: bool,
    /// What is written for null; nothing leaves it out.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
}

/// Writes an attribute's value; nothing when there is none.
pub(super) fn attribute_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
    how: Attribute,
) {
    attribute_literal(out, row.value(slot), (slot, row.number), tally, how);
}

/// Writes a value as an attribute's; `place` is its slot and row.
pub(super) fn attribute_literal(
    out: &mut Vec<u8>,
    value: Value<'_>,
    place: (usize, u64),
    tally: &mut Tally,
    how: Attribute,
) {
    match value {
        Value::String(text) => {
            string_value(out, text, MOST_VALUE_CHARACTERS, how.spelling, place, tally);
        }
        Value::Number(literal) if values::is_finite(literal) => {
            out.extend_from_slice(literal.as_bytes());
        }
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::List(raw)
            if how.lists && raw.len() <= MOST_VALUE_CHARACTERS && values::is_flat_list(raw) =>
        {
            out.extend_from_slice(raw.as_bytes());
        }
        Value::List(raw) | Value::Object(raw) => {
            let end = raw
                .char_indices()
                .nth(MOST_VALUE_CHARACTERS)
                .map_or(raw.len(), |(end, _)| end);
            let note = if end < raw.len() {
                Note::Cut
            } else {
                Note::SentAsText
            };
            tally.add(note, place.0, place.1);
            values::canonical(out, &raw[..end]);
        }
        Value::Number(_) => tally.add(Note::NotANumber, place.0, place.1),
        Value::Null => out.extend_from_slice(how.null),
        Value::Absent | Value::Pivoted(_) => {
            note_missing(value, place.0, place.1, tally);
        }
    }
}

/// Writes a device field's value; nothing when it is null or does not fit its type.
pub(super) fn device_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    kind: DeviceType,
    spelling: Spelling,
    tally: &mut Tally,
) {
    let number = row.number;
    if kind == DeviceType::Text {
        text_value(out, row, slot, MOST_VALUE_CHARACTERS, spelling, tally);
        return;
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
        DeviceType::Text => (None, true, Note::NotASingleValue),
    };
    match literal {
        Some(literal) if is_text => quoted(out, literal),
        Some(literal) => out.extend_from_slice(literal.as_bytes()),
        None => tally.add(note, slot, number),
    }
}
