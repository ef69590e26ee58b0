//! How many rows are usual for a schedule: what is far from it may be held.

use super::receiver::DeliveryReceiver;
use crate::causes::with_causes;
use crate::ingest::Usual;
use crate::model::DestinationId;
use crate::outbox::{self, Outbox};

/// Runs that say what is usual: at most, and at least.
const RUNS: usize = 10;
const ENOUGH: usize = 4;
/// Deliveries in one look at the list.
const LOOKED_AT: usize = 200;

impl DeliveryReceiver {
    /// How many rows are usual for a schedule; `None`: its deliveries are not held, or nothing is usual
    /// yet, or it cannot be asked.
    pub(super) async fn usual_of(&self, title: &str, destination: DestinationId) -> Option<Usual> {
        let (percent, schedules) = (self.settings.hold_percent, &self.settings.hold_schedules);
        if percent == 0 || !(schedules.is_empty() || schedules.iter().any(|one| one == title)) {
            return None;
        }
        let (outbox, title) = (self.outbox.clone(), title.to_owned());
        let asked = tokio::task::spawn_blocking(move || rows_of(&outbox, &title, destination));
        match asked.await {
            Ok(Ok(rows)) => usual(rows, percent),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "what is usual for a schedule cannot be asked; its delivery is not held"
                );
                None
            }
            Err(error) => {
                tracing::error!(%error, "asking what is usual for a schedule has failed");
                None
            }
        }
    }
}

/// The rows of the last runs of a schedule.
fn rows_of(
    outbox: &Outbox,
    title: &str,
    destination: DestinationId,
) -> Result<Vec<u64>, outbox::Error> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = outbox.deliveries(after, LOOKED_AT)?;
        let runs = page.deliveries.iter().filter(|one| {
            let counts = one.cancelled_at.is_none() && !one.held;
            counts && one.destination == destination && one.title == title
        });
        rows.extend(runs.map(|one| one.rows_in));
        after = page.next;
        if rows.len() >= RUNS || after.is_none() {
            rows.truncate(RUNS);
            return Ok(rows);
        }
    }
}

/// The middle of the runs, give or take the percentage.
fn usual(mut rows: Vec<u64>, percent: u32) -> Option<Usual> {
    if rows.len() < ENOUGH {
        return None;
    }
    rows.sort_unstable();
    let middle = *rows.get(rows.len() / 2)?;
    let by = u128::from(middle) * u128::from(percent) / 100;
    let by = u64::try_from(by).unwrap_or(u64::MAX);
    Some(Usual {
        least: middle.saturating_sub(by),
        most: middle.saturating_add(by),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_needs_some_runs_and_is_around_their_middle() {
        assert_eq!(usual(vec![100, 100, 100], 50), None);
        let some = usual(vec![90, 5_000, 100, 110, 0], 50).unwrap();
        assert_eq!(
            some,
            Usual {
                least: 50,
                most: 150
            }
        );
        assert_eq!((some.objects(50), some.objects(150)), (None, None));
        let why = some.objects(151).unwrap();
        assert!(why.contains("151 rows, where 50 to 150 are usual"), "{why}");
        assert!(some.objects(49).is_some());
        let wide = usual(vec![7; 4], 1_000).unwrap();
        assert_eq!(wide, Usual { least: 0, most: 77 });
        assert_eq!(usual(vec![0; 4], 50), Some(Usual { least: 0, most: 0 }));
    }
}
