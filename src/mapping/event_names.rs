//! How many different names the events of a delivery have.
//!
//! mParticle takes a thousand of them in a workspace, and drops events with further names without a word:
//! a column of urls or ids that was tagged as the name uses them up with one delivery.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::quality::FixedState;

/// Characters of a name that are shown.
const MOST_SHOWN: usize = 40;
/// Names that are shown.
pub(super) const MOST_COMMON: usize = 5;

/// Names by their hash, so that memory depends on their number only; that is bounded. Whoever makes two
/// names with the same hash has them counted as one.
#[derive(Clone, Debug, Default)]
pub struct EventNames {
    seen: HashMap<u64, Seen, BuildHasherDefault<Hashed>>,
    /// There were more than were to be counted.
    beyond: bool,
}

/// Of a number that is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(8) ^ hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
struct Seen {
    events: u64,
    /// Its beginning.
    shown: Box<str>,
}

impl EventNames {
    /// Counts an event whose name is this JSON string; no more names than `most`.
    pub(super) fn add(&mut self, literal: &[u8], most: usize) {
        let hash = FixedState::default().hash_one(literal);
        if let Some(seen) = self.seen.get_mut(&hash) {
            seen.events += 1;
        } else if self.seen.len() < most {
            let shown = shown(literal);
            self.seen.insert(hash, Seen { events: 1, shown });
        } else {
            self.beyond = true;
        }
    }

    /// How many different names there were; no more than were to be counted.
    pub fn distinct(&self) -> usize {
        self.seen.len()
    }

    /// Whether there were more names than were to be counted.
    pub fn is_beyond(&self) -> bool {
        self.beyond
    }

    /// The names that most events have, and how many. Long names are cut.
    pub fn most_common(&self) -> Vec<(&str, u64)> {
        let seen = self.seen.values();
        let mut all: Vec<_> = seen.map(|seen| (&*seen.shown, seen.events)).collect();
        all.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
        all.truncate(MOST_COMMON);
        all
    }
}

fn shown(literal: &[u8]) -> Box<str> {
    let name: String = serde_json::from_slice(literal).unwrap_or_default();
    match name.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()).into(),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_up_to_a_bound_and_the_most_common_come_first() {
        let mut names = EventNames::default();
        for row in 0..100 {
            let name = match row % 10 {
                0..5 => "\"Viewed\"".to_owned(),
                5..9 => "\"Bought \\u00e9\"".to_owned(),
                _ => format!("\"{}{row}\"", "n".repeat(60)),
            };
            names.add(name.as_bytes(), 12);
        }
        assert_eq!(names.distinct(), 12);
        assert!(!names.is_beyond());
        let common = names.most_common();
        assert_eq!(common[..2], [("Viewed", 50), ("Bought é", 40)]);
        assert_eq!(common.len(), MOST_COMMON);
        assert_eq!(common[2].0.chars().count(), 41);
        names.add(b"\"Viewed\"", 12);
        assert!(!names.is_beyond());
        names.add(b"\"new\"", 12);
        assert!(names.is_beyond());
        assert_eq!(names.distinct(), 12);
    }
}
