//! JSON numbers by their value: read from their digits, never by way of a double, which would round.
//!
//! A warehouse's column of ids that has once been a float comes as `4653.0` or `3.241201784E9`. As text
//! these are other ids than `4653` and `3241201784`; as values they are the same.

use std::borrow::Cow;

/// Digits before the point of the largest double.
const MOST_WHOLE_DIGITS: i64 = 309;

/// A JSON number, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number<'a> {
    pub(super) negative: bool,
    /// Digits in front of the point and behind it, as they are written.
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Number<'a> {
    /// Reads a literal; `None`: it is not a number by JSON's grammar.
    pub(super) fn read(literal: &'a str) -> Option<Self> {
        // Times and ids: nothing to take apart.
        if matches!(literal.as_bytes(), [b'1'..=b'9', ..]) && is_plain(literal) {
            return Some(Self {
                negative: false,
                whole: literal,
                fraction: "",
                exponent: 0,
            });
        }
        let (mantissa, exponent) = match literal.find(['e', 'E']) {
            Some(at) => (literal.get(..at)?, read_exponent(literal.get(at + 1..)?)?),
            None => (literal, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let starts_well = whole == "0" || !(whole.is_empty() || whole.starts_with('0'));
        (starts_well && are_digits(whole) && are_digits(fraction)).then_some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    fn digits(self) -> impl DoubleEndedIterator<Item = u8> + 'a {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    /// How many of the digits stand in front of the point once the exponent is taken into account;
    /// negative: that many zeros stand between the point and the first digit.
    fn point(self) -> i64 {
        (self.whole.len() as i64).saturating_add(self.exponent)
    }

    fn is_zero(self) -> bool {
        self.digits().all(|digit| digit == b'0')
    }

    /// Whether it means a number to those who read it as a double: not `1e999`, which is one by
    /// JSON's grammar only.
    pub(super) fn is_finite(self) -> bool {
        let zeros = self.digits().take_while(|digit| *digit == b'0').count();
        let length = self.point().saturating_sub(zeros as i64);
        if length < MOST_WHOLE_DIGITS || self.is_zero() {
            return true;
        }
        let text = format!("{}.{}e{}", self.whole, self.fraction, self.exponent);
        length == MOST_WHOLE_DIGITS && text.parse::<f64>().is_ok_and(f64::is_finite)
    }

    /// Whether there is nothing but zeros behind the point.
    pub(super) fn is_integral(self) -> bool {
        let count = self.whole.len() + self.fraction.len();
        let kept = usize::try_from(self.point()).unwrap_or(0).min(count);
        self.digits()
            .rev()
            .take(count - kept)
            .all(|digit| digit == b'0')
    }

    /// The digits in front of the point, without zeros at their start; none for a number between -1 and 1.
    fn whole_digits(self) -> impl Iterator<Item = u8> + 'a {
        let point = usize::try_from(self.point()).unwrap_or(0);
        self.digits()
            .chain(std::iter::repeat(b'0'))
            .take(point)
            .skip_while(|digit| *digit == b'0')
    }

    /// The number without what stands behind its point, if 64 bits hold it.
    pub(super) fn truncated(self) -> Option<i64> {
        // Too short to pass 64 bits.
        if self.exponent == 0 && self.whole.len() < 19 {
            let value: i64 = self.whole.parse().ok()?;
            return Some(if self.negative { -value } else { value });
        }
        if self.is_zero() {
            return Some(0);
        }
        let mut value: i64 = 0;
        for digit in self.whole_digits() {
            let digit = i64::from(digit - b'0');
            let digit = if self.negative { -digit } else { digit };
            value = value.checked_mul(10)?.checked_add(digit)?;
        }
        Some(value)
    }

    /// The first three digits behind the point.
    pub(super) fn thousandths(self) -> i64 {
        let point = self.point();
        let zeros = usize::try_from(point.saturating_neg()).unwrap_or(0);
        let behind = usize::try_from(point).unwrap_or(0);
        std::iter::repeat_n(b'0', zeros)
            .chain(self.digits().skip(behind))
            .chain(*b"000")
            .take(3)
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    }
}

/// The exponent; one that is longer than any that makes a difference is as large as can be.
fn read_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -size } else { size })
}

