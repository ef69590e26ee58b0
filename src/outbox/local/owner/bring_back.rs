//! What was given up as damaged and has been found sound, on the owner's thread: it becomes a letter,
//! which waits to be sent again, or is dead as it was.

use std::sync::Arc;

use crate::outbox::dead::{DeadMeta, DeadSlice};
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::letter::Moved;
use crate::outbox::local::owner::command::GivenUp;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::state::change::{Change, Lost};
use crate::outbox::local::state::rows::Letter;
use crate::outbox::record::Slice;

/// Says what happened to a batch that comes back, should it die.
const REASON: &str = "It was damaged on the disk, and could be read later.";

/// Writes the records again, and puts them into the change. All that waits has one turn.
pub(in crate::outbox) fn bring_back(
    keeper: &mut Keeper,
    found: Vec<GivenUp>,
    change: &mut Change,
) -> Result<Moved, Error> {
    keeper.shared.check_healthy()?;
    let shared = Arc::clone(&keeper.shared);
    let turn = change.take_position(&shared.index());
    let mut moved = Moved::default();
    let mut letters = Vec::new();
    for one in found {
        let info = {
            let index = shared.index();
            let lost = match one.lost {
                Lost::Entry(ordinal) => index.lost_entries.contains(&(one.position, ordinal)),
                Lost::Letter(id) => index.lost_letters.contains_key(&id),
            };
            let delivery = index.deliveries.get(&one.position).filter(|_| lost);
            delivery.map(|delivery| Arc::clone(&delivery.row.info))
        };
        let (Some(info), Some(meta_route)) = (info, route_of(&one)) else {
            continue;
        };
        let meta = one.meta.clone().unwrap_or_else(|| {
            let account = shared.account(info.destination);
            let mut meta = DeadMeta::new(&info, account, None, meta_route);
            let slices = 0..one.record.slices.len() as u32;
            meta.slices = slices
                .map(|original| DeadSlice {
                    original,
                    attempts: 0,
                    first_try: info.received,
                    last_try: info.received,
                    reason: REASON.to_owned(),
                })
                .collect();
            meta
        });
        let slices: Vec<Slice<'_>> = one
            .record
            .slices
            .iter()
            .zip(&one.record.rows)
            .map(|(bytes, &rows)| Slice { bytes, rows })
            .collect();
        let place = keeper.append_dead(&meta, one.record.name.ordinal, &slices)?;
        let tally = Tally {
            rows: one.rows(),
            batches: u64::from(one.live.count()),
        };
        moved.letters += tally.batches;
        moved.rows += tally.rows;
        let letter = Letter {
            position: one.position,
            file: place.file,
            offset: place.offset,
            length: place.length,
            ordinal: one.record.name.ordinal,
            live: one.live,
            tally,
            queued: one.queued.then_some(turn),
        };
        letters.push((one.lost, letter));
    }
    keeper.sync_dead()?;
    let index = shared.index();
    for (lost, letter) in letters {
        change.found(&index, lost, letter.position, letter);
    }
    if let Some((number, length)) = keeper.dead.current() {
        change.set_dead_file(&index, number, length);
    }
    drop(index);
    keeper.dead.roll();
    Ok(moved)
}

fn route_of(one: &GivenUp) -> Option<u8> {
    match &one.meta {
        Some(meta) => Some(meta.route),
        None => one.record.route().ok(),
    }
}
