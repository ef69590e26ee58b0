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

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::change::{Change, Effects};
use super::disk::Disk;
use super::error::{OpenError, StateError};
use super::index::Index;
use super::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use super::load::load;
use super::segment::SegmentFile;
use super::settings::Settings;
use super::state::{Key, Meta};
use super::store::Store;
use super::{Damage, Tally, cancel, orphans};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::seal::Keyring;

/// An outbox that is ready to work.
pub(super) struct Recovered {
    pub store: Store,
    pub index: Index,
    pub damage: Vec<Damage>,
    pub next_dead_file: u32,
}

/// The recovery at work.
pub(super) struct Recovery<'a> {
    pub layout: &'a Layout,
    pub disk: &'a Disk,
    pub keys: &'a Keyring,
    pub store: Store,
    pub index: Index,
    pub damage: Vec<Damage>,
    /// The state was lost: what the files say is all that is known.
    pub rebuilt: bool,
    /// Deliveries that the state did not know.
    pub adopted: HashSet<DeliveryId>,
    pub files: Files,
}

/// What lies in the directories.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub segments: HashMap<DeliveryId, BTreeMap<u32, PathBuf>>,
    pub aborted: Vec<(DeliveryId, PathBuf)>,
    pub cancelled: Vec<(DeliveryId, PathBuf)>,
    pub dead: BTreeMap<u32, PathBuf>,
    pub rejected: BTreeMap<DeliveryId, PathBuf>,
    strays: Vec<PathBuf>,
}

