//! Words that stand for no identity.
//!
//! A warehouse that casts null to text, or a form that was sent empty, gives thousands of people the
//! id `null`. mParticle would make one profile of them all, which cannot be taken apart again.

/// What stands for no identity, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholders {
    words: Vec<Box<str>>,
    /// A bit for each length that a word has.
    lengths: u64,
}

impl Placeholders {
    /// Those that databases and programs write for none. (`nil` UUID: RFC 9562)
    pub const COMMON: [&'static str; 8] = [
        "null",
        "(null)",
        "[null]",
        "none",
        "undefined",
        "nan",
        "n/a",
        "00000000-0000-0000-0000-000000000000",
    ];
    /// A word's length must have a bit.
    pub const LONGEST: usize = 63;

    /// None at all.
    pub const NONE: Self = Self {
        words: Vec::new(),
        lengths: 0,
    };

    /// These words. Longer ones than [`Self::LONGEST`] bytes are never found.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let words: Vec<Box<str>> = words.into_iter().map(|word| word.trim().into()).collect();
        let lengths = words.iter().filter_map(|word| bit(word.len()));
        Self {
            lengths: lengths.fold(0, |all, bit| all | bit),
            words,
        }
    }

    /// Whether a text, white space around it left out, is one of them.
    #[inline]
    pub(super) fn has(&self, text: &[u8]) -> bool {
        if self.lengths == 0 {
            return false;
        }
        let text = text.trim_ascii();
        let may_be = bit(text.len()).is_some_and(|bit| self.lengths & bit != 0);
        may_be
            && self
                .words
                .iter()
                .any(|word| word.as_bytes().eq_ignore_ascii_case(text))
    }
}

fn bit(length: usize) -> Option<u64> {
    u32::try_from(length)
        .ok()
        .and_then(|length| 1u64.checked_shl(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_in_any_case_and_with_white_space_around_them() {
        let common = Placeholders::new(Placeholders::COMMON);
        for (text, is_one) in [
            ("null", true),
            ("NULL", true),
            (" Null ", true),
            ("N/A", true),
            ("NaN", true),
            ("(null)", true),
            ("00000000-0000-0000-0000-000000000000", true),
            ("00000000-0000-0000-0000-000000000001", false),
            ("nulls", false),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(common.has(text.as_bytes()), is_one, "{text}");
            assert!(!Placeholders::NONE.has(text.as_bytes()));
        }
        let own = Placeholders::new(["0", "-1", ""]);
        assert!(own.has(b"0") && own.has(b"-1") && own.has(b"") && !own.has(b"null"));
        let long = "x".repeat(64);
        assert!(!Placeholders::new([long.as_str()]).has(long.as_bytes()));
    }
}
