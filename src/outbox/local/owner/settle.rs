//! Settlements, on the owner's thread: first the dead slices go to the dead-letter file, then
//! the state says that the entries have settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::claim::{Settled, Settlement};
use crate::outbox::dead::{self, DeadBody, DeadMeta};
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::error::Error;
use crate::outbox::local::files::read::sound;
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::owner::command::Reply;
use crate::outbox::local::owner::keeper::{Ack, Keeper, ack};
use crate::outbox::local::shared::Shared;
use crate::outbox::local::state::change::{Change, Effects, Outcome};
use crate::outbox::local::state::rows::{Bits, Letter};
use crate::outbox::ordinal::Ordinal;

/// One settle command, its dead letters written and not yet synced.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Plan {
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

/// Puts settlements into the change, once their dead letters are durable.
pub(in crate::outbox) fn settle(
    keeper: &mut Keeper,
    plans: Vec<(Result<Plan, Error>, Reply<Settled>)>,
    change: &mut Change,
    acks: &mut Vec<Ack>,
) {
    // A failure anywhere in the dead-letter file is one of all that was put there.
    let mut dead = Ok(());
    if plans
        .iter()
        .any(|(plan, _)| plan.as_ref().is_ok_and(Plan::has_letters))
    {
        dead = keeper.sync_dead();
    }
    for (plan, _) in &plans {
        if let (Ok(()), Err(error @ Error::Io { .. })) = (&dead, plan) {
            dead = Err(error.clone());
        }
    }
    let mut letters = false;
    for (plan, reply) in plans {
        let plan = match (plan, &dead) {
            (Err(error), _) => Err(error),
            (Ok(plan), Err(error)) if plan.has_letters() => Err(error.clone()),
            (Ok(plan), _) => Ok(plan),
        };
        match plan {
            Ok(plan) => {
                letters |= plan.has_letters();
                let settled = plan.apply(&keeper.shared, change);
                acks.push(ack(reply, move |effects| settled.finish(effects)));
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
    if letters && let Some((number, length)) = keeper.dead.current() {
        change.set_dead_file(&keeper.shared.index(), number, length);
    }
    keeper.dead.roll();
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
pub(in crate::outbox) struct Applied {
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

/// Looks the entries up and writes the dead slices. Nothing is changed when this fails.
pub(in crate::outbox) fn plan_settlement(
    keeper: &mut Keeper,
    settlements: &[Settlement],
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let mut found = Vec::new();
    for settlement in settlements {
        match find(keeper, settlement)? {
            Some(one) => found.push(one),
            None => plan.unknown += 1,
        }
    }
    for one in &found {
        check_slices(one)?;
    }
    // All of them are read before any is written.
    let mut bodies = Vec::new();
    for one in &found {
        bodies.push(match one.settlement.dead.is_empty() {
            true => None,
            false => Some(read_dead(keeper, one)?),
        });
    }
    for (one, body) in found.into_iter().zip(bodies) {
        let (outcome, letter) = match body {
            None => (Outcome::default(), None),
            Some(body) => to_letter(keeper, &one, body)?,
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

fn find<'a>(keeper: &Keeper, settlement: &'a Settlement) -> Result<Option<Found<'a>>, Error> {
    let what = Ordinal::read(settlement.ordinal);
    let shared = Arc::clone(&keeper.shared);
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
                    let disk = &shared.disk;
                    let file =
                        SegmentFile::open(disk, &path, info.id, summary.first, summary.entries);
                    // One that is gone is met at the next claim.
                    let Some(file) = sound(file).map_err(|error| keeper.unreadable(error))? else {
                        return Ok(None);
                    };
                    Arc::new(file)
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

/// The dead slices of a settlement, read back.
struct DeadEntry {
    dead: Vec<DeadBody>,
    ordinal: u32,
    replaces: Option<u64>,
    route: u8,
}

/// Reads the dead slices; `None`: their record is damaged.
fn read_dead(keeper: &Keeper, found: &Found<'_>) -> Result<Option<DeadEntry>, Error> {
    let shared = &keeper.shared;
    let read = match &found.body {
        Body::Segment(file, ordinal) => {
            let read = file.read(*ordinal, &shared.settings.keys);
            read.and_then(|record| {
                Ok(DeadEntry {
                    dead: dead::of_entry(&record, &found.settlement.dead),
                    ordinal: *ordinal,
                    replaces: None,
                    route: record.route()?,
                })
            })
        }
        Body::Letter(id, letter) => {
            shared
                .read_letter(found.info.id, letter)
                .map(|old| DeadEntry {
                    dead: dead::of_letter(&old, &letter.live, &found.settlement.dead),
                    ordinal: letter.ordinal,
                    replaces: Some(*id),
                    route: old.meta.route,
                })
        }
    };
    sound(read).map_err(|error| keeper.unreadable(error))
}

/// Copies the dead slices into the dead-letter file.
fn to_letter(
    keeper: &mut Keeper,
    found: &Found<'_>,
    entry: Option<DeadEntry>,
) -> Result<(Outcome, Option<Letter>), Error> {
    let Some(entry) = entry else {
        // The dead slices cannot be told from the delivered ones any more.
        keeper.shared.report_damage(
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
    let DeadEntry {
        dead,
        ordinal,
        replaces,
        route,
    } = entry;
    let account = keeper.shared.account(found.info.destination);
    let mut meta = DeadMeta::new(&found.info, account, replaces, route);
    meta.slices = dead.iter().map(|dead| dead.meta.clone()).collect();
    let (slices, tally) = (dead::slices(&dead), dead::weight(&dead));
    let place = keeper.append_dead(&meta, ordinal, &slices)?;
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
