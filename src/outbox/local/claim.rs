//! Claims: what the drain takes out to send. They live in memory only; after a restart all that
//! has not settled is due again.

use std::sync::Arc;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::claim::Claim;
use crate::outbox::error::Error;
use crate::outbox::local::files::read::{ReadError, Unreadable, sound};
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Loss};
use crate::outbox::local::state::delivery::Pick;
use crate::outbox::local::state::rows::{DeliveryRow, Letter, SegmentRow};
use crate::outbox::ordinal::{Ordinal, REPLAYED};

/// Claims up to `max_entries` requests of what stands first in the queue of `destination`. What
/// cannot be read now is given back, and is an error when nothing else can be handed out.
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
    let batch = match pick {
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
    claims.extend(batch.claims);
    if !batch.unread.is_empty() {
        give_back(local, &batch.unread);
    }
    if !batch.lost.is_empty() {
        give_up(local, batch.lost)?;
    }
    match batch.unreadable {
        Some(error) => Err(local.unreadable(error)),
        None => Ok(true),
    }
}

/// What became of a pick.
#[derive(Default)]
struct Batch {
    claims: Vec<Claim>,
    lost: Vec<Loss>,
    /// What cannot be read now: its delivery's position, and why the first of them is not.
    unread: Vec<(u64, Ordinal)>,
    unreadable: Option<Unreadable>,
}

impl Batch {
    fn take(&mut self, position: u64, what: Ordinal, read: Result<Claim, ReadError>, loss: Loss) {
        match read {
            Ok(claim) => self.claims.push(claim),
            Err(ReadError::Damaged) => self.lost.push(loss),
            Err(ReadError::Unreadable(error)) => {
                self.unread.push((position, what));
                self.unreadable.get_or_insert(error);
            }
        }
    }
}

/// Records losses durably; when that fails they are met again at the next claim.
fn give_up(local: &Local, lost: Vec<Loss>) -> Result<(), Error> {
    let again: Vec<_> = lost.iter().filter_map(Loss::claim).collect();
    let recorded = local.ask(|reply| Command::Lost(lost, reply));
    if recorded.is_err() {
        give_back(local, &again);
    }
    recorded
}

fn give_back(local: &Local, claims: &[(u64, Ordinal)]) {
    let mut index = local.shared.index();
    for (position, what) in claims {
        match what {
            Ordinal::Entry(ordinal) => {
                let id = index.deliveries.get(position).map(|one| one.row.info.id);
                id.into_iter()
                    .for_each(|id| index.release_entry(id, *ordinal));
            }
            Ordinal::Letter(id) => index.release_letter(*id),
            Ordinal::Unknown => {}
        }
    }
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

/// Opens a segment for claims, and gives up what is lost of it.
pub(in crate::outbox) fn open_segment(
    local: &Local,
    position: u64,
    row: SegmentRow,
    id: DeliveryId,
) -> Result<(), Error> {
    let summary = row.summary;
    let shared = &local.shared;
    let path = shared.layout.segment(id, summary.number);
    let file = SegmentFile::open(&shared.disk, &path, id, summary.first, summary.entries);
    let file = sound(file).map_err(|error| local.unreadable(error))?;
    let file = file.map(Arc::new);
    if !file.as_ref().is_some_and(|file| file.sound) {
        let lost = vec![Loss::Segment {
            position,
            number: summary.number,
            file: file.clone(),
        }];
        local.ask(|reply| Command::Lost(lost, reply))?;
    }
    if let Some(segment) = shared.index().segment_mut(position, summary.number) {
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
) -> Batch {
    let account = local.shared.account(destination);
    let mut batch = Batch::default();
    for (ordinal, file) in entries {
        let read = file.read(ordinal, &local.shared.settings.keys);
        let claim = read.and_then(|record| {
            Ok(Claim {
                delivery: delivery.info.id,
                ordinal: u64::from(ordinal),
                account: Arc::clone(&account),
                route: record.route()?,
                slices: record.slices,
                rows: record.rows,
                received: delivery.info.received,
            })
        });
        let loss = Loss::Entry {
            position,
            ordinal,
            tally: file.tally(ordinal),
        };
        batch.take(position, Ordinal::Entry(ordinal), claim, loss);
    }
    batch
}

fn read_letters(
    local: &Local,
    destination: DestinationId,
    letters: Vec<(u64, Letter, Arc<DeliveryRow>)>,
) -> Batch {
    let account = local.shared.account(destination);
    let mut batch = Batch::default();
    for (id, letter, delivery) in letters {
        let read = local.shared.read_letter(delivery.info.id, &letter);
        let claim = read.map(|read| {
            let live = |at: &usize| letter.live.get(*at as u32);
            let all = 0..read.record.slices.len();
            Claim {
                delivery: delivery.info.id,
                ordinal: id | REPLAYED,
                account: Arc::clone(&account),
                route: read.meta.route,
                slices: pick(&read.record.slices, all.clone().filter(live)),
                rows: pick(&read.record.rows, all.filter(live)),
                received: delivery.info.received,
            }
        });
        batch.take(
            letter.position,
            Ordinal::Letter(id),
            claim,
            Loss::Letter(id),
        );
    }
    batch
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
