//! Values to JSON literals of the type that mParticle wants, checked and bounded.

use std::borrow::Cow;

use super::number;
use crate::model::{Piece, Text, Value};

/// What was done to a text to write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// It was longer than it may be.
    pub cut: bool,
    /// Halves of surrogate pairs, which are valid JSON and yet no text, became U+FFFD.
    pub replaced: bool,
}

/// Writes `text` as a JSON string as it stands. Only escapes that could be half of a surrogate
/// pair are looked at: a lone half is valid JSON and yet no text, so it becomes U+FFFD.
pub fn string(out: &mut Vec<u8>, text: Text<'_>) -> Written {
    let raw = text.raw.as_bytes();
    let is_unit = |at: usize| raw.get(at + 1) == Some(&b'u');
    if text.escaped && memchr::memchr_iter(b'\\', raw).any(is_unit) {
        return canonical_string(out, text);
    }
    quoted(out, text.raw);
    Written::default()
}

/// Writes text that needs no escapes as a JSON string.
#[inline]
pub fn quoted(out: &mut Vec<u8>, plain: &str) {
    out.reserve(plain.len() + 2);
    out.push(b'"');
    out.extend_from_slice(plain.as_bytes());
    out.push(b'"');
}

/// Writes `text` as a JSON string in the one spelling that equal texts share.
pub fn canonical_string(out: &mut Vec<u8>, text: Text<'_>) -> Written {
    let mut written = Written::default();
    out.push(b'"');
    for piece in text.pieces() {
        match piece {
            Piece::Plain(plain) => out.extend_from_slice(plain.as_bytes()),
            Piece::Escape(meant) => canonical_char(out, meant),
            Piece::Half => {
                canonical_char(out, char::REPLACEMENT_CHARACTER);
                written.replaced = true;
            }
        }
    }
    out.push(b'"');
    written
}

/// Like [`string`], but at most `most` characters.
pub fn string_within(out: &mut Vec<u8>, text: Text<'_>, most: usize) -> Written {
    if text.raw.len() <= most {
        return string(out, text);
    }
    let decoded = text.decoded();
    match decoded.char_indices().nth(most) {
        None => string(out, text),
        Some((end, _)) => {
            canonical(out, &decoded[..end]);
            Written {
                cut: true,
                ..replaced(text)
            }
        }
    }
}

/// Like [`string_within`], in the one spelling that equal texts share.
pub fn canonical_within(out: &mut Vec<u8>, text: Text<'_>, most: usize) -> Written {
    if !text.escaped {
        return string_within(out, text, most);
    }
    Written {
        cut: plain_within(out, &text.decoded(), most),
        ..replaced(text)
    }
}

/// Writes at most `most` characters of plain text. Returns whether it was cut.
pub fn plain_within(out: &mut Vec<u8>, text: &str, most: usize) -> bool {
    let end = match text.len() <= most {
        true => None,
        false => text.char_indices().nth(most),
    };
    match end {
        None => {
            canonical(out, text);
            false
        }
        Some((end, _)) => {
            canonical(out, &text[..end]);
            true
        }
    }
}

/// Writes plain text as a JSON string.
pub fn canonical(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(needs_escape) {
        let (plain, after) = rest.split_at(at);
        let (special, after) = after.split_at(1);
        out.extend_from_slice(plain.as_bytes());
        special.chars().for_each(|one| canonical_char(out, one));
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn canonical_char(out: &mut Vec<u8>, one: char) {
    match one {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(one)).as_bytes()),
        _ => out.extend_from_slice(one.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Whether a text has escapes of lone halves of surrogate pairs.
fn replaced(text: Text<'_>) -> Written {
    Written {
        replaced: text.pieces().any(|piece| piece == Piece::Half),
        ..Written::default()
    }
}

/// Whether there is nothing to be seen in a text.
pub fn is_blank(text: Text<'_>) -> bool {
    let seen = text.raw.as_bytes().first();
    match text.escaped {
        true => text.decoded().trim().is_empty(),
        false => !seen.is_some_and(u8::is_ascii_graphic) && text.raw.trim().is_empty(),
    }
}

/// The text of a single value: strings decoded, numbers by their value, booleans as words. `None` for
/// null, absent, and what is not a single value.
pub fn plain_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Number(literal) => Some(number::text(literal).unwrap_or(Cow::Borrowed(literal))),
        value => literal_text(value),
    }
}

/// Like [`plain_text`], with numbers as they are written.
pub fn literal_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.decoded()),
        Value::Number(digits) => Some(Cow::Borrowed(digits)),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}

