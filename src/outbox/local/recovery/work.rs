//! The recovery at work: what it holds, and the steps that all of its parts take.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::read::{Unreadable, list};
use crate::outbox::local::state::change::{Change, Effects};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::store::Store;
use crate::outbox::status::Damage;

/// The recovery at work.
pub(in crate::outbox) struct Recovery<'a> {
    pub layout: &'a Layout,
    pub disk: &'a Disk,
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
pub(in crate::outbox) struct Files {
    pub segments: HashMap<DeliveryId, BTreeMap<u32, PathBuf>>,
    pub aborted: Vec<(DeliveryId, PathBuf)>,
    pub cancelled: Vec<(DeliveryId, PathBuf)>,
    pub dead: BTreeMap<u32, PathBuf>,
    pub rejected: BTreeMap<DeliveryId, PathBuf>,
    pub strays: Vec<PathBuf>,
    pub probe: Option<PathBuf>,
}

impl Recovery<'_> {
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
}

impl Files {
    pub fn list(
        disk: &Disk,
        layout: &Layout,
        live: &HashSet<DeliveryId>,
    ) -> Result<Self, Unreadable> {
        let mut files = Self::default();
        for path in list(disk, &layout.segments())? {
            match path.file_name().and_then(parse_segment_name) {
                Some(SegmentName::Segment(id, number)) if !live.contains(&id) => {
                    files.segments.entry(id).or_default().insert(number, path);
                }
                Some(SegmentName::Aborted(id)) => files.aborted.push((id, path)),
                Some(SegmentName::Cancelled(id)) => files.cancelled.push((id, path)),
                Some(SegmentName::Probe) => files.probe = Some(path),
                Some(SegmentName::Segment(..)) => {}
                None => files.strays.push(path),
            }
        }
        for path in list(disk, &layout.rejected_directory())? {
            match path.file_name().and_then(parse_rejected_name) {
                Some(id) if live.contains(&id) => {}
                Some(id) => {
                    files.rejected.insert(id, path);
                }
                None => files.strays.push(path),
            }
        }
        for path in list(disk, &layout.dead_directory())? {
            match path.file_name().and_then(parse_dead_name) {
                Some(number) => {
                    files.dead.insert(number, path);
                }
                None => files.strays.push(path),
            }
        }
        Ok(files)
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.dead.is_empty() && self.rejected.is_empty()
    }
}
