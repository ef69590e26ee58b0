//! Deliveries, from their first request to the last settlement.

use std::collections::HashSet;
use std::time::Duration;

use looker_feed::model::DeliveryId;
use looker_feed::outbox::{
    Entry, Error, MAX_NOTE, NoteKey, Outbox, RejectedRow, Slice, Tally, Totals, WebhookState,
};

use crate::kit::*;
use crate::place::Place;

on_every_backend![
    a_committed_delivery_comes_out_byte_by_byte_in_order,
    what_has_not_settled_is_due_again_after_a_restart,
    a_delivery_that_is_not_committed_leaves_nothing,
    a_destination_is_served_first_in_first_out_and_others_do_not_wait,
    settling_twice_or_what_is_unknown_changes_nothing,
    totals_that_do_not_add_up_abort_the_delivery,
    webhook_ids_are_remembered_across_restarts_and_forgotten_in_time,
    rejected_rows_are_kept_up_to_a_bound_and_counted_beyond,
    a_delivery_without_entries_is_settled_at_once,
    the_history_is_bounded_and_keeps_what_has_dead_letters,
    a_full_outbox_refuses_new_deliveries_and_goes_on_draining,
    a_subscriber_hears_of_every_commit,
    concurrent_deliveries_and_drains_lose_nothing,
    what_has_settled_is_known_across_restarts_however_many_requests_there_are,
    a_cancelled_delivery_gives_nothing_out_and_the_next_one_has_its_turn,
    notes_outlive_a_restart_until_they_are_replaced_or_removed,
    accounts_are_sealed_anew_and_stay_so,
];

fn a_committed_delivery_comes_out_byte_by_byte_in_order(place: &Place) {
    let outbox = place.open();
    let receipt = deliver(&outbox, 1, 1, 50).unwrap();
    assert_eq!(receipt.requests, 50);
    let claims = outbox.drain(1);
    assert_eq!(claims.len(), 50);
    for (ordinal, claim) in claims.iter().enumerate() {
        check_claim(claim, 1, ordinal as u64);
        assert_eq!(&claim.account[..], b"sealed 1");
    }
    let state = outbox.state(1);
    assert!(state.settled);
    assert_eq!(state.delivered.rows, receipt.rows);
    check_sum(&state);
    place.check_drained(&outbox);
}

fn what_has_not_settled_is_due_again_after_a_restart(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 40).unwrap();
    let mut claims = outbox.claim(1, 20);
    claims.retain(|claim| claim.ordinal % 3 == 0);
    outbox.settle(delivered(&claims));
    let before = outbox.state(1);
    check_sum(&before);

    let outbox = outbox.reopen(place);
    let state = outbox.state(1);
    assert_eq!(state.delivered, before.delivered);
    assert_eq!(state.in_flight, Tally::default());
    check_sum(&state);
    let rest: Vec<u64> = outbox.drain(1).iter().map(|claim| claim.ordinal).collect();
    let want: Vec<u64> = (0..40).filter(|n| *n >= 20 || n % 3 != 0).collect();
    assert_eq!(rest, want);
    assert!(outbox.damage().is_empty());
}

fn a_delivery_that_is_not_committed_leaves_nothing(place: &Place) {
    let outbox = place.open();
    let webhook = || outbox.webhook("webhook 1").unwrap();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    for ordinal in 0..100 {
        append(&mut staging, 1, ordinal).unwrap();
    }
    assert_eq!(webhook(), WebhookState::Receiving);
    assert_eq!(outbox.usage().unwrap().receiving, 1);
    assert!(matches!(
        outbox.begin(new_delivery(1, 1)),
        Err(Error::Duplicate(_))
    ));
    let mut other = new_delivery(2, 1);
    other.webhook = Some("webhook 1".to_owned());
    assert!(matches!(
        outbox.begin(other.clone()),
        Err(Error::Webhook(WebhookState::Receiving))
    ));
    staging.abort();
    assert_eq!(webhook(), WebhookState::Unknown);
    place.check_drained(&outbox);
    assert!(outbox.claim(1, 10).is_empty());
    assert!(outbox.listed().is_empty());
    let mut staging = outbox.begin(other).unwrap();
    append(&mut staging, 2, 0).unwrap();
    staging.commit(totals(1, 0)).unwrap();
    assert_eq!(webhook(), WebhookState::Committed(delivery_id(2), 1));
}

