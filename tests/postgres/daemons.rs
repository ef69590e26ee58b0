//! Several daemons on one database: one sends to a destination at a time, and any answers for all.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use looker_feed::outbox::{DeadFilter, Error, LaneRequest, Lease, Outbox, Tally};

use crate::generated::{
    append, check_sums, deliver, delivered, delivery_id, destination_id, new_delivery, payload,
    settlement, totals,
};
use crate::kit::{drain, expire, lease, on_both, open, settings};
use crate::server::{Database, Isolation, database};

/// A daemon whose lease is short.
fn quick(database: &Database, name: &str) -> Outbox {
    leasing(database, name, 2)
}

/// A daemon that hears of the loss of its leases by what it does, and not by a renewal of them.
fn deaf(database: &Database, name: &str) -> Outbox {
    leasing(database, name, 300)
}

fn leasing(database: &Database, name: &str, seconds: u64) -> Outbox {
    let mut settings = settings(database, name);
    settings.lease = Duration::from_secs(seconds);
    Outbox::open_shared(settings).unwrap()
}

#[test]
fn one_daemon_sends_to_a_destination_and_the_next_goes_on_where_it_was() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
        deliver(&one, 1, 1, 10).unwrap();
        deliver(&two, 2, 1, 3).unwrap();
        let first = lease(&one, 1);
        assert!(two.lease(destination_id(1)).unwrap().is_none());
        let claims = first.claim(6).unwrap();
        first.settle(delivered(&claims[..2])).unwrap();
        // All can be read from everywhere; what flies is known to its owner.
        assert_eq!(two.deliveries(None, 9).unwrap().deliveries.len(), 2);
        check_sums(&two);
        check_sums(&one);
        first.give_back().unwrap();
        let second = lease(&two, 1);
        assert!(second.epoch() > 1);
        let rest = drain(&second);
        let ordinals: Vec<u64> = rest.iter().map(|claim| claim.ordinal).collect();
        assert_eq!(ordinals, [2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]);
        check_sums(&one);
    });
}

#[test]
fn an_owner_that_was_thought_dead_changes_nothing_any_more() {
    on_both(|database| {
        let (one, two) = (deaf(database, "one"), open(database));
        deliver(&one, 1, 1, 10).unwrap();
        let old = lease(&one, 1);
        let claims = old.claim(6).unwrap();
        old.settle(vec![settlement(&claims[0], &[0])]).unwrap();
        expire(database);
        let new = lease(&two, 1);
        // Before the new owner has looked, and after.
        let taken = new.claim(4).unwrap();
        assert_eq!(taken[0].ordinal, 1);
        assert!(matches!(
            old.settle(delivered(&claims)),
            Err(Error::LeaseLost)
        ));
        assert!(matches!(old.claim(1), Err(Error::LeaseLost)));
        assert!(old.until() <= Some(Instant::now()));
        // With letters, it would leave some behind.
        assert_eq!(
            database.psql("SELECT count(*) FROM looker_feed.letter"),
            "1"
        );
        new.settle(delivered(&taken)).unwrap();
        drain(&new);
        for outbox in [&one, &two] {
            check_sums(outbox);
            let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
            assert!(state.settled);
            assert_eq!(state.dead.batches, 1);
        }
    });
}

#[test]
fn what_was_in_flight_when_its_owner_died_is_sent_again_byte_by_byte() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let (one, two) = (deaf(&database, "one"), open(&database));
    deliver(&one, 1, 1, 5).unwrap();
    let old = lease(&one, 1);
    let claims = old.claim(5).unwrap();
    expire(&database);
    let new = lease(&two, 1);
    let again = new.claim(5).unwrap();
    for (before, after) in claims.iter().zip(&again) {
        assert_eq!(
            (before.ordinal, &before.slices),
            (after.ordinal, &after.slices)
        );
        assert_eq!(
            (before.route, &before.account),
            (after.route, &after.account)
        );
    }
}

