//! What the state counts on and the disk does not have: gone, or shorter than it was.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::outbox::delivery::Tally;
use crate::outbox::local::files::read::sound;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::error::StateError;

/// Gives up, and names, what is lost. `lengths` are those of the files that are there.
pub(in crate::outbox) fn give_up(
    recovery: &mut Recovery<'_>,
    lengths: &HashMap<PathBuf, u64>,
) -> Result<(), StateError> {
    let mut change = Change::default();
    let mut lost = Vec::new();
    for (&position, delivery) in &recovery.index.deliveries {
        let id = delivery.row.info.id;
        for (&number, segment) in &delivery.segments {
            let summary = segment.row.summary;
            let path = recovery.layout.segment(id, number);
            let length = lengths.get(&path);
            if length == Some(&summary.bytes) || segment.row.is_settled() {
                continue;
            }
            let file = SegmentFile::open(recovery.disk, &path, id, summary.first, summary.entries);
            let file = sound(file)?;
            let tally = change.give_up_missing(&recovery.index, position, number, file.as_ref());
            if segment.row.damaged && tally == Tally::default() {
                // Named at an earlier open.
                continue;
            }
            let what = match length {
                None => format!("segment {number} is gone"),
                Some(length) => {
                    format!("segment {number} has {length} bytes of {}", summary.bytes)
                }
            };
            lost.push((Some(id), tally.rows, what));
        }
    }
    for (&id, letter) in &recovery.index.letters {
        let end = letter.offset.saturating_add(u64::from(letter.length));
        let length = lengths.get(&recovery.layout.dead(letter.file));
        if length.is_some_and(|length| end <= *length) {
            continue;
        }
        change.give_up_letter(&recovery.index, id);
        let delivery = recovery.index.deliveries.get(&letter.position);
        lost.push((
            delivery.map(|delivery| delivery.row.info.id),
            letter.tally.rows,
            format!("dead letter {id} is gone with the end of its file"),
        ));
    }
    for (delivery, rows, what) in lost {
        recovery.lost(delivery, rows, what);
    }
    recovery.make(change)
}
