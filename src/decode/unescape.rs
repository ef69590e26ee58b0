//! A JSON string's content, and base64 in it, resolved piece by piece.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::plain::plain_run;
use super::scan::{Fault, Stuck};

/// Resolves the escapes of one JSON string, cut anywhere. A surrogate without its partner becomes
/// U+FFFD: it has no UTF-8 form.
#[derive(Debug, Default)]
pub(super) struct Unescape {
    state: State,
    /// A high surrogate that waits for its low one.
    high: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Plain,
    Backslash,
    Hex {
        unit: u32,
        left: u8,
    },
}

impl Unescape {
    /// Appends what `bytes` mean to `out`; stops behind the closing quote. Returns the bytes used
    /// and whether the string has ended. `raw_breaks` lets raw line breaks pass, which JSON does
    /// not allow.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        raw_breaks: bool,
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Stuck> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Plain => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let run = rest.get(..plain_run(rest)).unwrap_or_default();
                    if run.is_empty() {
                        match byte {
                            b'\\' => self.state = State::Backslash,
                            b'"' => {
                                self.end_pair(out);
                                return Ok((at + 1, true));
                            }
                            b'\n' | b'\r' if raw_breaks => {
                                self.end_pair(out);
                                out.push(byte);
                            }
                            _ => return stuck(at, Fault::Control),
                        }
                        at += 1;
                    } else {
                        self.end_pair(out);
                        out.extend_from_slice(run);
                        at += run.len();
                    }
                    continue;
                }
                State::Backslash => self.escape(byte, out),
                State::Hex { unit, left } => (byte as char).to_digit(16).map(|digit| {
                    let unit = unit << 4 | digit;
                    match left {
                        1 => {
                            self.state = State::Plain;
                            self.unit(unit, out);
                        }
                        _ => {
                            let left = left - 1;
                            self.state = State::Hex { unit, left };
                        }
                    }
                }),
            }
            .ok_or(Stuck {
                at,
                fault: Fault::Escape,
            })?;
            at += 1;
        }
        Ok((at, false))
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<()> {
        let meant = match byte {
            b'u' => {
                self.state = State::Hex { unit: 0, left: 4 };
                return Some(());
            }
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return None,
        };
        self.state = State::Plain;
        self.end_pair(out);
        out.push(meant);
        Some(())
    }

    /// A UTF-16 unit from `\uXXXX`.
    fn unit(&mut self, unit: u32, out: &mut Vec<u8>) {
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..0xE000) => {
                push_char(0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00), out);
            }
            (high, _) => {
                self.high = high;
                self.end_pair(out);
                match unit {
                    0xD800..0xDC00 => self.high = Some(unit),
                    _ => push_char(unit, out),
                }
            }
        }
    }

    /// What follows is not a low surrogate.
    fn end_pair(&mut self, out: &mut Vec<u8>) {
        if self.high.take().is_some() {
            push_char(0xFFFD, out);
        }
    }
}

fn push_char(code: u32, out: &mut Vec<u8>) {
    let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn stuck<T>(at: usize, fault: Fault) -> Result<T, Stuck> {
    Err(Stuck { at, fault })
}

/// The standard alphabet; the padding may be missing, line breaks may stand anywhere.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// Characters that are not decoded yet.
    waiting: Vec<u8>,
    padded: bool,
}

/// The text is not base64.
#[derive(Debug)]
pub(super) struct NotBase64;

impl Base64 {
    /// Appends what `text` means to `out`, without an incomplete group of four.
    pub(super) fn feed(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        let characters = text.iter().filter(|byte| !byte.is_ascii_whitespace());
        self.waiting.extend(characters);
        let whole = self.waiting.len() / 4 * 4;
        self.decode(whole, out)
    }

    /// The last, incomplete group.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), NotBase64> {
        self.decode(self.waiting.len(), out)
    }

    fn decode(&mut self, count: usize, out: &mut Vec<u8>) -> Result<(), NotBase64> {
        let group = self.waiting.get(..count).unwrap_or_default();
        // Padding ends the text, so nothing may come after a group that has it.
        if self.padded && !group.is_empty() {
            return Err(NotBase64);
        }
        self.padded |= group.last() == Some(&b'=');
        BASE64.decode_vec(group, out).map_err(|_| NotBase64)?;
        self.waiting.drain(..count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves `raw` (without its quotes) cut at every `size` bytes.
    fn unescape(raw: &str, size: usize) -> Result<String, Fault> {
        let mut unescape = Unescape::default();
        let mut out = Vec::new();
        let text = format!("{raw}\"");
        let mut ended = false;
        for chunk in text.as_bytes().chunks(size) {
            assert!(!ended);
            let (used, end) = unescape
                .feed(chunk, false, &mut out)
                .map_err(|stuck| stuck.fault)?;
            assert_eq!(used, chunk.len());
            ended = end;
        }
        assert!(ended);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn escapes_are_resolved_wherever_they_are_cut() {
        for (raw, want) in [
            ("", ""),
            ("plain é 😀", "plain é 😀"),
            (r#"\"\\\/\b\f\n\r\t\u0041\u00e9"#, "\"\\/\u{8}\u{c}\n\r\tAé"),
            (r"a\ud83d\ude00b", "a😀b"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ud83d\n", "\u{fffd}\n"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ude00", "\u{fffd}"),
        ] {
            for size in 1..=raw.len() + 1 {
                assert_eq!(unescape(raw, size).unwrap(), want, "{raw} by {size}");
            }
        }
    }

    #[test]
    fn what_json_does_not_allow_in_a_string_is_refused() {
        for (raw, want) in [
            (r"\x", Fault::Escape),
            (r"\u00g0", Fault::Escape),
            ("\n", Fault::Control),
            ("a\u{1}", Fault::Control),
        ] {
            for size in [1, 2, 100] {
                assert_eq!(unescape(raw, size), Err(want), "{raw:?}");
            }
        }
    }

    fn base64(text: &str, size: usize) -> Option<Vec<u8>> {
        let mut base64 = Base64::default();
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            base64.feed(chunk, &mut out).ok()?;
        }
        base64.finish(&mut out).ok()?;
        Some(out)
    }

    #[test]
    fn base64_is_decoded_wherever_it_is_cut() {
        for (text, want) in [
            ("", Some("")),
            ("eyJhIjoxfQ==", Some("{\"a\":1}")),
            ("eyJhIjoxfQ==\n", Some("{\"a\":1}")),
            ("eyJh\nIjox\r\n fQ", Some("{\"a\":1}")),
            ("eyJhIjoxfQ==eyJh", None),
            ("eyJh!joxfQ==", None),
            ("eyJhI", None),
            ("=", None),
        ] {
            for size in 1..=text.len().max(1) {
                let want = want.map(|want| want.as_bytes().to_vec());
                assert_eq!(base64(text, size), want, "{text} by {size}");
            }
        }
    }
}
