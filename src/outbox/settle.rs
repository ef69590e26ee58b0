//! Settlements, on the owner's thread: first the dead slices go to the dead-letter file, then
//! the state says that the entries have settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Shared;
use super::change::{Change, Effects, Outcome};
use super::claim::{Ordinal, Settled, Settlement};
use super::dead::{Dead, DeadMeta, DeadPlace, DeadSlice};
use super::delivery::{Info, Tally};
use super::error::Error;
use super::owner::Owner;
use super::record::{Record, Slice};
use super::segment::{AppendError, SegmentFile, route};
use super::state::{Bits, Letter};
use crate::model::DeliveryId;

/// One settle command, its dead letters written and not yet synced.
#[derive(Debug, Default)]
pub(super) struct Plan {
    items: Vec<Item>,
    unknown: u64,
}

#[derive(Debug)]
struct Item {
    delivery: DeliveryId,
    position: u64,
    what: Ordinal,
    all: Tally,
    outcome: Outcome,
    letter: Option<Letter>,
}

/// A settlement whose entry was found.
struct Found<'a> {
    settlement: &'a Settlement,
    position: u64,
    info: Arc<Info>,
    what: Ordinal,
    all: Tally,
    body: Body,
}

/// Where the payload of an entry is.
enum Body {
    Segment(Arc<SegmentFile>, u32),
    Letter(u64, Letter),
}

impl Plan {
    pub fn has_letters(&self) -> bool {
        self.items.iter().any(|item| item.letter.is_some())
    }

    /// Puts the plan into the change.
    pub fn apply(self, shared: &Shared, change: &mut Change) -> Applied {
        let index = shared.index();
        let mut applied = Applied::default();
        applied.settled.unknown = self.unknown;
        for item in self.items {
            let settled = match item.what {
                Ordinal::Entry(ordinal) => {
                    change.settle_entry(&index, item.position, ordinal, item.all, item.outcome)
                }
                Ordinal::Letter(id) => change.settle_letter(&index, id, item.outcome),
                Ordinal::Unknown => false,
            };
            if !settled {
                applied.settled.unknown += 1;
                continue;
            }
            applied.settled.entries += 1;
            applied.deliveries.insert(item.delivery);
            if let Some(letter) = item.letter {
                change.add_letter(&index, letter);
            }
        }
        applied
    }
}

/// A settle command that is in the change.
#[derive(Debug, Default)]
pub(super) struct Applied {
    settled: Settled,
    deliveries: BTreeSet<DeliveryId>,
}

impl Applied {
    /// The answer, once the change is durable.
    pub fn finish(mut self, effects: &Effects) -> Settled {
        self.settled.finished = effects
            .finished
            .iter()
            .filter(|id| self.deliveries.contains(id))
            .copied()
            .collect();
        self.settled
    }
}

