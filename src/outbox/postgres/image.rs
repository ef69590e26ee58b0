//! Rows of progress as they are to be written.

use std::collections::HashSet;

use tokio::sync::oneshot;

use super::held::Open;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;

/// Rows of progress to be written, and who waits for that.
pub(super) struct Job {
    pub images: Vec<Image>,
    pub reply: oneshot::Sender<Result<HashSet<DeliveryId>, Error>>,
}

/// A row of progress as it is to be.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub delivery: DeliveryId,
    pub destination: DestinationId,
    epoch: i64,
    version: i64,
    open: bool,
    frontier: i64,
    beyond: Vec<u8>,
    tallies: [i64; 12],
    held: bool,
    cancelled_at: Option<i64>,
    finished: Option<i64>,
}

impl Image {
    pub fn of(open: &Open, epoch: i64) -> Self {
        let (progress, counters) = (&open.progress, &open.progress.counters);
        let pair = |tally: Tally| [tally.rows as i64, tally.batches as i64];
        let [a, b] = pair(counters.delivered);
        let [c, d] = pair(counters.dead);
        let [e, f] = pair(counters.discarded);
        let [g, h] = pair(counters.damaged);
        let [i, j] = pair(counters.cancelled);
        let [k, l] = pair(counters.erased);
        Self {
            delivery: open.brief.id,
            destination: open.brief.destination,
            epoch,
            version: progress.version,
            open: open.is_open(),
            frontier: progress.marks.frontier() as i64,
            beyond: progress.marks.beyond().to_vec(),
            tallies: [a, b, c, d, e, f, g, h, i, j, k, l],
            held: progress.held,
            cancelled_at: counters.cancelled_at.map(|at| at.0 as i64),
            finished: counters.finished.map(|at| at.0 as i64),
        }
    }
}

/// Images, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub deliveries: Vec<&'a [u8]>,
    pub epochs: Vec<i64>,
    pub versions: Vec<i64>,
    pub open: Vec<bool>,
    pub frontiers: Vec<i64>,
    pub beyond: Vec<&'a [u8]>,
    pub tallies: [Vec<i64>; 12],
    pub held: Vec<bool>,
    pub cancelled_at: Vec<Option<i64>>,
    pub finished: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    pub fn of(images: &'a [Image]) -> Self {
        let mut columns = Self::default();
        for image in images {
            columns.deliveries.push(&image.delivery.0);
            columns.epochs.push(image.epoch);
            columns.versions.push(image.version);
            columns.open.push(image.open);
            columns.frontiers.push(image.frontier);
            columns.beyond.push(&image.beyond);
            for (column, value) in columns.tallies.iter_mut().zip(image.tallies) {
                column.push(value);
            }
            columns.held.push(image.held);
            columns.cancelled_at.push(image.cancelled_at);
            columns.finished.push(image.finished);
        }
        columns
    }
}
