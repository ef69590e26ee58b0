//! What a person may have meant.

use super::tags::TAGS;

/// The tag that is spelled most like `wrong`; `None` when nothing is near.
pub fn nearest_tag(wrong: &str) -> Option<&'static str> {
    let wrong = wrong.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    nearest(&wrong, TAGS.iter().map(|(tag, _)| *tag))
}

/// The one of `known` that is spelled most like `wrong`; `None` when nothing is near.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, word) = known.map(|word| (distance(wrong, word), word)).min()?;
    // Further away, half of the word would be another one.
    (distance <= 1 + word.len() / 6).then_some(word)
}

/// Levenshtein's: letters to insert, remove or replace.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.chars().enumerate() {
        let mut left = at + 1;
        let mut diagonal = at;
        for (other, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(*other != letter);
            diagonal = *cell;
            *cell = replaced.min(left + 1).min(*cell + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_book() {
        for (from, to, want) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("same", "same", 0),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(from, to), want, "{from} {to}");
        }
    }

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        for (wrong, want) in [
            ("mp_custmer_id", Some("mp_customer_id")),
            ("mp_customerid", Some("mp_customer_id")),
            ("mp-email", Some("mp_email")),
            ("mp_Email", Some("mp_email")),
            ("mp_other_2", Some("mp_other2")),
            ("mp_timestamp_unixtime", Some("mp_timestamp_unixtime_ms")),
            ("mp_something_else", None),
            ("mp_", None),
        ] {
            assert_eq!(nearest_tag(wrong), want, "{wrong}");
        }
    }
}
