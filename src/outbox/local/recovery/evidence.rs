//! What the files say and the state does not, read before anything is changed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::model::DeliveryId;
use crate::outbox::dead::DeadMeta;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{Commit, Footer, Header};
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, length_of, sound};
use crate::outbox::local::files::segment::{Summary, read_footer, read_header};
use crate::outbox::local::recovery::work::Files;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::{Bits, Letter};
use crate::outbox::record::{self, Kind};
use crate::seal::Keyring;

/// Segments of deliveries that the state does not know, by delivery and number.
pub(in crate::outbox) type Strangers = BTreeMap<DeliveryId, BTreeMap<u32, Found>>;
/// What files of rejected rows say of deliveries that the state does not know.
pub(in crate::outbox) type Heads = HashMap<DeliveryId, (Info, Commit)>;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Evidence {
    pub strangers: Strangers,
    pub tails: Vec<Tail>,
    pub heads: Heads,
    /// Of each file in `segments/` and `dead/` that is there.
    pub lengths: HashMap<PathBuf, u64>,
}

/// One segment file, as far as it is sound.
#[derive(Debug)]
pub(in crate::outbox) struct Found {
    pub header: Option<Header>,
    pub footer: Option<Footer>,
    bytes: u64,
    /// Of a file whose header or footer is damaged: what its records say.
    scanned: Option<Scanned>,
}

#[derive(Debug, Default)]
struct Scanned {
    /// The first and the last ordinal, if there is one.
    span: Option<(u32, u32)>,
    tally: Tally,
}

/// What lies in a dead-letter file behind what the state knows of it.
#[derive(Debug)]
pub(in crate::outbox) struct Tail {
    pub number: u32,
    pub path: PathBuf,
    pub length: u64,
    pub orphans: Vec<Orphan>,
    /// Deliveries with a record that is sound by its checksum and does not open.
    pub shut: Vec<DeliveryId>,
}

/// A dead-letter record that the state does not know.
#[derive(Debug)]
pub(in crate::outbox) struct Orphan {
    pub meta: DeadMeta,
    pub letter: Letter,
    pub rows: Vec<u32>,
}

impl Evidence {
    /// Reads it.
    ///
    /// # Errors
    /// Something cannot be read now.
    pub fn read(
        disk: &Disk,
        layout: &Layout,
        keys: &Keyring,
        files: &Files,
        index: &Index,
    ) -> Result<Self, Unreadable> {
        let mut evidence = Self::default();
        let segments = files.segments.values().flat_map(BTreeMap::values);
        for path in segments.chain(files.dead.values()) {
            if let Some(length) = length_of(disk, path)? {
                evidence.lengths.insert(path.clone(), length);
            }
        }
        for (id, paths) in &files.segments {
            if index.by_id.contains_key(id) {
                continue;
            }
            let mut found = BTreeMap::new();
            for (number, path) in paths {
                if let Some(one) = Found::read(disk, path, *id)? {
                    found.insert(*number, one);
                }
            }
            evidence.strangers.insert(*id, found);
        }
        for (&number, path) in &files.dead {
            let known = index.dead_files.get(&number);
            // One that the state does not know at all is taken in even if it is empty, so that it goes.
            let stranger = known.is_none();
            let known = known.map_or(0, |file| file.row.length);
            let length = evidence.lengths.get(path).copied().unwrap_or(0);
            if length > known || stranger {
                let tail = Tail::read(disk, layout, keys, number, known)?;
                evidence.tails.extend(tail);
            }
        }
        for (id, path) in &files.rejected {
            if !index.by_id.contains_key(id) {
                let head = read_head(disk, path)?;
                evidence.heads.extend(head.map(|head| (*id, head)));
            }
        }
        Ok(evidence)
    }
}

impl Found {
    /// `None`: it has gone since it was listed.
    fn read(disk: &Disk, path: &Path, id: DeliveryId) -> Result<Option<Self>, Unreadable> {
        let Some(file) = sound(ReadFile::open(disk, path))? else {
            return Ok(None);
        };
        let mut found = Self {
            header: sound(file.twice(read_header))?,
            footer: sound(file.twice(read_footer))?,
            bytes: file.length()?,
            scanned: None,
        };
        if found.header.is_none() || found.footer.is_none() {
            let bytes = sound(file.whole())?.unwrap_or_default();
            found.scanned = Some(scanned(&bytes, id));
        }
        Ok(Some(found))
    }