fn a_destination_is_served_first_in_first_out_and_others_do_not_wait(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 3).unwrap();
    deliver(&outbox, 2, 1, 2).unwrap();
    deliver(&outbox, 3, 2, 1).unwrap();
    assert_eq!(outbox.destinations().unwrap().len(), 2);
    let first = outbox.claim(1, 10);
    assert_eq!(first.len(), 3);
    assert!(outbox.claim(1, 10).is_empty());
    assert_eq!(outbox.claim(2, 10).len(), 1);
    // The newest account serves all that waits.
    assert_eq!(&first[0].account[..], b"sealed 2");

    outbox.settle(delivered(&first[..2]));
    assert!(outbox.claim(1, 10).is_empty());
    outbox.release(&first[2]);
    let again = outbox.claim(1, 10);
    assert_eq!(again.len(), 1);
    check_claim(&again[0], 1, 2);
    assert_eq!(outbox.settle(delivered(&again)).finished, [delivery_id(1)]);
    let second = outbox.claim(1, 10);
    assert_eq!(second.len(), 2);
    outbox.settle(delivered(&second));
    check_sums(&outbox);
    let states = outbox.listed();
    let ids: Vec<_> = states.iter().map(|state| state.id).collect();
    assert_eq!(ids, [3, 2, 1].map(delivery_id));
    assert!(states[1].settled && states[1].finished.is_some() && !states[0].settled);
    let next = outbox.deliveries(Some(states[0].cursor), 1).unwrap();
    assert_eq!(next.deliveries[0].id, delivery_id(2));
    let left = outbox.destinations().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].deliveries), (destination_id(2), 1));
}

fn settling_twice_or_what_is_unknown_changes_nothing(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 3).unwrap();
    let claims = outbox.claim(1, 2);
    let settled = outbox.settle([delivered(&claims), delivered(&claims)].concat());
    assert_eq!((settled.entries, settled.unknown), (2, 2));
    let mut strange = delivered(&claims);
    strange[0].delivery = delivery_id(99);
    strange[1].ordinal = u64::MAX;
    let settled = outbox.settle(strange);
    assert_eq!((settled.entries, settled.unknown), (0, 2));
    let claim = outbox.claim(1, 1);
    let wrong = outbox.try_settle(vec![settlement(&claim[0], &[0, 3])]);
    assert!(
        matches!(wrong, Err(Error::NoSuchSlice { slice: 3, .. })),
        "{wrong:?}"
    );
    let state = outbox.state(1);
    assert_eq!(state.in_flight.rows, 6);
    check_sum(&state);
}

fn totals_that_do_not_add_up_abort_the_delivery(place: &Place) {
    let outbox = place.open();
    let wrong: [fn(&mut Totals); 4] = [
        |totals| totals.rows_in += 1,
        |totals| totals.rows_rejected += 1,
        |totals| totals.batches += 1,
        |totals| totals.requests -= 1,
    ];
    for (n, spoil) in (1..).zip(wrong) {
        let mut staging = outbox.begin(new_delivery(n, 1)).unwrap();
        append(&mut staging, n, 0).unwrap();
        let mut totals = totals(1, 0);
        spoil(&mut totals);
        assert!(matches!(
            staging.commit(totals),
            Err(Error::Unbalanced { .. })
        ));
        assert!(outbox.listed().is_empty());
    }
    place.check_drained(&outbox);
    deliver(&outbox, 5, 1, 1).unwrap();
}

fn webhook_ids_are_remembered_across_restarts_and_forgotten_in_time(place: &Place) {
    let outbox = place.open();
    let receipt = deliver(&outbox, 1, 1, 5).unwrap();
    let known = WebhookState::Committed(delivery_id(1), receipt.rows);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), known);
    let outbox = outbox.reopen(place);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), known);
    let mut again = new_delivery(2, 1);
    again.webhook = Some("webhook 1".to_owned());
    assert!(matches!(outbox.begin(again), Err(Error::Webhook(state)) if state == known));
    outbox.close();
    drop(outbox);
    let outbox = place.open_with(|kept| kept.webhook_memory = Duration::ZERO);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
}

fn rejected_rows_are_kept_up_to_a_bound_and_counted_beyond(place: &Place) {
    let outbox = place.open_with(|kept| kept.rejected_rows = 3);
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    for row in 0..5 {
        let text = format!("row {row}");
        let rejected = RejectedRow {
            row,
            reason: "no identity",
            text: text.as_bytes(),
        };
        staging.reject(rejected).unwrap();
    }
    staging.commit(totals(1, 5)).unwrap();
    let outbox = outbox.reopen(place);
    let page = outbox.rejected(delivery_id(1), Some(1), 10);
    let page = page.unwrap().unwrap();
    assert_eq!((page.total, page.kept, page.rows.len()), (5, 3, 2));
    assert_eq!(
        (page.rows[0].row, &page.rows[0].text[..]),
        (1, &b"row 1"[..])
    );
    assert_eq!(page.rows[0].reason, "no identity");
    assert_eq!(outbox.rejected(delivery_id(2), None, 1).unwrap(), None);
    let state = outbox.state(1);
    assert_eq!(state.rejected, 5);
    check_sum(&state);
    assert_eq!(outbox.usage().unwrap().rejected_rows, 3);
    let titles = outbox.titles().unwrap();
    assert_eq!((titles.len(), titles[0].deliveries), (1, 1));
}

