//! Nothing of whom was erased is left anywhere, in whatever state the outbox was, whichever daemon is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use looker_feed::outbox::{
    DeadFilter, Entry, LaneRequest, LetterId, Outbox, RejectedRow, Scan, Settlement, Slice, Tally,
    Totals,
};

use crate::generated::{
    Meant, check_sums, delivered, delivery_id, destination_id, given_up, new_delivery, state,
};
use crate::kit::{drain, expire, lease, open};
use crate::server::{BOTH, Database, Isolation, database};

const PERSON: &str = "ada@example.com";
const OTHER: &str = "someone@example.com";

fn is_ada(text: &[u8]) -> bool {
    memchr::memmem::find(text, PERSON.as_bytes()).is_some()
}

fn erase(outbox: &Outbox) -> looker_feed::outbox::Erased {
    let erased = outbox.erase(&Meant(&is_ada), &Scan::default(), &|_, _| ());
    erased.unwrap()
}

fn find(outbox: &Outbox) -> Vec<looker_feed::outbox::Occurrence> {
    outbox.find(&Meant(&is_ada), &Scan::default()).unwrap()
}

/// Delivers requests, each with batches of the person or of others, and as many rejected rows of either.
fn deliver(outbox: &Outbox, n: u8, entries: &[Vec<bool>], rejected: &[bool]) {
    let mut staging = outbox.begin(new_delivery(n, 1 + n % 2)).unwrap();
    let mut totals = Totals::default();
    let text = |who: &bool, at: usize| {
        let who = if *who { PERSON } else { OTHER };
        format!("delivery {n}: {at} of {who}").into_bytes()
    };
    for (at, entry) in entries.iter().enumerate() {
        let texts: Vec<_> = entry.iter().map(|who| text(who, at)).collect();
        let slices = texts.iter().map(|bytes| Slice { bytes, rows: 2 });
        let slices: Vec<_> = slices.collect();
        totals.batches += slices.len() as u64;
        totals.rows_in += 2 * slices.len() as u64;
        totals.requests += 1;
        staging
            .append(Entry {
                slices: &slices,
                route: 1,
            })
            .unwrap();
    }
    for (at, who) in rejected.iter().enumerate() {
        totals.rows_in += 1;
        totals.rows_rejected += 1;
        staging
            .reject(RejectedRow {
                row: at as u64,
                reason: "no identity",
                text: &text(who, at),
            })
            .unwrap();
    }
    staging.commit(totals).unwrap();
}

/// All that the columns of all tables hold, as text and as bytes, without what is sealed being opened.
fn columns(database: &Database) -> String {
    let tables = database.psql(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'looker_feed'",
    );
    let all = tables.lines().map(|table| {
        database.psql(&format!(
            "SELECT encode(convert_to(t::text, 'UTF8'), 'escape') FROM looker_feed.{table} t"
        ))
    });
    all.collect()
}

fn letters(outbox: &Outbox) -> Vec<(LetterId, Vec<u8>)> {
    let page = outbox
        .dead_letters(DeadFilter::default(), None, 999)
        .unwrap();
    let body = |id| outbox.dead_letter(id).unwrap().unwrap().1.to_vec();
    let ids = page.letters.into_iter().map(|letter| letter.id);
    ids.map(|id| (id, body(id))).collect()
}

