//! Dead letters and rejected rows that the state does not know: those written just before a
//! crash, and all of them when the state is built anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::outbox::local::files::read::{Unreadable, sound};
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::recovery::evidence::{Heads, Orphan, Tail};
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::{Change, Outcome};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Delivery;
use crate::outbox::local::state::rows::DeliveryRow;

/// Takes up dead-letter records behind the length that the state knows of each file.
pub(in crate::outbox) fn take_up(
    recovery: &mut Recovery<'_>,
    tails: Vec<Tail>,
    heads: &Heads,
) -> Result<(), StateError> {
    let mut by_entry: BTreeMap<(DeliveryId, u32), Vec<Orphan>> = BTreeMap::new();
    let mut lengths = Change::default();
    let mut found = Vec::new();
    for tail in tails {
        for orphan in tail.orphans {
            let entry = (orphan.meta.delivery, orphan.letter.ordinal);
            by_entry.entry(entry).or_default().push(orphan);
        }
        for delivery in tail.shut {
            let what = "a dead letter of it was changed and is left out";
            recovery.lost(Some(delivery), 0, what.to_owned());
        }
        lengths.set_dead_file(&recovery.index, tail.number, tail.length);
        found.push(tail.path);
    }
    recovery.sync(&found)?;
    // First, so that the letters have a file when their batch is made.
    recovery.make(lengths)?;
    let mut unknown: BTreeMap<DeliveryId, Vec<(u32, Vec<Orphan>)>> = BTreeMap::new();
    for ((id, ordinal), mut orphans) in by_entry {
        keep_latest(&mut orphans);
        match recovery.index.delivery(id) {
            Some((position, _)) => take_up_known(recovery, position, ordinal, orphans)?,
            None => unknown.entry(id).or_default().push((ordinal, orphans)),
        }
    }
    for (id, entries) in unknown {
        take_up_unknown(recovery, id, entries, heads)?;
    }
    Ok(())
}

/// Rejected rows whose delivery is not there: of use only when the state was lost, and then they
/// are what tells of the delivery.
pub(in crate::outbox) fn take_up_rejected(
    recovery: &mut Recovery<'_>,
    mut heads: Heads,
) -> Result<(), StateError> {
    for (id, path) in recovery.files.rejected.clone() {
        if recovery.index.by_id.contains_key(&id) {
            continue;
        }
        if !recovery.rebuilt {
            recovery.remove(&path);
            continue;
        }
        match heads.remove(&id) {
            Some((info, commit)) => {
                let mut change = Change::default();
                let delivery = settled_delivery(info, commit.totals, Tally::default());
                let position = change.take_position(&recovery.index);
                change.add_delivery(&recovery.index, position, delivery);
                recovery.make(change)?;
            }
            None => {
                recovery.lost(Some(id), 0, "its rejected rows are damaged".to_owned());
                recovery.set_aside(&path, "is damaged");
            }
        }
    }
    Ok(())
}

/// One that died again is in a later record too, and only there it counts.
fn keep_latest(orphans: &mut Vec<Orphan>) {
    let mut seen = HashSet::new();
    for orphan in orphans.iter_mut().rev() {
        for (at, slice) in orphan.meta.slices.iter().enumerate() {
            let latest = seen.insert(slice.original);
            if !latest {
                orphan.letter.live.set(at as u32, false);
            } else if let Some(rows) = orphan.rows.get(at) {
                orphan.letter.tally += Tally {
                    rows: u64::from(*rows),
                    batches: 1,
                };
            }
        }
    }
    orphans.retain(|orphan| orphan.letter.tally.batches > 0);
}

fn sum(orphans: &[Orphan]) -> Tally {
    let mut sum = Tally::default();
    orphans.iter().for_each(|orphan| sum += orphan.letter.tally);
    sum
}

fn take_up_known(
    recovery: &mut Recovery<'_>,
    position: u64,
    ordinal: u32,
    orphans: Vec<Orphan>,
) -> Result<(), StateError> {
    let dead = sum(&orphans);
    let outcome = Outcome {
        dead,
        ..Outcome::default()
    };
    let mut change = Change::default();
    // When its segment is gone, the dead letters are all that is known of an entry's weight; the
    // rest of the segment is given up afterwards.
    let weight = weight_of(recovery, position, ordinal)?.unwrap_or(dead);
    if change.settle_entry(&recovery.index, position, ordinal, weight, outcome) {
        add(recovery, &mut change, position, orphans);
        return recovery.make(change);
    }
    for orphan in orphans {
        let tally = orphan.letter.tally;
        let outcome = Outcome {
            dead: tally,
            ..Outcome::default()
        };
        let replaced = orphan
            .meta
            .replaces
            // Numbers of letters begin anew when the state is lost, and again when sled has gone
            // back in time.
            .filter(|id| {
                let letter = recovery.index.letters.get(id);
                let same = letter
                    .is_some_and(|letter| (letter.position, letter.ordinal) == (position, ordinal));
                same && !recovery.rebuilt
            })
            .is_some_and(|id| change.settle_letter(&recovery.index, id, outcome));
        let adopted = recovery.adopted.contains(&orphan.meta.delivery);
        if !replaced && adopted {
            change.delivered_was_dead(&recovery.index, position, tally);
        }
        // Otherwise the drain was told that this settlement failed, and has settled since.
        if replaced || adopted {
            add(recovery, &mut change, position, vec![orphan]);
        }
    }
    recovery.make(change)
}