/// Whether a literal consists of digits that need nothing done: nearly all ids are like this.
fn is_plain(literal: &str) -> bool {
    let plain = literal.bytes().all(|byte| byte.is_ascii_digit());
    plain && literal.len() < MOST_WHOLE_DIGITS as usize
}

/// Writes a JSON number as text by its value: an integral one as its digits, another as it stands.
/// `false` and nothing for one that no double holds.
pub(super) fn push_text(out: &mut Vec<u8>, literal: &str) -> bool {
    if is_plain(literal) {
        out.extend_from_slice(literal.as_bytes());
        return true;
    }
    let Some(number) = Number::read(literal).filter(|number| number.is_finite()) else {
        return false;
    };
    if !number.is_integral() {
        out.extend_from_slice(literal.as_bytes());
        return true;
    }
    if number.is_zero() {
        out.push(b'0');
        return true;
    }
    if number.negative {
        out.push(b'-');
    }
    out.extend(number.whole_digits());
    true
}

/// A JSON number as [`push_text`] writes it; `None` for one that no double holds.
pub(super) fn text(literal: &str) -> Option<Cow<'_, str>> {
    if is_plain(literal) {
        return Some(Cow::Borrowed(literal));
    }
    let mut out = Vec::new();
    push_text(&mut out, literal).then(|| String::from_utf8_lossy(&out).into_owned().into())
}

/// A literal of up to 18 digits that does not begin with 0, as times and ids are: at a glance.
#[inline]
pub(super) fn short_whole(literal: &[u8]) -> Option<i64> {
    if !(1..=18).contains(&literal.len()) || literal.first() == Some(&b'0') {
        return None;
    }
    literal
        .iter()
        .try_fold(0, |value, byte| match byte.wrapping_sub(b'0') {
            digit @ 0..10 => Some(value * 10 + i64::from(digit)),
            _ => None,
        })
}

/// A JSON number that is whole and fits 64 bits.
pub(super) fn integer(literal: &str) -> Option<i64> {
    if let Some(value) = short_whole(literal.as_bytes()) {
        return Some(value);
    }
    let number = Number::read(literal)?;
    // Bounds what is looked at, should the exponent be huge.
    if !number.is_integral() || (!number.is_zero() && number.point() > MOST_WHOLE_DIGITS) {
        return None;
    }
    number.truncated()
}

/// Whether a JSON number means one to those who read it as a double.
#[inline]
pub(super) fn is_finite(literal: impl AsRef<[u8]>) -> bool {
    let literal = literal.as_ref();
    let short = literal.len() < 300 && !literal.iter().any(|byte| byte | 0x20 == b'e');
    short || is_long_finite(literal)
}

