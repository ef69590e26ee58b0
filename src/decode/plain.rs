//! What can be read of JSON at a glance: runs of plain text, and members without parts.

use wide::{u8x16, u8x32};

/// Bytes that are looked at at a time: most values are shorter, and where a loop ends is dear to guess.
const BLOCK: usize = 32;
/// The same of digits, of which there are seldom more.
const DIGITS: usize = 16;

/// How many bytes stand before the first quote, backslash or control character; all, when none does.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    match bytes.first_chunk().and_then(first_special) {
        Some(place) => place,
        None => long_plain_run(bytes),
    }
}

#[inline(never)]
fn long_plain_run(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks();
    for (index, block) in blocks.iter().enumerate() {
        if let Some(place) = first_special(block) {
            return index * BLOCK + place;
        }
    }
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    bytes.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

#[inline]
fn first_special(block: &[u8; BLOCK]) -> Option<usize> {
    let block = u8x32::new(*block);
    let control = block.min(u8x32::splat(0x1f)).simd_eq(block);
    let special = block.simd_eq(b'"') | block.simd_eq(b'\\') | control;
    let flags = special.to_bitmask();
    (flags != 0).then_some(flags.trailing_zeros() as usize)
}

/// How many digits the bytes begin with.
#[inline]
pub(super) fn digit_run(bytes: &[u8]) -> usize {
    match bytes.first_chunk::<DIGITS>().map(|block| digits_of(*block)) {
        Some(count) if count < DIGITS => count,
        _ => long_digit_run(bytes),
    }
}

#[inline(never)]
fn long_digit_run(bytes: &[u8]) -> usize {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.count()
}

#[inline]
fn digits_of(block: [u8; DIGITS]) -> usize {
    let value = u8x16::new(block) - u8x16::splat(b'0');
    let digits = value.min(u8x16::splat(9)).simd_eq(value);
    digits.to_bitmask().trailing_ones() as usize
}

/// How long the member is that `bytes` begin with, if it is a plain one
/// whose key does not matter, and has ended: a list of strings is the most that its value is.
pub(super) fn plain_member(bytes: &[u8], matters: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let (key, rest) = plain_string(bytes)?;
    // Whether a key is UTF-8 is for others to say.
    if !key.is_ascii() || matters(key) {
        return None;
    }
    let value = rest.strip_prefix(b":")?;
    let rest = match value.first()? {
        b'"' => plain_string(value)?.1,
        b'n' => value.strip_prefix(b"null")?,
        b't' => value.strip_prefix(b"true")?,
        b'f' => value.strip_prefix(b"false")?,
        b'0' => value.strip_prefix(b"0")?,
        b'1'..=b'9' => value.get(digit_run(value)..)?,
        b'[' => plain_list(value)?,
        b'{' => value.strip_prefix(b"{}")?,
        _ => return None,
    };
    matches!(rest.first()?, b',' | b'}').then_some(bytes.len() - rest.len())
}

/// What stands behind the list that `bytes` begin with, if it is whole and of plain strings.
fn plain_list(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"[")?;
    if let Some(behind) = rest.strip_prefix(b"]") {
        return Some(behind);
    }
    loop {
        (_, rest) = plain_string(rest)?;
        match rest.split_first()? {
            (b',', more) => rest = more,
            (b']', behind) => return Some(behind),
            _ => return None,
        }
    }
}

/// The string that `bytes` begin with, if it is whole and has no escapes, and what stands behind it.
fn plain_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = bytes.strip_prefix(b"\"")?;
    let (text, rest) = text.split_at_checked(plain_run(text))?;
    Some((text, rest.strip_prefix(b"\"")?))
}

/// The text of a row. A wrong one is looked at once more, for the place of the mistake.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, std::str::Utf8Error> {
    simdutf8::basic::from_utf8(bytes).or_else(|_| std::str::from_utf8(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_of_digits_ends_at_the_first_other_byte(
            mut bytes in proptest::collection::vec(b'0'..=b'9', 0..50),
            at in 0_usize..50,
            other: u8,
        ) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = other;
            }
            let want = bytes.iter().position(|byte| !byte.is_ascii_digit());
            prop_assert_eq!(digit_run(&bytes), want.unwrap_or(bytes.len()));
        }

        #[test]
        fn a_plain_run_ends_at_the_first_special_byte(
            mut bytes in proptest::collection::vec(0x1e_u8.., 0..100),
            at in 0_usize..100,
            special in proptest::sample::select(b"\"\\\x00\x1f".to_vec()),
        ) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = special;
            }
            let want = bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
            prop_assert_eq!(plain_run(&bytes), want.unwrap_or(bytes.len()));
        }
    }
}