#[test]
fn a_lease_is_renewed_and_ends_by_itself_when_it_is_not() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let (one, two) = (quick(&database, "one"), quick(&database, "two"));
    deliver(&one, 1, 1, 5).unwrap();
    let held = lease(&one, 1);
    let first = held.until();
    // Renewed: its end moves on.
    let deadline = Instant::now() + Duration::from_secs(30);
    while held.until() == first {
        assert!(Instant::now() < deadline, "it is not renewed");
        std::thread::yield_now();
    }
    assert!(two.lease(destination_id(1)).unwrap().is_none());
    // Given back, it is free at once; the whole daemon gives back what it has.
    one.close();
    assert!(matches!(held.claim(1), Err(Error::Closed)));
    assert!(two.lease(destination_id(1)).unwrap().is_some());
}

#[test]
fn what_a_person_asks_of_any_daemon_is_done_by_the_owner() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
        deliver(&one, 1, 1, 10).unwrap();
        deliver(&one, 2, 1, 4).unwrap();
        let held = lease(&one, 1);
        let claims = held.claim(3).unwrap();
        held.settle(vec![
            settlement(&claims[0], &[0]),
            settlement(&claims[1], &[0, 1]),
        ])
        .unwrap();
        let before = one.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!(two.cancel(delivery_id(1)).unwrap(), Some(before.waiting));
        assert_eq!(held.requests(), [LaneRequest::Cancelled(delivery_id(1))]);
        assert!(held.requests().is_empty());
        let letters = two
            .dead_letters(DeadFilter::default(), None, 9)
            .unwrap()
            .letters;
        assert_eq!(letters.len(), 3);
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        // Those of a cancelled delivery cannot be replayed.
        assert_eq!(two.replay(&ids).unwrap().letters, 0);
        let edited = two.edit(ids[0], b"mended".to_vec()).unwrap().unwrap();
        let (_, body) = one.dead_letter(edited).unwrap().unwrap();
        assert_eq!(&body[..], b"mended");
        assert_eq!(two.discard(&[edited, ids[1]]).unwrap().letters, 2);
        assert!(
            two.tell_holder(destination_id(1), LaneRequest::Pause)
                .unwrap()
        );
        assert_eq!(held.requests(), [LaneRequest::Pause]);
        assert!(
            !two.tell_holder(destination_id(7), LaneRequest::Pause)
                .unwrap()
        );
        check_sums(&one);
        check_sums(&two);
        // Nobody holds it: whoever is asked does it.
        held.give_back().unwrap();
        assert_eq!(two.discard(&ids).unwrap().letters, 1);
        let waits = one.delivery(delivery_id(2)).unwrap().unwrap().waiting;
        assert_eq!(two.cancel(delivery_id(2)).unwrap(), Some(waits));
        let state = one.delivery(delivery_id(1)).unwrap().unwrap();
        assert!(state.settled);
        assert_eq!(state.waiting, Tally::default());
        assert_eq!(one.usage().unwrap().entries, 0);
    });
}

#[test]
fn what_a_daemon_that_died_was_taking_in_is_swept_and_its_flip_matches_nothing() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
        let mut staging = one.begin(new_delivery(1, 1)).unwrap();
        for ordinal in 0..5 {
            append(&mut staging, 1, ordinal).unwrap();
        }
        // It is not heard of for long.
        database.psql("UPDATE looker_feed.daemon SET beat = beat - interval '1 hour'");
        two.sweep().unwrap();
        let refused = staging.commit(totals(5, 0));
        assert!(
            matches!(refused, Err(Error::Database { .. })),
            "{refused:?}"
        );
        two.sweep().unwrap();
        assert!(one.deliveries(None, 9).unwrap().deliveries.is_empty());
        assert_eq!(
            database.psql("SELECT count(*) FROM looker_feed.delivery"),
            "0"
        );
        assert_eq!(database.psql("SELECT count(*) FROM looker_feed.block"), "0");
        assert_eq!(
            database.psql("SELECT count(*) FROM looker_feed.webhook"),
            "0"
        );
        // The next try of Looker's is taken.
        deliver(&two, 2, 1, 1).unwrap();
    });
}