#[cold]
fn is_long_finite(literal: &[u8]) -> bool {
    let number = std::str::from_utf8(literal).ok().and_then(Number::read);
    number.is_some_and(Number::is_finite)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_short_whole_number_is_read_as_by_the_standard_library(text in "[1-9][0-9]{0,20}|[0-9/:é]{0,19}") {
            let want = match text.len() <= 18 && !text.starts_with('0') && !text.is_empty() {
                true => text.parse().ok(),
                false => None,
            };
            prop_assert_eq!(short_whole(text.as_bytes()), want);
        }
    }

    #[test]
    fn a_number_becomes_text_by_its_value() {
        let zeros = "0".repeat(400);
        let nines = "9".repeat(309);
        let long = format!("{zeros}1").replacen('0', "0.", 1);
        for (literal, want) in [
            ("4653", Some("4653")),
            ("4653.0", Some("4653")),
            ("4653.000", Some("4653")),
            ("3.241201784E9", Some("3241201784")),
            ("3.241201784e+9", Some("3241201784")),
            ("12345678901234567890", Some("12345678901234567890")),
            ("12345678901234567890.0", Some("12345678901234567890")),
            ("1234567890123456789e1", Some("12345678901234567890")),
            ("1E+2", Some("100")),
            ("100e-2", Some("1")),
            ("-5.0", Some("-5")),
            ("-0", Some("0")),
            ("-0.0", Some("0")),
            ("0e7", Some("0")),
            ("0e999999999999999999999", Some("0")),
            ("0.5e1", Some("5")),
            ("0.0005e4", Some("5")),
            // Others keep their digits.
            ("1.10", Some("1.10")),
            ("0.30000000000000004", Some("0.30000000000000004")),
            ("15e-1", Some("15e-1")),
            ("1e-999999999999999999999", Some("1e-999999999999999999999")),
            (long.as_str(), Some(long.as_str())),
            ("1e400", None),
            ("-1e400", None),
            ("1e999999999999999999999", None),
            (nines.as_str(), None),
        ] {
            assert_eq!(text(literal).as_deref(), want, "{literal}");
            assert_eq!(is_finite(literal), want.is_some(), "{literal}");
        }
        assert_eq!(text("1e308").map(|text| text.len()), Some(309));
    }

    #[test]
    fn integers_are_whole_and_have_64_bits() {
        for (literal, want) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("1760000000000.000", Some(1_760_000_000_000)),
            ("1.76e12", Some(1_760_000_000_000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.5", None),
            ("1e400", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(integer(literal), want, "{literal}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_none() {
        for text in [
            "", "-", "+1", "007", "1.", ".5", "1e", "1e+", "0x1", "NaN", "1 ", "1_0",
        ] {
            assert_eq!(Number::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_parts_around_the_point_are_those_of_the_value() {
        for (literal, whole, thousandths) in [
            ("1760000000.1239", 1_760_000_000, 123),
            ("1760000000.5", 1_760_000_000, 500),
            ("-1760000000.5", -1_760_000_000, 500),
            ("17600000005e-1", 1_760_000_000, 500),
            ("1.7600000005e9", 1_760_000_000, 500),
            ("5e-3", 0, 5),
            ("5e-4", 0, 0),
            ("0.0", 0, 0),
        ] {
            let number = Number::read(literal).unwrap();
            assert_eq!(number.truncated(), Some(whole), "{literal}");
            assert_eq!(number.thousandths(), thousandths, "{literal}");
        }
    }

    /// One value, spelled with its point anywhere and zeros at its end.
    fn spelled(digits: &str, shift: usize, zeros: usize) -> String {
        let at = digits.len() - shift.min(digits.len() - 1);
        let (whole, fraction) = digits.split_at(at);
        let fraction = format!("{fraction}{}", "0".repeat(zeros));
        match fraction.as_str() {
            "" => format!("{whole}e0"),
            fraction => format!("{whole}.{fraction}E{}", digits.len() - at),
        }
    }

    proptest! {
        #[test]
        fn all_spellings_of_an_integer_are_one_text(
            digits in "[1-9][0-9]{0,30}",
            shift in 0..31usize,
            zeros in 0..5usize,
            negative in any::<bool>(),
        ) {
            let sign = if negative { "-" } else { "" };
            let literal = format!("{sign}{}", spelled(&digits, shift, zeros));
            let want = format!("{sign}{digits}");
            let spelled = text(&literal);
            prop_assert_eq!(spelled.as_deref(), Some(want.as_str()), "{}", literal);
            prop_assert_eq!(integer(&literal), want.parse().ok());
        }

        #[test]
        fn what_a_double_says_is_what_the_digits_say(value in any::<f64>()) {
            prop_assume!(value.is_finite());
            let literal = serde_json::Value::from(value).to_string();
            let number = Number::read(&literal).unwrap();
            prop_assert!(number.is_finite());
            prop_assert_eq!(number.is_integral(), value.fract() == 0.0, "{}", literal);
            if value.abs() < 9e15 {
                prop_assert_eq!(number.truncated(), Some(value.trunc() as i64));
            }
        }
    }
}
