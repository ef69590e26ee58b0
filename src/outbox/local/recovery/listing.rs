//! What lies in the directories of an outbox, by its name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use crate::model::DeliveryId;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::{
    Layout, SegmentName, is_draft, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::read::{Unreadable, exists, list};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Listing {
    pub segments: HashMap<DeliveryId, BTreeMap<u32, PathBuf>>,
    /// Marks of deliveries that were withdrawn.
    pub aborted: Vec<(DeliveryId, PathBuf)>,
    /// Marks of deliveries that were cancelled.
    pub cancelled: Vec<(DeliveryId, PathBuf)>,
    /// Marks of deliveries that are held.
    pub held: Vec<(DeliveryId, PathBuf)>,
    pub dead: BTreeMap<u32, PathBuf>,
    pub rejected: BTreeMap<DeliveryId, PathBuf>,
    pub probe: Option<PathBuf>,
    /// Were being written anew.
    pub drafts: Vec<PathBuf>,
    /// Somebody was being erased.
    pub erasing: bool,
    /// What is not a file of an outbox.
    pub strays: Vec<PathBuf>,
}

impl Listing {
    /// Lists all but the files of the deliveries in `live`.
    pub fn read(
        disk: &Disk,
        layout: &Layout,
        live: &HashSet<DeliveryId>,
    ) -> Result<Self, Unreadable> {
        let mut files = Self {
            erasing: exists(disk, &layout.erasing())?,
            ..Self::default()
        };
        for path in list(disk, &layout.segments())? {
            match path.file_name().and_then(parse_segment_name) {
                Some(SegmentName::Segment(id, _)) if live.contains(&id) => {}
                Some(SegmentName::Segment(id, number)) => {
                    files.segments.entry(id).or_default().insert(number, path);
                }
                Some(SegmentName::Aborted(id)) => files.aborted.push((id, path)),
                Some(SegmentName::Cancelled(id)) => files.cancelled.push((id, path)),
                Some(SegmentName::Held(id)) => files.held.push((id, path)),
                Some(SegmentName::Probe) => files.probe = Some(path),
                None if is_draft(&path) => files.drafts.push(path),
                None => files.strays.push(path),
            }
        }
        for path in list(disk, &layout.rejected_directory())? {
            match path.file_name().and_then(parse_rejected_name) {
                Some(id) if live.contains(&id) => {}
                Some(id) => {
                    files.rejected.insert(id, path);
                }
                None if is_draft(&path) => files.drafts.push(path),
                None => files.strays.push(path),
            }
        }
        for path in list(disk, &layout.dead_directory())? {
            match path.file_name().and_then(parse_dead_name) {
                Some(number) => {
                    files.dead.insert(number, path);
                }
                None if is_draft(&path) => files.drafts.push(path),
                None => files.strays.push(path),
            }
        }
        Ok(files)
    }

    /// Whether there is nothing that a state would tell of.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.dead.is_empty() && self.rejected.is_empty()
    }
}
