//! Deliveries that are being received, and what became of those before them: written by the receiver,
//! shown by the admin side.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMillis;
use crate::control::view;
use crate::ingest::{IngestError, Progress, Receipt};
use crate::model::DeliveryId;

/// Since the start of the daemon.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    accepted: AtomicU64,
    refused: AtomicU64,
    rows_in: AtomicU64,
    rows_rejected: AtomicU64,
    rows_unchanged: AtomicU64,
    receiving: Mutex<HashMap<DeliveryId, Incoming>>,
}

/// A delivery that is being received.
#[derive(Debug)]
struct Incoming {
    title: String,
    since: UnixMillis,
    progress: Arc<Progress>,
}

/// A delivery in the list of those that are being received, for as long as this lives.
pub(super) struct Listed<'a> {
    arrivals: &'a Arrivals,
    id: DeliveryId,
}

impl Arrivals {
    /// Lists a delivery that begins.
    pub fn enter(
        &self,
        id: DeliveryId,
        title: &str,
        since: UnixMillis,
        progress: &Arc<Progress>,
    ) -> Listed<'_> {
        let incoming = Incoming {
            title: title.to_owned(),
            since,
            progress: Arc::clone(progress),
        };
        self.receiving().insert(id, incoming);
        Listed { arrivals: self, id }
    }

    /// Counts a delivery that has ended.
    pub fn count(&self, outcome: &Result<Receipt, IngestError>) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        match outcome {
            Ok(receipt) => {
                add(&self.accepted, 1);
                add(&self.rows_in, receipt.rows);
                add(&self.rows_rejected, receipt.rejected);
                add(&self.rows_unchanged, receipt.made.unchanged_rows);
            }
            Err(_) => {
                add(&self.refused, 1);
            }
        }
    }

    /// What is being received at this moment, oldest first.
    pub fn receiving_view(&self) -> Vec<view::Receiving> {
        let mut views: Vec<_> = self
            .receiving()
            .values()
            .map(|incoming| view::Receiving {
                title: incoming.title.clone(),
                rows: incoming.progress.rows(),
                bytes: incoming.progress.bytes(),
                since: incoming.since,
            })
            .collect();
        views.sort_by_key(|view| view.since);
        views
    }

    /// The sums over all that have ended.
    pub fn totals_view(&self) -> view::Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        view::Totals {
            deliveries_accepted: read(&self.accepted),
            deliveries_refused: read(&self.refused),
            rows_in: read(&self.rows_in),
            rows_rejected: read(&self.rows_rejected),
            rows_unchanged: read(&self.rows_unchanged),
        }
    }

    /// Whole after any panic: its changes are single calls.
    fn receiving(&self) -> MutexGuard<'_, HashMap<DeliveryId, Incoming>> {
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.arrivals.receiving().remove(&self.id);
    }
}
