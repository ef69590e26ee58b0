//! Claims: what the drain takes out to send. They live in memory only; after a restart all that
//! has not settled is due again.

use std::sync::Arc;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::claim::Claim;
use crate::outbox::codec::Malformed;
use crate::outbox::error::Error;
use crate::outbox::local::files::segment::{SegmentFile, route};
use crate::outbox::local::handle::Local;
use crate::outbox::local::ordinal::{Ordinal, REPLAYED};
use crate::outbox::local::owner::command::{Command, Loss};
use crate::outbox::local::state::index::Pick;
use crate::outbox::local::state::rows::{DeliveryRow, Letter, SegmentRow};
use crate::outbox::record::Record;

/// Claims up to `max_entries` requests of what stands first in the queue of `destination`;
/// empty when nothing waits there, or when the rest of the first delivery is in flight.
/// A request whose record is damaged is not among them: it is counted, logged and left
/// behind. Blocks on the disk.
///
/// # Errors
/// A segment cannot be opened (too many open files, for example), or the outbox refuses
/// writes, since what is sent now could not be recorded.
pub(in crate::outbox) fn claim(
    local: &Local,
    destination: DestinationId,
    max_entries: usize,
) -> Result<Vec<Claim>, Error> {
    local.shared.check_healthy()?;
    let mut claims = Vec::new();
    while claims.len() < max_entries {
        match claim_more(local, destination, max_entries - claims.len(), &mut claims) {
            Ok(true) => {}
            Ok(false) => break,
            // What is claimed already is handed out; the error will be met again.
            Err(error) if claims.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(claims)
}

/// Returns whether there may be more.
fn claim_more(
    local: &Local,
    destination: DestinationId,
    max: usize,
    claims: &mut Vec<Claim>,
) -> Result<bool, Error> {
    let pick = local.shared.index().pick(destination, max);
    let (read, lost) = match pick {
        Pick::Nothing => return Ok(false),
        Pick::Open { position, row, id } => {
            open_segment(local, position, row, id)?;
            return Ok(true);
        }
        Pick::Entries {
            position,
            delivery,
            entries,
        } => read_entries(local, destination, position, &delivery, entries),
        Pick::Letters(letters) => read_letters(local, destination, letters),
    };
    claims.extend(read);
    if !lost.is_empty() {
        give_up(local, lost)?;
    }
    Ok(true)
}

/// Records losses durably; when that fails they are met again at the next claim.
fn give_up(local: &Local, lost: Vec<Loss>) -> Result<(), Error> {
    let again: Vec<_> = lost.iter().filter_map(Loss::claim).collect();
    let recorded = local.ask(|reply| Command::Lost(lost, reply));
    if recorded.is_err() {
        let mut index = local.shared.index();
        for (position, what) in again {
            match what {
                Ordinal::Entry(ordinal) => {
                    let id = index.deliveries.get(&position).map(|one| one.row.info.id);
                    id.into_iter()
                        .for_each(|id| index.release_entry(id, ordinal));
                }
                Ordinal::Letter(id) => index.release_letter(id),
                Ordinal::Unknown => {}
            }
        }
    }
    recorded
}

/// Gives claims back, unsettled: they can be claimed again. Claims that are not held are
/// passed over.
pub(in crate::outbox) fn release(local: &Local, delivery: DeliveryId, ordinals: &[u64]) {
    let mut index = local.shared.index();
    for &ordinal in ordinals {
        match Ordinal::read(ordinal) {
            Ordinal::Entry(ordinal) => index.release_entry(delivery, ordinal),
            Ordinal::Letter(id) => index.release_letter(id),
            Ordinal::Unknown => {}
        }
    }
    let position = index.delivery(delivery).map(|(position, _)| position);
    let cancelled = position.is_some_and(|position| index.is_cancelled(position));
    drop(index);
    if cancelled {
        // A closed outbox does it when it is opened again.
        let _ = local.send(Command::Sweep);
    }
}

fn open_segment(
    local: &Local,
    position: u64,
    row: SegmentRow,
    id: DeliveryId,
) -> Result<(), Error> {
    let summary = row.summary;
    let path = local.shared.layout.segment(id, summary.number);
    let file = match SegmentFile::open(&path, id, summary.first, summary.entries) {
        Ok(file) => Some(Arc::new(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("a segment could not be opened")(error)),
    };
    if !file.as_ref().is_some_and(|file| file.sound) {
        let lost = vec![Loss::Segment {
            position,
            number: summary.number,
            file: file.clone(),
        }];
        local.ask(|reply| Command::Lost(lost, reply))?;
    }
    if let Some(segment) = local.shared.index().segment_mut(position, summary.number) {
        segment.file = file;
    }
    Ok(())
}

fn read_entries(
    local: &Local,
    destination: DestinationId,
    position: u64,
    delivery: &DeliveryRow,
    entries: Vec<(u32, Arc<SegmentFile>)>,
) -> (Vec<Claim>, Vec<Loss>) {
    let account = local.shared.account(destination);
    let mut claims = Vec::new();
    let mut lost = Vec::new();
    for (ordinal, file) in entries {
        let read = file.read(ordinal, &local.shared.settings.keys);
        match read.and_then(|record| Ok((route(&record)?, record))) {
            Ok((route, Record { slices, rows, .. })) => claims.push(Claim {
                delivery: delivery.info.id,
                ordinal: u64::from(ordinal),
                account: Arc::clone(&account),
                route,
                slices,
                rows,
                received: delivery.info.received,
            }),
            Err(Malformed) => lost.push(Loss::Entry {
                position,
                ordinal,
                tally: file.tally(ordinal),
            }),
        }
    }
    (claims, lost)
}

fn read_letters(
    local: &Local,
    destination: DestinationId,
    letters: Vec<(u64, Letter, Arc<DeliveryRow>)>,
) -> (Vec<Claim>, Vec<Loss>) {
    let account = local.shared.account(destination);
    let mut claims = Vec::new();
    let mut lost = Vec::new();
    for (id, letter, delivery) in letters {
        let read = local.shared.read_letter(delivery.info.id, &letter);
        let Ok(read) = read else {
            lost.push(Loss::Letter(id));
            continue;
        };
        let live = |at: &usize| letter.live.get(*at as u32);
        let all = 0..read.record.slices.len();
        claims.push(Claim {
            delivery: delivery.info.id,
            ordinal: id | REPLAYED,
            account: Arc::clone(&account),
            route: read.meta.route,
            slices: pick(&read.record.slices, all.clone().filter(live)),
            rows: pick(&read.record.rows, all.filter(live)),
            received: delivery.info.received,
        });
    }
    (claims, lost)
}

impl Loss {
    /// The claim that found it, when it was one.
    fn claim(&self) -> Option<(u64, Ordinal)> {
        match self {
            Self::Entry {
                position, ordinal, ..
            } => Some((*position, Ordinal::Entry(*ordinal))),
            Self::Letter(id) => Some((0, Ordinal::Letter(*id))),
            Self::Segment { .. } => None,
        }
    }
}

fn pick<T: Clone>(from: &[T], places: impl Iterator<Item = usize>) -> Vec<T> {
    places.filter_map(|at| from.get(at).cloned()).collect()
}
