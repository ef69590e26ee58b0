//! Damage that was found, given up on the owner's thread: each loss is named once.

use crate::outbox::delivery::Tally;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::owner::command::Loss;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::state::change::{Change, Outcome};

pub(in crate::outbox) fn lose(keeper: &mut Keeper, losses: &[Loss], change: &mut Change) {
    let index = keeper.shared.index();
    for loss in losses {
        let (position, rows, what) = match loss {
            Loss::Entry {
                position,
                ordinal,
                tally,
            } => {
                let outcome = Outcome {
                    damaged: *tally,
                    ..Outcome::default()
                };
                if !change.settle_entry(&index, *position, *ordinal, *tally, outcome) {
                    continue;
                }
                (*position, tally.rows, format!("request {ordinal}"))
            }
            Loss::Segment {
                position,
                number,
                file,
            } => {
                let known = index
                    .deliveries
                    .get(position)
                    .and_then(|delivery| delivery.segments.get(*number))
                    .is_none_or(|segment| segment.row.damaged);
                let places = file.as_deref().map(SegmentFile::places);
                let tally = change.give_up_missing(&index, *position, *number, places);
                if known && tally == Tally::default() {
                    continue;
                }
                (*position, tally.rows, format!("segment {number}"))
            }
            Loss::Letter(id) => match change.give_up_letter(&index, *id) {
                Some(letter) => (
                    letter.position,
                    letter.tally.rows,
                    format!("dead letter {id}"),
                ),
                None => continue,
            },
        };
        let delivery = index
            .deliveries
            .get(&position)
            .map(|delivery| delivery.row.info.id);
        keeper.shared.report_damage(delivery, rows, what);
    }
}
