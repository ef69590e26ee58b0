//! Settlements: what came of the claims, with the letters of what was given up, as one change. Rows of
//! progress of many destinations are written by one statement, by whoever waits together.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::cancel::cancel_given_back;
use super::change::{Change, write_progress};
use super::daemon::Inner;
use super::held::{Held, Work};
use super::image::{Image, Job};
use super::new_letter::{GivenUp, to_letter};
use super::read::{Read, entry, one_body};
use crate::model::DeliveryId;
use crate::outbox::claim::{Settled, Settlement};
use crate::outbox::dead;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::ordinal::Ordinal;

/// Rows of progress that one statement writes at most.
const TOGETHER: usize = 512;

/// Writes what waits, as long as there is an outbox.
pub(super) async fn write_jobs(inner: Arc<Inner>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let mut together = vec![first];
        let mut rows = together.iter().map(|job| job.images.len()).sum::<usize>();
        while rows < TOGETHER {
            let Ok(job) = jobs.try_recv() else {
                break;
            };
            rows += job.images.len();
            together.push(job);
        }
        let images: Vec<Image> = together
            .iter()
            .flat_map(|job| job.images.iter().cloned())
            .collect();
        let written = write_progress(&inner, &images).await;
        for job in together {
            let own = written.as_ref().map_err(Error::clone).map(|written| {
                let names = job.images.iter().map(|image| image.delivery);
                names.filter(|id| written.contains(id)).collect()
            });
            // Who does not wait any more has been told of the end.
            let _ = job.reply.send(own);
        }
    }
}

pub(super) async fn settle(
    inner: &Inner,
    held: &Held,
    settlements: &[Settlement],
) -> Result<Settled, Error> {
    if held.is_lost() {
        return Err(Error::LeaseLost);
    }
    let mut work = held.work.lock().await;
    let work = &mut *work;
    if work.doubt {
        work.refresh(inner, held).await?;
    }
    cancel_given_back(inner, held, work).await?;
    let ids: HashSet<DeliveryId> = settlements.iter().map(|one| one.delivery).collect();
    work.fetch(inner, held, ids.into_iter().collect()).await?;
    let mut settled = Settled::default();
    let mut change = Change::default();
    for settlement in settlements {
        let known = match Ordinal::read(settlement.ordinal) {
            Ordinal::Entry(ordinal) => {
                settle_entry(inner, held, work, settlement, ordinal, &mut change).await?
            }
            Ordinal::Letter(id) => {
                settle_letter(inner, held, work, settlement, id, &mut change).await?
            }
            Ordinal::Unknown => false,
        };
        if known {
            settled.entries += 1;
        } else {
            settled.unknown += 1;
        }
    }
    settled.finished = change.carry_out(inner, held, work).await?;
    land(held, work, settlements);
    if !settled.finished.is_empty() {
        inner.wake();
    }
    Ok(settled)
}

/// Ends the claims.
fn land(held: &Held, work: &Work, settlements: &[Settlement]) {
    let mut flight = held.flight();
    for settlement in settlements {
        match Ordinal::read(settlement.ordinal) {
            Ordinal::Entry(ordinal) => {
                if let Some(flying) = flight.deliveries.get_mut(&settlement.delivery) {
                    flying.claimed.remove(&u64::from(ordinal));
                    flying.released.remove(&u64::from(ordinal));
                }
            }
            Ordinal::Letter(id) => {
                flight.letters.remove(&id);
            }
            Ordinal::Unknown => {}
        }
    }
    // What has settled needs no cursor any more.
    flight.deliveries.retain(|id, flying| {
        !flying.claimed.is_empty() || work.open.get(id).is_some_and(|open| open.is_open())
    });
}

