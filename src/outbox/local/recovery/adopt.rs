//! Segments that the state does not know. Those with a commit are adopted: the crash came between
//! the commit and sled's batch, or the state is being built anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::local::files::format::Commit;
use crate::outbox::local::files::read::sound;
use crate::outbox::local::files::segment::{SegmentFile, Summary};
use crate::outbox::local::recovery::evidence::{Found, Strangers};
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::{Delivery, Segment};
use crate::outbox::local::state::rows::{DeliveryRow, SegmentRow};

/// Adopts or removes the segments of deliveries that the state does not know.
pub(in crate::outbox) fn take_up(
    recovery: &mut Recovery<'_>,
    strangers: Strangers,
) -> Result<(), StateError> {
    let mut accepted = BTreeMap::new();
    for (id, segments) in strangers {
        let Some(paths) = recovery.files.segments.get(&id).cloned() else {
            // It was withdrawn.
            continue;
        };
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
        kept: None,
    });
    let mut whole = true;
    for (&number, found) in segments {
        let next = segments.get(&(number + 1));
        let summary = found.summary(number, next);
        whole &= found.header.is_some() && found.footer.is_some();
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
        let what = if whole {
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
        let file = SegmentFile::open(recovery.disk, &path, id, summary.first, summary.entries);
        let file = sound(file)?;
        change.give_up_missing(&recovery.index, position, summary.number, file.as_ref());
    }
    recovery.make(change)
}