#[test]
fn deliveries_that_are_committed_by_many_at_once_come_out_in_the_order_of_their_positions() {
    on_both(|database| {
        let outboxes: Vec<Outbox> = (0..3).map(|_| open(database)).collect();
        let held = lease(&outboxes[0], 1);
        let (done, finished) = channel::<()>();
        std::thread::scope(|scope| {
            for (at, outbox) in outboxes.iter().enumerate() {
                let done = done.clone();
                scope.spawn(move || {
                    for n in 0..10u8 {
                        deliver(outbox, at as u8 * 10 + n, 1, 2).unwrap();
                    }
                    drop(done);
                });
            }
            drop(done);
            // Drained while they come.
            let mut came = Vec::new();
            while finished.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                came.extend(drain(&held));
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            while came.len() < 60 {
                assert!(Instant::now() < deadline, "{} of 60", came.len());
                came.extend(drain(&held));
            }
            let mut order: Vec<_> = came.iter().map(|claim| claim.delivery).collect();
            order.dedup();
            assert_eq!(order.len(), 30, "each is sent whole before the next");
            let positions = database
                .psql("SELECT encode(delivery, 'hex') FROM looker_feed.progress ORDER BY position");
            let want: Vec<String> = positions.lines().map(str::to_owned).collect();
            let order: Vec<String> = order.iter().map(ToString::to_string).collect();
            assert_eq!(order, want);
        });
    });
}

#[test]
fn destinations_are_shared_out_evenly() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let one = quick(&database, "one");
    for destination in 1..=6 {
        deliver(&one, destination, destination, 1).unwrap();
    }
    // Alone, it may have them all.
    let mut held: Vec<_> = (1..=6).map(|n| (n, lease(&one, n))).collect();
    let two = quick(&database, "two");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut others = Vec::new();
    while held.len() > 3 {
        assert!(Instant::now() < deadline, "it keeps {}", held.len());
        let going = |lease: &Lease| lease.requests().contains(&LaneRequest::GiveBack);
        if let Some(at) = held.iter().position(|(_, lease)| going(lease)) {
            let (n, lease) = held.swap_remove(at);
            let destination = destination_id(n);
            lease.give_back().unwrap();
            // The one that has its part leaves it to the other.
            assert!(one.lease(destination).unwrap().is_none());
            others.push(two.lease(destination).unwrap().unwrap());
        }
        std::thread::yield_now();
    }
    let daemons = one.daemons().unwrap();
    let counts: Vec<(&str, usize, bool)> = daemons
        .iter()
        .map(|daemon| (daemon.name.as_str(), daemon.destinations.len(), daemon.own))
        .collect();
    assert_eq!(counts, [("one", 3, true), ("two", 3, false)]);
}

/// One that is stopped is counted for as long as it may come back, and then not any more: its destinations
/// do not wait for it, and nobody gives any back for its sake.
#[test]
fn a_daemon_that_is_stopped_has_no_part_of_the_destinations() {
    on_both(|database| {
        let stopped = deaf(database, "stopped");
        for destination in 1..=6 {
            deliver(&stopped, destination, destination, 1).unwrap();
        }
        let theirs: Vec<_> = (1..=3).map(|n| lease(&stopped, n)).collect();
        let flying: Vec<_> = theirs.iter().map(|one| one.claim(1).unwrap()).collect();
        let one = open(database);
        let mut held: Vec<_> = (4..=6).map(|n| lease(&one, n)).collect();
        expire(database);
        database.psql(
            "UPDATE looker_feed.daemon SET beat = beat - interval '1 hour' WHERE name = 'stopped'",
        );
        held.extend((1..=3).map(|n| lease(&one, n)));
        // Its own keeper looks, twice, and finds that it is alone.
        let mut looks = one.subscribe();
        for n in 11..=12 {
            looks.mark_unchanged();
            deliver(&stopped, n, n, 1).unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            while !looks.has_changed().unwrap() {
                assert!(Instant::now() < deadline, "it does not look");
                std::thread::yield_now();
            }
        }
        let wanted = |lease: &Lease| lease.requests().contains(&LaneRequest::GiveBack);
        assert!(!held.iter().any(wanted));
        let came: usize = held.iter().map(|lease| drain(lease).len()).sum();
        assert_eq!(came, 6);
        // It goes on, and what it believes to have is not its own.
        for (lease, claims) in theirs.iter().zip(flying) {
            let late = lease.settle(delivered(&claims));
            assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
        }
    });
}

