//! What became of deliveries since the start: written by the receiver, shown by the admin side.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::view;
use crate::ingest::Ingested;
use crate::model::FailureKind;

/// Since the start of the daemon.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    accepted: AtomicU64,
    rows_in: AtomicU64,
    rows_rejected: AtomicU64,
    rows_unchanged: AtomicU64,
}

impl Arrivals {
    /// Counts a delivery that is committed.
    pub fn count(&self, ingested: &Ingested) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&self.accepted, 1);
        add(&self.rows_in, ingested.rows);
        add(&self.rows_rejected, ingested.rejected);
        add(&self.rows_unchanged, ingested.made.unchanged_rows);
    }

    /// The sums over all that have ended, of which `failed` did so badly.
    pub fn totals_view(&self, failed: BTreeMap<String, u64>) -> view::Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        view::Totals {
            deliveries_accepted: read(&self.accepted),
            deliveries_refused: failed.values().sum(),
            rows_in: read(&self.rows_in),
            rows_rejected: read(&self.rows_rejected),
            rows_unchanged: read(&self.rows_unchanged),
            failed,
        }
    }
}

/// Failures since the start, by kind.
#[derive(Debug, Default)]
pub(super) struct FailureCounts([AtomicU64; FailureKind::ALL.len()]);

impl FailureCounts {
    pub fn add(&self, kind: FailureKind) {
        let counters = FailureKind::ALL.iter().zip(&self.0);
        for (_, counter) in counters.filter(|(one, _)| **one == kind) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let counters = self.0.iter();
        counters
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }

    /// By name; every kind is there.
    pub fn by_reason(&self) -> BTreeMap<String, u64> {
        let counters = FailureKind::ALL.iter().zip(&self.0);
        let named = counters.map(|(kind, counter)| {
            let count = counter.load(Ordering::Relaxed);
            (kind.name().to_owned(), count)
        });
        named.collect()
    }
}