    /// What its footer says that it weighs.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for place in self.footer.iter().flat_map(|footer| &footer.places) {
            sum += place.tally();
        }
        sum
    }

    /// What the segment holds; of a damaged one, what can still be read.
    pub fn summary(&self, number: u32, next: Option<&Found>) -> Summary {
        let mut summary = Summary {
            number,
            bytes: self.bytes,
            tally: self.tally(),
            ..Summary::default()
        };
        if let (Some(header), Some(footer)) = (&self.header, &self.footer) {
            summary.first = header.first;
            summary.entries = footer.places.len() as u32;
            return summary;
        }
        let nothing = Scanned::default();
        let scanned = self.scanned.as_ref().unwrap_or(&nothing);
        let (first, last) = scanned
            .span
            .map_or((0, 0), |(first, last)| (first, last + 1));
        summary.first = self.header.as_ref().map_or(first, |header| header.first);
        let end = next
            .and_then(|next| Some(next.header.as_ref()?.first))
            .unwrap_or(last);
        summary.entries = match &self.footer {
            Some(footer) => footer.places.len() as u32,
            None => end.saturating_sub(summary.first),
        };
        summary.tally = scanned.tally;
        summary
    }
}

fn scanned(bytes: &[u8], id: DeliveryId) -> Scanned {
    let mut scanned = Scanned::default();
    for (_, _, frame) in record::scan(bytes) {
        if (frame.name.kind, frame.name.delivery) != (Kind::Entry, id) {
            continue;
        }
        scanned.tally += Tally {
            rows: frame.total_rows(),
            batches: u64::from(frame.slices()),
        };
        let ordinal = frame.name.ordinal;
        let (first, last) = scanned.span.unwrap_or((ordinal, ordinal));
        scanned.span = Some((first.min(ordinal), last.max(ordinal)));
    }
    scanned
}

impl Tail {
    fn read(
        disk: &Disk,
        layout: &Layout,
        keys: &Keyring,
        number: u32,
        known: u64,
    ) -> Result<Option<Self>, Unreadable> {
        let path = layout.dead(number);
        let file = ReadFile::open(disk, &path);
        let Some(bytes) = sound(file.and_then(|file| file.whole()))? else {
            return Ok(None);
        };
        let mut tail = Self {
            number,
            path,
            length: bytes.len() as u64,
            orphans: Vec::new(),
            shut: Vec::new(),
        };
        for (delivery, orphan) in orphans(&bytes, number, known, keys) {
            match orphan {
                Some(orphan) => tail.orphans.push(orphan),
                None => tail.shut.push(delivery),
            }
        }
        Ok(Some(tail))
    }
}

/// The dead letters behind what is `known`; `None`: it is sound by its checksum and does not open.
fn orphans(
    bytes: &[u8],
    file: u32,
    known: u64,
    keys: &Keyring,
) -> Vec<(DeliveryId, Option<Orphan>)> {
    let known = usize::try_from(known).unwrap_or(usize::MAX);
    let tail = bytes.get(known..).unwrap_or_default();
    record::scan(tail)
        .map(|(offset, length, frame)| {
            let opened = frame.open(keys).and_then(|record| {
                let meta = DeadMeta::decode(&record)?;
                Ok((record, meta))
            });
            let orphan = opened.ok().map(|(record, meta)| Orphan {
                letter: Letter {
                    position: 0,
                    file,
                    offset: (known + offset) as u64,
                    length: length as u32,
                    ordinal: record.name.ordinal,
                    live: Bits::all(record.slices.len() as u32),
                    tally: Tally::default(),
                    queued: None,
                },
                meta,
                rows: record.rows,
            });
            (frame.name.delivery, orphan)
        })
        .collect()
}

fn read_head(disk: &Disk, path: &Path) -> Result<Option<(Info, Commit)>, Unreadable> {
    let Some(file) = sound(ReadFile::open(disk, path))? else {
        return Ok(None);
    };
    let header = sound(file.twice(read_header))?;
    let footer = sound(file.twice(read_footer))?;
    Ok(header
        .and_then(|header| header.info)
        .zip(footer.and_then(|footer| footer.commit)))
}
