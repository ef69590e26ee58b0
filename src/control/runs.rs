//! The runs of each schedule: what is usual, what is expected next, and what is not as usual. Pure.

use std::collections::HashMap;

use super::issue::Standing;
use super::view::{Delivery, Run, ScheduleRuns, Schedules};
use crate::clock::UnixMillis;

/// Schedules that are told of; with titles that hold a date, each delivery is one of its own.
const MOST: usize = 200;

/// Runs of a schedule that are shown.
const SHOWN: usize = 20;

/// From so many runs on something is usual.
const ENOUGH: usize = 4;

/// An interval is regular when the intervals differ from the middle one by no more than this share
/// of it, three times out of four.
const REGULAR: f64 = 0.25;

/// A run is late after this share of the usual interval, and never within [`GRACE_MILLIS`].
const LATE: f64 = 0.1;
const GRACE_MILLIS: u64 = 10 * 60_000;

/// A row count is unusual when it differs from the middle of the runs before by more than this.
const UNUSUAL: f64 = 0.5;

/// The schedules among deliveries that are added one by one, the newest first; of each only what is
/// shown of it is kept. Schedules are told apart by title and destination.
#[derive(Default)]
pub(super) struct Runs {
    /// The place in `told` of each; `None`: it is not told of.
    names: HashMap<(String, String), Option<usize>>,
    told: Vec<Told>,
}

/// A schedule that is told of.
struct Told {
    newest: Delivery,
    deliveries: u64,
    /// At most one more than is shown.
    runs: Vec<Run>,
}

impl Runs {
    /// Adds a delivery that is not newer than those before.
    pub fn add(&mut self, delivery: Delivery) {
        let name = (delivery.title.clone(), delivery.destination.clone());
        let next = (self.told.len() < MOST).then_some(self.told.len());
        let Some(place) = *self.names.entry(name).or_insert(next) else {
            return;
        };
        let run = shown(&delivery);
        match self.told.get_mut(place) {
            Some(told) => {
                told.deliveries += 1;
                if told.runs.len() <= SHOWN {
                    told.runs.push(run);
                }
            }
            None => self.told.push(Told {
                newest: delivery,
                deliveries: 1,
                runs: vec![run],
            }),
        }
    }

    /// The schedules, those whose newest run is the newest first.
    pub fn ended(self, now: UnixMillis) -> Schedules {
        let left_out = self.names.len().saturating_sub(self.told.len()) as u64;
        Schedules {
            schedules: self.told.into_iter().map(|told| told.ended(now)).collect(),
            left_out,
        }
    }
}

impl Told {
    fn ended(mut self, now: UnixMillis) -> ScheduleRuns {
        let newest = self.newest;
        let usual = usual_interval(&self.runs);
        let next = usual.map(|millis| UnixMillis(newest.received.0 + millis));
        let late = usual.zip(next).is_some_and(|(millis, next)| {
            let grace = ((millis as f64 * LATE) as u64).max(GRACE_MILLIS);
            now.0 > next.0 + grace
        });
        let before: Vec<u64> = self.runs.iter().skip(1).map(|run| run.rows_in).collect();
        let usual_rows = (before.len() + 1 >= ENOUGH)
            .then(|| middle(before))
            .flatten();
        let unusual = usual_rows.is_some_and(|usual| {
            let (usual, rows) = (usual as f64, newest.rows_in as f64);
            (rows - usual).abs() > usual * UNUSUAL
        });
        self.runs.truncate(SHOWN);
        ScheduleRuns {
            title: newest.title,
            destination: newest.destination,
            destination_label: newest.destination_label,
            deliveries: self.deliveries,
            usual_rows,
            usual_seconds: usual.map(|millis| millis / 1000),
            next_expected: next,
            late,
            unusual,
            runs: self.runs,
        }
    }
}

fn shown(delivery: &Delivery) -> Run {
    Run {
        id: delivery.id.clone(),
        received: delivery.received,
        finished: delivery.finished,
        rows_in: delivery.rows_in,
        rows: delivery.rows,
        standing: Standing::of(delivery, None),
    }
}

