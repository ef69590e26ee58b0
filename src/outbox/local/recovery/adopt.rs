//! Segments that the state does not know. Those with a commit are adopted: the crash came between
//! the commit and sled's batch, or the state is being built anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::error::StateError;
use crate::outbox::local::files::format::{Commit, Footer, Header};
use crate::outbox::local::files::segment::{
    SegmentFile, Summary, read_footer, read_header, read_whole,
};
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::index::{Delivery, Segment};
use crate::outbox::local::state::rows::{DeliveryRow, SegmentRow};
use crate::outbox::record::{self, Kind};

/// One segment file, as far as it can be read.
struct Found {
    header: Option<Header>,
    footer: Option<Footer>,
    bytes: u64,
}

/// Adopts or removes the segments of these deliveries.
pub(in crate::outbox) fn take_up(
    recovery: &mut Recovery<'_>,
    ids: Vec<DeliveryId>,
) -> Result<(), StateError> {
    let mut accepted = BTreeMap::new();
    for id in ids {
        let Some(paths) = recovery.files.segments.get(&id).cloned() else {
            continue;
        };
        let segments: BTreeMap<u32, Found> = paths
            .iter()
            .filter_map(|(number, path)| Some((*number, Found::read(path)?)))
            .collect();
        let commit = segments
            .last_key_value()
            .and_then(|(_, last)| last.footer.as_ref()?.commit.clone());
        let info = segments
            .values()
            .find_map(|segment| segment.header.as_ref()?.info.clone())
            .filter(|info| info.id == id);
        match (commit, info) {
            (Some(commit), Some(info)) => {
                accepted.insert((commit.position, id), (commit, info, segments));
            }
            (commit, _) => refuse(recovery, id, commit, &paths, &segments),
        }
    }
    for ((_, id), (commit, info, segments)) in accepted {
        adopt(recovery, commit, info, &segments)?;
        recovery.adopted.insert(id);
    }
    Ok(())
}

/// Segments without a commit belong to a delivery that was never accepted, as long as the state
/// can be trusted. When it was lost, or when it is the headers that are damaged, a person is to
/// decide.
fn refuse(
    recovery: &mut Recovery<'_>,
    id: DeliveryId,
    commit: Option<Commit>,
    paths: &BTreeMap<u32, PathBuf>,
    segments: &BTreeMap<u32, Found>,
) {
    let rejected = recovery.files.rejected.remove(&id);
    let keep = recovery.rebuilt || commit.is_some();
    if !keep {
        tracing::info!(delivery = %id, "a delivery that was cut short is removed");
    }
    for path in paths.values().chain(&rejected) {
        if keep {
            recovery.set_aside(path, "cannot be told to be accepted");
        } else {
            recovery.remove(path);
        }
    }
    if keep {
        let rows = match commit {
            Some(commit) => commit.totals.rows_in,
            None => segments.values().map(|segment| segment.tally().rows).sum(),
        };
        let what = "its segments do not say whether it was accepted; they were set aside";
        recovery.lost(Some(id), rows, what.to_owned());
    }
    recovery.files.segments.remove(&id);
}

fn adopt(
    recovery: &mut Recovery<'_>,
    commit: Commit,
    info: Info,
    segments: &BTreeMap<u32, Found>,
) -> Result<(), StateError> {
    let id = info.id;
    let mut change = Change::default();
    let taken = recovery.index.deliveries.contains_key(&commit.position);
    let position = if taken {
        change.take_position(&recovery.index)
    } else {
        commit.position
    };
    let totals = commit.totals;
    let mut missing = totals.mapped();
    let mut delivery = Delivery::new(DeliveryRow {
        info: Arc::new(info),
        totals,
        committed: commit.committed,
    });
    let mut sound = true;
    for (&number, found) in segments {
        let path = recovery.layout.segment(id, number);
        let next = segments.get(&(number + 1));
        let summary = found.summary(&path, id, number, next);
        sound &= found.header.is_some() && found.footer.is_some();
        missing -= summary.tally;
        let segment = Segment {
            row: SegmentRow {
                summary,
                damaged: found.header.is_none() || found.footer.is_none(),
                ..SegmentRow::default()
            },
            settled: None,
            file: None,
        };
        delivery.segments.insert(number, segment);
    }
    if missing != Tally::default() {
        let what = if sound {
            // A segment is removed only when all in it has settled.
            delivery.counters.delivered += missing;
            "segments of it are gone and taken as delivered"
        } else {
            delivery.counters.damaged += missing;
            "a segment of it is damaged"
        };
        recovery.lost(Some(id), missing.rows, what.to_owned());
    }
    if delivery
        .segments
        .values()
        .all(|one| one.row.summary.entries == 0)
    {
        for segment in delivery.segments.values() {
            recovery.remove(&recovery.layout.segment(id, segment.row.summary.number));
        }
        delivery.segments.clear();
    }
    let damaged: Vec<Summary> = delivery
        .segments
        .values()
        .filter(|segment| segment.row.damaged)
        .map(|segment| segment.row.summary)
        .collect();
    // They may be in the page cache only, when it was the process that died and not the machine.
    let files = delivery.segments.keys();
    let mut files: Vec<PathBuf> = files.map(|n| recovery.layout.segment(id, *n)).collect();
    files.extend(recovery.files.rejected.get(&id).cloned());
    recovery.sync(&files)?;
    tracing::info!(delivery = %id, "a committed delivery that the state did not know is taken up");
    change.add_delivery(&recovery.index, position, delivery);
    recovery.make(change)?;
    let mut change = Change::default();
    for summary in damaged {
        let path = recovery.layout.segment(id, summary.number);
        let file = SegmentFile::open(&path, id, summary.first, summary.entries).ok();
        change.give_up_missing(&recovery.index, position, summary.number, file.as_ref());
    }
    recovery.make(change)
}

impl Found {
    fn read(path: &std::path::Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        Some(Self {
            header: read_header(&file),
            footer: read_footer(&file).ok()?,
            bytes: file.metadata().ok()?.len(),
        })
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for place in self.footer.iter().flat_map(|footer| &footer.places) {
            sum += place.tally();
        }
        sum
    }

    /// What the segment holds; of a damaged one, what can still be read.
    fn summary(
        &self,
        path: &std::path::Path,
        id: DeliveryId,
        number: u32,
        next: Option<&Found>,
    ) -> Summary {
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
        let bytes = File::open(path).and_then(|file| read_whole(&file));
        let bytes = bytes.unwrap_or_default();
        let mut span: Option<(u32, u32)> = None;
        let mut tally = Tally::default();
        for (_, _, frame) in record::scan(&bytes) {
            if (frame.name.kind, frame.name.delivery) != (Kind::Entry, id) {
                continue;
            }
            tally += Tally {
                rows: frame.total_rows(),
                batches: u64::from(frame.slices()),
            };
            let ordinal = frame.name.ordinal;
            let (first, last) = span.unwrap_or((ordinal, ordinal));
            span = Some((first.min(ordinal), last.max(ordinal)));
        }
        let (first, last) = span.map_or((0, 0), |(first, last)| (first, last + 1));
        summary.first = self.header.as_ref().map_or(first, |header| header.first);
        let end = next
            .and_then(|next| Some(next.header.as_ref()?.first))
            .unwrap_or(last);
        summary.entries = match &self.footer {
            Some(footer) => footer.places.len() as u32,
            None => end.saturating_sub(summary.first),
        };
        summary.tally = tally;
        summary
    }
}
