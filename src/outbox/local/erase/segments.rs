//! Segments that are searched, and written anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::found::{Dead, Found, at, check, one};
use super::holds::Holds;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::delivery::Tally;
use crate::outbox::erase::{Erased, Matcher, Scan};
use crate::outbox::error::Error;
use crate::outbox::local::claim::open_segment;
use crate::outbox::local::files::format::{Commit, FileKind, Header};
use crate::outbox::local::files::read::{ReadError, sound};
use crate::outbox::local::files::segment::{AppendError, SegmentFile, SegmentWriter};
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Rewritten};
use crate::outbox::local::state::rows::{DeliveryRow, SegmentRow};
use crate::outbox::record::{MAX_RAW, Slice};

/// A segment by the position of its delivery and its number.
type Key = (u64, u32);

/// The segments that are there; `of`: only those of these deliveries.
pub(super) fn all(local: &Local, of: Option<&HashSet<DeliveryId>>) -> BTreeSet<Key> {
    let index = local.shared.index();
    let wanted = |id: DeliveryId| of.is_none_or(|of| of.contains(&id));
    let deliveries = index.deliveries.iter();
    let deliveries = deliveries.filter(|(_, delivery)| wanted(delivery.row.info.id));
    deliveries
        .flat_map(|(position, delivery)| delivery.segments.numbers().map(|n| (*position, n)))
        .collect()
}

/// A segment that is open.
struct Open {
    position: u64,
    delivery: Arc<DeliveryRow>,
    row: SegmentRow,
    /// It carries the commit.
    last: bool,
    file: SegmentFile,
    path: PathBuf,
}

/// `None`: it has gone since it was listed, or all of it is lost.
fn open(local: &Local, (position, number): Key) -> Result<Option<Open>, Error> {
    let shared = &local.shared;
    // Twice, if what is lost of it has to be given up first.
    for first in [true, false] {
        let known = {
            let index = shared.index();
            index.deliveries.get(&position).and_then(|delivery| {
                let segment = delivery.segments.get(number)?;
                let last = delivery.segments.last();
                let last = last.is_some_and(|last| last.row.summary.number == number);
                Some((Arc::clone(&delivery.row), segment.row, last))
            })
        };
        let Some((delivery, row, last)) = known else {
            return Ok(None);
        };
        let (id, summary) = (delivery.info.id, row.summary);
        let path = shared.layout.segment(id, number);
        let file = SegmentFile::open(&shared.disk, &path, id, summary.first, summary.entries);
        let file = sound(file).map_err(|error| local.unreadable(error))?;
        match file {
            Some(file) if file.sound || !first => {
                return Ok(Some(Open {
                    position,
                    delivery,
                    row,
                    last,
                    file,
                    path,
                }));
            }
            _ => open_segment(local, position, row, id)?,
        }
    }
    Ok(None)
}

impl Open {
    fn ordinals(&self) -> impl Iterator<Item = u32> + use<> {
        let summary = self.row.summary;
        summary.first..summary.first.saturating_add(summary.entries)
    }

    /// Shows each record's batches that are meant: its ordinal, and (place, rows) of each.
    fn search(
        &self,
        local: &Local,
        matcher: &dyn Matcher,
        scan: &Scan,
        mut found: impl FnMut(u32, Vec<(u32, u32)>),
    ) -> Result<(), Error> {
        for ordinal in self.ordinals() {
            check(scan)?;
            let Some(place) = self.file.place(ordinal) else {
                continue;
            };
            match self.file.read(ordinal, &local.shared.settings.keys) {
                Ok(record) => {
                    let slices = (0u32..).zip(record.slices.iter().zip(&record.rows));
                    let meant = slices.filter(|(_, (slice, _))| matcher.batch(slice));
                    let meant: Vec<_> = meant.map(|(at, (_, rows))| (at, *rows)).collect();
                    if !meant.is_empty() {
                        found(ordinal, meant);
                    }
                }
                // It is given up when its turn comes.
                Err(ReadError::Damaged) => {}
                Err(ReadError::Unreadable(error)) => return Err(local.unreadable(error)),
            }
            scan.add(u64::from(place.length));
        }
        Ok(())
    }
}

/// Counts what is meant in a segment.
pub(super) fn find(
    local: &Local,
    segment: Key,
    matcher: &dyn Matcher,
    scan: &Scan,
    dead: &Dead,
    found: &mut Found,
) -> Result<(), Error> {
    let Some(open) = open(local, segment)? else {
        return Ok(());
    };
    let (position, number) = segment;
    let mut hits = Vec::new();
    open.search(local, matcher, scan, |ordinal, meant| {
        hits.push((ordinal, meant))
    })?;
    for (ordinal, meant) in hits {
        let (settled, flies) = {
            let index = local.shared.index();
            let delivery = index.deliveries.get(&position);
            let segment = delivery.and_then(|delivery| delivery.segments.get(number));
            let settled =
                segment.is_none_or(|one| one.has_settled(ordinal - open.row.summary.first));
            let flies = delivery.is_some_and(|one| one.claimed(ordinal).is_some());
            (settled, flies)
        };
        let Some(occurrence) = at(local, found, position) else {
            return Ok(());
        };
        for (slice, rows) in meant {
            match (settled, flies) {
                (true, _) if dead.contains(&(position, ordinal, slice)) => {}
                (true, _) => occurrence.decided += one(rows),
                (false, true) => occurrence.in_flight += one(rows),
                (false, false) => occurrence.waiting += one(rows),
            }
        }
    }
    Ok(())
}