/// Letters that wait to be sent again are read when a lease is taken; those that come later, the holder puts
/// there itself.
#[test]
fn what_another_daemon_replays_reaches_the_holder_within_the_call() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
        deliver(&one, 1, 1, 6).unwrap();
        deliver(&one, 2, 1, 1).unwrap();
        let held = lease(&one, 1);
        let claims = held.claim(6).unwrap();
        let mut settlements = delivered(&claims);
        settlements[2] = settlement(&claims[2], &[0, 1]);
        settlements[5] = settlement(&claims[5], &[0]);
        held.settle(settlements).unwrap();
        assert_eq!(drain(&held).len(), 1);
        assert!(held.claim(9).unwrap().is_empty(), "all is settled");
        let mut changes = one.subscribe();
        changes.mark_unchanged();

        let page = two.dead_letters(DeadFilter::default(), None, 9).unwrap();
        let [first, second, third] = &page.letters[..] else {
            panic!("{:?}", page.letters);
        };
        let mended = two.edit(second.id, b"mended".to_vec()).unwrap().unwrap();
        assert_eq!(two.replay(&[mended, third.id]).unwrap().letters, 2);
        assert!(changes.has_changed().unwrap(), "the holder's lane is woken");
        let claims = held.claim(9).unwrap();
        let mut sent: Vec<_> = claims
            .iter()
            .map(|claim| claim.slices[0].to_vec())
            .collect();
        sent.sort();
        assert_eq!(sent, [payload(1, 5, 0), b"mended".to_vec()]);
        held.settle(delivered(&claims)).unwrap();
        // One that is mended later is not what was sent before.
        let again = two.edit(first.id, b"mended too".to_vec()).unwrap().unwrap();
        assert_eq!(one.replay(&[again]).unwrap().letters, 1);
        let claims = held.claim(9).unwrap();
        assert_eq!(&claims[0].slices[0][..], b"mended too");
        held.settle(delivered(&claims)).unwrap();
        check_sums(&two);
    });
}

/// A failover to a standby that was behind may bring back who had a destination before, and hand out an
/// epoch for the second time.
#[test]
fn of_owners_that_a_failover_has_forgotten_none_passes_the_fence() {
    on_both(|database| {
        let (one, two, three) = (deaf(database, "1"), deaf(database, "2"), open(database));
        deliver(&one, 1, 1, 6).unwrap();
        let first = lease(&one, 1);
        let before = first.claim(2).unwrap();
        database.psql(
            "CREATE TABLE destination_before AS TABLE looker_feed.destination;
             CREATE TABLE progress_before AS TABLE looker_feed.progress",
        );
        expire(database);
        let second = lease(&two, 1);
        let forgotten = second.claim(3).unwrap();
        second.settle(delivered(&forgotten[..1])).unwrap();
        database.psql(
            "DELETE FROM looker_feed.progress;
             INSERT INTO looker_feed.progress TABLE progress_before;
             UPDATE looker_feed.destination t
             SET owner = b.owner, epoch = b.epoch, lease_until = b.lease_until
             FROM destination_before b WHERE b.id = t.id",
        );
        // Both believe to have it.
        let late = second.settle(delivered(&forgotten[1..2]));
        assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
        assert_eq!(first.settle(delivered(&before[..1])).unwrap().entries, 1);
        expire(database);
        let third = lease(&three, 1);
        assert_eq!(third.epoch(), second.epoch());
        let rest = third.claim(9).unwrap();
        for (lease, claims) in [(&first, &before), (&second, &forgotten)] {
            let late = lease.settle(delivered(&claims[1..]));
            assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
        }
        let ordinals: Vec<u64> = rest.iter().map(|claim| claim.ordinal).collect();
        assert_eq!(ordinals, [1, 2, 3, 4, 5]);
        third.settle(delivered(&rest)).unwrap();
        check_sums(&three);
        assert!(three.delivery(delivery_id(1)).unwrap().unwrap().settled);
    });
}