/// What an entry weighs, if it is there and has not settled.
fn weight_of(
    recovery: &Recovery<'_>,
    position: u64,
    ordinal: u32,
) -> Result<Option<Tally>, Unreadable> {
    let delivery = recovery.index.deliveries.get(&position);
    let Some((delivery, segment)) =
        delivery.and_then(|delivery| Some((delivery, delivery.segment_of(ordinal)?)))
    else {
        return Ok(None);
    };
    let summary = segment.row.summary;
    let id = delivery.row.info.id;
    let path = recovery.layout.segment(id, summary.number);
    let file = SegmentFile::open(recovery.disk, &path, id, summary.first, summary.entries);
    Ok(sound(file)?.and_then(|file| Some(file.place(ordinal)?.tally())))
}

fn add(recovery: &Recovery<'_>, change: &mut Change, position: u64, orphans: Vec<Orphan>) {
    for mut orphan in orphans {
        orphan.letter.position = position;
        change.add_letter(&recovery.index, orphan.letter);
    }
}

/// Letters of a delivery of which nothing else is left: it had settled, and the state was lost.
fn take_up_unknown(
    recovery: &mut Recovery<'_>,
    id: DeliveryId,
    entries: Vec<(u32, Vec<Orphan>)>,
    heads: &Heads,
) -> Result<(), StateError> {
    let orphans: Vec<Orphan> = entries
        .into_iter()
        .flat_map(|(_, orphans)| orphans)
        .collect();
    let dead = sum(&orphans);
    let Some(meta) = orphans.first().map(|orphan| &orphan.meta) else {
        return Ok(());
    };
    let delivery = match heads.get(&id).cloned() {
        Some((info, commit)) => settled_delivery(info, commit.totals, dead),
        None => {
            let info = Info {
                id,
                destination: meta.destination,
                label: meta.label.clone(),
                account: meta.account.clone(),
                webhook: None,
                title: meta.title.clone(),
                link: None,
                received: meta.received,
            };
            let totals = Totals {
                rows_in: dead.rows,
                batches: dead.batches,
                requests: orphans.len() as u64,
                notes: vec!["Only the dead letters of this delivery are known.".to_owned()],
                ..Totals::default()
            };
            settled_delivery(info, totals, dead)
        }
    };
    let mut change = Change::default();
    let position = change.take_position(&recovery.index);
    change.add_delivery(&recovery.index, position, delivery);
    add(recovery, &mut change, position, orphans);
    recovery.make(change)
}

/// A delivery that has settled; what is not dead was delivered.
fn settled_delivery(info: Info, totals: Totals, dead: Tally) -> Delivery {
    let mut delivered = totals.mapped();
    delivered -= dead;
    let committed = info.received;
    let mut delivery = Delivery::new(DeliveryRow {
        info: Arc::new(info),
        totals,
        committed,
        kept: None,
    });
    delivery.counters.delivered = delivered;
    delivery.counters.dead = dead;
    delivery
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::model::DestinationId;
    use crate::outbox::dead::DeadMeta;
    use crate::outbox::dead::DeadSlice;
    use crate::outbox::local::state::rows::{Bits, Letter};

    fn orphan(originals: &[u32]) -> Orphan {
        let slices = originals
            .iter()
            .map(|&original| DeadSlice {
                original,
                attempts: 1,
                first_try: UnixMillis(1),
                last_try: UnixMillis(1),
                reason: String::new(),
            })
            .collect();
        Orphan {
            meta: DeadMeta {
                delivery: DeliveryId([1; 16]),
                destination: DestinationId([1; 16]),
                received: UnixMillis(1),
                label: String::new(),
                title: String::new(),
                account: Arc::from([]),
                replaces: None,
                route: 0,
                slices,
            },
            letter: Letter {
                position: 0,
                file: 0,
                offset: 0,
                length: 0,
                ordinal: 0,
                live: Bits::all(originals.len() as u32),
                tally: Tally::default(),
                queued: None,
            },
            rows: vec![10; originals.len()],
        }
    }

    #[test]
    fn a_slice_that_died_twice_counts_once_and_where_it_died_last() {
        let mut orphans = vec![orphan(&[1, 2, 3]), orphan(&[2]), orphan(&[2, 3])];
        keep_latest(&mut orphans);
        let live: Vec<Vec<u32>> = orphans
            .iter()
            .map(|orphan| orphan.letter.live.ones().collect())
            .collect();
        assert_eq!(live, [vec![0], vec![0, 1]]);
        assert_eq!(sum(&orphans).rows, 30);
        let batches: Vec<u64> = orphans.iter().map(|one| one.letter.tally.batches).collect();
        assert_eq!(batches, [1, 2]);
    }
}
