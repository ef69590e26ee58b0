//! A commit, on the owner's thread: the footer that makes the delivery accepted, and its rows in the
//! state.

use std::sync::Arc;

use crate::outbox::delivery::Receipt;
use crate::outbox::error::Error;
use crate::outbox::local::files::format::Commit;
use crate::outbox::local::owner::command::{Prepared, Reply};
use crate::outbox::local::owner::keeper::{Ack, Keeper};
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::delivery::{Delivery, Segment};
use crate::outbox::local::state::rows::{DeliveryRow, SegmentRow};

/// Writes the footer that makes the delivery accepted, and adds it to the change.
pub(in crate::outbox) fn commit(
    keeper: &mut Keeper,
    mut prepared: Prepared,
    reply: Reply<Receipt>,
    change: &mut Change,
    acks: &mut Vec<Ack>,
) {
    if let Err(error) = keeper.shared.check_healthy() {
        let _ = reply.send(Err(error));
        return;
    }
    let position = change.take_position(&keeper.shared.index());
    let committed = keeper.shared.now();
    let commit = Commit {
        position,
        committed,
        segments: prepared.full.len() as u32 + 1,
        totals: prepared.totals.clone(),
    };
    let last = match prepared.writer.finish(Some(commit)) {
        Ok(last) => last,
        Err(error) => {
            let withdrawn = keeper
                .shared
                .withdraw(&prepared.info, prepared.full.len() as u32);
            if withdrawn {
                // sled never heard of this delivery: no mark is needed.
                let mark = keeper.shared.layout.aborted(prepared.info.id);
                if let Err(error) = keeper.shared.disk.remove(&mark) {
                    tracing::warn!(%error, "the mark of an aborted delivery could not be removed; the next start removes it");
                }
            }
            let _ = reply.send(Err(Error::io("the delivery could not be synced")(error)));
            return;
        }
    };
    let mut delivery = Delivery::new(DeliveryRow {
        info: Arc::clone(&prepared.info),
        totals: prepared.totals,
        committed,
        kept: Some(prepared.kept),
    });
    let mut receipt = Receipt {
        delivery: prepared.info.id,
        committed,
        rows: 0,
        batches: 0,
        requests: 0,
        bytes: 0,
    };
    for summary in prepared.full.iter().copied().chain([last]) {
        receipt.rows += summary.tally.rows;
        receipt.batches += summary.tally.batches;
        receipt.requests += u64::from(summary.entries);
        receipt.bytes += summary.bytes;
        let segment = Segment {
            row: SegmentRow {
                summary,
                ..SegmentRow::default()
            },
            settled: None,
            file: None,
        };
        delivery.segments.insert(segment);
    }
    // A delivery without entries has settled already; its segment has said all it had to.
    let empty = receipt.requests == 0;
    if empty {
        delivery.segments.clear();
    }
    change.add_delivery(&keeper.shared.index(), position, delivery);
    let shared = Arc::clone(&keeper.shared);
    let (info, number) = (prepared.info, last.number);
    acks.push(Box::new(move |outcome| {
        let answer = match outcome {
            Ok(_) => {
                if empty {
                    shared.remove_spent(&shared.layout.segment(info.id, number), 0, false);
                    receipt.bytes = 0;
                }
                Ok(receipt)
            }
            Err(error) => {
                shared.withdraw(&info, number);
                Err(error)
            }
        };
        let _ = reply.send(answer);
    }));
}
