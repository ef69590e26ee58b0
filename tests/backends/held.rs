//! Deliveries that are held until somebody releases them.

use looker_feed::outbox::Tally;

use crate::kit::*;
use crate::place::{Daemon, Place};

on_every_backend![
    a_delivery_that_is_held_is_kept_over_restarts_and_passed_by_until_it_is_released,
    a_delivery_that_is_held_can_be_cancelled_and_nothing_is_left_of_it,
    one_that_is_not_committed_is_not_held,
];

fn hold(outbox: &Daemon, delivery: u8, entries: u64) {
    let mut staging = outbox.begin(new_delivery(delivery, 1)).unwrap();
    for ordinal in 0..entries {
        append(&mut staging, delivery, ordinal).unwrap();
    }
    staging.hold();
    staging.commit(totals(entries, 0)).unwrap();
}

/// What so many entries of a generated delivery weigh.
fn totals_of(entries: u64) -> Tally {
    let totals = totals(entries, 0);
    Tally {
        rows: totals.rows_in,
        batches: totals.batches,
    }
}

fn a_delivery_that_is_held_is_kept_over_restarts_and_passed_by_until_it_is_released(place: &Place) {
    let outbox = place.open();
    hold(&outbox, 1, 3);
    deliver(&outbox, 2, 1, 2).unwrap();
    assert!(outbox.state(1).held && !outbox.state(2).held);
    assert_eq!(outbox.usage().unwrap().held, 1);
    // It is not the backlog of its destination.
    let destination = outbox.destinations().unwrap().remove(0);
    assert_eq!(
        (destination.deliveries, destination.waiting),
        (1, totals_of(2))
    );
    let came = outbox.drain(1);
    assert!(came.iter().all(|claim| claim.delivery == delivery_id(2)));
    assert_eq!(came.len(), 2);

    let outbox = outbox.reopen(place);
    assert!(outbox.state(1).held);
    assert!(outbox.drain(1).is_empty());
    assert_eq!(outbox.state(1).waiting, totals_of(3));
    let release = |n| outbox.release_delivery(delivery_id(n)).unwrap();
    assert_eq!(release(9), None);
    assert_eq!(release(2), Some(false));
    assert_eq!(release(1), Some(true));
    assert_eq!(release(1), Some(false));
    assert!(!outbox.state(1).held);
    assert_eq!(outbox.usage().unwrap().held, 0);

    // Released is released.
    let outbox = outbox.reopen(place);
    assert_eq!(outbox.drain(1).len(), 3);
    check_sums(&outbox);
    place.check_drained(&outbox);
    assert!(outbox.damage().is_empty());
}

fn a_delivery_that_is_held_can_be_cancelled_and_nothing_is_left_of_it(place: &Place) {
    let outbox = place.open();
    hold(&outbox, 1, 3);
    assert_eq!(outbox.cancel(delivery_id(1)).unwrap(), Some(totals_of(3)));
    let state = outbox.state(1);
    assert!(!state.held && state.settled && state.cancelled_at.is_some());
    place.check_drained(&outbox);
}

fn one_that_is_not_committed_is_not_held(place: &Place) {
    let outbox = place.open();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    staging.hold();
    // The totals are wrong.
    assert!(staging.commit(totals(7, 0)).is_err());
    assert_eq!(outbox.usage().unwrap().held, 0);
    place.check_drained(&outbox);
    // A directory has nothing in it that is not known.
    if let Place::Directory(home) = place {
        outbox.close();
        let found = look(home.path(), Some(&keys())).unwrap();
        assert_eq!(found.faults, []);
    }
}
