//! The batches of an outbox that nobody uses, for people.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::model::DeliveryId;
use crate::outbox::dead::DeadMeta;
use crate::outbox::error::OpenError;
use crate::outbox::local::files::dead::read_letter;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::keys::check_keys;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, list, sound};
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::offline::check::look;
use crate::outbox::local::offline::damaged::given_up;
use crate::outbox::local::offline::segments::segments;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::Bits;
use crate::outbox::record::{self, Kind, Record};
use crate::seal::Keyring;

/// A batch that has not been delivered, as [`read_batches`] found it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The delivery it came with.
    pub delivery: DeliveryId,
    /// Its request in the delivery, from 0.
    pub entry: u32,
    /// Rows in it.
    pub rows: u32,
    /// Why it was given up, if it is a dead letter.
    pub reason: Option<String>,
    /// The batch as it would be sent.
    pub payload: Bytes,
}

/// Shows `visit` every batch in the outbox at `path` that can be read and has not been delivered,
/// delivery by delivery, then the dead letters. Returns `false` when the state cannot be read: then
/// batches that were delivered are among them. What was given up as damaged and can be read after
/// all is shown too.
///
/// # Errors
/// As for [`inspect`](super::inspect), or `visit` failed, which ends it.
pub fn read_batches(
    path: &Path,
    keys: &Keyring,
    mut visit: impl FnMut(Found) -> io::Result<()>,
) -> Result<bool, BatchesError> {
    let disk = &Disk::default();
    let layout = Layout::new(path);
    let _lock = layout.enter_to_read(disk)?;
    check_keys(disk, path, &layout, keys)?;
    let failed = |error: Unreadable| error.at(path);
    let (_, index) = look(disk, &layout, None).map_err(failed)?;
    for (id, number, path) in segments(disk, &layout).map_err(failed)? {
        for record in read_segment(disk, &path, id, number, index.as_ref(), keys).map_err(failed)? {
            show_entry(&record, &mut visit)?;
        }
    }
    match &index {
        Some(index) => {
            for id in index.letters.keys() {
                let Some((delivery, letter)) = index.letter(*id) else {
                    continue;
                };
                let read = read_letter(disk, &layout, keys, letter.name(delivery), letter.place());
                if let Some(read) = sound(read).map_err(failed)? {
                    show_letter(&read.record, &read.meta, &letter.live, &mut visit)?;
                }
            }
            for one in given_up(disk, &layout, index, keys).map_err(failed)? {
                match &one.meta {
                    None => show_entry(&one.record, &mut visit)?,
                    Some(meta) => show_letter(&one.record, meta, &one.live, &mut visit)?,
                }
            }
        }
        None => {
            for path in list(disk, &layout.dead_directory()).map_err(failed)? {
                let file = ReadFile::open(disk, &path).and_then(|file| file.whole());
                let bytes = sound(file).map_err(failed)?.unwrap_or_default();
                show_dead_file(&bytes, keys, &mut visit)?;
            }
        }
    }
    Ok(index.is_some())
}

/// Batches could not be shown to their end.
#[derive(Debug, thiserror::Error)]
pub enum BatchesError {
    /// As for [`inspect`](super::inspect).
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The caller has ended it.
    #[error("the batches could not be taken")]
    Visit(#[from] io::Error),
}

/// The entries of a segment that have not settled, as far as that is known.
fn read_segment(
    disk: &Disk,
    path: &Path,
    id: DeliveryId,
    number: u32,
    index: Option<&Index>,
    keys: &Keyring,
) -> Result<Vec<Record>, Unreadable> {
    let mut records = Vec::new();
    if let Some((_, delivery)) = index.and_then(|index| index.delivery(id)) {
        // One that the state does not count has settled.
        let Some(segment) = delivery.segments.get(number) else {
            return Ok(records);
        };
        let summary = segment.row.summary;
        let file = SegmentFile::open(disk, path, id, summary.first, summary.entries);
        let Some(file) = sound(file)? else {
            return Ok(records);
        };
        for place in (0..summary.entries).filter(|place| !segment.has_settled(*place)) {
            let read = file.read(summary.first.saturating_add(place), keys);
            records.extend(sound(read)?);
        }
        return Ok(records);
    }
    let file = ReadFile::open(disk, path).and_then(|file| file.whole());
    let bytes = sound(file)?.unwrap_or_default();
    records.extend(
        record::scan(&bytes)
            .filter(|(_, _, frame)| (frame.name.kind, frame.name.delivery) == (Kind::Entry, id))
            .filter_map(|(_, _, frame)| frame.open(keys).ok()),
    );
    Ok(records)
}

fn show_entry(record: &Record, visit: &mut impl FnMut(Found) -> io::Result<()>) -> io::Result<()> {
    let mut payloads = record.slices.iter().zip(&record.rows);
    payloads.try_for_each(|(payload, rows)| {
        visit(Found {
            delivery: record.name.delivery,
            entry: record.name.ordinal,
            rows: *rows,
            reason: None,
            payload: payload.clone(),
        })
    })
}

fn show_dead_file(
    bytes: &[u8],
    keys: &Keyring,
    visit: &mut impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    for (_, _, frame) in record::scan(bytes) {
        if let Ok(record) = frame.open(keys)
            && let Ok(meta) = DeadMeta::decode(&record)
        {
            let all = Bits::all(record.slices.len() as u32);
            show_letter(&record, &meta, &all, visit)?;
        }
    }
    Ok(())
}

fn show_letter(
    record: &Record,
    meta: &DeadMeta,
    live: &Bits,
    visit: &mut impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    let slices = record.slices.iter().zip(&record.rows).zip(&meta.slices);
    for (at, ((payload, rows), slice)) in (0u32..).zip(slices) {
        if live.get(at) {
            visit(Found {
                delivery: meta.delivery,
                entry: record.name.ordinal,
                rows: *rows,
                reason: Some(slice.reason.clone()),
                payload: payload.clone(),
            })?;
        }
    }
    Ok(())
}
