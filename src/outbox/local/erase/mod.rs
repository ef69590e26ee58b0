//! Looking for somebody in the files of the outbox, and erasing them.
//!
//! A file in which something is found is written anew without it, beside the old one, and takes its
//! place; only then does the state count what is gone as erased. A crash between the two is met by the
//! next open, which sees from the new file what is missing (`recovery::erased`), since a note in the
//! directory says that an erasure is under way.
//!
//! What the drain holds is never touched: what is meant is not given out any more from the moment it is
//! found, and what is in flight then lands first. So each request is sent whole as it was, or as it
//! is without what was erased.

mod found;
mod holds;
mod letters;
mod note;
mod rejected;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::erase::{Erased, Matcher, Occurrence, Scan};
use crate::outbox::error::Error;
use crate::outbox::local::handle::Local;
use found::{Found, at, check};
use holds::Holds;

pub(in crate::outbox) use note::{begin, end, pending};

/// How often it is looked whether what is in flight has landed.
const LOOK: Duration = Duration::from_millis(100);

/// What is found, delivery by delivery, the oldest first.
pub(in crate::outbox) fn find(
    local: &Local,
    matcher: &dyn Matcher,
    scan: &Scan,
) -> Result<Vec<Occurrence>, Error> {
    let mut found = Found::new();
    let work = segments::all(local, None);
    expect(local, scan, &work);
    // First, since what died is in its segment too as long as that is there.
    let dead = letters::find(local, matcher, scan, &mut found)?;
    for segment in work {
        segments::find(local, segment, matcher, scan, &dead, &mut found)?;
    }
    for position in rejected::all(local, None) {
        let rows = rejected::find(local, position, matcher, scan)?;
        if let Some(one) = at(local, &mut found, position) {
            one.rejected += rows;
        }
    }
    let all = found.into_values();
    Ok(all
        .filter(|one| *one != Occurrence::none(one.delivery))
        .collect())
}

/// Erases what is found; also in deliveries that are being received now, once they are here.
/// `give_back` has the drain give back what it holds of a delivery and has not begun.
pub(in crate::outbox) fn erase(
    local: &Local,
    matcher: &dyn Matcher,
    scan: &Scan,
    give_back: &dyn Fn(DestinationId, DeliveryId),
) -> Result<Erased, Error> {
    let mut sum = Erased::default();
    let mut arriving: HashSet<DeliveryId> =
        local.shared.index().receiving.keys().copied().collect();
    let mut work = segments::all(local, None);
    let mut rows = rejected::all(local, None);
    expect(local, scan, &work);
    let mut holds = Holds::new(local);
    loop {
        let mut left = BTreeSet::new();
        for segment in work {
            if segments::erase(
                local, segment, matcher, scan, give_back, &mut holds, &mut sum,
            )? {
                left.insert(segment);
            }
        }
        for position in std::mem::take(&mut rows) {
            rejected::erase(local, position, matcher, scan, &mut sum)?;
        }
        // What was in flight may have died, and what has been replayed may be in flight.
        let letters = letters::erase(local, matcher, scan, give_back, &mut holds, &mut sum)?;
        let here = take_arrived(local, &mut arriving);
        rows.extend(rejected::all(local, Some(&here)));
        left.extend(segments::all(local, Some(&here)));
        let over = left.is_empty() && rows.is_empty() && !letters && arriving.is_empty();
        if over {
            break;
        }
        work = left;
        if here.is_empty() {
            scan.set_waits(true);
            check(scan)?;
            std::thread::sleep(LOOK);
        }
    }
    scan.set_waits(false);
    sum.set_aside = local.shared.layout.set_aside_size().files;
    Ok(sum)
}

/// Deliveries that are not being received any more.
fn take_arrived(local: &Local, arriving: &mut HashSet<DeliveryId>) -> HashSet<DeliveryId> {
    let index = local.shared.index();
    let here: HashSet<DeliveryId> = arriving
        .iter()
        .filter(|id| !index.receiving.contains_key(id))
        .copied()
        .collect();
    arriving.retain(|id| !here.contains(id));
    here
}

fn expect(local: &Local, scan: &Scan, work: &BTreeSet<(u64, u32)>) {
    let index = local.shared.index();
    let segments = work.iter().filter_map(|(position, number)| {
        let segment = index.deliveries.get(position)?.segments.get(*number)?;
        Some(segment.row.summary.bytes)
    });
    let dead = index.dead_files.values().map(|file| file.row.length);
    scan.will_read(segments.sum::<u64>() + dead.sum::<u64>());
}
