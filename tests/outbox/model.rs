//! Any sequence of operations, with restarts, against a model of a few lines: each batch is in
//! one place, and a destination's turns come one after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use looker_feed::outbox::{Claim, DeadFilter, LetterId, Tally};
use proptest::prelude::*;

use crate::kit::*;

#[derive(Clone, Debug)]
enum Step {
    Commit {
        destination: u8,
        entries: u64,
    },
    Abort {
        entries: u64,
    },
    Claim {
        destination: u8,
        max: usize,
    },
    /// Settles one of the claims; the bits say which slices are dead.
    Settle {
        which: usize,
        dead: u8,
    },
    SettleAll,
    Release {
        which: usize,
    },
    Replay {
        which: u8,
    },
    Discard {
        which: u8,
    },
    /// Puts another payload into one of the dead letters.
    Edit {
        which: usize,
    },
    /// Cancels one of the deliveries so far.
    Cancel {
        which: u8,
    },
    /// Erases a fifth of all batches there are.
    Erase {
        which: u8,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..2u8, 0..12u64).prop_map(|(destination, entries)| Step::Commit { destination, entries }),
        1 => (0..12u64).prop_map(|entries| Step::Abort { entries }),
        4 => (0..2u8, 1..6usize).prop_map(|(destination, max)| Step::Claim { destination, max }),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(which, dead)| Step::Settle { which, dead }),
        2 => Just(Step::SettleAll),
        1 => any::<usize>().prop_map(|which| Step::Release { which }),
        2 => any::<u8>().prop_map(|which| Step::Replay { which }),
        1 => any::<u8>().prop_map(|which| Step::Discard { which }),
        2 => any::<usize>().prop_map(|which| Step::Edit { which }),
        1 => any::<u8>().prop_map(|which| Step::Cancel { which }),
        1 => any::<u8>().prop_map(|which| Step::Erase { which }),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Waiting,
    Flying,
    Delivered,
    Dead,
    Discarded,
    Cancelled,
    Erased,
}

/// One batch, by its payload.
#[derive(Clone, Debug)]
struct Batch {
    delivery: u8,
    rows: u32,
    place: Place,
}

type Name = Vec<u8>;

#[derive(Default)]
struct Model {
    batches: BTreeMap<Name, Batch>,
    /// What each turn of a destination still has to settle, in order.
    turns: BTreeMap<u8, Vec<BTreeSet<Name>>>,
    destinations: BTreeMap<u8, u8>,
    cancelled: BTreeSet<u8>,
}

impl Model {
    fn commit(&mut self, delivery: u8, destination: u8, entries: u64) {
        let mut turn = BTreeSet::new();
        for ordinal in 0..entries {
            for (slice, rows) in shape(ordinal).into_iter().enumerate() {
                let name = payload(delivery, ordinal, slice);
                turn.insert(name.clone());
                let batch = Batch {
                    delivery,
                    rows,
                    place: Place::Waiting,
                };
                assert!(self.batches.insert(name, batch).is_none());
            }
        }
        self.destinations.insert(delivery, destination);
        if entries > 0 {
            self.turns.entry(destination).or_default().push(turn);
        }
    }

    fn claim(&mut self, destination: u8, claims: &[Claim]) {
        for claim in claims {
            check_route(claim);
            for (name, rows) in claim.slices.iter().zip(&claim.rows) {
                let turn = self.turns.get(&destination).and_then(|turns| turns.first());
                assert!(
                    turn.is_some_and(|turn| turn.contains(&name[..])),
                    "not its turn"
                );
                let batch = self.batches.get_mut(&name[..]).unwrap();
                assert_eq!(batch.place, Place::Waiting, "claimed twice");
                assert_eq!(batch.rows, *rows);
                assert_eq!(delivery_id(batch.delivery), claim.delivery);
                batch.place = Place::Flying;
            }
        }
    }

    fn settle(&mut self, claim: &Claim, dead: &[usize]) {
        for (slice, name) in claim.slices.iter().enumerate() {
            let place = if dead.contains(&slice) {
                Place::Dead
            } else {
                Place::Delivered
            };
            self.put(name, place);
            self.leave_turn(name);
        }
    }

    fn leave_turn(&mut self, name: &[u8]) {
        for turns in self.turns.values_mut() {
            turns.iter_mut().for_each(|turn| {
                turn.remove(name);
            });
            turns.retain(|turn| !turn.is_empty());
        }
    }

    /// Nothing is left of it: it cannot be cancelled any more.
    fn is_settled(&self, delivery: u8) -> bool {
        let open = |batch: &Batch| matches!(batch.place, Place::Waiting | Place::Flying);
        let mut batches = self.batches.values();
        !batches.any(|batch| batch.delivery == delivery && open(batch))
    }

