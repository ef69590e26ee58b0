//! Dead letters and rejected rows by reason: a thousand refusals are most often one mistake. Pure.

use std::collections::BTreeMap;

use super::view::{DeadLetter, ReasonGroup};

/// Longest name of a group, in characters.
const LONGEST: usize = 160;

/// Groups that are told apart; what comes after falls into the last one.
const MOST: usize = 200;

/// The name of what could not be told apart.
const OTHERS: &str = "(other reasons)";

/// The reason without what differs from one batch to the next: quoted values, numbers of more than
/// three digits (statuses have three), ids. Two letters of one group have the same.
pub fn key(reason: &str) -> String {
    let mut key = String::with_capacity(reason.len().min(LONGEST));
    let words = reason.split_inclusive([' ', '\n', '\t']);
    let mut quote = None;
    for word in words {
        if key.chars().count() >= LONGEST {
            key.push('…');
            break;
        }
        let bare = word.trim();
        if let Some(end) = quote {
            if bare
                .trim_end_matches(['.', ',', ';', ':', ')'])
                .ends_with(end)
            {
                quote = None;
            }
            continue;
        }
        let trimmed = bare.trim_end_matches(['.', ',', ';', ':', ')']);
        match bare.chars().next() {
            Some(mark @ ('"' | '“')) => {
                let end = if mark == '“' { '”' } else { '"' };
                if trimmed.chars().count() < 2 || !trimmed.ends_with(end) {
                    quote = Some(end);
                }
                key.push_str("… ");
            }
            _ if varies(trimmed) => key.push_str("… "),
            _ => {
                key.push_str(bare);
                key.push(' ');
            }
        }
    }
    key.trim_end().to_owned()
}

/// A number of more than three digits, or an id.
fn varies(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let all = word.chars().count();
    digits > 3 && (digits == all || all >= 8 || word.contains(','))
}

/// What was gathered so far.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_key: BTreeMap<String, ReasonGroup>,
}

impl Groups {
    /// Counts a dead letter.
    pub fn letter(&mut self, letter: &DeadLetter) {
        let group = self.group(&letter.reason, &letter.delivery, &letter.title);
        group.count += 1;
        group.rows += letter.rows;
        group.example_id.get_or_insert_with(|| letter.id.clone());
        group.newest = group.newest.max(Some(letter.last_try));
    }

    /// Counts a rejected row.
    pub fn row(&mut self, reason: &str, text: &str, delivery: &str, title: &str) {
        let group = self.group(reason, delivery, title);
        group.count += 1;
        group.rows += 1;
        group.example_text.get_or_insert_with(|| text.to_owned());
    }

    fn group(&mut self, reason: &str, delivery: &str, title: &str) -> &mut ReasonGroup {
        let mut key = key(reason);
        if self.by_key.len() >= MOST && !self.by_key.contains_key(&key) {
            OTHERS.clone_into(&mut key);
        }
        let group = self
            .by_key
            .entry(key.clone())
            .or_insert_with(|| ReasonGroup {
                reason: key,
                example: reason.to_owned(),
                ..ReasonGroup::default()
            });
        if !group.deliveries.iter().any(|(id, _)| id == delivery) {
            group.delivery_count += 1;
            if group.deliveries.len() < ReasonGroup::DELIVERIES {
                group
                    .deliveries
                    .push((delivery.to_owned(), title.to_owned()));
            }
        }
        group
    }

    /// The groups, the largest first.
    pub fn ended(self) -> Vec<ReasonGroup> {
        let mut groups: Vec<_> = self.by_key.into_values().collect();
        groups.sort_by(|one, other| (other.count, &one.reason).cmp(&(one.count, &other.reason)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_batch_to_batch_is_left_out_and_what_tells_reasons_apart_is_not() {
        for (reason, want) in [
            (
                "rejected with status 400: BAD_REQUEST: the request holds the marker unlucky",
                "rejected with status 400: BAD_REQUEST: the request holds the marker unlucky",
            ),
            (
                "rejected with status 400: the id \"a b 17\" is not a number",
                "rejected with status 400: the id … is not a number",
            ),
            ("row 123456 of 1,234,567", "row … of …"),
            ("batch 0198f0c0aa11 is gone", "batch … is gone"),
            ("“one” and “two words” differ", "… and … differ"),
            ("events[12] is wrong", "events[12] is wrong"),
            ("an open \"quote that never ends", "an open …"),
            ("", ""),
        ] {
            assert_eq!(key(reason), want);
        }
        assert!(key(&"word ".repeat(10_000)).chars().count() <= LONGEST + 6);
    }

    #[test]
    fn groups_are_counted_and_the_largest_comes_first() {
        let letter = |n: u64, reason: &str| DeadLetter {
            id: format!("{n}"),
            delivery: format!("d{}", n % 2),
            title: "Daily".to_owned(),
            reason: reason.to_owned(),
            rows: 2,
            ..DeadLetter::default()
        };
        let mut groups = Groups::default();
        groups.letter(&letter(1, "rare"));
        for n in 0..5 {
            groups.letter(&letter(n, &format!("user {} unknown", 10_000 + n)));
        }
        let groups = groups.ended();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].reason, "user … unknown");
        assert_eq!((groups[0].count, groups[0].rows), (5, 10));
        assert_eq!(groups[0].delivery_count, 2);
        assert_eq!(groups[0].example, "user 10000 unknown");
        assert_eq!(groups[1].example_id.as_deref(), Some("1"));
    }

    #[test]
    fn too_many_reasons_are_counted_together() {
        let mut groups = Groups::default();
        for n in 0..1_000_u32 {
            let name: String = n
                .to_string()
                .chars()
                .map(|c| (c as u8 + 50) as char)
                .collect();
            groups.row(&name, "", "d", "t");
        }
        let groups = groups.ended();
        assert_eq!(groups.len(), MOST + 1);
        assert_eq!((&*groups[0].reason, groups[0].count), (OTHERS, 800));
    }
}
