//! Schedules as label values of metrics: their titles come from outside, and each is a series that
//! Prometheus keeps for weeks.

use std::collections::BTreeMap;

use super::view::Schedule;
use crate::clock::UnixMillis;
use crate::harmless::harmless;

/// Series of one family. A Looker with more schedules for mParticle than this is rare; what is sent
/// once under a title of its own falls out first.
const MOST: usize = 100;

/// Characters of a title in a label.
const LONGEST: usize = 100;

/// Schedules that are shown, by label value, and how many are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Deliveries on record, and when the newest of them was received.
    pub schedules: BTreeMap<String, (u64, UnixMillis)>,
    pub left_out: usize,
}

/// Titles that look the same in a label count as one. Of too many, those with the most deliveries on
/// record are shown, and of equals the newest.
pub(super) fn shown(all: Vec<Schedule>) -> Shown {
    let mut schedules: BTreeMap<String, (u64, UnixMillis)> = BTreeMap::new();
    for schedule in all {
        let (deliveries, newest) = schedules.entry(label(&schedule.title)).or_default();
        *deliveries += schedule.deliveries;
        *newest = (*newest).max(schedule.newest);
    }
    let left_out = schedules.len().saturating_sub(MOST);
    if left_out > 0 {
        let mut ranked: Vec<_> = schedules.into_iter().collect();
        ranked.sort_by(|(_, one), (_, other)| other.cmp(one));
        ranked.truncate(MOST);
        schedules = ranked.into_iter().collect();
    }
    Shown {
        schedules,
        left_out,
    }
}

/// A label without a value is none, and one that hides or turns the text around it can pass for
/// another.
fn label(title: &str) -> String {
    let visible: String = title.trim().chars().take(LONGEST).collect();
    let label = harmless(&visible);
    if label.is_empty() {
        "(untitled)".to_owned()
    } else {
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(title: &str, deliveries: u64, newest: u64) -> Schedule {
        Schedule {
            title: title.to_owned(),
            deliveries,
            newest: UnixMillis(newest),
        }
    }

    #[test]
    fn titles_become_bounded_labels_and_those_that_look_alike_are_one() {
        let long = "t".repeat(5_000);
        let shown = shown(vec![
            schedule("Daily", 3, 10),
            schedule(" Daily ", 2, 20),
            schedule("", 1, 5),
            schedule("a\u{202e}b\nc", 1, 6),
            schedule(&long, 1, 7),
            schedule(&format!("{long}x"), 1, 8),
        ]);
        assert_eq!(shown.left_out, 0);
        let shown: Vec<_> = shown.schedules.into_iter().collect();
        let want = [
            ("(untitled)", 1, 5),
            ("Daily", 5, 20),
            ("a\u{fffd}b\u{fffd}c", 1, 6),
            (&long[..LONGEST], 2, 8),
        ];
        let want = want.map(|(name, count, at)| (name.to_owned(), (count, UnixMillis(at))));
        assert_eq!(shown, want);
    }

    #[test]
    fn of_too_many_those_with_the_most_deliveries_are_shown() {
        let once = (0..500).map(|n| schedule(&format!("sent once {n}"), 1, 1_000 + n));
        let real = (0..60).map(|n| schedule(&format!("nightly {n}"), 9, n));
        let shown = shown(once.chain(real).collect());
        assert_eq!((shown.schedules.len(), shown.left_out), (MOST, 460));
        let nightly = shown
            .schedules
            .keys()
            .filter(|name| name.starts_with("nightly"));
        assert_eq!(nightly.count(), 60);
        assert!(shown.schedules.contains_key("sent once 499"));
        assert!(!shown.schedules.contains_key("sent once 0"));
    }
}