fn a_delivery_without_entries_is_settled_at_once(place: &Place) {
    let outbox = place.open();
    let receipt = deliver(&outbox, 1, 1, 0).unwrap();
    assert_eq!(receipt.requests, 0);
    place.check_drained(&outbox);
    // All rows of one are rejected.
    let mut staging = outbox.begin(new_delivery(2, 1)).unwrap();
    let row = RejectedRow {
        row: 0,
        reason: "no identity",
        text: b"row",
    };
    staging.reject(row).unwrap();
    staging.commit(totals(0, 1)).unwrap();
    assert!(outbox.destinations().unwrap().is_empty());
    let settled = |outbox: &Outbox| {
        let states = outbox.deliveries(None, 9).unwrap().deliveries;
        let ended = states
            .iter()
            .filter(|one| one.settled && one.finished.is_some());
        (states.len(), ended.count())
    };
    assert_eq!(settled(&outbox), (2, 2));
    let outbox = outbox.reopen(place);
    assert_eq!(settled(&outbox), (2, 2));
    deliver(&outbox, 3, 1, 1).unwrap();
    assert_eq!(outbox.drain(1).len(), 1);
}

fn the_history_is_bounded_and_keeps_what_has_dead_letters(place: &Place) {
    let outbox = place.open_with(|kept| kept.history = 2);
    for n in 1..=6 {
        deliver(&outbox, n, 1, 1).unwrap();
        let claims = outbox.claim(1, 1);
        let dead: &[usize] = if n == 2 { &[0] } else { &[] };
        outbox.settle(vec![settlement(&claims[0], dead)]);
    }
    outbox.sweep().unwrap();
    let outbox = outbox.reopen(place);
    let listed: Vec<DeliveryId> = outbox.listed().iter().map(|one| one.id).collect();
    assert_eq!(listed, [6, 5, 2].map(delivery_id));
    place.check_drained(&outbox);
}

fn a_full_outbox_refuses_new_deliveries_and_goes_on_draining(place: &Place) {
    let outbox = place.open_with(|kept| kept.max_bytes = Some(600 << 10));
    let noise: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    let slices = [Slice {
        bytes: &noise,
        rows: 1,
    }];
    let entry = Entry {
        slices: &slices,
        route: 0,
    };
    let full = (0..100).find_map(|_| staging.append(entry).err());
    assert!(matches!(full, Some(Error::Full { .. })), "{full:?}");
    assert!(matches!(
        outbox.begin(new_delivery(2, 1)),
        Err(Error::Full { .. })
    ));
    staging.abort();
    outbox.sweep().unwrap();
    deliver(&outbox, 2, 1, 5).unwrap();
    assert_eq!(outbox.drain(1).len(), 5);
}

fn a_subscriber_hears_of_every_commit(place: &Place) {
    let outbox = place.open();
    let mut changes = outbox.subscribe();
    changes.mark_unchanged();
    deliver(&outbox, 1, 1, 1).unwrap();
    assert!(changes.has_changed().unwrap());
}

