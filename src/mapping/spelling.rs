//! What a person may have meant.

use super::tags::{TAGS, tag as tag_of};
use crate::model::Field;

/// The tag that is spelled most like `wrong`; `None` when nothing is near.
pub fn nearest_tag(wrong: &str) -> Option<&'static str> {
    nearest(&normal(wrong), TAGS.iter().map(|(tag, _)| *tag))
}

/// Whether a tag begins like one of ours. Another may be meant for another tool.
fn may_be_ours(tag: &str) -> bool {
    normal(tag).starts_with("mp")
}

fn normal(tag: &str) -> String {
    tag.to_ascii_lowercase().replace(['-', ' ', '.', ':'], "_")
}

/// The first of a column's tags that is nearly one of ours, and that one.
pub(super) fn misspelt(field: &Field) -> Option<(&str, &'static str)> {
    let tags = field.tags.iter().map(|tag| tag.trim());
    tags.filter(|tag| tag_of(tag).is_none() && may_be_ours(tag))
        .find_map(|tag| Some((tag, nearest_tag(tag)?)))
}

/// What to say of a tag that is none, and of the one that was meant.
pub(super) fn not_a_tag(text: &str, meant: Option<&str>) -> String {
    let meant = meant.map(|meant| format!("; did you mean {meant}?"));
    let meant = meant.unwrap_or_default();
    format!("{text} is not a tag that looker-feed understands{meant}")
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
            ("MP_Customer_ID", Some("mp_customer_id")),
            ("mp-user-attribute", Some("mp_user_attribute")),
            ("mp_user_attributes", Some("mp_user_attribute")),
            ("MP User Attribute", Some("mp_user_attribute")),
            ("mpEmail", Some("mp_email")),
            ("mp_something_else", None),
            ("primary_key", None),
            ("mp_", None),
        ] {
            assert_eq!(nearest_tag(wrong), want, "{wrong}");
        }
        for (tag, ours) in [
            ("MP_Customer_ID", true),
            ("mp-x", true),
            ("customer_id", false),
        ] {
            assert_eq!(may_be_ours(tag), ours, "{tag}");
        }
    }
}
