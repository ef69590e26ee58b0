//! Deliveries that are held until somebody releases them, whoever is asked.

use looker_feed::outbox::{Outbox, Tally};

use crate::generated::{
    append, check_sums, deliver, delivery_id, destination_id, new_delivery, state, totals,
};
use crate::kit::{drain, expire, lease, open};
use crate::server::{BOTH, Database, Isolation, database};

fn hold(outbox: &Outbox, delivery: u8, entries: u64) {
    let mut staging = outbox.begin(new_delivery(delivery, 1)).unwrap();
    for ordinal in 0..entries {
        append(&mut staging, delivery, ordinal).unwrap();
    }
    staging.hold();
    staging.commit(totals(entries, 0)).unwrap();
}

/// What so many entries of a generated delivery weigh.
fn weight(entries: u64) -> Tally {
    let totals = totals(entries, 0);
    Tally {
        rows: totals.rows_in,
        batches: totals.batches,
    }
}

/// How many are.
fn held(database: &Database) -> String {
    database.psql("SELECT count(*) FROM looker_feed.progress WHERE held")
}

#[test]
fn a_delivery_that_is_held_is_passed_by_until_any_daemon_is_asked_to_release_it() {
    for isolation in BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let (one, two) = (open(&database), open(&database));
        hold(&one, 1, 3);
        // Held alone it is no work.
        assert!(one.destinations().unwrap().is_empty());
        deliver(&one, 2, 1, 2).unwrap();
        assert!(state(&two, 1).held && !state(&two, 2).held);
        assert_eq!(two.usage().unwrap().held, 1);
        let destination = one.destinations().unwrap().remove(0);
        assert_eq!(
            (destination.deliveries, destination.waiting),
            (1, weight(2))
        );
        let first = lease(&one, 1);
        let came = drain(&first);
        assert!(came.iter().all(|claim| claim.delivery == delivery_id(2)));
        assert_eq!(came.len(), 2);
        // Over a takeover.
        expire(&database);
        let second = lease(&two, 1);
        assert!(drain(&second).is_empty());
        assert_eq!(state(&one, 1).waiting, weight(3));
        // By the owner, whoever is asked.
        assert_eq!(one.release_delivery(delivery_id(9)).unwrap(), None);
        assert_eq!(one.release_delivery(delivery_id(2)).unwrap(), Some(false));
        assert_eq!(one.release_delivery(delivery_id(1)).unwrap(), Some(true));
        assert_eq!(two.release_delivery(delivery_id(1)).unwrap(), Some(false));
        assert!(!state(&one, 1).held);
        assert_eq!(drain(&second).len(), 3);
        // Nobody has the destination: whoever is asked does it.
        second.give_back().unwrap();
        hold(&two, 3, 4);
        hold(&two, 4, 1);
        assert_eq!(one.release_delivery(delivery_id(3)).unwrap(), Some(true));
        let third = lease(&two, 1);
        let came = drain(&third);
        assert!(came.iter().all(|claim| claim.delivery == delivery_id(3)));
        assert_eq!(came.len(), 4);
        // Cancelled, it is held no more.
        assert_eq!(one.cancel(delivery_id(4)).unwrap(), Some(weight(1)));
        assert!(!state(&one, 4).held && state(&one, 4).settled);
        assert_eq!(held(&database), "0");
        check_sums(&one);
        check_sums(&two);
    }
}

#[test]
fn many_that_are_held_keep_nothing_behind_them_waiting() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let outbox = open(&database);
    // More than an owner looks at ahead.
    hold(&outbox, 1, 1);
    database.psql(
        "INSERT INTO looker_feed.delivery (id, destination, state, stager, key, title, label, received,
            committed, rows_in, rows_mapped, batches, requests)
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), d.destination, 1, d.stager, d.key, d.title,
            d.label, d.received, d.committed, d.rows_in, d.rows_mapped, d.batches, d.requests
         FROM looker_feed.delivery d, generate_series(1, 300) n WHERE d.state = 1;
         INSERT INTO looker_feed.progress (delivery, destination, position, open, held)
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), p.destination, p.position + n, true, true
         FROM looker_feed.progress p, generate_series(1, 300) n;
         UPDATE looker_feed.destination SET next_position = next_position + 300",
    );
    deliver(&outbox, 2, 1, 2).unwrap();
    let lease = outbox.lease(destination_id(1)).unwrap().unwrap();
    assert_eq!(drain(&lease).len(), 2);
    assert_eq!(outbox.usage().unwrap().held, 301);
}