/// Opens the state of an outbox whose directory is ours and locked. Files of the deliveries in
/// `live` are left alone: they are on their way in.
pub(super) fn recover(
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
    recovery.run(live).map_err(failed)?;
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

impl Recovery<'_> {
    fn run(&mut self, live: &HashSet<DeliveryId>) -> Result<(), StateError> {
        let mut meta = sled::Batch::default();
        let value = Meta {
            next_position: self.index.next_position,
            next_letter: self.index.next_letter,
        };
        meta.insert(Key::Meta.encode(), value.encode());
        self.store.apply(meta)?;
        self.remove_withdrawn(live)?;
        self.take_up_segments()?;
        orphans::take_up(self)?;
        orphans::take_up_rejected(self)?;
        self.give_up_lost()?;
        cancel::take_up(self)?;
        for stray in std::mem::take(&mut self.files.strays) {
            self.set_aside(&stray, "is no file of the outbox");
        }
        Ok(())
    }

    /// Makes a change durable.
    pub fn make(&mut self, mut change: Change) -> Result<(), StateError> {
        change.close(&self.index, None);
        if change.is_empty() {
            return Ok(());
        }
        self.store.apply(change.batch(&self.index))?;
        let Effects { spent, .. } = change.apply(&mut self.index, self.layout);
        for (path, _, damaged) in spent {
            if damaged {
                self.set_aside(&path, "was damaged and has settled");
            } else {
                self.remove(&path);
            }
        }
        Ok(())
    }

    /// Removes what need not be there. One that stays is met again at the next open.
    pub fn remove(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::warn!(file = %path.display(), %error, "a file of the outbox could not be removed");
        }
    }

    /// Moves what is damaged out of the way. One that stays is met again at the next open.
    pub fn set_aside(&self, path: &Path, why: &str) {
        if !path.exists() {
            return;
        }
        match self.layout.set_aside(self.disk, path) {
            Ok(target) => tracing::warn!(
                file = %path.display(), now = %target.display(),
                "a file of the outbox {why} and was set aside"
            ),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a damaged file could not be set aside");
            }
        }
    }

    /// Makes files durable that the state is about to count on.
    pub fn sync(&self, files: &[PathBuf]) -> Result<(), StateError> {
        let mut directories = HashSet::new();
        files
            .iter()
            .try_for_each(|path| {
                directories.extend(path.parent());
                self.disk.sync_path(path)
            })
            .and_then(|()| {
                directories
                    .iter()
                    .try_for_each(|directory| self.disk.sync_directory(directory))
            })
            .map_err(|source| StateError::Io {
                doing: "files that were found could not be synced",
                source,
            })
    }

    pub fn lost(&mut self, delivery: Option<DeliveryId>, rows: u64, what: String) {
        self.damage.push(Damage {
            delivery,
            rows,
            what,
            found: UnixMillis::now(),
        });
    }

    /// A delivery that was withdrawn may have left rows in sled, when it was sled that failed.
    fn remove_withdrawn(&mut self, live: &HashSet<DeliveryId>) -> Result<(), StateError> {
        let aborted = std::mem::take(&mut self.files.aborted);
        let mut change = Change::default();
        for id in aborted.iter().map(|(id, _)| id).chain(live) {
            if let Some((position, _)) = self.index.delivery(*id) {
                change.purge_delivery(&self.index, position);
            }
        }
        self.make(change)?;
        for (id, mark) in aborted {
            for path in self.files.segments.remove(&id).unwrap_or_default().values() {
                self.remove(path);
            }
            self.remove(&mark);
        }
        Ok(())
    }

    fn take_up_segments(&mut self) -> Result<(), StateError> {
        let ids: Vec<DeliveryId> = self.files.segments.keys().copied().collect();
        let mut strangers = Vec::new();
        for id in ids {
            let known = self
                .index
                .delivery(id)
                .map(|(_, delivery)| delivery.segments.keys().copied().collect::<HashSet<u32>>());
            let Some(known) = known else {
                strangers.push(id);
                continue;
            };
            let Some(files) = self.files.segments.get_mut(&id) else {
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
            spent.iter().for_each(|path| self.remove(path));
        }
        super::adopt::take_up(self, strangers)
    }

    /// What the state counts on and the disk does not have.
    fn give_up_lost(&mut self) -> Result<(), StateError> {
        let mut change = Change::default();
        let mut lost = Vec::new();
        for (&position, delivery) in &self.index.deliveries {
            let id = delivery.row.info.id;
            for (&number, segment) in &delivery.segments {
                let summary = segment.row.summary;
                let path = self.layout.segment(id, number);
                let length = path.metadata().ok().map(|meta| meta.len());
                if length == Some(summary.bytes) || segment.row.is_settled() {
                    continue;
                }
                let file = SegmentFile::open(&path, id, summary.first, summary.entries).ok();
                if file.is_none() && length.is_some() {
                    // Not for its contents: the claim will say what the system says.
                    continue;
                }
                let tally = change.give_up_missing(&self.index, position, number, file.as_ref());
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
        let lengths: HashMap<u32, u64> = self
            .index
            .dead_files
            .keys()
            .map(|number| {
                let length = self.layout.dead(*number).metadata();
                (*number, length.map_or(0, |meta| meta.len()))
            })
            .collect();
        for (&id, letter) in &self.index.letters {
            let end = letter.offset.saturating_add(u64::from(letter.length));
            if lengths
                .get(&letter.file)
                .is_some_and(|length| end <= *length)
            {
                continue;
            }
            change.give_up_letter(&self.index, id);
            let delivery = self.index.deliveries.get(&letter.position);
            lost.push((
                delivery.map(|delivery| delivery.row.info.id),
                letter.tally.rows,
                format!("dead letter {id} is gone with the end of its file"),
            ));
        }
        for (delivery, rows, what) in lost {
            self.lost(delivery, rows, what);
        }
        self.make(change)
    }
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

impl StateError {
    /// The files may be sound: it was the system that refused.
    fn is_of_the_system(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Sled(sled::Error::Io(error)) => {
                error.raw_os_error().is_some() || error.to_string().contains("lock")
            }
            Self::Sled(_) | Self::Panicked(_) | Self::Inconsistent(_) => false,
        }
    }
}

impl Files {
    fn list(layout: &Layout, live: &HashSet<DeliveryId>) -> io::Result<Self> {
        let mut files = Self::default();
        for entry in fs::read_dir(layout.segments())? {
            let path = entry?.path();
            match path.file_name().and_then(parse_segment_name) {
                Some(SegmentName::Segment(id, number)) if !live.contains(&id) => {
                    files.segments.entry(id).or_default().insert(number, path);
                }
                Some(SegmentName::Aborted(id)) => files.aborted.push((id, path)),
                Some(SegmentName::Cancelled(id)) => files.cancelled.push((id, path)),
                Some(SegmentName::Segment(..)) => {}
                None => files.strays.push(path),
            }
        }
        for entry in fs::read_dir(layout.rejected_directory())? {
            let path = entry?.path();
            match path.file_name().and_then(parse_rejected_name) {
                Some(id) if live.contains(&id) => {}
                Some(id) => {
                    files.rejected.insert(id, path);
                }
                None => files.strays.push(path),
            }
        }
        for entry in fs::read_dir(layout.dead_directory())? {
            let path = entry?.path();
            match path.file_name().and_then(parse_dead_name) {
                Some(number) => {
                    files.dead.insert(number, path);
                }
                None => files.strays.push(path),
            }
        }
        Ok(files)
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.dead.is_empty() && self.rejected.is_empty()
    }
}
