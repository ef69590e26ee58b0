//! Any sequence of operations, with restarts, against a model of a few lines: each batch is in
//! one column, and a destination's turns come one after the other. Where several daemons share an outbox,
//! some are stopped for so long that another takes over, and go on as if nothing had been.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use looker_feed::outbox::{Claim, DeadFilter, Error, LetterId, Outbox, Scan, Staging, Tally};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::kit::*;
use crate::place::{Daemon, Place};
use crate::server::Isolation;

/// The longest lease there is, so that one who was stopped hears of it by what it does, and not by a
/// renewal.
const LEASE: Duration = Duration::from_secs(300);
const DESTINATIONS: [u8; 2] = [0, 1];

#[derive(Clone, Debug)]
enum Step {
    Commit {
        destination: u8,
        entries: u64,
        held: bool,
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
        by: By,
    },
    Discard {
        which: u8,
        by: By,
    },
    /// Puts another payload into one of the dead letters.
    Edit {
        which: usize,
        by: By,
    },
    /// Cancels one of the deliveries so far.
    Cancel {
        which: u8,
        by: By,
    },
    /// Lets one of the deliveries so far go that may be held.
    LetGo {
        which: u8,
        by: By,
    },
    /// Erases a fifth of all batches there are.
    Erase {
        which: u8,
        by: By,
    },
    Reopen,
    /// Another daemon takes over from one that is stopped: a new one, or the one that was stopped before.
    Stop {
        back: bool,
    },
    /// One that was stopped settles what it had claimed.
    SettleLate,
    /// One that was stopped claims.
    ClaimLate {
        destination: u8,
    },
}

/// Which daemon a person asks.
#[derive(Clone, Copy, Debug)]
enum By {
    /// The one that sends.
    Sender,
    /// One that was stopped, if there is one.
    Stopped,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..2u8, 0..12u64, any::<u8>()).prop_map(|(destination, entries, held)| Step::Commit {
            destination,
            entries,
            held: held < 64 && entries > 0,
        }),
        1 => (0..12u64).prop_map(|entries| Step::Abort { entries }),
        4 => (0..2u8, 1..6usize).prop_map(|(destination, max)| Step::Claim { destination, max }),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(which, dead)| Step::Settle { which, dead }),
        2 => Just(Step::SettleAll),
        1 => any::<usize>().prop_map(|which| Step::Release { which }),
        2 => (any::<u8>(), by()).prop_map(|(which, by)| Step::Replay { which, by }),
        1 => (any::<u8>(), by()).prop_map(|(which, by)| Step::Discard { which, by }),
        2 => (any::<usize>(), by()).prop_map(|(which, by)| Step::Edit { which, by }),
        1 => (any::<u8>(), by()).prop_map(|(which, by)| Step::Cancel { which, by }),
        1 => (any::<u8>(), by()).prop_map(|(which, by)| Step::LetGo { which, by }),
        1 => (any::<u8>(), by()).prop_map(|(which, by)| Step::Erase { which, by }),
        2 => Just(Step::Reopen),
        2 => any::<bool>().prop_map(|back| Step::Stop { back }),
        1 => Just(Step::SettleLate),
        1 => (0..2u8).prop_map(|destination| Step::ClaimLate { destination }),
    ];
    prop::collection::vec(step, 1..60)
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![3 => Just(By::Sender), 1 => Just(By::Stopped)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
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
    column: Column,
}

type Name = Vec<u8>;

