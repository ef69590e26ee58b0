//! What lies in the directories of an outbox, by its name.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::model::DeliveryId;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::{
    Layout, SegmentName, is_draft, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::read::{Unreadable, exists, length_of, list};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Listing {
    /// The length of each segment: there may be very many, and their paths follow from their names.
    pub segments: BTreeMap<(DeliveryId, u32), u64>,
    /// Marks of deliveries that were withdrawn.
    pub aborted: Vec<(DeliveryId, PathBuf)>,
    /// Marks of deliveries that were cancelled.
    pub cancelled: Vec<(DeliveryId, PathBuf)>,
    /// Marks of deliveries that are held.
    pub held: Vec<(DeliveryId, PathBuf)>,
    /// The length of each dead-letter file.
    pub dead: BTreeMap<u32, u64>,
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
    /// Lists all but the files of the deliveries in `live`. One that is gone before its length is asked
    /// for is not listed.
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
                Some(SegmentName::Segment(id, number)) if path == layout.segment(id, number) => {
                    let length = length_of(disk, &path)?;
                    let length = length.map(|length| ((id, number), length));
                    files.segments.extend(length);
                }
                Some(SegmentName::Aborted(id)) => files.aborted.push((id, path)),
                Some(SegmentName::Cancelled(id)) => files.cancelled.push((id, path)),
                Some(SegmentName::Held(id)) => files.held.push((id, path)),
                Some(SegmentName::Probe) => files.probe = Some(path),
                None if is_draft(&path) => files.drafts.push(path),
                Some(SegmentName::Segment(..)) | None => files.strays.push(path),
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
                Some(number) if path == layout.dead(number) => {
                    let length = length_of(disk, &path)?;
                    files.dead.extend(length.map(|length| (number, length)));
                }
                None if is_draft(&path) => files.drafts.push(path),
                Some(_) | None => files.strays.push(path),
            }
        }
        Ok(files)
    }

    /// Whether there is nothing that a state would tell of.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.dead.is_empty() && self.rejected.is_empty()
    }
}
