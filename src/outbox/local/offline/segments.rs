//! The segments of an outbox that nobody uses.

use std::path::PathBuf;

use crate::model::DeliveryId;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::{Layout, SegmentName, parse_segment_name};
use crate::outbox::local::files::read::{Unreadable, list};

/// All segments, in the order of delivery and number.
pub(in crate::outbox) fn segments(
    disk: &Disk,
    layout: &Layout,
) -> Result<Vec<(DeliveryId, u32, PathBuf)>, Unreadable> {
    let mut found = Vec::new();
    for path in list(disk, &layout.segments())? {
        if let Some(SegmentName::Segment(id, number)) =
            path.file_name().and_then(parse_segment_name)
        {
            found.push((id, number, path));
        }
    }
    found.sort();
    Ok(found)
}
