//! Opening: what is on the disk is brought into agreement, and what is damaged is set aside.
//!
//! 1. The state is opened and read. If that fails it is set aside, and a new one is built.
//! 2. Deliveries that were withdrawn are taken out.
//! 3. Segments that the state does not know: with a commit they are adopted, without one their
//!    delivery was never accepted and they go.
//! 4. Dead letters that the state does not know settle their entries (see `orphans`).
//! 5. Segments and dead letters that the state knows and that are not there, or shorter than
//!    they were, are given up, and named.
//! 6. Deliveries with a mark that they were cancelled are cancelled.
//!
//! Each step is durable before the next. A crash between two of them leaves what the next open
//! starts from.

mod adopt;
mod cancelled;
mod orphans;
mod work;

use std::collections::{HashMap, HashSet};

use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::error::{OpenError, StateError};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::recovery::work::{Files, Recovery};
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::load::load;
use crate::outbox::local::state::rows::{Key, Meta};
use crate::outbox::local::state::store::Store;
use crate::outbox::settings::Settings;
use crate::outbox::status::Damage;

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
    let failed = |source| OpenError::State {
        path: settings.path.clone(),
        source,
    };
    let files = Files::list(layout, live).map_err(|source| OpenError::Io {
        path: settings.path.clone(),
        doing: "its files could not be listed",
        source,
    })?;
    let mut damage = Vec::new();
    let (store, index) = open_state(settings, layout, disk, &mut damage).map_err(failed)?;
    let rebuilt = index.is_none() && !files.is_empty();
    if rebuilt && damage.is_empty() {
        damage.push(Damage::of_state("the state is gone".to_owned()));
    }
    let mut recovery = Recovery {
        layout,
        disk,
        keys: &settings.keys,
        store,
        index: index.unwrap_or_default(),
        damage,
        rebuilt,
        adopted: HashSet::new(),
        files,
    };
    run(&mut recovery, live).map_err(failed)?;
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

fn run(recovery: &mut Recovery<'_>, live: &HashSet<DeliveryId>) -> Result<(), StateError> {
    let mut meta = sled::Batch::default();
    let value = Meta {
        next_position: recovery.index.next_position,
        next_letter: recovery.index.next_letter,
    };
    meta.insert(Key::Meta.encode(), value.encode());
    recovery.store.apply(meta)?;
    remove_withdrawn(recovery, live)?;
    take_up_segments(recovery)?;
    orphans::take_up(recovery)?;
    orphans::take_up_rejected(recovery)?;
    give_up_lost(recovery)?;
    cancelled::take_up(recovery)?;
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

fn take_up_segments(recovery: &mut Recovery<'_>) -> Result<(), StateError> {
    let ids: Vec<DeliveryId> = recovery.files.segments.keys().copied().collect();
    let mut strangers = Vec::new();
    for id in ids {
        let known = recovery
            .index
            .delivery(id)
            .map(|(_, delivery)| delivery.segments.keys().copied().collect::<HashSet<u32>>());
        let Some(known) = known else {
            strangers.push(id);
            continue;
        };
        let Some(files) = recovery.files.segments.get_mut(&id) else {
            continue;
        };
        let mut spent = Vec::new();
        files.retain(|number, path| {
            let keep = known.contains(number);
            if !keep {
                spent.push(std::mem::take(path));
            }
            keep
        });
        spent.iter().for_each(|path| recovery.remove(path));
    }
    adopt::take_up(recovery, strangers)
}

/// What the state counts on and the disk does not have.
fn give_up_lost(recovery: &mut Recovery<'_>) -> Result<(), StateError> {
    let mut change = Change::default();
    let mut lost = Vec::new();
    for (&position, delivery) in &recovery.index.deliveries {
        let id = delivery.row.info.id;
        for (&number, segment) in &delivery.segments {
            let summary = segment.row.summary;
            let path = recovery.layout.segment(id, number);
            let length = path.metadata().ok().map(|meta| meta.len());
            if length == Some(summary.bytes) || segment.row.is_settled() {
                continue;
            }
            let file = SegmentFile::open(&path, id, summary.first, summary.entries).ok();
            if file.is_none() && length.is_some() {
                // Not for its contents: the claim will say what the system says.
                continue;
            }
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
    let lengths: HashMap<u32, u64> = recovery
        .index
        .dead_files
        .keys()
        .map(|number| {
            let length = recovery.layout.dead(*number).metadata();
            (*number, length.map_or(0, |meta| meta.len()))
        })
        .collect();
    for (&id, letter) in &recovery.index.letters {
        let end = letter.offset.saturating_add(u64::from(letter.length));
        if lengths
            .get(&letter.file)
            .is_some_and(|length| end <= *length)
        {
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

/// Opens sled and reads it; when that cannot be, sets it aside and begins a new one.
fn open_state(
    settings: &Settings,
    layout: &Layout,
    disk: &Disk,
    damage: &mut Vec<Damage>,
) -> Result<(Store, Option<Index>), StateError> {
    let path = layout.state();
    let opened = Store::open(&path, disk, settings.state_bytes).and_then(|store| {
        let index = load(&store)?;
        Ok((store, index))
    });
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
