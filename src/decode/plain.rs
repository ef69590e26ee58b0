//! What can be read of JSON at a glance: runs of plain text, and members without parts.

use wide::u8x32;

/// How many bytes stand before the first quote, backslash or control character; all, when none
/// does. 32 bytes at a time: most values are shorter, and where a loop ends is dear to guess.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<32>();
    for (index, block) in blocks.iter().enumerate() {
        let block = u8x32::new(*block);
        let control = block.min(u8x32::splat(0x1f)).simd_eq(block);
        let special = block.simd_eq(b'"') | block.simd_eq(b'\\') | control;
        let flags = special.to_bitmask();
        if flags != 0 {
            return index * 32 + flags.trailing_zeros() as usize;
        }
    }
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    bytes.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// How long the member is that `bytes` begin with, the comma before it included, if it is a plain one
/// whose key does not matter, and has ended.
pub(super) fn plain_member(bytes: &[u8], matters: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let (key, rest) = plain_string(bytes.strip_prefix(b",")?)?;
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
        b'[' => value.strip_prefix(b"[]")?,
        b'{' => value.strip_prefix(b"{}")?,
        _ => return None,
    };
    matches!(rest.first()?, b',' | b'}').then_some(bytes.len() - rest.len())
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
