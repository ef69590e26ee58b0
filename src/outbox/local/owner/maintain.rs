//! What the owner does when nobody waits: old deliveries and webhook ids are forgotten, empty
//! dead-letter files removed, sled's file copied when it has grown.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::local::files::layout::{SegmentName, parse_segment_name};
use crate::outbox::local::files::read::{length_of, list, sound};
use crate::outbox::local::owner::cancel::sweep;
use crate::outbox::local::owner::command::Loss;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::owner::lose;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::rows::DeadFileRow;

/// Old webhook ids are looked for this often.
const LOOK: Duration = Duration::from_secs(60);

/// What is not urgent: old deliveries and webhook ids are forgotten, empty dead-letter files
/// removed, sled's file copied when it has grown.
pub(in crate::outbox) fn maintain(keeper: &mut Keeper) {
    if keeper.store.is_none() {
        return;
    }
    let mut change = Change::default();
    let mut rejected = Vec::new();
    if std::mem::take(&mut keeper.sweep_due) {
        sweep(keeper, &mut change);
    }
    if std::mem::take(&mut keeper.history_due) {
        rejected = forget_history(keeper, &mut change);
    }
    let now = keeper.instant();
    if now >= keeper.webhooks_due {
        keeper.webhooks_due = now + LOOK;
        forget_webhooks(keeper, &mut change);
        keeper.shared.count_set_aside();
        give_up_suspects(keeper, &mut change);
    }
    remove_empty_dead_files(keeper, &mut change);
    if !change.is_empty() {
        keeper.make_durable(change, Vec::new());
    }
    if keeper.store.is_none() {
        return;
    }
    for path in rejected {
        let length = length_of(&keeper.shared.disk, &path);
        let bytes = length.ok().flatten().unwrap_or(0);
        keeper.shared.remove_spent(&path, bytes, false);
    }
    if let Some(store) = keeper.store.take_if(|store| store.wants_compaction()) {
        match store.compact() {
            Ok(store) => {
                keeper.shared.capacity.set_state(store.size());
                keeper.store = Some(store);
            }
            Err(error) => {
                keeper.fail(error);
            }
        }
    }
}

/// Dead letters that somebody who only looked has found damaged: they are looked at once more, and
/// given up if they are.
fn give_up_suspects(keeper: &mut Keeper, change: &mut Change) {
    for id in keeper.shared.take_suspects() {
        let Some((delivery, letter)) = keeper.shared.index().letter(id) else {
            continue;
        };
        match sound(keeper.shared.read_letter(delivery, &letter)) {
            Ok(Some(_)) => {}
            Ok(None) => lose::lose(keeper, &[Loss::Letter(id)], change),
            Err(error) => {
                keeper.unreadable(error);
            }
        }
    }
}

/// Takes the oldest settled deliveries beyond the history out, and returns their files of
/// rejected rows.
fn forget_history(keeper: &Keeper, change: &mut Change) -> Vec<PathBuf> {
    let old = old_deliveries(keeper);
    if old.is_empty() {
        return Vec::new();
    }
    // A segment that is there, or comes back after a loss of power, without the row that says
    // that it has settled, would be taken for a delivery that the state has not heard of.
    let layout = &keeper.shared.layout;
    let left = match remove_segments_of(keeper, &old) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(%error, "the history of the outbox could not be shortened");
            return Vec::new();
        }
    };
    let index = keeper.shared.index();
    let mut files = Vec::new();
    for (id, position) in old {
        if !left.contains(&id) {
            files.push(layout.rejected(id));
            change.remove_delivery(&index, position);
        }
    }
    files
}

fn old_deliveries(keeper: &Keeper) -> HashMap<DeliveryId, u64> {
    let index = keeper.shared.index();
    let settled: Vec<(DeliveryId, u64)> = index
        .deliveries
        .iter()
        .filter(|(_, delivery)| {
            delivery.is_settled() && delivery.counters().dead == Tally::default()
        })
        .map(|(position, delivery)| (delivery.row.info.id, *position))
        .collect();
    let excess = settled.len().saturating_sub(keeper.shared.settings.history);
    settled.into_iter().take(excess).collect()
}

/// Makes sure that no segment of these is there; returns those of which one is.
fn remove_segments_of(
    keeper: &Keeper,
    old: &HashMap<DeliveryId, u64>,
) -> io::Result<HashSet<DeliveryId>> {
    let (layout, disk) = (&keeper.shared.layout, &keeper.shared.disk);
    let mut left = HashSet::new();
    let files =
        list(disk, &layout.segments()).map_err(|error| io::Error::other(error.to_string()))?;
    for path in files {
        let name = path.file_name().and_then(parse_segment_name);
        if let Some(SegmentName::Segment(id, _)) = name
            && old.contains_key(&id)
            && disk.remove(&path).is_err()
        {
            left.insert(id);
        }
    }
    disk.sync_directory(&layout.segments())?;
    Ok(left)
}

fn forget_webhooks(keeper: &Keeper, change: &mut Change) {
    let memory = keeper.shared.settings.webhook_memory.as_millis();
    let now = keeper.shared.now().0;
    for (&key, webhook) in &keeper.shared.index().webhooks {
        if u128::from(now.saturating_sub(webhook.committed.0)) > memory {
            change.forget_webhook(key);
        }
    }
}

/// The file's row goes only when its removal is durable: a file without one would be taken
/// for letters that the state has not heard of.
fn remove_empty_dead_files(keeper: &mut Keeper, change: &mut Change) {
    let empty: Vec<(u32, DeadFileRow)> = keeper
        .shared
        .index()
        .dead_files
        .iter()
        .filter(|(_, file)| file.letters == 0)
        .map(|(number, file)| (*number, file.row))
        .collect();
    if empty.is_empty() {
        return;
    }
    let mut gone = Vec::new();
    for (number, row) in empty {
        keeper.dead.leave(number);
        let path = keeper.shared.layout.dead(number);
        if keeper.shared.remove_spent(&path, row.length, row.damaged) {
            gone.push(number);
        }
    }
    let directory = keeper.shared.layout.dead_directory();
    match keeper.shared.disk.sync_directory(&directory) {
        Ok(()) => gone
            .into_iter()
            .for_each(|number| change.forget_dead_file(number)),
        Err(error) => tracing::warn!(%error, "dead-letter files could not be forgotten"),
    }
}
