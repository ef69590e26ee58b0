//! Opening: what is on the disk is brought into agreement, and what is damaged is set aside.
//!
//! 1. The directories are listed ([`listing`]), and the state is opened and read. If it is damaged it
//!    is set aside, and a new one is built.
//! 2. All that the files say and the state does not is read ([`findings`], [`letters`]). What cannot
//!    be read ends the open here, with nothing changed.
//! 3. What was found is put into the state ([`replay`]), in this order:
//!    - deliveries that were withdrawn are taken out, and segments that have settled are removed;
//!    - what is missing in files that an erasure has written anew is erased;
//!    - segments that the state does not know are, with a commit, added as deliveries; without one
//!      their delivery was never accepted, and they are removed;
//!    - dead letters that the state does not know settle their entries; when the state was lost,
//!      they and rejected rows tell of deliveries of which nothing else is left;
//!    - segments and dead letters that the state knows and that are not there, or shorter than they
//!      were, are given up, and named;
//!    - deliveries with a mark that they were cancelled are cancelled;
//!    - deliveries that were being received are ended as failed.

mod findings;
mod letters;
mod listing;
mod replay;

use std::collections::HashSet;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::recovery::findings::Findings;
use crate::outbox::local::recovery::listing::Listing;
use crate::outbox::local::recovery::replay::Replay;
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::opening;
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
    let (path, keys, now) = (&settings.path, &settings.keys, settings.clock.now());
    let failed = |error: StateError| error.at(path);
    let files = Listing::read(disk, layout, live).map_err(|error| error.at(path))?;
    let mut damage = Vec::new();
    let opened = open_state(settings, layout, disk, now).map_err(failed)?;
    let rebuilt = opened.index.is_none() && !files.is_empty();
    let what = match opened.lost {
        None if rebuilt => Some("the state is gone".to_owned()),
        lost => lost,
    };
    damage.extend(what.map(|what| Damage {
        delivery: None,
        rows: 0,
        what,
        found: now,
    }));
    let index = opened.index.unwrap_or_default();
    let found =
        Findings::read(disk, layout, keys, files, live, &index).map_err(|error| error.at(path))?;
    let next_dead_file = found.next_dead_file;
    let mut replay = Replay {
        layout,
        disk,
        keys,
        live,
        rebuilt,
        now,
        store: opened.store,
        index,
        damage,
        added: HashSet::new(),
    };
    replay.run(found).map_err(failed)?;
    Ok(Recovered {
        store: replay.store,
        index: replay.index,
        damage: replay.damage,
        next_dead_file,
    })
}

/// The state as it was opened.
struct Opened {
    store: Store,
    /// `None`: it is new.
    index: Option<Index>,
    /// Why the one before was set aside.
    lost: Option<String>,
}

/// Opens sled and reads it; when that cannot be, sets it aside and begins a new one.
fn open_state(
    settings: &Settings,
    layout: &Layout,
    disk: &Disk,
    now: UnixMillis,
) -> Result<Opened, StateError> {
    let path = layout.state();
    let error = match opening::open(&path, disk, settings.state_bytes) {
        Ok((store, index)) => {
            return Ok(Opened {
                store,
                index,
                lost: None,
            });
        }
        Err(error) if error.is_of_the_system() => return Err(error),
        Err(error) => error,
    };
    let target = layout
        .set_aside(disk, &path, now)
        .map_err(|source| StateError::Io {
            doing: "a damaged state could not be set aside",
            source,
        })?;
    let lost = format!(
        "the state could not be read ({error}) and was set aside as {}; it is rebuilt from the segments, and what had settled in them is sent again with the same ids",
        target.display()
    );
    Ok(Opened {
        store: Store::open(&path, disk, settings.state_bytes)?,
        index: None,
        lost: Some(lost),
    })
}
