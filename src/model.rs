//! The nouns that every room shares: ids, a delivery's header, a row and its values.
//!
//! No behaviour beyond what a value can say about itself, no I/O, no clock.

mod failure;

use std::borrow::Cow;
use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

pub use failure::FailureKind;

/// Names one delivery forever: 48 bits of milliseconds since 1970, then 80 random bits, so that
/// ids sort by time of receipt. Printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub [u8; 16]);

/// Names one destination: credentials, pod and endpoint together. Two deliveries with the same
/// destination are sent one after the other; different destinations do not wait for each other.
/// Printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", HEXLOWER.encode_display(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let text = text.as_bytes();
                let mut id = [0; 16];
                if text.len() != 2 * id.len() {
                    return Err(IdError);
                }
                let digits = HEXLOWER_PERMISSIVE.decode_mut(text, &mut id);
                digits.map_err(|_| IdError)?;
                Ok(Self(id))
            }
        }
    };
}
hex_id!(DeliveryId);
hex_id!(DestinationId);

/// The text is not an id.
#[derive(Debug, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct IdError;

/// What the person chose in Looker's form: profiles or events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DataType {
    /// `user_data`: one batch a user, no events.
    #[serde(rename = "user_data")]
    User,
    /// `event_data`: each row is one event of its user.
    #[serde(rename = "event_data")]
    Event,
}

/// mParticle's `environment`: the only guard between a trial and real data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Real data.
    Production,
    /// "Test/Development" in the form.
    Development,
}

/// Where in Looker's `fields` object a column was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `fields.dimensions`
    Dimension,
    /// `fields.measures`: pivoted when the query has pivots.
    Measure,
    /// `fields.table_calculations`: names without a dot. Pivoted like measures.
    TableCalculation,
}

/// One column of a delivery, as LookML defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Full name, `view.dimension`; table calculations have no dot.
    pub name: String,
    /// Which list it stood in.
    pub kind: FieldKind,
    /// LookML tags, in order; empty when Looker sent none.
    pub tags: Vec<String>,
    /// Its type in LookML, such as `yesno`, `number` or `date_time`; `None` when Looker sent none.
    pub lookml_type: Option<String>,
}

/// What Looker says of a result set beside its rows. Complete only when the document has ended,
/// since keys may come in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Dimensions, measures and table calculations, in that order.
    pub fields: Vec<Field>,
    /// Names of the pivot dimensions; not empty means that measures are pivoted.
    pub pivots: Vec<String>,
    /// `timezone`, for example `UTC`.
    pub timezone: Option<String>,
    /// Real errors from `errors`, as one sentence each. Not empty means a failed delivery.
    pub errors: Vec<String>,
    /// Harmless entries of `errors` (they begin `Note:`) and `warnings`.
    pub notes: Vec<String>,
    /// Looker cut the result at its row limit.
    pub truncated: bool,
}

/// The text of a JSON string as it stood between its quotes: valid JSON string content, escapes
/// kept, so that it can be written to another JSON document as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Content between the quotes, escapes not resolved.
    pub raw: &'a str,
    /// Whether `raw` holds at least one backslash.
    pub escaped: bool,
}

/// One part of a [`Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Characters that stand for themselves.
    Plain(&'a str),
    /// What an escape means.
    Escape(char),
    /// An escape that means half of a character: a surrogate without its partner, which is valid JSON
    /// and yet no text.
    Half,
}