fn concurrent_deliveries_and_drains_lose_nothing(place: &Place) {
    let outbox = place.open();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let outbox = &outbox;
            scope.spawn(move || {
                for n in 0..5 {
                    deliver(outbox, 1 + thread * 5 + n, thread % 2, 20).unwrap();
                }
            });
        }
        for destination in 0..2u8 {
            let outbox = &outbox;
            scope.spawn(move || {
                let mut seen = HashSet::new();
                let mut changes = outbox.subscribe();
                while seen.len() < 200 {
                    let claims = outbox.drain(destination);
                    for claim in &claims {
                        assert!(seen.insert((claim.delivery, claim.ordinal)));
                    }
                    if claims.is_empty() && changes.has_changed().unwrap() {
                        changes.mark_unchanged();
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!(outbox.usage().unwrap().entries, 0);
    assert_eq!(outbox.listed().len(), 20);
    check_sums(&outbox);
}

fn what_has_settled_is_known_across_restarts_however_many_requests_there_are(place: &Place) {
    const ENTRIES: u64 = 3_000;
    // All in one segment, whose bits are more than one row.
    let outbox = place.open_with(|kept| kept.segment_bytes = 64 << 20);
    deliver(&outbox, 1, 1, ENTRIES).unwrap();
    let mut claims = outbox.claim(1, usize::MAX);
    assert_eq!(claims.len() as u64, ENTRIES);
    let settles = |ordinal: u64| ordinal.is_multiple_of(7) || ordinal == 1_023 || ordinal > 2_950;
    claims.retain(|claim| settles(claim.ordinal));
    for part in claims.chunks(50) {
        outbox.settle(delivered(part));
    }
    let outbox = outbox.reopen(place);
    assert_eq!(outbox.damage(), []);
    let rest: Vec<u64> = outbox.drain(1).iter().map(|claim| claim.ordinal).collect();
    let want: Vec<u64> = (0..ENTRIES).filter(|ordinal| !settles(*ordinal)).collect();
    assert_eq!(rest, want);
    check_sums(&outbox);
}

fn a_cancelled_delivery_gives_nothing_out_and_the_next_one_has_its_turn(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 0, 30).unwrap();
    deliver(&outbox, 2, 0, 3).unwrap();
    let flying = outbox.claim(0, 2);
    let back = outbox.claim(0, 1);
    let waiting = outbox.state(1).waiting;
    assert_eq!(outbox.cancel(delivery_id(1)).unwrap(), Some(waiting));
    assert_eq!(outbox.cancel(delivery_id(9)).unwrap(), None);
    // Its turn lasts as long as something of it is in flight.
    assert!(outbox.claim(0, 9).is_empty());
    outbox.release(&back[0]);
    let dead = settlement(&flying[1], &[0]);
    let settled = outbox.settle(vec![settlement(&flying[0], &[]), dead]);
    assert_eq!(settled.entries, 2);
    let state = outbox.state(1);
    assert!(state.settled && state.finished.is_some(), "{state:?}");
    assert!(state.cancelled_at.is_some());
    assert_eq!((state.delivered.batches, state.dead.batches), (2, 1));
    assert_eq!(state.cancelled.batches, state.batches - 3);
    assert_eq!(outbox.usage().unwrap().cancelled, state.cancelled);
    let again = outbox.cancel(delivery_id(1)).unwrap();
    assert_eq!(again, Some(Tally::default()));
    // The dead letter can be thrown away and not sent.
    let page = outbox.dead_letters(Default::default(), None, 9).unwrap();
    let ids: Vec<_> = page.letters.iter().map(|letter| letter.id).collect();
    assert_eq!(outbox.replay(&ids).unwrap().letters, 0);
    assert_eq!(outbox.discard(&ids).unwrap().letters, 1);
    assert_eq!(outbox.drain(0).len(), 3);
    check_sums(&outbox);
    place.check_drained(&outbox);
}

fn notes_outlive_a_restart_until_they_are_replaced_or_removed(place: &Place) {
    let outbox = place.open();
    let (one, two) = ((destination_id(1), 1), (destination_id(1), 2));
    outbox.note(two, Some(b"second")).unwrap();
    outbox.note(one, Some(b"first")).unwrap();
    outbox.note((destination_id(2), 1), None).unwrap();
    let outbox = outbox.reopen(place);
    let notes = |outbox: &Outbox| -> Vec<(NoteKey, Vec<u8>)> {
        let notes = outbox.notes().unwrap().into_iter();
        notes.map(|(key, text)| (key, text.to_vec())).collect()
    };
    let both = [(one, b"first".to_vec()), (two, b"second".to_vec())];
    assert_eq!(notes(&outbox), both);
    outbox.note(one, Some(b"another")).unwrap();
    outbox.note(two, None).unwrap();
    let longest = vec![7; MAX_NOTE];
    let key = (destination_id(3), 0);
    outbox.note(key, Some(&longest)).unwrap();
    let error = outbox.note(key, Some(&vec![7; MAX_NOTE + 1])).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let outbox = outbox.reopen(place);
    let left = [(one, b"another".to_vec()), (key, longest)];
    assert_eq!(notes(&outbox), left);
}

fn accounts_are_sealed_anew_and_stay_so(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 2).unwrap();
    deliver(&outbox, 2, 2, 2).unwrap();
    let mut shown = Vec::new();
    let resealed = outbox.reseal_accounts(|destination, sealed| {
        shown.push((destination, sealed.to_vec()));
        (destination == destination_id(2)).then(|| b"new".to_vec())
    });
    assert_eq!(resealed.unwrap(), 1);
    shown.sort();
    let want = [1, 2].map(|n| (destination_id(n), format!("sealed {n}").into_bytes()));
    assert_eq!(shown, want);
    let check = |outbox: &crate::place::Daemon| {
        let accounts = [1, 2].map(|n| outbox.claim(n, 1)[0].account.to_vec());
        assert_eq!(accounts, [b"sealed 1".to_vec(), b"new".to_vec()]);
        assert_eq!(outbox.reseal_accounts(|_, _| None).unwrap(), 0);
    };
    check(&outbox);
    check(&outbox.reopen(place));
}
