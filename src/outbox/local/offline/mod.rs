//! What a person can do with an outbox that no daemon has open: look at each delivery
//! ([`inspect`]), bring what can be read into a fresh directory ([`salvage`]), or read the
//! batches themselves ([`batches`]). None of them changes the outbox that it is pointed at.

pub(in crate::outbox) mod batches;
pub(in crate::outbox) mod check;
mod damaged;
pub(in crate::outbox) mod salvage;
mod segments;

use std::collections::BTreeMap;
use std::path::Path;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::keys::check_keys;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, sound};
use crate::outbox::local::files::segment::{read_footer, read_header};
use crate::outbox::local::offline::check::{CheckReport, look};
use crate::outbox::local::offline::segments::segments;
use crate::outbox::local::state::delivery::Segment;
use crate::outbox::local::state::index::Index;
use crate::outbox::record;
use crate::seal::Keyring;

/// What lies in an outbox that nobody uses.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The files and what is wrong with them.
    pub report: CheckReport,
    /// By the time of receipt, oldest first.
    pub deliveries: Vec<Inspected>,
}

/// One delivery of an [`Inspection`].
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Which.
    pub id: DeliveryId,
    /// The schedule's title; empty when no header can be read.
    pub title: String,
    /// Where it goes, for people.
    pub destination: String,
    /// When it began.
    pub received: UnixMillis,
    /// What became of it.
    pub standing: DeliveryStatus,
    /// Ready requests in all.
    pub entries: u64,
    /// Of them, those that have not settled. Without a readable state: all that are there.
    pub entries_left: u64,
    /// Rows that Looker sent.
    pub rows: u64,
    /// Of them, those that wait to be sent; damaged ones are among them.
    pub rows_left: u64,
    /// Of them, those in the dead letters.
    pub rows_dead: u64,
    /// Of them, those that were lost to damage before, and named then.
    pub rows_lost: u64,
    /// Records that cannot be read, also those that had settled.
    pub damaged_records: u64,
    /// Rows that have not settled and cannot be read.
    pub damaged_rows: u64,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Nothing of it waits.
    Settled,
    /// Some of it is still to be sent.
    Unsettled,
    /// It was accepted, and the state does not know it yet or any more: the next start takes it up.
    Unrecorded,
    /// It was cut short and never accepted: the next start removes it.
    NotAccepted,
    /// The state is lost and no commit can be read: a start sets it aside for a person.
    Unknown,
}

/// Reads everything in the outbox at `path` and says how each delivery stands. Without `keys`, as far
/// as that can be told ([`check`](crate::outbox::local::offline::check)).
///
/// # Errors
/// A daemon has it open, it is not an outbox of this version, it needs a key that is not among `keys`,
/// or the system refuses to read it.
pub fn inspect(path: &Path, keys: Option<&Keyring>) -> Result<Inspection, OpenError> {
    inspect_on(&Disk::default(), path, keys)
}

/// The same on a disk whose every read a test can watch and fail.
pub fn inspect_on(
    disk: &Disk,
    path: &Path,
    keys: Option<&Keyring>,
) -> Result<Inspection, OpenError> {
    let layout = Layout::new(path);
    let _lock = layout.enter_to_read(disk)?;
    if let Some(keys) = keys {
        check_keys(disk, path, &layout, keys)?;
    }
    let (report, index) = look(disk, &layout, keys).map_err(|error| error.at(path))?;
    let mut deliveries = recorded(index.as_ref());
    unrecorded(disk, &layout, index.as_ref(), &mut deliveries).map_err(|error| error.at(path))?;
    for fault in &report.faults {
        if let Some(delivery) = fault.delivery.and_then(|id| deliveries.get_mut(&id)) {
            delivery.damaged_records += fault.records;
            delivery.damaged_rows += fault.rows;
        }
    }
    Ok(Inspection {
        report,
        deliveries: deliveries.into_values().collect(),
    })
}

/// What the state knows.
fn recorded(index: Option<&Index>) -> BTreeMap<DeliveryId, Inspected> {
    let mut found = BTreeMap::new();
    for (position, delivery) in index.iter().flat_map(|index| &index.deliveries) {
        let state = delivery.state(*position);
        let left = delivery.segments.iter().map(Segment::entries_left);
        let inspected = Inspected {
            standing: match state.settled {
                true => DeliveryStatus::Settled,
                false => DeliveryStatus::Unsettled,
            },
            entries: state.requests,
            entries_left: left.sum(),
            rows: state.rows_in,
            rows_left: state.waiting.rows,
            rows_dead: state.dead.rows,
            rows_lost: state.damaged.rows,
            ..Inspected::new(state.id, Some(&delivery.row.info))
        };
        found.insert(state.id, inspected);
    }
    found
}

/// What lies in segments that the state does not know.
fn unrecorded(
    disk: &Disk,
    layout: &Layout,
    index: Option<&Index>,
    found: &mut BTreeMap<DeliveryId, Inspected>,
) -> Result<(), Unreadable> {
    for (id, _, path) in segments(disk, layout)? {
        if index.is_some_and(|index| index.by_id.contains_key(&id)) {
            continue;
        }
        let Some(file) = sound(ReadFile::open(disk, &path))? else {
            continue;
        };
        let header = sound(file.twice(read_header))?;
        let info = header.as_ref().and_then(|header| header.info.as_ref());
        let inspected = found
            .entry(id)
            .or_insert_with(|| Inspected::new(id, info.filter(|info| info.id == id)));
        let footer = sound(file.twice(read_footer))?.unwrap_or_default();
        let mut tally = Tally::default();
        let mut entries = 0;
        for place in &footer.places {
            tally += place.tally();
            entries += 1;
        }
        if footer.places.is_empty() {
            for (_, _, frame) in record::scan(&sound(file.whole())?.unwrap_or_default()) {
                tally.rows += frame.total_rows();
                entries += 1;
            }
        }
        inspected.entries_left += entries;
        inspected.rows_left += tally.rows;
        match footer.commit {
            Some(commit) => {
                inspected.standing = DeliveryStatus::Unrecorded;
                inspected.rows = commit.totals.rows_in;
                inspected.entries = commit.totals.requests;
            }
            None if inspected.standing == DeliveryStatus::Unrecorded => {}
            None => {
                inspected.rows += tally.rows;
                inspected.entries += entries;
                inspected.standing = match index {
                    Some(_) => DeliveryStatus::NotAccepted,
                    None => DeliveryStatus::Unknown,
                };
            }
        }
    }
    Ok(())
}

impl Inspected {
    fn new(id: DeliveryId, info: Option<&Info>) -> Self {
        Self {
            id,
            title: info.map_or_else(String::new, |info| (*info.title).to_owned()),
            destination: info.map_or_else(String::new, |info| (*info.label).to_owned()),
            received: info.map_or(UnixMillis(0), |info| info.received),
            standing: DeliveryStatus::Unknown,
            entries: 0,
            entries_left: 0,
            rows: 0,
            rows_left: 0,
            rows_dead: 0,
            rows_lost: 0,
            damaged_records: 0,
            damaged_rows: 0,
        }
    }
}