impl<'a> Text<'a> {
    /// The text a person would read. Lone surrogates become U+FFFD.
    pub fn decoded(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        for piece in self.pieces() {
            match piece {
                Piece::Plain(plain) => text.push_str(plain),
                Piece::Escape(meant) => text.push(meant),
                Piece::Half => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Cow::Owned(text)
    }

    /// The text part by part. It has been checked by the decoder; an escape that is none all the same
    /// is a [`Piece::Half`].
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'a>> + use<'a> {
        let mut rest = self.raw;
        std::iter::from_fn(move || {
            let plain = match memchr::memchr(b'\\', rest.as_bytes()) {
                Some(0) => {
                    let escape = rest.get(1..).unwrap_or_default();
                    let (piece, used) = unescape(escape);
                    rest = escape.get(used..).unwrap_or_default();
                    return Some(piece);
                }
                Some(at) => at,
                None if rest.is_empty() => return None,
                None => rest.len(),
            };
            let (plain, after) = rest.split_at_checked(plain)?;
            rest = after;
            Some(Piece::Plain(plain))
        })
    }
}

/// What an escape means that begins behind its backslash, and its bytes.
fn unescape(escape: &str) -> (Piece<'_>, usize) {
    let meant = match escape.chars().next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('u') => return unescape_unit(escape),
        Some(other) => return (Piece::Escape(other), other.len_utf8()),
        None => return (Piece::Half, 0),
    };
    (Piece::Escape(meant), 1)
}

/// The same of `uXXXX`, or of a surrogate pair `uXXXX\uXXXX`.
fn unescape_unit(escape: &str) -> (Piece<'_>, usize) {
    let unit = |at: usize| {
        escape
            .get(at..at + 4)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let Some(high) = unit(1) else {
        return (Piece::Half, 1);
    };
    let low = match escape.get(5..7) {
        Some("\\u") => unit(7),
        _ => None,
    };
    let (code, used) = match (high, low) {
        (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) => {
            (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), 11)
        }
        _ => (high, 5),
    };
    (
        char::from_u32(code).map_or(Piece::Half, Piece::Escape),
        used,
    )
}

/// What one cell of a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The row has no such key.
    Absent,
    /// `{"value": null}`
    Null,
    /// `{"value": true}`
    Bool(bool),
    /// A JSON number, its literal digits.
    Number(&'a str),
    /// A JSON string.
    String(Text<'a>),
    /// A JSON array, as raw JSON (checked to be well formed).
    List(&'a str),
    /// The cell's `value` is an object, as raw JSON (checked to be well formed).
    Object(&'a str),
    /// The cell has no `value` key: a pivoted measure, `{"<pivot key>": {"value": X}}`, raw JSON.
    Pivoted(&'a str),
    /// Looker could not compute the cell: it has an `error`, and no value. The whole cell, raw JSON.
    Failed(&'a str),
}

/// Where a selected cell's value lies in the row's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What kind of value it is.
    pub kind: CellKind,
    /// First byte of the value (after the opening quote of a string).
    pub start: u32,
    /// One past the last byte of the value (the closing quote of a string).
    pub end: u32,
}

/// The kind of a [`Cell`]; see [`Value`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CellKind {
    #[default]
    Absent,
    Null,
    True,
    False,
    Number,
    /// A string without a backslash.
    Plain,
    /// A string with at least one backslash.
    Escaped,
    List,
    Object,
    Pivoted,
    Failed,
}

/// One row of a delivery, borrowed from the decoder's buffer: slot `i` is the `i`-th column that
/// was selected.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    text: &'a str,
    cells: &'a [Cell],
    /// 0 for the first row of the delivery.
    pub number: u64,
}

impl<'a> Row<'a> {
    /// `cells` point into `text`.
    pub fn new(text: &'a str, cells: &'a [Cell], number: u64) -> Self {
        Self {
            text,
            cells,
            number,
        }
    }

    /// The value of selected column `slot`; [`Value::Absent`] beyond the last.
    #[inline]
    pub fn value(&self, slot: usize) -> Value<'a> {
        let Some(cell) = self.cells.get(slot) else {
            return Value::Absent;
        };
        let raw = self
            .text
            .get(cell.start as usize..cell.end as usize)
            .unwrap_or_default();
        match cell.kind {
            CellKind::Absent => Value::Absent,
            CellKind::Null => Value::Null,
            CellKind::True => Value::Bool(true),
            CellKind::False => Value::Bool(false),
            CellKind::Number => Value::Number(raw),
            CellKind::Plain => Value::String(Text {
                raw,
                escaped: false,
            }),
            CellKind::Escaped => Value::String(Text { raw, escaped: true }),
            CellKind::List => Value::List(raw),
            CellKind::Object => Value::Object(raw),
            CellKind::Pivoted => Value::Pivoted(raw),
            CellKind::Failed => Value::Failed(raw),
        }
    }

    /// The value, quotes and all, if it is a string without escapes, as most are: [`Row::value`] tells
    /// the same, and takes longer.
    #[inline]
    pub fn plain(&self, slot: usize) -> Option<Literal<'a>> {
        let cell = self.cells.get(slot)?;
        match cell.kind {
            CellKind::Plain => self.literal(cell.start.checked_sub(1)?, cell.end + 1),
            _ => None,
        }
    }

    /// The same of a number.
    #[inline]
    pub fn number(&self, slot: usize) -> Option<Literal<'a>> {
        let cell = self.cells.get(slot)?;
        match cell.kind {
            CellKind::Number => self.literal(cell.start, cell.end),
            _ => None,
        }
    }