    /// What waits of cancelled deliveries is cancelled.
    fn sweep(&mut self) {
        let waits = |batch: &Batch| {
            batch.place == Place::Waiting && self.cancelled.contains(&batch.delivery)
        };
        let swept = self.batches.iter().filter(|(_, batch)| waits(batch));
        let swept: Vec<Name> = swept.map(|(name, _)| name.clone()).collect();
        for name in swept {
            self.put(&name, Place::Cancelled);
            self.leave_turn(&name);
        }
    }

    fn put(&mut self, name: &[u8], place: Place) {
        self.batches.get_mut(name).unwrap().place = place;
    }

    fn replay(&mut self, names: &[Name]) {
        let mut turns: BTreeMap<u8, BTreeSet<Name>> = BTreeMap::new();
        for name in names {
            self.put(name, Place::Waiting);
            let destination = self.destinations[&self.batches[name].delivery];
            turns.entry(destination).or_default().insert(name.clone());
        }
        for (destination, turn) in turns {
            self.turns.entry(destination).or_default().push(turn);
        }
    }

    fn erased(&self) -> u64 {
        let erased = self.batches.values();
        erased.filter(|batch| batch.place == Place::Erased).count() as u64
    }

    /// What is meant, waits or is dead, is erased. What flew has been given back.
    fn erase(&mut self, meant: &dyn Fn(&[u8]) -> bool) {
        let here = |place| matches!(place, Place::Waiting | Place::Dead);
        let names = self.batches.iter();
        let names = names.filter(|(name, batch)| here(batch.place) && meant(name));
        let names: Vec<Name> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.put(&name, Place::Erased);
            self.leave_turn(&name);
        }
    }

    fn restart(&mut self) {
        for batch in self.batches.values_mut() {
            if batch.place == Place::Flying {
                batch.place = Place::Waiting;
            }
        }
        self.sweep();
    }

    fn tally(&self, delivery: u8, place: Place) -> Tally {
        let batches = self.batches.values();
        let here = batches.filter(|batch| batch.delivery == delivery && batch.place == place);
        here.fold(Tally::default(), |mut sum, batch| {
            sum += Tally {
                rows: u64::from(batch.rows),
                batches: 1,
            };
            sum
        })
    }

    fn compare(&self, outbox: &Outbox) {
        check_sums(outbox);
        assert!(outbox.damage().is_empty(), "{:?}", outbox.damage());
        let states = states(outbox);
        assert_eq!(states.len(), self.destinations.len());
        for &delivery in self.destinations.keys() {
            let state = state(outbox, delivery);
            for (place, tally) in [
                (Place::Waiting, state.waiting),
                (Place::Flying, state.in_flight),
                (Place::Delivered, state.delivered),
                (Place::Dead, state.dead),
                (Place::Discarded, state.discarded),
                (Place::Cancelled, state.cancelled),
                (Place::Erased, state.erased),
            ] {
                assert_eq!(tally, self.tally(delivery, place), "{delivery} {place:?}");
            }
            assert_eq!(state.finished.is_some(), self.is_settled(delivery));
            let cancelled = self.cancelled.contains(&delivery);
            assert_eq!(state.cancelled_at.is_some(), cancelled);
        }
        let dead: BTreeSet<Name> = listed(outbox).into_iter().map(|(_, name)| name).collect();
        let want = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.place == Place::Dead);
        assert_eq!(dead, want.map(|(name, _)| name.clone()).collect());
    }
}

/// All dead letters with their payloads, in pages of two.
fn listed(outbox: &Outbox) -> Vec<(LetterId, Name)> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = outbox
            .dead_letters(DeadFilter::default(), after, 2)
            .unwrap();
        for letter in &page.letters {
            let (_, body) = outbox.dead_letter(letter.id).unwrap().unwrap();
            all.push((letter.id, body.to_vec()));
        }
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

fn some(letters: Vec<(LetterId, Name)>, which: u8) -> (Vec<LetterId>, Vec<Name>) {
    let chosen = letters.into_iter().enumerate();
    chosen
        .filter(|(n, _)| which & (1 << (n % 8)) != 0)
        .map(|(_, letter)| letter)
        .unzip()
}

