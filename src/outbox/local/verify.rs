//! Reading all of a running outbox, and giving up what is damaged.

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::error::Error;
use crate::outbox::local::files::read::sound;
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
                let segments = delivery.segments.iter();
                segments.map(move |segment| (*position, id, segment.row))
            })
            .collect()
    };
    for (position, id, row) in work {
        verify_segment(local, position, id, row)?;
    }
    let letters: Vec<u64> = local.shared.index().letters.keys().copied().collect();
    let mut lost = Vec::new();
    for id in letters {
        let Some((delivery, letter)) = local.shared.index().letter(id) else {
            continue;
        };
        let read = sound(local.shared.read_letter(delivery, &letter));
        let read = read.map_err(|error| local.unreadable(error))?;
        // One that has gone since is not lost.
        if read.is_none() && local.shared.index().letters.contains_key(&id) {
            lost.push(Loss::Letter(id));
        }
    }
    local.ask(|reply| Command::Lost(lost, reply))
}

fn verify_segment(
    local: &Local,
    position: u64,
    id: DeliveryId,
    row: SegmentRow,
) -> Result<(), Error> {
    let summary = row.summary;
    let shared = &local.shared;
    let path = shared.layout.segment(id, summary.number);
    let file = SegmentFile::open(&shared.disk, &path, id, summary.first, summary.entries);
    let Some(file) = sound(file).map_err(|error| local.unreadable(error))? else {
        if shared
            .index()
            .segment_mut(position, summary.number)
            .is_none()
        {
            // It has settled since.
            return Ok(());
        }
        let lost = vec![Loss::Segment {
            position,
            number: summary.number,
            file: None,
        }];
        return local.ask(|reply| Command::Lost(lost, reply));
    };
    let file = Arc::new(file);
    let mut lost = Vec::new();
    if !file.sound {
        lost.push(Loss::Segment {
            position,
            number: summary.number,
            file: Some(Arc::clone(&file)),
        });
    }
    for ordinal in summary.first..summary.first.saturating_add(summary.entries) {
        if file.place(ordinal).is_none() {
            continue;
        }
        let read = sound(file.read(ordinal, &shared.settings.keys));
        if read.map_err(|error| local.unreadable(error))?.is_none() {
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
