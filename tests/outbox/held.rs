//! Deliveries that are held until somebody releases them.

use looker_feed::outbox::Tally;

use crate::kit::*;

fn hold(outbox: &Outbox, delivery: u8, entries: u64) {
    let mut staging = outbox.begin(new_delivery(delivery, 1)).unwrap();
    for ordinal in 0..entries {
        append(&mut staging, delivery, ordinal).unwrap();
    }
    staging.hold();
    staging.commit(totals(entries, 0)).unwrap();
}

#[test]
fn a_delivery_that_is_held_is_kept_over_restarts_and_passed_by_until_it_is_released() {
    let home = home();
    let outbox = open(home.path());
    hold(&outbox, 1, 3);
    deliver(&outbox, 2, 1, 2).unwrap();
    assert!(state(&outbox, 1).held && !state(&outbox, 2).held);
    assert_eq!(outbox.usage().unwrap().held, 1);
    // It is not the backlog of its destination.
    let destination = outbox.destinations().unwrap().remove(0);
    assert_eq!(
        (destination.deliveries, destination.waiting),
        (1, totals_of(2))
    );
    let came = drain(&outbox, 1);
    assert!(came.iter().all(|claim| claim.delivery == delivery_id(2)));
    assert_eq!(came.len(), 2);
    outbox.close();

    let outbox = open(home.path());
    assert!(state(&outbox, 1).held);
    assert!(drain(&outbox, 1).is_empty());
    assert_eq!(state(&outbox, 1).waiting, totals_of(3));
    assert_eq!(outbox.release_delivery(delivery_id(9)).unwrap(), None);
    assert_eq!(
        outbox.release_delivery(delivery_id(2)).unwrap(),
        Some(false)
    );
    assert_eq!(outbox.release_delivery(delivery_id(1)).unwrap(), Some(true));
    assert_eq!(
        outbox.release_delivery(delivery_id(1)).unwrap(),
        Some(false)
    );
    assert!(!state(&outbox, 1).held);
    assert_eq!(outbox.usage().unwrap().held, 0);
    outbox.close();

    // Released is released.
    let outbox = open(home.path());
    assert_eq!(drain(&outbox, 1).len(), 3);
    check_sums(&outbox);
    assert_eq!(size_of(&home.path().join("segments")), 0);
    assert!(outbox.damage().is_empty());
}

#[test]
fn a_delivery_that_is_held_can_be_cancelled_and_its_mark_goes() {
    let home = home();
    let outbox = open(home.path());
    hold(&outbox, 1, 3);
    assert_eq!(outbox.cancel(delivery_id(1)).unwrap(), Some(totals_of(3)));
    let state = state(&outbox, 1);
    assert!(!state.held && state.settled && state.cancelled_at.is_some());
    outbox.close();
    let marks = std::fs::read_dir(home.path().join("segments")).unwrap();
    assert_eq!(marks.count(), 0);
}

#[test]
fn one_that_is_not_committed_leaves_no_mark() {
    let home = home();
    let outbox = open(home.path());
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    staging.hold();
    // The totals are wrong.
    assert!(staging.commit(totals(7, 0)).is_err());
    assert_eq!(outbox.usage().unwrap().held, 0);
    outbox.close();
    let marks = std::fs::read_dir(home.path().join("segments")).unwrap();
    assert_eq!(marks.count(), 0);
    let found = look(home.path(), Some(&keys())).unwrap();
    assert_eq!(found.faults, []);
}

/// What so many entries of a generated delivery weigh.
fn totals_of(entries: u64) -> Tally {
    let totals = totals(entries, 0);
    Tally {
        rows: totals.rows_in,
        batches: totals.batches,
    }
}
