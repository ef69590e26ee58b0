//! Text from outside, made harmless for whoever reads it: on a terminal, in a log, in a message.

/// Whether a terminal could obey a character, or a reader be deceived by it: controls, line and
/// paragraph separators, and what is invisible or turns or joins the text around it.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` with U+FFFD for each harmful character.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if is_harmful(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_hides_or_turns_is_replaced_and_letters_stay() {
        for harmful in [
            '\n',
            '\u{1b}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{2028}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{fffb}',
            '\u{e0041}',
        ] {
            assert_eq!(
                harmless(&format!("a{harmful}b")),
                "a\u{fffd}b",
                "{harmful:?}"
            );
        }
        let letters = "Zürich 東京 \u{5d0}\u{627} e\u{301} — “ok” 🙂";
        assert_eq!(harmless(letters), letters);
    }
}