/// Nothing of the person can be read anywhere, and everything of the others is there.
fn check_gone(outboxes: &[&Outbox], database: &Database) {
    for outbox in outboxes {
        check_sums(outbox);
        assert_eq!(find(outbox), []);
        assert!(outbox.damage().is_empty());
        assert!(letters(outbox).iter().all(|(_, body)| !is_ada(body)));
        for state in outbox.deliveries(None, 99).unwrap().deliveries {
            let page = outbox.rejected(state.id, None, 99).unwrap().unwrap();
            let rejected = state.rejected;
            assert_eq!((page.rows.len() as u64, page.kept), (rejected, rejected));
            assert!(page.rows.iter().all(|row| !is_ada(&row.text)));
        }
    }
    let columns = columns(database);
    assert!(columns.contains("delivery 1"), "its titles can be read");
    assert!(!columns.contains(PERSON) && !columns.contains(&hex(PERSON)));
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn whoever_is_asked_finds_a_person_and_erases_them_in_whatever_state_the_outbox_is() {
    for (turn, isolation) in BOTH.into_iter().cycle().take(4).enumerate() {
        let Some(database) = database(isolation) else {
            return;
        };
        let mut rng = fastrand::Rng::with_seed(turn as u64);
        let (one, two) = (open(&database), open(&database));
        let mut flying = Vec::new();
        let leases = [1, 2].map(|destination| lease(&one, destination));
        for n in 0..4u8 {
            let mut entry = || {
                let length = rng.usize(1..4);
                (0..length).map(|_| rng.u8(..3) == 0).collect::<Vec<_>>()
            };
            let entries: Vec<_> = (0..12).map(|_| entry()).collect();
            let rejected: Vec<_> = (0..rng.usize(..5)).map(|_| rng.bool()).collect();
            deliver(&one, n, &entries, &rejected);
            let held = &leases[usize::from(n % 2)];
            let mut claims = held.claim(rng.usize(..12)).unwrap();
            let settle = claims.split_off(claims.len() / 3);
            let settled: Vec<Settlement> = settle
                .iter()
                .map(|claim| Settlement {
                    delivery: claim.delivery,
                    ordinal: claim.ordinal,
                    dead: (0..claim.slices.len())
                        .filter(|_| rng.bool())
                        .map(given_up)
                        .collect(),
                })
                .collect();
            held.settle(settled).unwrap();
            let ids: Vec<LetterId> = letters(&one).into_iter().map(|(id, _)| id).collect();
            let some = |rng: &mut fastrand::Rng| -> Vec<LetterId> {
                ids.iter().copied().filter(|_| rng.u8(..4) == 0).collect()
            };
            two.replay(&some(&mut rng)).unwrap();
            two.discard(&some(&mut rng)).unwrap();
            if rng.u8(..4) == 0 {
                two.cancel(delivery_id(n)).unwrap();
            }
            flying.extend(claims);
        }
        // What flies is given back, or lost with its owner.
        if turn % 2 == 0 {
            for claim in &flying {
                let held = &leases[usize::from(claim.delivery.0[0] % 2)];
                held.release(claim.delivery, &[claim.ordinal]).unwrap();
            }
        } else {
            expire(&database);
            // What flew of cancelled deliveries is cancelled by whoever comes to it.
            for destination in [1, 2] {
                assert!(lease(&two, destination).claim(0).unwrap().is_empty());
            }
        }
        let there = columns(&database);
        assert!(!there.contains(PERSON) && !there.contains(&hex(PERSON)));
        let before = find(&two);
        assert!(!before.is_empty());
        let mut sum = (Tally::default(), Tally::default(), 0, 0);
        for one in &before {
            sum.0 += one.waiting;
            sum.0 += one.in_flight;
            sum.1 += one.dead;
            sum.2 += one.rejected;
            sum.3 += one.waiting.rows + one.dead.rows + one.rejected;
        }
        let erased = erase(&two);
        assert_eq!(
            (erased.waiting, erased.dead, erased.rejected),
            (sum.0, sum.1, sum.2)
        );
        check_gone(&[&one, &two], &database);
        let states = two.deliveries(None, 99).unwrap().deliveries;
        let counted: u64 = states.iter().map(|state| state.erased.rows).sum();
        assert_eq!(counted, sum.3);
        // The rest is sent, and nothing of theirs.
        drop(leases);
        for destination in [1, 2] {
            let held = lease(&two, destination);
            for claim in drain(&held) {
                assert!(!claim.slices.is_empty());
                assert!(claim.slices.iter().all(|slice| !is_ada(slice)));
            }
        }
        two.sweep().unwrap();
        let left = database.psql("SELECT count(*) FROM looker_feed.block");
        assert_eq!(left, "0");
        check_gone(&[&two], &database);
    }
}

#[test]
fn what_flies_at_another_daemon_lands_first_and_nothing_of_it_is_given_out_meanwhile() {
    for isolation in BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let (one, two) = (open(&database), open(&database));
        deliver(&one, 1, &vec![vec![true, false]; 4], &[]);
        let held = lease(&one, 2);
        let claims = held.claim(2).unwrap();
        let scan = Scan::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let erasing = scope.spawn(|| {
                let erased = two.erase(&Meant(&is_ada), &scan, &|_, _| ());
                done.store(true, Ordering::Release);
                erased.unwrap()
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut said = Vec::new();
            while !scan.waits() || said.is_empty() {
                assert!(Instant::now() < deadline, "it does not wait");
                said.extend(held.requests());
                std::thread::yield_now();
            }
            assert!(
                said.contains(&LaneRequest::Forget(delivery_id(1))),
                "{said:?}"
            );
            // All lie in one block, which is written anew when none of it flies.
            assert!(held.claim(9).unwrap().is_empty());
            assert!(!done.load(Ordering::Acquire));
            // One has arrived, the other one dies.
            let mut settled = delivered(&claims);
            settled[1].dead = vec![given_up(0), given_up(1)];
            held.settle(settled).unwrap();
            let erased = erasing.join().unwrap();
            let weight = |batches| Tally {
                rows: 2 * batches,
                batches,
            };
            assert_eq!((erased.waiting, erased.dead), (weight(2), weight(1)));
            assert_eq!(erased.copies, 2, "what has settled lies beside what waits");
        });
        check_gone(&[&one, &two], &database);
        let after = state(&two, 1);
        assert_eq!((after.delivered.batches, after.erased.batches), (2, 3));
        assert_eq!((after.waiting.batches, after.dead.batches), (2, 1));
        let rest = drain(&held);
        let ordinals: Vec<u64> = rest.iter().map(|claim| claim.ordinal).collect();
        assert_eq!(ordinals, [2, 3]);
    }
}

