//! What is said of how a delivery ended, request by request.

use looker_feed::outbox::{DeadFilter, Ending, Outbox, Totals};

use super::kit::*;

fn claims(outbox: &Outbox) -> Vec<looker_feed::outbox::Claim> {
    lease(outbox, 1).claim(100).unwrap()
}

fn letters(outbox: &Outbox) -> Vec<looker_feed::outbox::LetterId> {
    let page = outbox
        .dead_letters(DeadFilter::default(), None, 100)
        .unwrap();
    page.letters.iter().map(|letter| letter.id).collect()
}

#[test]
fn a_delivery_is_open_until_it_settles_and_then_names_the_requests_that_died() {
    let home = home();
    let outbox = open(home.path());
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::Unknown);
    deliver(&outbox, 1, 1, 6).unwrap();
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::Open);
    let claimed = claims(&outbox);
    for claim in &claimed {
        let dead: &[usize] = match claim.ordinal {
            2 => &[0, 2],
            4 => &[1],
            _ => &[],
        };
        assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::Open);
        lease(&outbox, 1)
            .settle(vec![settlement(claim, dead)])
            .unwrap();
    }
    let ended = Ending::Settled(vec![2, 4]);
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), ended);
    drop(outbox);
    let outbox = open(home.path());
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), ended);

    // Sent again, it is open again; arrived, nothing is missing of that request any more.
    let all = letters(&outbox);
    assert_eq!(outbox.deliveries_of(&all).unwrap(), [delivery_id(1)]);
    outbox.replay(&all[..2]).unwrap();
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::Open);
    lease(&outbox, 1)
        .settle(delivered(&claims(&outbox)))
        .unwrap();
    assert_eq!(
        outbox.ending(delivery_id(1)).unwrap(),
        Ending::Settled(vec![4])
    );
    // Thrown away, nobody can say any more where it was.
    outbox.discard(&letters(&outbox)).unwrap();
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::InDoubt);
    assert_eq!(outbox.deliveries_of(&all).unwrap(), []);
}

#[test]
fn a_delivery_that_was_cancelled_is_in_doubt() {
    let home = home();
    let outbox = open(home.path());
    deliver(&outbox, 1, 1, 6).unwrap();
    let claimed = claims(&outbox);
    lease(&outbox, 1).settle(delivered(&claimed[..2])).unwrap();
    let rest: Vec<_> = claimed[2..].iter().map(|claim| claim.ordinal).collect();
    lease(&outbox, 1).release(delivery_id(1), &rest).unwrap();
    outbox.cancel(delivery_id(1)).unwrap();
    assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::InDoubt);
}

#[test]
fn a_lost_state_is_told() {
    let home = home();
    let outbox = open(home.path());
    deliver(&outbox, 1, 1, 3).unwrap();
    assert_eq!(outbox.state_lost(), None);
    drop(outbox);
    std::fs::remove_dir_all(home.path().join("state")).unwrap();
    let outbox = open(home.path());
    assert!(outbox.state_lost().is_some());
}

#[test]
fn rows_that_need_not_be_sent_are_in_the_sum_and_a_delivery_of_nothing_else_has_ended() {
    let home = home();
    let outbox = open(home.path());
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
    assert_eq!(
        outbox.ending(delivery_id(2)).unwrap(),
        Ending::Settled(vec![])
    );
    drop(outbox);
    let outbox = open(home.path());
    check_sums(&outbox);
    drain(&outbox, 1);
    check_sums(&outbox);
    let states = outbox.deliveries(None, 10).unwrap().deliveries;
    assert!(
        states
            .iter()
            .all(|state| state.unchanged == 100 && state.settled)
    );
    // One that says so of rows that were given is refused like any that does not add up.
    let mut staging = outbox.begin(new_delivery(3, 1)).unwrap();
    append(&mut staging, 3, 0).unwrap();
    let wrong = Totals {
        rows_unchanged: 1,
        ..totals(1, 0)
    };
    assert!(staging.commit(wrong).is_err());
}