/// The middle of the intervals, when they are regular.
fn usual_interval(newest_first: &[Run]) -> Option<u64> {
    if newest_first.len() < ENOUGH {
        return None;
    }
    let intervals: Vec<u64> = newest_first
        .windows(2)
        .map(|pair| pair[0].received.0.saturating_sub(pair[1].received.0))
        .collect();
    let usual = middle(intervals.clone())?;
    let near = |millis: &&u64| millis.abs_diff(usual) as f64 <= usual as f64 * REGULAR;
    let regular = intervals.iter().filter(near).count() * 4 >= intervals.len() * 3;
    (regular && usual > 0).then_some(usual)
}

fn middle(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn schedules(newest_first: &[Delivery], now: UnixMillis) -> Schedules {
        let mut runs = Runs::default();
        newest_first.iter().cloned().for_each(|one| runs.add(one));
        runs.ended(now)
    }

    fn run(title: &str, day: u64, rows_in: u64) -> Delivery {
        Delivery {
            id: format!("{title}-{day}"),
            title: title.to_owned(),
            received: UnixMillis(day * DAY),
            state: "done".to_owned(),
            rows_in,
            ..Delivery::default()
        }
    }

    fn nightly(rows: &[u64]) -> Vec<Delivery> {
        let all = rows.iter().enumerate();
        let mut runs: Vec<_> = all
            .map(|(day, rows)| run("nightly", day as u64, *rows))
            .collect();
        runs.reverse();
        runs
    }

    #[test]
    fn a_regular_schedule_has_a_next_run_and_is_late_when_that_does_not_come() {
        let runs = nightly(&[100, 101, 99, 100, 102]);
        let at = |millis| schedules(&runs, UnixMillis(millis)).schedules.remove(0);
        let today = at(4 * DAY + 1);
        assert_eq!(today.usual_seconds, Some(86_400));
        assert_eq!(today.usual_rows, Some(100));
        assert_eq!(today.next_expected, Some(UnixMillis(5 * DAY)));
        assert!(!today.late && !today.unusual);
        assert!(!at(5 * DAY + DAY / 20).late);
        assert!(at(5 * DAY + DAY / 5).late);
    }

    #[test]
    fn few_runs_and_irregular_ones_promise_nothing() {
        for days in [&[1, 2][..], &[1, 2, 9, 11, 40, 41]] {
            let mut runs: Vec<_> = days
                .iter()
                .map(|day| run("now and then", *day, 5))
                .collect();
            runs.reverse();
            let schedule = schedules(&runs, UnixMillis(900 * DAY)).schedules.remove(0);
            assert_eq!(schedule.next_expected, None, "{days:?}");
            assert!(!schedule.late);
        }
        assert!(schedules(&[], UnixMillis(0)).schedules.is_empty());
    }

    #[test]
    fn a_run_of_half_or_twice_the_rows_is_unusual() {
        for (last, unusual) in [
            (100, false),
            (149, false),
            (151, true),
            (49, true),
            (0, true),
        ] {
            let runs = nightly(&[100, 100, 100, 100, last]);
            let schedule = schedules(&runs, UnixMillis(4 * DAY)).schedules.remove(0);
            assert_eq!(schedule.unusual, unusual, "{last}");
        }
    }

    #[test]
    fn schedules_are_told_apart_and_the_newest_comes_first() {
        let mut all = nightly(&[1; 50]);
        all.insert(0, run("hourly", 60, 7));
        let Schedules {
            schedules,
            left_out,
        } = schedules(&all, UnixMillis(60 * DAY));
        assert_eq!(left_out, 0);
        let titles: Vec<_> = schedules.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles, ["hourly", "nightly"]);
        assert_eq!(schedules[1].deliveries, 50);
        assert_eq!(schedules[1].runs.len(), SHOWN);
    }

    #[test]
    fn titles_without_number_are_bounded_and_the_newest_are_told_of() {
        let all: Vec<_> = (0..10_000)
            .map(|n| run(&format!("run {n}"), 10_000 - n, 1))
            .collect();
        let found = schedules(&all, UnixMillis(0));
        assert_eq!((found.schedules.len(), found.left_out), (MOST, 9_800));
        assert_eq!(found.schedules[0].title, "run 0");
    }
}
