//! One cell of a row, written as the literal that its place in a batch wants.

use super::notes::{Note, Tally};
use super::tags::{self, DeviceType};
use super::values::{self, quoted};
use crate::model::{Row, Value};

/// Characters of an attribute's value that mParticle takes. ("Default Service Limits")
const MOST_VALUE_CHARACTERS: usize = 4096;

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

/// Writes an identity as a JSON string; `false` and nothing when there is none.
pub(super) fn identity_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
) -> bool {
    let value = row.value(slot);
    match value {
        Value::String(text) if is_blank(text.raw) => false,
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
    tally: &mut Tally,
) -> bool {
    match row.value(slot) {
        Value::String(text) if text.raw.is_empty() => false,
        Value::String(text) => {
            if values::string_within(out, text, most) {
                tally.add(Note::Cut, slot, row.number);
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
pub(super) fn integer_value<'a>(
    row: &Row<'a>,
    slot: usize,
) -> Option<Result<std::borrow::Cow<'a, str>, ()>> {
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

/// What to do with a list where mParticle takes single values only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// User attributes may be lists.
    Kept,
    /// Custom attributes may not: the JSON text is sent.
    AsText,
}

/// Writes an attribute's value; nothing when it is null.
pub(super) fn attribute_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    tally: &mut Tally,
    lists: Lists,
) {
    let value = row.value(slot);
    match value {
        Value::String(text) => {
            if values::string_within(out, text, MOST_VALUE_CHARACTERS) {
                tally.add(Note::Cut, slot, row.number);
            }
        }
        Value::Number(literal) if literal.len() <= MOST_VALUE_CHARACTERS => {
            out.extend_from_slice(literal.as_bytes());
        }
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::List(raw)
            if lists == Lists::Kept
                && raw.len() <= MOST_VALUE_CHARACTERS
                && values::is_flat_list(raw) =>
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
            tally.add(note, slot, row.number);
            values::canonical(out, &raw[..end]);
        }
        Value::Number(_) => tally.add(Note::NotASingleValue, slot, row.number),
        Value::Absent | Value::Null | Value::Pivoted(_) => {
            note_missing(value, slot, row.number, tally);
        }
    }
}

/// Writes a device field's value; nothing when it is null or does not fit its type.
pub(super) fn device_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    kind: DeviceType,
    tally: &mut Tally,
) {
    let number = row.number;
    if kind == DeviceType::Text {
        text_value(out, row, slot, MOST_VALUE_CHARACTERS, tally);
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