/// Returns false when the entry has settled before or is not there.
async fn settle_entry(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    settlement: &Settlement,
    ordinal: u32,
    change: &mut Change,
) -> Result<bool, Error> {
    let (id, at) = (settlement.delivery, u64::from(ordinal));
    let Some(open) = change.open(work, id) else {
        return Ok(false);
    };
    if at >= open.brief.requests || open.progress.marks.get(at) {
        return Ok(false);
    }
    let claimed = held
        .flight()
        .deliveries
        .get(&id)
        .and_then(|flying| flying.claimed.get(&at).copied());
    let mut given_up = None;
    let mut outcome = Outcome::default();
    let all = if settlement.dead.is_empty() && claimed.is_some() {
        claimed.unwrap_or_default()
    } else {
        let (tally, read) = entry(inner, work, id, at).await?;
        let all = tally.or(claimed).unwrap_or_default();
        check_slices(settlement, all)?;
        match read {
            Read::There((route, record)) if !settlement.dead.is_empty() => {
                given_up = Some((dead::of_entry(&record, &settlement.dead), route));
            }
            // The dead slices cannot be told from the delivered ones any more.
            Read::Damaged if !settlement.dead.is_empty() => outcome.damaged = all,
            _ => {}
        }
        all
    };
    if let Some((dead, route)) = given_up {
        outcome.dead = dead::weight(&dead);
        let given_up = GivenUp {
            delivery: id,
            ordinal,
            route,
            replaces: None,
            dead,
        };
        to_letter(inner, work, given_up, change).await?;
    }
    if outcome.damaged != Tally::default() {
        inner
            .report_damage(
                id,
                outcome.damaged.rows,
                "a request in its block".to_owned(),
            )
            .await;
    }
    if let Some(open) = change.open(work, id) {
        open.progress.marks.set(at);
        outcome.count(all, open);
    }
    Ok(true)
}

/// Ends a replayed letter. Returns false when it is gone.
async fn settle_letter(
    inner: &Inner,
    _held: &Held,
    work: &mut Work,
    settlement: &Settlement,
    id: u64,
    change: &mut Change,
) -> Result<bool, Error> {
    let letter = work.letters.get(&id).cloned();
    let Some(letter) = letter.filter(|letter| letter.delivery == settlement.delivery) else {
        return Ok(false);
    };
    if change.drops(id) {
        return Ok(false);
    }
    check_slices(settlement, letter.tally)?;
    let mut outcome = Outcome::default();
    if !settlement.dead.is_empty() {
        match one_body(inner, id, &letter).await? {
            Read::There(old) => {
                let dead = dead::of_letter(&old, &letter.live, &settlement.dead);
                outcome.dead = dead::weight(&dead);
                let given_up = GivenUp {
                    delivery: letter.delivery,
                    ordinal: letter.ordinal,
                    route: old.meta.route,
                    replaces: Some(id),
                    dead,
                };
                to_letter(inner, work, given_up, change).await?;
            }
            Read::Damaged => {
                outcome.damaged = letter.tally;
                inner
                    .report_damage(
                        letter.delivery,
                        letter.tally.rows,
                        "a dead letter".to_owned(),
                    )
                    .await;
            }
        }
    }
    change.drop_letter(id);
    if let Some(open) = change.open(work, letter.delivery) {
        outcome.count(letter.tally, open);
    }
    Ok(true)
}

/// How much of what is settled did not arrive.
#[derive(Default)]
struct Outcome {
    dead: Tally,
    damaged: Tally,
}

impl Outcome {
    fn count(&self, all: Tally, open: &mut super::held::Open) {
        let counters = &mut open.progress.counters;
        let mut delivered = all;
        delivered -= self.dead;
        delivered -= self.damaged;
        counters.delivered += delivered;
        counters.dead += self.dead;
        counters.damaged += self.damaged;
    }
}

fn check_slices(settlement: &Settlement, all: Tally) -> Result<(), Error> {
    for dead in &settlement.dead {
        if dead.slice as u64 >= all.batches {
            return Err(Error::NoSuchSlice {
                delivery: settlement.delivery,
                ordinal: settlement.ordinal,
                slice: dead.slice,
            });
        }
    }
    Ok(())
}