impl Owner {
    /// Looks the entries up and writes the dead slices. Nothing is changed when this fails.
    pub fn plan_settlement(&mut self, settlements: &[Settlement]) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        let mut found = Vec::new();
        for settlement in settlements {
            match self.find(settlement)? {
                Some(one) => found.push(one),
                None => plan.unknown += 1,
            }
        }
        for one in &found {
            check_slices(one)?;
        }
        for one in found {
            let (outcome, letter) = if one.settlement.dead.is_empty() {
                (Outcome::default(), None)
            } else {
                self.bury(&one)?
            };
            plan.items.push(Item {
                delivery: one.info.id,
                position: one.position,
                what: one.what,
                all: one.all,
                outcome,
                letter,
            });
        }
        Ok(plan)
    }

    fn find<'a>(&self, settlement: &'a Settlement) -> Result<Option<Found<'a>>, Error> {
        let what = Ordinal::read(settlement.ordinal);
        let shared = self.shared();
        let index = shared.index();
        let Some((position, delivery)) = index.delivery(settlement.delivery) else {
            return Ok(None);
        };
        let info = Arc::clone(&delivery.row.info);
        match what {
            Ordinal::Unknown => Ok(None),
            Ordinal::Letter(id) => {
                let letter = index
                    .letters
                    .get(&id)
                    .filter(|letter| letter.queued.is_some() && letter.position == position);
                Ok(letter.map(|letter| Found {
                    settlement,
                    position,
                    info,
                    what,
                    all: letter.tally,
                    body: Body::Letter(id, letter.clone()),
                }))
            }
            Ordinal::Entry(ordinal) => {
                let Some(segment) = delivery.segment_of(ordinal) else {
                    return Ok(None);
                };
                let summary = segment.row.summary;
                let settled = segment.settled.as_ref();
                if settled.is_some_and(|bits| bits.get(ordinal - summary.first)) {
                    return Ok(None);
                }
                let open = segment.file.clone();
                drop(index);
                // Not open only after the outbox was reopened under a claim.
                let file = match open {
                    Some(file) => file,
                    None => {
                        let path = shared.layout.segment(info.id, summary.number);
                        SegmentFile::open(&path, info.id, summary.first, summary.entries)
                            .map(Arc::new)
                            .map_err(Error::io("a segment could not be opened"))?
                    }
                };
                let Some(place) = file.place(ordinal) else {
                    return Ok(None);
                };
                Ok(Some(Found {
                    settlement,
                    position,
                    info,
                    what,
                    all: place.tally(),
                    body: Body::Segment(file, ordinal),
                }))
            }
        }
    }

    /// Copies the dead slices into the dead-letter file.
    fn bury(&mut self, found: &Found<'_>) -> Result<(Outcome, Option<Letter>), Error> {
        let shared = self.shared();
        let account = shared.account(found.info.destination);
        let body = match &found.body {
            Body::Segment(file, ordinal) => {
                let read = file.read(*ordinal, &shared.settings.keys);
                read.and_then(|record| {
                    let dead = dead_of_entry(&record, &found.settlement.dead);
                    Ok((dead, *ordinal, None, route(&record)?))
                })
            }
            Body::Letter(id, letter) => shared.read_letter(found.info.id, letter).map(|old| {
                let originals = old.meta.slices.iter().map(|slice| slice.original);
                let dead = dead_of_letter(
                    &old.record,
                    &originals.collect::<Vec<_>>(),
                    &letter.live,
                    &found.settlement.dead,
                );
                (dead, letter.ordinal, Some(*id), old.meta.route)
            }),
        };
        let Ok((dead, ordinal, replaces, route)) = body else {
            // The dead slices cannot be told from the delivered ones any more.
            shared.report_damage(
                Some(found.info.id),
                found.all.rows,
                "a dead letter".to_owned(),
            );
            let outcome = Outcome {
                damaged: found.all,
                ..Outcome::default()
            };
            return Ok((outcome, None));
        };
        let mut meta = DeadMeta::new(&found.info, account, replaces, route);
        meta.slices = dead.iter().map(|dead| dead.meta.clone()).collect();
        let slices: Vec<_> = dead
            .iter()
            .map(|dead| Slice {
                bytes: &dead.bytes,
                rows: dead.rows,
            })
            .collect();
        let tally = Tally {
            rows: slices.iter().map(|slice| u64::from(slice.rows)).sum(),
            batches: slices.len() as u64,
        };
        let place = self.append_dead(&meta, ordinal, &slices)?;
        let letter = Letter {
            position: found.position,
            file: place.file,
            offset: place.offset,
            length: place.length,
            ordinal,
            live: Bits::all(slices.len() as u32),
            tally,
            queued: None,
        };
        let outcome = Outcome {
            dead: tally,
            ..Outcome::default()
        };
        Ok((outcome, Some(letter)))
    }
}

impl Owner {
    /// Puts a record into the dead-letter file. It is not durable before the file is synced.
    pub(super) fn append_dead(
        &mut self,
        meta: &DeadMeta,
        ordinal: u32,
        slices: &[Slice<'_>],
    ) -> Result<DeadPlace, Error> {
        let before = self.dead.current();
        let place = self
            .dead
            .append(meta, ordinal, slices)
            .map_err(|error| match error {
                AppendError::TooLarge => Error::TooLarge {
                    what: "a dead letter",
                    limit: super::record::MAX_RAW,
                },
                AppendError::Io(error) => Error::io("a dead letter could not be written")(error),
            })?;
        let grown = match (before, self.dead.current()) {
            (Some((file, length)), Some((now, longer))) if file == now => longer - length,
            (_, Some((_, length))) => length,
            _ => 0,
        };
        self.shared().capacity.add(grown);
        Ok(place)
    }
}

/// A dead slice with its payload.
struct DeadBody {
    meta: DeadSlice,
    bytes: bytes::Bytes,
    rows: u32,
}

fn dead_of_entry(record: &Record, dead: &[Dead]) -> Vec<DeadBody> {
    let places: Vec<usize> = (0..record.slices.len()).collect();
    let originals: Vec<u32> = (0..record.slices.len() as u32).collect();
    gather(record, &places, &originals, dead)
}

/// The claim of a letter showed only its live slices.
fn dead_of_letter(record: &Record, originals: &[u32], live: &Bits, dead: &[Dead]) -> Vec<DeadBody> {
    let places: Vec<usize> = (0..record.slices.len())
        .filter(|at| live.get(*at as u32))
        .collect();
    gather(record, &places, originals, dead)
}

fn gather(record: &Record, places: &[usize], originals: &[u32], dead: &[Dead]) -> Vec<DeadBody> {
    let mut seen = BTreeSet::new();
    let mut bodies = Vec::new();
    for one in dead {
        if !seen.insert(one.slice) {
            continue;
        }
        let Some(&at) = places.get(one.slice) else {
            continue;
        };
        if let (Some(bytes), Some(&rows), Some(&original)) = (
            record.slices.get(at),
            record.rows.get(at),
            originals.get(at),
        ) {
            bodies.push(DeadBody {
                meta: DeadSlice::new(original, one),
                bytes: bytes.clone(),
                rows,
            });
        }
    }
    bodies
}

fn check_slices(found: &Found<'_>) -> Result<(), Error> {
    for dead in &found.settlement.dead {
        if dead.slice as u64 >= found.all.batches {
            return Err(Error::NoSuchSlice {
                delivery: found.settlement.delivery,
                ordinal: found.settlement.ordinal,
                slice: dead.slice,
            });
        }
    }
    Ok(())
}