fn run(steps: &[Step]) {
    let Some(place) = place() else {
        return;
    };
    let mut outbox = place.open();
    let mut model = Model::default();
    let mut claims: Vec<Claim> = Vec::new();
    let mut next = 0;
    for step in steps {
        match *step {
            Step::Commit {
                destination,
                entries,
            } => {
                next += 1;
                deliver(&outbox, next, destination, entries).unwrap();
                model.commit(next, destination, entries);
            }
            Step::Abort { entries } => {
                next += 1;
                let mut staging = outbox.begin(new_delivery(next, 0)).unwrap();
                for ordinal in 0..entries {
                    append(&mut staging, next, ordinal).unwrap();
                }
            }
            Step::Claim { destination, max } => {
                let new = claim(&outbox, destination, max);
                assert!(new.len() <= max);
                model.claim(destination, &new);
                claims.extend(new);
            }
            Step::Settle { which, dead } if !claims.is_empty() => {
                let claim = claims.swap_remove(which % claims.len());
                let dead: Vec<usize> = (0..claim.slices.len())
                    .filter(|slice| dead & (1 << slice) != 0)
                    .collect();
                let settled = settle(&outbox, vec![settlement(&claim, &dead)]);
                assert_eq!((settled.entries, settled.unknown), (1, 0));
                model.settle(&claim, &dead);
            }
            Step::SettleAll => {
                settle(&outbox, delivered(&claims));
                claims.drain(..).for_each(|claim| model.settle(&claim, &[]));
            }
            Step::Release { which } if !claims.is_empty() => {
                let claim = claims.swap_remove(which % claims.len());
                release(&outbox, claim.delivery, claim.ordinal);
                // The outbox cancels what is given back on its own thread, before this.
                settle(&outbox, Vec::new());
                claim
                    .slices
                    .iter()
                    .for_each(|name| model.put(name, Place::Waiting));
                model.sweep();
            }
            Step::Settle { .. } | Step::Release { .. } => {}
            Step::Replay { which } => {
                let (ids, names) = some(listed(&outbox), which);
                let cancelled = |name: &Name| {
                    let delivery = model.batches[name].delivery;
                    model.cancelled.contains(&delivery)
                };
                let names: Vec<Name> = names.into_iter().filter(|name| !cancelled(name)).collect();
                assert_eq!(outbox.replay(&ids).unwrap().letters, names.len() as u64);
                model.replay(&names);
            }
            Step::Discard { which } => {
                let (ids, names) = some(listed(&outbox), which);
                assert_eq!(outbox.discard(&ids).unwrap().letters, ids.len() as u64);
                names
                    .iter()
                    .for_each(|name| model.put(name, Place::Discarded));
            }
            Step::Edit { which } => {
                let letters = listed(&outbox);
                let Some((id, name)) = letters.get(which % letters.len().max(1)) else {
                    continue;
                };
                let other = [name, &b"!"[..]].concat();
                let edited = outbox.edit(*id, other.clone()).unwrap().unwrap();
                let (_, body) = outbox.dead_letter(edited).unwrap().unwrap();
                assert_eq!(&body[..], other);
                assert_eq!(outbox.edit(*id, other.clone()).unwrap(), None);
                let batch = model.batches.remove(name).unwrap();
                model.batches.insert(other, batch);
            }
            Step::Cancel { which } => {
                let delivery = which % 8 + 1;
                let before = model.tally(delivery, Place::Waiting);
                let known = model.destinations.contains_key(&delivery);
                let cancelled = outbox.cancel(delivery_id(delivery)).unwrap();
                assert_eq!(cancelled, known.then_some(before));
                if known && !model.is_settled(delivery) {
                    model.cancelled.insert(delivery);
                    model.sweep();
                }
            }
            Step::Erase { which } => {
                let fifth = |name: &[u8]| name.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 5;
                let meant = |name: &[u8]| fifth(name) == u32::from(which % 5);
                let held = RefCell::new(std::mem::take(&mut claims));
                let given = RefCell::new(Vec::new());
                let give_back = |_, delivery| {
                    let (back, kept): (Vec<_>, Vec<_>) = held
                        .take()
                        .into_iter()
                        .partition(|claim: &Claim| claim.delivery == delivery);
                    held.replace(kept);
                    for claim in back {
                        release(&outbox, claim.delivery, claim.ordinal);
                        given.borrow_mut().push(claim);
                    }
                };
                let erased = erase(&outbox, &meant, &give_back);
                claims = held.into_inner();
                for name in given.into_inner().iter().flat_map(|claim| &claim.slices) {
                    model.put(name, Place::Waiting);
                }
                model.sweep();
                if let Some(erased) = erased {
                    let before = model.erased();
                    model.erase(&meant);
                    assert_eq!(erased, model.erased() - before);
                }
            }
            Step::Reopen => {
                outbox.close();
                outbox = place.open();
                claims.clear();
                model.restart();
            }
        }
        model.compare(&outbox);
    }

    // The end: all that waits comes out, once.
    settle(&outbox, delivered(&claims));
    claims.drain(..).for_each(|claim| model.settle(&claim, &[]));
    for destination in 0..2 {
        loop {
            let claims = claim(&outbox, destination, 3);
            model.claim(destination, &claims);
            settle(&outbox, delivered(&claims));
            claims.iter().for_each(|claim| model.settle(claim, &[]));
            if claims.is_empty() {
                break;
            }
        }
    }
    model.compare(&outbox);
    assert!(model.turns.values().all(Vec::is_empty));
    assert_eq!(entries_left(&outbox), 0);
    outbox.close();
    let outbox = place.open();
    model.compare(&outbox);
    place.check_drained(&outbox);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_matches_the_model(steps in steps()) {
        run(&steps);
    }
}
