//! What a person can do with an outbox that no daemon has open: look at each delivery
//! ([`inspect`]), bring what can be read into a fresh directory ([`salvage_into`]), or read the
//! batches themselves ([`read_batches`]). None of them changes the outbox that it is pointed at.

pub(in crate::outbox) mod check;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::delivery::Info;
use crate::outbox::delivery::{DeliveryState, Tally};
use crate::outbox::error::{Error, OpenError};
use crate::outbox::local;
use crate::outbox::local::files::dead::{DeadMeta, read_letter};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::keys::check_keys;
use crate::outbox::local::files::layout::{Layout, SegmentName, parse_segment_name};
use crate::outbox::local::files::segment::{SegmentFile, read_footer, read_header, read_whole};
use crate::outbox::local::offline::check::{CheckReport, look};
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::Bits;
use crate::outbox::record::{self, Kind, Record};
use crate::outbox::settings::Settings;
use crate::outbox::status::Damage;
use crate::seal::Keyring;

/// Longer than any daemon is told to remember: a salvage forgets nothing.
const FOR_EVER: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// What is left out, as zeroes, where the disk does not give a part of a file.
const SECTOR: usize = 4096;

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
    pub standing: Standing,
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
pub enum Standing {
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
    let layout = Layout::new(path);
    let _lock = layout.enter_to_read()?;
    if let Some(keys) = keys {
        check_keys(path, &layout, keys)?;
    }
    let (report, index) = look(&layout, keys).map_err(read_error(path))?;
    let mut deliveries = recorded(index.as_ref());
    unrecorded(&layout, index.as_ref(), &mut deliveries).map_err(read_error(path))?;
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
    for delivery in index.iter().flat_map(|index| index.deliveries.values()) {
        let state = delivery.state();
        let left = delivery.segments.values().map(|segment| {
            let row = &segment.row;
            u64::from(row.summary.entries.saturating_sub(row.settled_entries))
        });
        let inspected = Inspected {
            standing: match state.settled {
                true => Standing::Settled,
                false => Standing::Unsettled,
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
    layout: &Layout,
    index: Option<&Index>,
    found: &mut BTreeMap<DeliveryId, Inspected>,
) -> io::Result<()> {
    for (id, _, path) in segments(layout)? {
        if index.is_some_and(|index| index.by_id.contains_key(&id)) {
            continue;
        }
        let file = File::open(&path)?;
        let header = read_header(&file);
        let info = header.as_ref().and_then(|header| header.info.as_ref());
        let inspected = found
            .entry(id)
            .or_insert_with(|| Inspected::new(id, info.filter(|info| info.id == id)));
        let footer = read_footer(&file)?.unwrap_or_default();
        let mut tally = Tally::default();
        let mut entries = 0;
        for place in &footer.places {
            tally += place.tally();
            entries += 1;
        }
        if footer.places.is_empty() {
            for (_, _, frame) in record::scan(&read_whole(&file)?) {
                tally.rows += frame.total_rows();
                entries += 1;
            }
        }
        inspected.entries_left += entries;
        inspected.rows_left += tally.rows;
        match footer.commit {
            Some(commit) => {
                inspected.standing = Standing::Unrecorded;
                inspected.rows = commit.totals.rows_in;
                inspected.entries = commit.totals.requests;
            }
            None if inspected.standing == Standing::Unrecorded => {}
            None => {
                inspected.rows += tally.rows;
                inspected.entries += entries;
                inspected.standing = match index {
                    Some(_) => Standing::NotAccepted,
                    None => Standing::Unknown,
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
            title: info.map_or_else(String::new, |info| info.title.clone()),
            destination: info.map_or_else(String::new, |info| info.label.clone()),
            received: info.map_or(UnixMillis(0), |info| info.received),
            standing: Standing::Unknown,
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

/// The fresh outbox that a salvage has made.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes that the disk did not give; they are zeroes in the copy.
    pub unreadable: u64,
    /// What is in the fresh outbox, newest first.
    pub deliveries: Vec<DeliveryState>,
    /// What was lost or is in doubt, the latest 200.
    pub damage: Vec<Damage>,
}

/// A salvage was not made, or not to its end. The outbox that it came from is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SalvageIntoError {
    /// The one it comes from is in use or no outbox, or the copy could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new directory holds something already.
    #[error("{} is not empty; give the salvage a directory that is not there yet", .0.display())]
    NotEmpty(PathBuf),
    /// The new directory would lie in the outbox itself.
    #[error("{} lies in the outbox that is to be salvaged; give the salvage another place", .0.display())]
    Inside(PathBuf),
    /// A file could not be copied.
    #[error("{} could not be copied to the new directory", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why: most often the disk is full.
        source: io::Error,
    },
    /// The losses could not be written down in the copy.
    #[error(transparent)]
    Record(#[from] Error),
}

/// Copies the outbox at `from` to `to`, brings the copy in order as a start would, and reads all of
/// it, so that what cannot be read is given up and named now and not when its turn comes. The
/// damaged files are in `damaged/` of the copy. Needs as much disk as the outbox has.
///
/// What is in it stays sealed: the copy needs the same keys as `from`.
///
/// # Errors
/// See [`SalvageIntoError`]. What has been copied by then stays in `to`.
pub fn salvage_into(
    from: &Path,
    to: &Path,
    keys: Arc<Keyring>,
) -> Result<Salvaged, SalvageIntoError> {
    let layout = Layout::new(from);
    let _lock = layout.enter_to_read()?;
    check_keys(from, &layout, &keys)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SalvageIntoError::NotEmpty(to.to_owned()));
    }
    if lies_in(to, from).map_err(copy_error(to))? {
        return Err(SalvageIntoError::Inside(to.to_owned()));
    }
    let mut copied = Copied::default();
    make_directory(to)?;
    for directory in [
        layout.segments(),
        layout.dead_directory(),
        layout.rejected_directory(),
        layout.state(),
    ] {
        copied.directory(&directory, to)?;
    }
    let outbox = local::open(
        Settings {
            reserve_bytes: 0,
            webhook_memory: FOR_EVER,
            history: usize::MAX,
            ..Settings::new(to, keys)
        },
        Disk::default(),
    )?;
    let verified = local::verify::verify(&outbox);
    let (deliveries, damage) = (
        local::status::deliveries(&outbox, 0, usize::MAX),
        outbox.shared.damage(),
    );
    outbox.close();
    verified?;
    Ok(Salvaged {
        bytes: copied.bytes,
        unreadable: copied.unreadable,
        deliveries,
        damage,
    })
}

#[derive(Default)]
struct Copied {
    bytes: u64,
    unreadable: u64,
}

impl Copied {
    /// Copies the files of a directory; one that is not there has none.
    fn directory(&mut self, from: &Path, to: &Path) -> Result<(), SalvageIntoError> {
        let failed = copy_error(from);
        let target = to.join(from.file_name().unwrap_or_default());
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        make_directory(&target)?;
        for entry in entries {
            let entry = entry.map_err(&failed)?;
            let path = entry.path();
            if entry.file_type().map_err(copy_error(&path))?.is_file() {
                let copied = self.file(&path, &target.join(entry.file_name()));
                copied.map_err(copy_error(&path))?;
            }
        }
        File::open(&target)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }

    /// Copies what the disk gives of a file.
    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = File::open(from)?;
        let length = source.metadata()?.len();
        let mut options = File::options();
        let mut target = options.write(true).create_new(true).mode(0o600).open(to)?;
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            let step = usize::try_from(length - at).map_or(CHUNK, |left| left.min(CHUNK));
            let part = chunk.get_mut(..step).unwrap_or_default();
            if source.read_exact_at(part, at).is_err() {
                for (n, sector) in part.chunks_mut(SECTOR).enumerate() {
                    if source
                        .read_exact_at(sector, at + (n * SECTOR) as u64)
                        .is_err()
                    {
                        sector.fill(0);
                        self.unreadable += sector.len() as u64;
                    }
                }
            }
            target.write_all(part)?;
            at += step as u64;
        }
        self.bytes += length;
        target.sync_all()
    }
}

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
/// batches that were delivered are among them.
///
/// # Errors
/// As for [`inspect`], or `visit` failed, which ends it.
pub fn read_batches(
    path: &Path,
    keys: &Keyring,
    mut visit: impl FnMut(Found) -> io::Result<()>,
) -> Result<bool, OpenError> {
    let layout = Layout::new(path);
    let _lock = layout.enter_to_read()?;
    check_keys(path, &layout, keys)?;
    let (_, index) = look(&layout, None).map_err(read_error(path))?;
    (|| {
        for (id, number, path) in segments(&layout)? {
            read_segment(&path, id, number, index.as_ref(), keys, &mut visit)?;
        }
        match &index {
            Some(index) => read_letters(&layout, index, keys, &mut visit),
            None => read_dead_files(&layout, keys, &mut visit),
        }
    })()
    .map_err(read_error(path))?;
    Ok(index.is_some())
}

fn read_segment(
    path: &Path,
    id: DeliveryId,
    number: u32,
    index: Option<&Index>,
    keys: &Keyring,
    visit: &mut impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    let mut show = |record: &Record| {
        let mut payloads = record.slices.iter().zip(&record.rows);
        payloads.try_for_each(|(payload, rows)| {
            visit(Found {
                delivery: id,
                entry: record.name.ordinal,
                rows: *rows,
                reason: None,
                payload: payload.clone(),
            })
        })
    };
    if let Some((_, delivery)) = index.and_then(|index| index.delivery(id)) {
        // One that the state does not count has settled.
        let Some(segment) = delivery.segments.get(&number) else {
            return Ok(());
        };
        let summary = segment.row.summary;
        let file = SegmentFile::open(path, id, summary.first, summary.entries)?;
        for place in (0..summary.entries).filter(|place| !segment.has_settled(*place)) {
            if let Ok(record) = file.read(summary.first.saturating_add(place), keys) {
                show(&record)?;
            }
        }
        return Ok(());
    }
    let bytes = read_whole(&File::open(path)?)?;
    record::scan(&bytes)
        .filter(|(_, _, frame)| (frame.name.kind, frame.name.delivery) == (Kind::Entry, id))
        .filter_map(|(_, _, frame)| frame.open(keys).ok())
        .try_for_each(|record| show(&record))
}

fn read_letters(
    layout: &Layout,
    index: &Index,
    keys: &Keyring,
    visit: &mut impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    for id in index.letters.keys() {
        if let Some((delivery, letter)) = index.letter(*id)
            && let Ok(read) = read_letter(layout, keys, letter.name(delivery), letter.place())
        {
            show_letter(&read.record, &read.meta, &letter.live, visit)?;
        }
    }
    Ok(())
}

fn read_dead_files(
    layout: &Layout,
    keys: &Keyring,
    visit: &mut impl FnMut(Found) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(layout.dead_directory())? {
        let bytes = read_whole(&File::open(entry?.path())?)?;
        for (_, _, frame) in record::scan(&bytes) {
            if let Ok(record) = frame.open(keys)
                && let Ok(meta) = DeadMeta::decode(&record)
            {
                let all = Bits::all(record.slices.len() as u32);
                show_letter(&record, &meta, &all, visit)?;
            }
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

/// All segments, in the order of delivery and number.
fn segments(layout: &Layout) -> io::Result<Vec<(DeliveryId, u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(layout.segments())? {
        let path = entry?.path();
        if let Some(SegmentName::Segment(id, number)) =
            path.file_name().and_then(parse_segment_name)
        {
            found.push((id, number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `path`, which need not be there, is below `directory`.
fn lies_in(path: &Path, directory: &Path) -> io::Result<bool> {
    let directory = directory.canonicalize()?;
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    Ok(there.is_some_and(|path| path.starts_with(directory)))
}

/// For its owner only, like the outbox itself.
fn make_directory(path: &Path) -> Result<(), SalvageIntoError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(copy_error(path))
}

fn copy_error(path: &Path) -> impl Fn(io::Error) -> SalvageIntoError {
    move |source| SalvageIntoError::Copy {
        path: path.to_owned(),
        source,
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        path: path.to_owned(),
        doing: "it could not be read",
        source,
    }
}
