//! Reading all of a running outbox, and giving up what is damaged.

use std::io;

use crate::model::DeliveryId;
use crate::outbox::error::Error;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Loss};
use crate::outbox::local::state::rows::SegmentRow;

/// Reads all that waits and all dead letters, and gives up what cannot be read, as a claim
/// would when its turn came. Each loss is logged and listed ([`Outbox::damage`]). Blocks on
/// the disk for as long as it takes to read everything.
///
/// # Errors
/// A file cannot be opened, or the losses cannot be recorded.
pub(in crate::outbox) fn verify(local: &Local) -> Result<(), Error> {
    let work: Vec<(u64, DeliveryId, SegmentRow)> = {
        let index = local.shared.index();
        let deliveries = index.deliveries.iter();
        deliveries
            .flat_map(|(position, delivery)| {
                let id = delivery.row.info.id;
                let segments = delivery.segments.values();
                segments.map(move |segment| (*position, id, segment.row))
            })
            .collect()
    };
    for (position, id, row) in work {
        verify_segment(local, position, id, row)?;
    }
    let letters = local.shared.index().letters.clone();
    let lost: Vec<Loss> = letters
        .iter()
        .filter(|(id, _)| {
            let letter = local.shared.index().letter(**id);
            letter.is_none_or(|(delivery, letter)| {
                local.shared.read_letter(delivery, &letter).is_err()
            })
        })
        // One that has gone since is not lost.
        .filter(|(id, _)| local.shared.index().letters.contains_key(*id))
        .map(|(id, _)| Loss::Letter(*id))
        .collect();
    local.ask(|reply| Command::Lost(lost, reply))
}

fn verify_segment(
    local: &Local,
    position: u64,
    id: DeliveryId,
    row: SegmentRow,
) -> Result<(), Error> {
    let summary = row.summary;
    let path = local.shared.layout.segment(id, summary.number);
    let file = match SegmentFile::open(&path, id, summary.first, summary.entries) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let gone = local
                .shared
                .index()
                .segment_mut(position, summary.number)
                .is_none();
            if gone {
                // It has settled since.
                return Ok(());
            }
            let lost = vec![Loss::Segment {
                position,
                number: summary.number,
                file: None,
            }];
            return local.ask(|reply| Command::Lost(lost, reply));
        }
        Err(error) => return Err(Error::io("a segment could not be opened")(error)),
    };
    let file = std::sync::Arc::new(file);
    let mut lost = Vec::new();
    if !file.sound {
        lost.push(Loss::Segment {
            position,
            number: summary.number,
            file: Some(std::sync::Arc::clone(&file)),
        });
    }
    for ordinal in summary.first..summary.first.saturating_add(summary.entries) {
        if file.place(ordinal).is_some() && file.read(ordinal, &local.shared.settings.keys).is_err()
        {
            lost.push(Loss::Entry {
                position,
                ordinal,
                tally: file.tally(ordinal),
            });
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    local.ask(|reply| Command::Lost(lost, reply))
}
