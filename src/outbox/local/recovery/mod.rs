//! Opening: what is on the disk is brought into agreement, and what is damaged is set aside.
//!
//! 1. The state is opened and read. If it is damaged it is set aside, and a new one is built.
//! 2. All that the files say and the state does not is read ([`evidence`]). What cannot be read ends
//!    the open here, with nothing changed.
//! 3. Deliveries that were withdrawn are taken out.
//! 4. Segments that the state does not know: with a commit they are adopted, without one their
//!    delivery was never accepted and they go.
//! 5. Dead letters that the state does not know settle their entries (see `orphans`).
//! 6. Segments and dead letters that the state knows and that are not there, or shorter than
//!    they were, are given up, and named.
//! 7. Deliveries with a mark that they were cancelled are cancelled.
//! 8. Deliveries that were being received are ended as failed (see `attempts`).
//!
//! Each step is durable before the next. A crash between two of them leaves what the next open
//! starts from.

mod adopt;
mod attempts;
mod cancelled;
mod evidence;
mod lost;
mod orphans;
mod work;

use std::collections::HashSet;

use crate::model::DeliveryId;
use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::recovery::evidence::Evidence;
use crate::outbox::local::recovery::work::{Files, Recovery};
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::opening;
use crate::outbox::local::state::rows::{Key, Meta};
use crate::outbox::local::state::store::Store;
use crate::outbox::settings::Settings;
use crate::outbox::status::Damage;
use crate::seal::Keyring;

/// An outbox that is ready to work.
pub(in crate::outbox) struct Recovered {
    pub store: Store,
    pub index: Index,
    pub damage: Vec<Damage>,
    pub next_dead_file: u32,
}

/// Opens the state of an outbox whose directory is ours and locked. Files of the deliveries in
/// `live` are left alone: they are on their way in.
pub(in crate::outbox) fn recover(
    settings: &Settings,
    layout: &Layout,
    disk: &Disk,
    live: &HashSet<DeliveryId>,
) -> Result<Recovered, OpenError> {
    let path = &settings.path;
    let failed = |error: StateError| error.at(path);
    let files = Files::list(disk, layout, live).map_err(|error| error.at(path))?;
    let mut damage = Vec::new();
    let (store, index) = open_state(settings, layout, disk, &mut damage).map_err(failed)?;
    let rebuilt = index.is_none() && !files.is_empty();
    if rebuilt && damage.is_empty() {
        damage.push(Damage::of_state("the state is gone".to_owned()));
    }
    let index = index.unwrap_or_default();
    // All that has to be read is read before anything is changed: one that cannot be read now ends
    // the open here.
    let evidence = Evidence::read(disk, layout, &settings.keys, &files, &index)
        .map_err(|error| error.at(path))?;
    let mut recovery = Recovery {
        layout,
        disk,
        store,
        index,
        damage,
        rebuilt,
        adopted: HashSet::new(),
        files,
    };
    run(&mut recovery, &settings.keys, evidence, live).map_err(failed)?;
    let next_dead_file = recovery
        .files
        .dead
        .keys()
        .chain(recovery.index.dead_files.keys())
        .max()
        .map_or(0, |last| last.saturating_add(1));
    Ok(Recovered {
        store: recovery.store,
        index: recovery.index,
        damage: recovery.damage,
        next_dead_file,
    })
}

fn run(
    recovery: &mut Recovery<'_>,
    keys: &Keyring,
    evidence: Evidence,
    live: &HashSet<DeliveryId>,
) -> Result<(), StateError> {
    let mut meta = sled::Batch::default();
    let value = Meta {
        next_position: recovery.index.next_position,
        next_letter: recovery.index.next_letter,
    };
    meta.insert(Key::Meta.encode(), value.encode());
    recovery.store.apply(meta)?;
    remove_withdrawn(recovery, live)?;
    remove_settled(recovery);
    adopt::take_up(recovery, evidence.strangers)?;
    orphans::take_up(recovery, evidence.tails, &evidence.heads)?;
    orphans::take_up_rejected(recovery, evidence.heads)?;
    lost::give_up(recovery, &evidence.lengths)?;
    cancelled::take_up(recovery)?;
    attempts::take_up(recovery, keys, live)?;
    if let Some(probe) = recovery.files.probe.take() {
        recovery.remove(&probe);
    }
    for stray in std::mem::take(&mut recovery.files.strays) {
        recovery.set_aside(&stray, "is no file of the outbox");
    }
    Ok(())
}

/// A delivery that was withdrawn may have left rows in sled, when it was sled that failed.
fn remove_withdrawn(
    recovery: &mut Recovery<'_>,
    live: &HashSet<DeliveryId>,
) -> Result<(), StateError> {
    let aborted = std::mem::take(&mut recovery.files.aborted);
    let mut change = Change::default();
    for id in aborted.iter().map(|(id, _)| id).chain(live) {
        if let Some((position, _)) = recovery.index.delivery(*id) {
            change.purge_delivery(&recovery.index, position);
        }
    }
    recovery.make(change)?;
    for (id, mark) in aborted {
        for path in recovery
            .files
            .segments
            .remove(&id)
            .unwrap_or_default()
            .values()
        {
            recovery.remove(path);
        }
        recovery.remove(&mark);
    }
    Ok(())
}

/// Segments of a delivery that the state knows and that it does not count any more have settled.
fn remove_settled(recovery: &mut Recovery<'_>) {
    let mut spent = Vec::new();
    for (id, files) in &mut recovery.files.segments {
        if let Some((_, delivery)) = recovery.index.delivery(*id) {
            files.retain(|number, path| {
                let keep = delivery.segments.contains_key(number);
                if !keep {
                    spent.push(std::mem::take(path));
                }
                keep
            });
        }
    }
    spent.iter().for_each(|path| recovery.remove(path));
}

/// Opens sled and reads it; when that cannot be, sets it aside and begins a new one.
fn open_state(
    settings: &Settings,
    layout: &Layout,
    disk: &Disk,
    damage: &mut Vec<Damage>,
) -> Result<(Store, Option<Index>), StateError> {
    let path = layout.state();
    let opened = opening::open(&path, disk, settings.state_bytes);
    let error = match opened {
        Ok(opened) => return Ok(opened),
        Err(error) if error.is_of_the_system() => return Err(error),
        Err(error) => error,
    };
    let target = layout
        .set_aside(disk, &path)
        .map_err(|source| StateError::Io {
            doing: "a damaged state could not be set aside",
            source,
        })?;
    damage.push(Damage::of_state(format!(
        "the state could not be read ({error}) and was set aside as {}; it is built anew from the segments, and what had settled in them is sent again with the same ids",
        target.display()
    )));
    Ok((Store::open(&path, disk, settings.state_bytes)?, None))
}