#[test]
fn a_delivery_that_is_being_received_is_searched_once_it_is_here() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let (one, two) = (open(&database), open(&database));
    let mut staging = one.begin(new_delivery(1, 1)).unwrap();
    let scan = Scan::default();
    std::thread::scope(|scope| {
        let erasing = scope.spawn(|| two.erase(&Meant(&is_ada), &scan, &|_, _| ()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !scan.waits() {
            assert!(Instant::now() < deadline, "it does not wait");
            std::thread::yield_now();
        }
        let slices = [Slice {
            bytes: PERSON.as_bytes(),
            rows: 1,
        }];
        staging
            .append(Entry {
                slices: &slices,
                route: 0,
            })
            .unwrap();
        let totals = Totals {
            rows_in: 1,
            batches: 1,
            requests: 1,
            ..Totals::default()
        };
        staging.commit(totals).unwrap();
        assert_eq!(erasing.join().unwrap().waiting.batches, 1);
    });
    check_gone(&[&one, &two], &database);
    assert!(state(&one, 1).settled);
    // Stopped, it says so.
    let scan = Scan::default();
    scan.stop();
    let stopped = two.erase(&Meant(&is_ada), &scan, &|_, _| ());
    assert!(stopped.is_err());
}

#[test]
fn an_erasure_whose_daemon_has_ended_is_taken_over_by_one_of_the_others() {
    for isolation in BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let outboxes: Vec<Outbox> = (0..3).map(|_| open(&database)).collect();
        assert_eq!(outboxes[1].pending_erasure().unwrap(), None);
        assert!(outboxes[0].begin_erasure(b"sealed").unwrap());
        assert!(outboxes[0].begin_erasure(b"sealed").unwrap(), "asked again");
        assert!(!outboxes[1].begin_erasure(b"other").unwrap());
        let sealed = Some(b"sealed".to_vec());
        assert_eq!(outboxes[1].pending_erasure().unwrap(), sealed);
        assert_eq!(outboxes[1].take_erasure().unwrap(), None);
        // It is not heard of any more.
        database.psql(
            "UPDATE looker_feed.daemon SET beat = beat - interval '1 hour'
             WHERE id = (SELECT owner FROM looker_feed.erasure)",
        );
        let (taken, took) = channel();
        std::thread::scope(|scope| {
            for outbox in &outboxes[1..] {
                let taken = taken.clone();
                scope.spawn(move || taken.send(outbox.take_erasure().unwrap()).unwrap());
            }
        });
        drop(taken);
        let mut answers: Vec<_> = took.into_iter().collect();
        answers.sort();
        assert_eq!(answers, [None, sealed.clone()]);
        // Whoever was thought dead ends nothing.
        outboxes[0].end_erasure().unwrap();
        assert_eq!(outboxes[0].pending_erasure().unwrap(), sealed);
        outboxes[1].end_erasure().unwrap();
        outboxes[2].end_erasure().unwrap();
        assert_eq!(outboxes[0].pending_erasure().unwrap(), None);
        assert!(outboxes[0].lease(destination_id(1)).unwrap().is_some());
    }
}