/// Erases what is meant in a segment. Returns whether it has to be looked at again, since something of
/// it is in flight.
pub(super) fn erase(
    local: &Local,
    segment: Key,
    matcher: &dyn Matcher,
    scan: &Scan,
    give_back: &dyn Fn(DestinationId, DeliveryId),
    holds: &mut Holds<'_>,
    sum: &mut Erased,
) -> Result<bool, Error> {
    let Some(open) = open(local, segment)? else {
        return Ok(false);
    };
    let mut hits: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    open.search(local, matcher, scan, |ordinal, meant| {
        hits.insert(ordinal, meant);
    })?;
    if hits.is_empty() {
        return Ok(false);
    }
    let info = &open.delivery.info;
    let held = || hits.keys().copied();
    if holds.entries(open.position, held()) {
        give_back(info.destination, info.id);
        return Ok(true);
    }
    // What it remembers of these requests names batches by their place, which is about to change.
    give_back(info.destination, info.id);
    let written = write(local, &open, &hits)?;
    let draft = written.draft.clone();
    let erased = local.ask(|reply| Command::Rewritten(written, reply));
    if !matches!(erased, Ok(Some(_)))
        && let Err(error) = local.shared.disk.remove(&draft)
    {
        tracing::warn!(%error, "a file that was written anew could not be removed; the next start removes it");
    }
    if let Some(erased) = erased? {
        let meant: u64 = hits.values().map(|meant| meant.len() as u64).sum();
        sum.copies += meant.saturating_sub(erased.batches);
        sum.waiting += erased;
    }
    holds.let_go(open.position, held());
    Ok(false)
}

/// Writes the segment anew, without what is meant.
fn write(
    local: &Local,
    open: &Open,
    hits: &BTreeMap<u32, Vec<(u32, u32)>>,
) -> Result<Rewritten, Error> {
    let shared = &local.shared;
    let (info, summary) = (&open.delivery.info, open.row.summary);
    let draft = shared.layout.draft(&open.path);
    let failed = "a segment could not be written anew";
    shared.disk.remove(&draft).map_err(Error::io(failed))?;
    let mut told = (**info).clone();
    told.account = shared.account(info.destination);
    let keys = &shared.settings.keys;
    let header = Header {
        kind: FileKind::Segment,
        number: summary.number,
        first: summary.first,
        key: keys.current(),
        info: Some(told),
    };
    let writer = SegmentWriter::create(&shared.disk, draft.clone(), info.id, &header, keys);
    let mut writer = writer.map_err(Error::io(failed))?;
    let mut erased = open.file.erased;
    for ordinal in open.ordinals() {
        append(
            local,
            open,
            ordinal,
            hits.get(&ordinal),
            &mut writer,
            &mut erased,
        )?;
    }
    let commit = open.last.then(|| Commit {
        position: open.position,
        committed: open.delivery.committed,
        segments: summary.number.saturating_add(1),
        totals: open.delivery.totals.clone(),
    });
    writer.erased(erased);
    let written = writer.finish(commit).map_err(Error::io(failed))?;
    Ok(Rewritten {
        position: open.position,
        number: summary.number,
        draft,
        bytes: written.bytes,
    })
}

fn append(
    local: &Local,
    open: &Open,
    ordinal: u32,
    meant: Option<&Vec<(u32, u32)>>,
    writer: &mut SegmentWriter,
    erased: &mut Tally,
) -> Result<(), Error> {
    let failed = |error| match error {
        AppendError::TooLarge => Error::TooLarge {
            what: "an entry",
            limit: MAX_RAW,
        },
        AppendError::Io(source) => Error::io("a segment could not be written anew")(source),
    };
    let Some(place) = open.file.place(ordinal) else {
        // It was lost and has been given up; the number has to stay.
        return writer.append(0, &[]).map(|_| ()).map_err(failed);
    };
    let record = match open.file.read(ordinal, &local.shared.settings.keys) {
        Ok(record) => record,
        Err(ReadError::Unreadable(error)) => return Err(local.unreadable(error)),
        // As it is, for a salvage.
        Err(ReadError::Damaged) => {
            let bytes = open.file.bytes(place).map_err(|error| match error {
                ReadError::Unreadable(error) => local.unreadable(error),
                ReadError::Damaged => Error::Damaged {
                    what: format!("a segment of delivery {}", open.delivery.info.id).into(),
                },
            })?;
            return writer.copy(place, &bytes).map_err(failed);
        }
    };
    let goes = |at: u32| meant.is_some_and(|meant| meant.iter().any(|(slice, _)| *slice == at));
    let mut slices = Vec::with_capacity(record.slices.len());
    for (at, (bytes, &rows)) in (0u32..).zip(record.slices.iter().zip(&record.rows)) {
        match goes(at) {
            true => *erased += one(rows),
            false => slices.push(Slice { bytes, rows }),
        }
    }
    let route = record.route().unwrap_or(0);
    writer.append(route, &slices).map(|_| ()).map_err(failed)
}
