//! What is said of how a delivery ended, request by request.

use looker_feed::outbox::{DeadFilter, Ending, LetterId, Outbox, Totals};

use crate::kit::*;
use crate::place::Place;

on_every_backend![
    a_delivery_is_open_until_it_settles_and_then_names_the_requests_that_died,
    a_delivery_that_was_cancelled_is_in_doubt,
    rows_that_need_not_be_sent_are_in_the_sum_and_a_delivery_of_nothing_else_has_ended,
];

fn a_delivery_is_open_until_it_settles_and_then_names_the_requests_that_died(place: &Place) {
    let ending = |outbox: &Outbox| outbox.ending(delivery_id(1)).unwrap();
    let letters = |outbox: &Outbox| -> Vec<LetterId> {
        let page = outbox.dead_letters(DeadFilter::default(), None, 100);
        page.unwrap()
            .letters
            .iter()
            .map(|letter| letter.id)
            .collect()
    };
    let outbox = place.open();
    assert_eq!(ending(&outbox), Ending::Unknown);
    deliver(&outbox, 1, 1, 6).unwrap();
    assert_eq!(ending(&outbox), Ending::Open);
    for claim in &outbox.claim(1, 100) {
        let dead: &[usize] = match claim.ordinal {
            2 => &[0, 2],
            4 => &[1],
            _ => &[],
        };
        assert_eq!(ending(&outbox), Ending::Open);
        outbox.settle(vec![settlement(claim, dead)]);
    }
    let ended = Ending::Settled(vec![2, 4]);
    assert_eq!(ending(&outbox), ended);
    let outbox = outbox.reopen(place);
    assert_eq!(ending(&outbox), ended);

    // Sent again, it is open again; arrived, nothing is missing of that request any more.
    let all = letters(&outbox);
    assert_eq!(outbox.deliveries_of(&all).unwrap(), [delivery_id(1)]);
    outbox.replay(&all[..2]).unwrap();
    assert_eq!(ending(&outbox), Ending::Open);
    outbox.settle(delivered(&outbox.claim(1, 100)));
    assert_eq!(ending(&outbox), Ending::Settled(vec![4]));
    // Thrown away, nobody can say any more where it was.
    outbox.discard(&letters(&outbox)).unwrap();
    assert_eq!(ending(&outbox), Ending::InDoubt);
    assert_eq!(outbox.deliveries_of(&all).unwrap(), []);
}

fn a_delivery_that_was_cancelled_is_in_doubt(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 6).unwrap();
    let claimed = outbox.claim(1, 100);
    outbox.settle(delivered(&claimed[..2]));
    claimed[2..].iter().for_each(|claim| outbox.release(claim));
    outbox.cancel(delivery_id(1)).unwrap();
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::InDoubt);
}

fn rows_that_need_not_be_sent_are_in_the_sum_and_a_delivery_of_nothing_else_has_ended(
    place: &Place,
) {
    let outbox = place.open();
    for (n, entries) in [(1, 2), (2, 0)] {
        let mut staging = outbox.begin(new_delivery(n, 1)).unwrap();
        for ordinal in 0..entries {
            append(&mut staging, n, ordinal).unwrap();
        }
        let sent = totals(entries, 0);
        let totals = Totals {
            rows_in: sent.rows_in + 100,
            rows_unchanged: 100,
            ..sent
        };
        staging.commit(totals).unwrap();
    }
    check_sums(&outbox);
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::Open);
    let nothing = outbox.ending(delivery_id(2)).unwrap();
    assert_eq!(nothing, Ending::Settled(vec![]));
    let outbox = outbox.reopen(place);
    check_sums(&outbox);
    outbox.drain(1);
    check_sums(&outbox);
    let states = outbox.listed();
    assert_eq!(states.len(), 2);
    assert!(states.iter().all(|one| one.unchanged == 100 && one.settled));
    // One that says so of rows that were given is refused like any that does not add up.
    let mut staging = outbox.begin(new_delivery(3, 1)).unwrap();
    append(&mut staging, 3, 0).unwrap();
    let wrong = Totals {
        rows_unchanged: 1,
        ..totals(1, 0)
    };
    assert!(staging.commit(wrong).is_err());
}