/// The digits of a whole number that fits mParticle's 64 bits, from a number or its text;
/// `1760000000000.0` counts as whole.
pub fn integer(text: &str) -> Option<&str> {
    // Nearly all are like this, and too short to pass 64 bits.
    if matches!(text.as_bytes(), [b'1'..=b'9', rest @ ..] if rest.len() < 18 && rest.iter().all(u8::is_ascii_digit))
    {
        return Some(text);
    }
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    if whole == "-0" {
        // A number to JSON, and not an integer to most of its readers.
        return Some("0");
    }
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = !digits.is_empty()
        && digits.bytes().all(|digit| digit.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    (plain && whole.parse::<i64>().is_ok()).then_some(whole)
}

/// `true` or `false` from a boolean or its text: the words that Looker's `yesno` dimensions and
/// warehouses give, in any case.
pub fn boolean(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let is_any = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_any(["true", "yes", "1", "t", "y", "on"]) {
        Some("true")
    } else if is_any(["false", "no", "0", "f", "n", "off"]) {
        Some("false")
    } else {
        None
    }
}

/// Whether this is a UUID as mParticle's schema has it.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A number with or without a fraction that lies within these bounds, as it is written, from a
/// number or its text.
pub fn number_within(text: &str, most: f64) -> Option<&str> {
    let text = text.trim();
    let number: f64 = serde_json::from_str(text).ok()?;
    (number.abs() <= most).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &str) -> Text<'_> {
        Text {
            raw,
            escaped: raw.contains('\\'),
        }
    }

    #[test]
    fn strings_keep_their_spelling_unless_a_lone_surrogate_could_hide_in_it() {
        for (raw, want) in [
            (r"plain é", r#""plain é""#),
            (r"a\/b\n", r#""a\/b\n""#),
            (r"\u0041", r#""A""#),
            (r"\ud83d", "\"\u{fffd}\""),
        ] {
            let mut out = Vec::new();
            string(&mut out, text(raw));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn a_lone_half_of_a_surrogate_pair_is_told() {
        for (raw, replaced) in [
            (r"\ud83d", true),
            (r"x\ude00y", true),
            (r"\ud83d\u0041", true),
            (r"\ud83d\ud83d\ude00", true),
            (r"\ud83d\n", true),
            (r"\ud83d\ude00", false),
            (r"\ud83d\ude00\ud83d\ude00", false),
            (r"\\ud83d", false),
            (r"\u0041\n\/", false),
            (r"\\\ud83d", true),
        ] {
            let mut out = Vec::new();
            assert_eq!(string(&mut out, text(raw)).replaced, replaced, "{raw}");
            let sent: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(sent.contains('\u{fffd}'), replaced, "{raw}");
            for most in [0, 1, 100] {
                out.clear();
                let written = canonical_within(&mut out, text(raw), most);
                assert_eq!(written.replaced, replaced, "{raw}");
            }
        }
    }

    #[test]
    fn what_cannot_be_seen_is_blank_however_it_is_written() {
        for (raw, blank) in [
            ("", true),
            ("  ", true),
            (r"\t\n", true),
            (r" \u00a0", true),
            (" \u{a0}", true),
            ("a", false),
            (" a", false),
            (r"\t.", false),
        ] {
            assert_eq!(is_blank(text(raw)), blank, "{raw}");
        }
    }

    #[test]
    fn equal_texts_have_one_canonical_spelling() {
        let spell = |raw| {
            let mut out = Vec::new();
            canonical_string(&mut out, text(raw));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(spell(r"a\/b"), spell("a/b"));
        assert_eq!(spell(r"\u0061\u002fb"), spell("a/b"));
        assert_eq!(spell(r#"\"\\\u0001\t"#), r#""\"\\\u0001\t""#);
    }

    #[test]
    fn long_strings_are_cut_between_characters() {
        for (raw, most, want, cut) in [
            ("ééé", 3, "\"ééé\"", false),
            ("ééé", 2, "\"éé\"", true),
            (r"a\nb", 3, r#""a\nb""#, false),
            (r"a\nb", 2, r#""a\n""#, true),
        ] {
            let mut out = Vec::new();
            let written = string_within(&mut out, text(raw), most);
            assert_eq!((written.cut, written.replaced), (cut, false), "{raw}");
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn whole_numbers_are_known_by_their_text() {
        for (given, want) in [
            ("0", Some("0")),
            ("-12", Some("-12")),
            ("-0.0", Some("0")),
            ("1760000000000.000", Some("1760000000000")),
            (" 42 ", Some("42")),
            ("9223372036854775807", Some("9223372036854775807")),
            ("9223372036854775808", None),
            ("1.5", None),
            ("1e3", None),
            ("007", None),
            ("", None),
            ("-", None),
            ("2026-11-20", None),
        ] {
            assert_eq!(integer(given), want, "{given}");
        }
    }

    #[test]
    fn booleans_and_uuids_are_checked() {
        for (given, want) in [
            ("Yes", Some("true")),
            ("FALSE", Some("false")),
            ("0", Some("false")),
            ("Y", Some("true")),
            ("n", Some("false")),
            ("T", Some("true")),
            ("f", Some("false")),
            ("On", Some("true")),
            (" off ", Some("false")),
            ("maybe", None),
            ("", None),
        ] {
            assert_eq!(boolean(given), want, "{given}");
        }
        assert!(is_uuid("84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E"));
        assert!(!is_uuid("84E1B361-A282-4ADF-8A6D-1D31E6DD5A9"));
        assert!(!is_uuid("84E1B361xA282-4ADF-8A6D-1D31E6DD5A9E"));
    }
}