#[derive(Default)]
struct Model {
    batches: BTreeMap<Name, Batch>,
    /// What each turn of a destination still has to settle, in order.
    turns: BTreeMap<u8, Vec<BTreeSet<Name>>>,
    destinations: BTreeMap<u8, u8>,
    cancelled: BTreeSet<u8>,
    held: BTreeSet<u8>,
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
                    column: Column::Waiting,
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
                let mut turns = self.turns.get(&destination).into_iter().flatten();
                let held = |name: &Name| self.held.contains(&self.batches[name].delivery);
                let turn = turns.find(|turn| !turn.iter().any(held));
                assert!(
                    turn.is_some_and(|turn| turn.contains(&name[..])),
                    "not its turn"
                );
                let batch = self.batches.get_mut(&name[..]).unwrap();
                assert_eq!(batch.column, Column::Waiting, "claimed twice");
                assert_eq!(batch.rows, *rows);
                assert_eq!(delivery_id(batch.delivery), claim.delivery);
                batch.column = Column::Flying;
            }
        }
    }

    fn settle(&mut self, claim: &Claim, dead: &[usize]) {
        for (slice, name) in claim.slices.iter().enumerate() {
            let column = if dead.contains(&slice) {
                Column::Dead
            } else {
                Column::Delivered
            };
            self.put(name, column);
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
        let open = |batch: &Batch| matches!(batch.column, Column::Waiting | Column::Flying);
        let mut batches = self.batches.values();
        !batches.any(|batch| batch.delivery == delivery && open(batch))
    }

    /// What waits of cancelled deliveries is cancelled.
    fn sweep(&mut self) {
        let waits = |batch: &Batch| {
            batch.column == Column::Waiting && self.cancelled.contains(&batch.delivery)
        };
        let swept = self.batches.iter().filter(|(_, batch)| waits(batch));
        let swept: Vec<Name> = swept.map(|(name, _)| name.clone()).collect();
        for name in swept {
            self.put(&name, Column::Cancelled);
            self.leave_turn(&name);
        }
    }

    fn put(&mut self, name: &[u8], column: Column) {
        self.batches.get_mut(name).unwrap().column = column;
    }

    fn replay(&mut self, names: &[Name]) {
        let mut turns: BTreeMap<u8, BTreeSet<Name>> = BTreeMap::new();
        for name in names {
            self.put(name, Column::Waiting);
            let destination = self.destinations[&self.batches[name].delivery];
            turns.entry(destination).or_default().insert(name.clone());
        }
        for (destination, turn) in turns {
            self.turns.entry(destination).or_default().push(turn);
        }
    }

    fn erased(&self) -> u64 {
        let erased = self.batches.values();
        erased
            .filter(|batch| batch.column == Column::Erased)
            .count() as u64
    }

    /// What is meant, waits or is dead, is erased. What flew has been given back.
    fn erase(&mut self, meant: &dyn Fn(&[u8]) -> bool) {
        let here = |column| matches!(column, Column::Waiting | Column::Dead);
        let names = self.batches.iter();
        let names = names.filter(|(name, batch)| here(batch.column) && meant(name));
        let names: Vec<Name> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.put(&name, Column::Erased);
            self.leave_turn(&name);
        }
    }

    fn restart(&mut self) {
        for batch in self.batches.values_mut() {
            if batch.column == Column::Flying {
                batch.column = Column::Waiting;
            }
        }
        self.sweep();
    }

    fn tally(&self, delivery: u8, column: Column) -> Tally {
        let batches = self.batches.values();
        let here = batches.filter(|batch| batch.delivery == delivery && batch.column == column);
        here.fold(Tally::default(), |mut sum, batch| {
            sum += Tally {
                rows: u64::from(batch.rows),
                batches: 1,
            };
            sum
        })
    }

    fn compare(&self, outbox: &Daemon) {
        check_sums(outbox);
        assert!(outbox.damage().is_empty(), "{:?}", outbox.damage());
        assert_eq!(outbox.listed().len(), self.destinations.len());
        for &delivery in self.destinations.keys() {
            let state = outbox.state(delivery);
            for (column, tally) in [
                (Column::Waiting, state.waiting),
                (Column::Flying, state.in_flight),
                (Column::Delivered, state.delivered),
                (Column::Dead, state.dead),
                (Column::Discarded, state.discarded),
                (Column::Cancelled, state.cancelled),
                (Column::Erased, state.erased),
            ] {
                assert_eq!(tally, self.tally(delivery, column), "{delivery} {column:?}");
            }
            assert_eq!(state.finished.is_some(), self.is_settled(delivery));
            let cancelled = self.cancelled.contains(&delivery);
            assert_eq!(state.cancelled_at.is_some(), cancelled);
            assert_eq!(state.held, self.held.contains(&delivery));
        }
        let dead: BTreeSet<Name> = listed(outbox).into_iter().map(|(_, name)| name).collect();
        let want = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.column == Column::Dead);
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

/// The daemons of a run, and what they have claimed.
struct Run<'a> {
    place: &'a Place,
    model: Model,
    outbox: Daemon,
    claims: Vec<Claim>,
    /// Who was stopped, with what it believes to have claimed.
    stopped: Option<(Daemon, Vec<Claim>)>,
    next: u8,
}

impl<'a> Run<'a> {
    fn new(place: &'a Place) -> Self {
        Self {
            place,
            model: Model::default(),
            outbox: place.open_with(|kept| kept.lease = LEASE),
            claims: Vec::new(),
            stopped: None,
            next: 0,
        }
    }

    fn asked(&self, by: By) -> &Daemon {
        match (by, &self.stopped) {
            (By::Stopped, Some((stopped, _))) => stopped,
            _ => &self.outbox,
        }
    }

    /// What flew waits again.
    fn restarted(&mut self) {
        self.claims.clear();
        self.outbox.take_up(&DESTINATIONS);
        self.model.restart();
    }

