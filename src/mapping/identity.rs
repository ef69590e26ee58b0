//! One identity of a row, as it is sent.

use std::borrow::Cow;

use siphasher::sip::SipHasher13;

use super::cells::note_missing;
use super::error::Rejection;
use super::html;
use super::notes::{Note, Tally};
use super::placeholders::Placeholders;
use super::values::{self, quoted};
use super::{cells, number};
use crate::model::{Row, Text, Value};

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
///
/// # Errors
/// It is a number that cannot be told from others: the row would go to somebody.
pub(super) fn identity_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    how: (Cleaning, &Placeholders),
    tally: &mut Tally,
) -> Result<bool, NotANumber> {
    let (cleaning, placeholders) = how;
    let start = out.len();
    let plain = row.plain(slot).filter(|_| !cleaning.is_any());
    // Nearly all are like this.
    if let Some(literal) = plain
        && matches!(literal.bytes(), [_, first, _, ..] if first.is_ascii_graphic())
    {
        literal.append_to(out);
    } else {
        match row.value(slot) {
            Value::String(text) if values::is_blank(text) => return Ok(false),
            Value::String(text) if cleaning.is_any() => {
                let cleaned = clean(text, cleaning, slot, row.number, tally);
                if cleaned.trim().is_empty() {
                    return Ok(false);
                }
                match text.escaped || cleaning.strip_html {
                    true => values::canonical(out, &cleaned),
                    // What needed no escapes needs none now.
                    false => quoted(out, &cleaned),
                }
            }
            Value::String(text) => {
                if values::canonical_string(out, text).replaced {
                    tally.add(Note::Replaced, slot, row.number);
                }
            }
            Value::Number(literal) => {
                out.push(b'"');
                if !number::push_text(out, literal) {
                    return Err(NotANumber);
                }
                out.push(b'"');
            }
            Value::Bool(truth) => quoted(out, if truth { "true" } else { "false" }),
            Value::List(_) | Value::Object(_) => {
                tally.add(Note::NotASingleValue, slot, row.number);
                return Ok(false);
            }
            value @ (Value::Absent | Value::Null | Value::Pivoted(_) | Value::Failed(_)) => {
                note_missing(value, slot, row.number, tally);
                return Ok(false);
            }
        }
    }
    let written = out.get(start + 1..out.len() - 1).unwrap_or_default();
    if placeholders.has(written) {
        out.truncate(start);
        tally.add(Note::Placeholder, slot, row.number);
        return Ok(false);
    }
    if is_untrimmed(written) {
        tally.add(Note::Untrimmed, slot, row.number);
    }
    Ok(true)
}

/// A number that no double holds: `1e400`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotANumber;

impl NotANumber {
    pub(super) fn in_column(self, column: &str) -> Rejection {
        Rejection::IdentityTooLarge(column.to_owned())
    }
}

/// What [`Record::user`](crate::record::Record::user) is of a user whose first identity is this, by its name on
/// the wire and its value as it is sent.
pub fn user_of(key: &[u8; 16], name: &str, value: &str) -> u64 {
    let mut bytes = format!("\"{name}\":").into_bytes();
    match name {
        "mpid" => bytes.extend_from_slice(value.as_bytes()),
        _ => values::canonical(&mut bytes, value),
    }
    SipHasher13::new_with_key(key).hash(&bytes)
}

/// Whether white space stands around the content of a JSON string.
fn is_untrimmed(content: &[u8]) -> bool {
    let ends = (content.first(), content.last());
    let (Some(first), Some(last)) = ends else {
        return false;
    };
    // Nearly all are like this.
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && !ends_in_escape(content) {
        return false;
    }
    let text = std::str::from_utf8(content).unwrap_or_default();
    let text = Text {
        raw: text,
        escaped: text.contains('\\'),
    };
    let text = text.decoded();
    text.trim().len() < text.len()
}

/// Whether the last letter may belong to an escape such as `\t`.
fn ends_in_escape(content: &[u8]) -> bool {
    content.iter().rev().nth(1) == Some(&b'\\')
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

/// Writes mParticle's own id, which is a whole number and not 0; `false` and nothing when there is none.
pub(super) fn mpid_value(out: &mut Vec<u8>, row: &Row<'_>, slot: usize, tally: &mut Tally) -> bool {
    let note = match cells::integer_value(row, slot) {
        Some(Ok(0)) => Note::ZeroMpid,
        Some(Ok(number)) => {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            return true;
        }
        Some(Err(())) => Note::NotAnInteger,
        None => {
            note_missing(row.value(slot), slot, row.number, tally);
            return false;
        }
    };
    tally.add(note, slot, row.number);
    false
}