    #[inline]
    fn literal(&self, start: u32, end: u32) -> Option<Literal<'a>> {
        Some(Literal {
            from: self.text.as_bytes().get(start as usize..)?,
            length: end.checked_sub(start)? as usize,
        })
    }

    /// The whole row as raw JSON.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// A value as Looker wrote it, in its row.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a> {
    /// The row from its first byte on.
    from: &'a [u8],
    /// Of a string with its quotes.
    length: usize,
}

#[allow(clippy::len_without_is_empty)] // No literal is.
impl<'a> Literal<'a> {
    /// Bytes of the literal, the quotes of a string included.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The literal, quotes and all.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.from.get(..self.length).unwrap_or_default()
    }

    /// Appends the literal.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        append_start(out, self.from, self.length);
    }
}

/// Appends the first `length` bytes of `from`, or all that there are. A few, as most values have, are
/// copied with what stands behind them, which is taken off again: a copy whose length is known takes
/// neither a call nor a guess, and a row has a dozen.
#[inline]
pub fn append_start(out: &mut Vec<u8>, from: &[u8], length: usize) {
    const BLOCK: usize = 32;
    match from.first_chunk::<BLOCK>() {
        Some(block) if length <= BLOCK => {
            let end = out.len() + length;
            out.extend_from_slice(block);
            out.truncate(end);
        }
        _ => out.extend_from_slice(from.get(..length).unwrap_or(from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_run_is_appended_whatever_stands_behind_it() {
        let run: Vec<u8> = (0..100).collect();
        for length in 0..=run.len() {
            for end in length..=run.len() {
                let mut out = b"before".to_vec();
                append_start(&mut out, &run[..end], length);
                assert_eq!(out, [b"before", &run[..length]].concat());
            }
        }
        let mut out = Vec::new();
        append_start(&mut out, &run, 101);
        assert_eq!(out, run);
    }

    #[test]
    fn ids_print_and_parse_back() {
        let id = DeliveryId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<DeliveryId>().unwrap(), id);
        for bad in ["", "xyz", &"é".repeat(16), &"g".repeat(32)] {
            assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn text_is_unescaped_like_serde_json_does() {
        for raw in [
            r"plain",
            r"a\nb\t\r\b\f\/\\\u0022 é",
            r"\ud83d\ude00!",
            r"é\u00e9",
        ] {
            let want: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            let text = Text {
                raw,
                escaped: raw.contains('\\'),
            };
            assert_eq!(text.decoded(), want);
        }
    }

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        for raw in [r"\ud83d", r"\ud83dx", r"\ude00", r"\ud83d\u0041"] {
            let text = Text { raw, escaped: true };
            assert!(
                text.decoded().starts_with(char::REPLACEMENT_CHARACTER),
                "{raw}"
            );
        }
    }
}