    fn reopen(&mut self) {
        self.outbox.close();
        self.outbox = self.place.open_with(|kept| kept.lease = LEASE);
        self.restarted();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Commit {
                destination,
                entries,
                held,
            } => {
                self.next += 1;
                let mut staging = self.stage(destination, entries);
                if held {
                    staging.hold();
                    self.model.held.insert(self.next);
                }
                staging.commit(totals(entries, 0)).unwrap();
                self.model.commit(self.next, destination, entries);
            }
            Step::Abort { entries } => {
                self.next += 1;
                drop(self.stage(0, entries));
            }
            Step::Claim { destination, max } => {
                let new = self.outbox.claim(destination, max);
                assert!(new.len() <= max);
                self.model.claim(destination, &new);
                self.claims.extend(new);
            }
            Step::Settle { which, dead } if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(which % self.claims.len());
                let dead: Vec<usize> = (0..claim.slices.len())
                    .filter(|slice| dead & (1 << slice) != 0)
                    .collect();
                let settled = self.outbox.settle(vec![settlement(&claim, &dead)]);
                assert_eq!((settled.entries, settled.unknown), (1, 0));
                self.model.settle(&claim, &dead);
            }
            Step::Release { which } if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(which % self.claims.len());
                self.give_back(&claim);
                self.model.sweep();
            }
            Step::Settle { .. } | Step::Release { .. } => {}
            Step::SettleAll => self.settle_all(),
            Step::Replay { which, by } => {
                let (ids, names) = some(listed(&self.outbox), which);
                let cancelled = |name: &Name| {
                    let delivery = self.model.batches[name].delivery;
                    self.model.cancelled.contains(&delivery)
                };
                let names: Vec<Name> = names.into_iter().filter(|name| !cancelled(name)).collect();
                let moved = self.asked(by).replay(&ids).unwrap();
                assert_eq!(moved.letters, names.len() as u64);
                self.model.replay(&names);
            }
            Step::Discard { which, by } => {
                let (ids, names) = some(listed(&self.outbox), which);
                let moved = self.asked(by).discard(&ids).unwrap();
                assert_eq!(moved.letters, ids.len() as u64);
                for name in &names {
                    self.model.put(name, Column::Discarded);
                }
            }
            Step::Edit { which, by } => {
                let letters = listed(&self.outbox);
                let Some((id, name)) = letters.get(which % letters.len().max(1)) else {
                    return;
                };
                let other = [name, &b"!"[..]].concat();
                let asked = self.asked(by);
                let edited = asked.edit(*id, other.clone()).unwrap().unwrap();
                let (_, body) = self.outbox.dead_letter(edited).unwrap().unwrap();
                assert_eq!(&body[..], other);
                assert_eq!(asked.edit(*id, other.clone()).unwrap(), None);
                let batch = self.model.batches.remove(name).unwrap();
                self.model.batches.insert(other, batch);
            }
            Step::Cancel { which, by } => {
                let delivery = which % 8 + 1;
                let before = self.model.tally(delivery, Column::Waiting);
                let known = self.model.destinations.contains_key(&delivery);
                let cancelled = self.asked(by).cancel(delivery_id(delivery)).unwrap();
                assert_eq!(cancelled, known.then_some(before));
                if known && !self.model.is_settled(delivery) {
                    self.model.cancelled.insert(delivery);
                    self.model.held.remove(&delivery);
                    self.model.sweep();
                }
            }
            Step::LetGo { which, by } => {
                let delivery = which % 8 + 1;
                let known = self.model.destinations.contains_key(&delivery);
                let let_go = self
                    .asked(by)
                    .release_delivery(delivery_id(delivery))
                    .unwrap();
                let held = self.model.held.remove(&delivery);
                assert_eq!(let_go, known.then_some(held));
            }
            // Another daemon waits for what flies to land.
            Step::Erase { which, by } if self.claims.is_empty() => self.erase(which, by),
            Step::Erase { which, .. } => self.erase(which, By::Sender),
            Step::Reopen => self.reopen(),
            Step::Stop { back } if self.place.is_shared() => self.stop(back),
            // A directory is one process's.
            Step::Stop { .. } => self.reopen(),
            Step::SettleLate => self.settle_late(),
            Step::ClaimLate { destination } => {
                // What it is given is another's by now; it may hear of that or not.
                if let Some((stopped, claims)) = &mut self.stopped
                    && let Some(Ok(new)) = stopped.claim_late(destination)
                {
                    claims.extend(new);
                }
            }
        }
    }

    fn stage(&self, destination: u8, entries: u64) -> Staging {
        let new = new_delivery(self.next, destination);
        let mut staging = self.outbox.begin(new).unwrap();
        for ordinal in 0..entries {
            append(&mut staging, self.next, ordinal).unwrap();
        }
        staging
    }

    fn give_back(&mut self, claim: &Claim) {
        self.outbox.release(claim);
        // The outbox cancels what is given back on its own thread, before this.
        self.outbox.settle(Vec::new());
        for name in &claim.slices {
            self.model.put(name, Column::Waiting);
        }
    }

    fn settle_all(&mut self) {
        self.outbox.settle(delivered(&self.claims));
        for claim in self.claims.drain(..) {
            self.model.settle(&claim, &[]);
        }
    }

    /// Erases a fifth of all batches there are.
    fn erase(&mut self, which: u8, by: By) {
        let fifth = |name: &[u8]| name.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 5;
        let meant = |name: &[u8]| fifth(name) == u32::from(which % 5);
        let held = RefCell::new(std::mem::take(&mut self.claims));
        let given = RefCell::new(Vec::new());
        let give_back = |_, delivery| {
            let (back, kept): (Vec<_>, Vec<_>) = held
                .take()
                .into_iter()
                .partition(|claim: &Claim| claim.delivery == delivery);
            held.replace(kept);
            for claim in back {
                self.outbox.release(&claim);
                given.borrow_mut().push(claim);
            }
        };
        let scan = Scan::default();
        let asked = self.asked(by);
        let erased = asked.erase(&Meant(&meant), &scan, &give_back).unwrap();
        assert_eq!(self.outbox.find(&Meant(&meant), &scan).unwrap(), []);
        self.claims = held.into_inner();
        for name in given.into_inner().iter().flat_map(|claim| &claim.slices) {
            self.model.put(name, Column::Waiting);
        }
        self.model.sweep();
        let before = self.model.erased();
        self.model.erase(&meant);
        let open: BTreeSet<u8> = (1..=self.next)
            .filter(|n| !self.model.is_settled(*n))
            .collect();
        self.model.held.retain(|held| open.contains(held));
        let erased = erased.waiting.batches + erased.dead.batches;
        assert_eq!(erased, self.model.erased() - before);
    }

    /// The one that sends is stopped, until its leases are over, and others take it for dead.
    fn stop(&mut self, back: bool) {
        self.place.freeze();
        let next = match self.stopped.take() {
            Some((before, _)) if back => {
                before.give_back();
                before
            }
            before => {
                if let Some((before, _)) = before {
                    before.close();
                }
                self.place.open_with(|kept| kept.lease = LEASE)
            }
        };
        let stopped = std::mem::replace(&mut self.outbox, next);
        self.stopped = Some((stopped, self.claims.clone()));
        self.restarted();
    }

    /// Nothing that one who was stopped says of what it had claimed is believed.
    fn settle_late(&mut self) {
        let Some((stopped, claims)) = &mut self.stopped else {
            return;
        };
        if !claims.is_empty() {
            let late = stopped.try_settle(delivered(claims));
            assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
            claims.clear();
        }
    }

    /// All that waits comes out, once.
    fn end(mut self) {
        self.settle_all();
        for held in std::mem::take(&mut self.model.held) {
            let let_go = self.outbox.release_delivery(delivery_id(held)).unwrap();
            assert_eq!(let_go, Some(true));
        }
        for destination in DESTINATIONS {
            loop {
                self.claims = self.outbox.claim(destination, 3);
                self.model.claim(destination, &self.claims);
                if self.claims.is_empty() {
                    break;
                }
                self.settle_all();
            }
        }
        self.settle_late();
        self.model.compare(&self.outbox);
        assert!(self.model.turns.values().all(Vec::is_empty));
        assert_eq!(self.outbox.usage().unwrap().entries, 0);
        self.outbox.close();
        let outbox = self.place.open();
        self.model.compare(&outbox);
        self.place.check_drained(&outbox);
    }
}

/// Runs so many sequences, each at a place of its own.
fn match_the_model(cases: u32, place: impl Fn() -> Option<Place>) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        // Each step is many calls to a server.
        max_shrink_iters: 4 * cases,
        ..ProptestConfig::default()
    };
    let ran = TestRunner::new(config).run(&steps(), |steps| {
        let Some(place) = place() else {
            return Ok(());
        };
        let mut run = Run::new(&place);
        for step in &steps {
            run.step(step);
            run.model.compare(&run.outbox);
        }
        run.end();
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn any_sequence_of_operations_matches_the_model_in_a_directory() {
    match_the_model(60, || Some(Place::directory()));
}

#[test]
fn any_sequence_of_operations_matches_the_model_on_postgres() {
    match_the_model(8, || Place::database(Isolation::Default));
}

#[test]
fn any_sequence_of_operations_matches_the_model_on_postgres_serializable() {
    match_the_model(8, || Place::database(Isolation::Serializable));
}
