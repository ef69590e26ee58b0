//! Deliveries that have begun and are not committed: what is known of them, and after what.

use std::sync::atomic::Ordering::Relaxed;

use looker_feed::outbox::{Attempt, Error, INTERRUPTED, MAX_ABOUT, NewAttempt, WebhookState};

use crate::kit::*;
use crate::place::Place;

const KIND: u8 = 3;

on_every_backend![
    what_was_being_received_at_a_crash_is_found_and_what_was_committed_is_not,
    a_failure_is_listed_at_once_and_after_a_restart,
    one_reservation_holds_the_webhook_id_and_the_id,
    only_the_newest_are_kept_and_pages_go_back_in_time,
    a_journal_is_changed_only_by_who_knows_what_it_says,
];

fn what_was_being_received_at_a_crash_is_found_and_what_was_committed_is_not(place: &Place) {
    let outbox = place.open();
    let begin = |n| outbox.reserve(attempt(n)).unwrap();
    let kept: Vec<_> = (1..=3).map(begin).collect();
    assert_eq!(outbox.receiving().len(), 3);
    kept[1].arrived().rows.store(5, Relaxed);
    deliver(&outbox, 2, 1, 4).unwrap();
    assert_eq!(outbox.receiving().len(), 2, "committed");
    assert_eq!(kinds(&outbox), []);
    // As a kill would leave it: nothing is written down any more.
    outbox.close();
    drop(kept);
    drop(outbox);

    let outbox = place.open();
    outbox.sweep().unwrap();
    assert_eq!(kinds(&outbox), [(3, INTERRUPTED), (1, INTERRUPTED)]);
    let first = outbox.attempt(delivery_id(1)).unwrap().unwrap();
    assert_eq!((&*first.title, &*first.about), ("title 1", &b"about 1"[..]));
    assert_eq!(outbox.attempt(delivery_id(2)).unwrap(), None);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
    assert!(matches!(
        outbox.webhook("webhook 2").unwrap(),
        WebhookState::Committed(..)
    ));
    let outbox = outbox.reopen(place);
    assert_eq!(kinds(&outbox).len(), 2, "ended once");
}

fn a_failure_is_listed_at_once_and_after_a_restart(place: &Place) {
    let outbox = place.open();
    let reservation = outbox.reserve(attempt(1)).unwrap();
    reservation.arrived().rows.store(7, Relaxed);
    reservation.arrived().bytes.store(70, Relaxed);
    reservation.describe("renamed", b"more about it").unwrap();
    assert_eq!(outbox.receiving()[0].title, "renamed");
    outbox.begin(new_delivery(1, 1)).unwrap().abort();
    assert_eq!(outbox.receiving().len(), 1);
    let webhook = outbox.webhook("webhook 1").unwrap();
    let why = "reserved, and not staged any more";
    assert_eq!(webhook, WebhookState::Receiving, "{why}");
    let told = reservation.fail(KIND, "it broke").unwrap();
    outbox.record_failure(&attempt(2), end(9)).unwrap();
    assert_eq!(outbox.receiving().len(), 0);
    let check = |outbox: &crate::place::Daemon| {
        assert_eq!(kinds(outbox), [(2, 9), (1, KIND)]);
        let one = outbox.attempt(delivery_id(1)).unwrap().unwrap();
        assert_eq!(one, told);
        let end = one.end.unwrap();
        assert_eq!((end.rows, end.bytes), (7, 70));
        assert_eq!(end.message, "it broke");
        assert_eq!(one.title, "renamed");
        assert_eq!(*one.about, *b"more about it");
    };
    check(&outbox);
    check(&outbox.reopen(place));
}

fn one_reservation_holds_the_webhook_id_and_the_id(place: &Place) {
    let outbox = place.open();
    let first = outbox.reserve(attempt(1)).unwrap();
    let same_webhook = |n| NewAttempt {
        webhook: Some("webhook 1".to_owned()),
        ..attempt(n)
    };
    assert!(matches!(
        outbox.reserve(same_webhook(2)),
        Err(Error::Webhook(WebhookState::Receiving))
    ));
    assert!(matches!(
        outbox.reserve(attempt(1)),
        Err(Error::Duplicate(_))
    ));
    let too_much = NewAttempt {
        about: vec![0; MAX_ABOUT + 1],
        ..attempt(9)
    };
    assert!(matches!(
        outbox.reserve(too_much),
        Err(Error::TooLarge { .. })
    ));
    first.fail(KIND, "");
    // Looker sends it again.
    let again = outbox.reserve(same_webhook(2)).unwrap();
    let mut new = new_delivery(2, 1);
    new.webhook = Some("webhook 1".to_owned());
    let mut staging = outbox.begin(new).unwrap();
    append(&mut staging, 2, 0).unwrap();
    staging.commit(totals(1, 0)).unwrap();
    assert_eq!(again.fail(KIND, "too late"), None, "it was committed");
    assert_eq!(kinds(&outbox), [(1, KIND)]);
    assert!(matches!(
        outbox.reserve(same_webhook(4)),
        Err(Error::Webhook(WebhookState::Committed(..)))
    ));
    assert_eq!(outbox.attempt(delivery_id(2)).unwrap(), None);
}

fn only_the_newest_are_kept_and_pages_go_back_in_time(place: &Place) {
    let outbox = place.open_with(|kept| kept.history = 5);
    let receiving = outbox.reserve(attempt(1)).unwrap();
    for n in 2..=20 {
        outbox.record_failure(&attempt(n), end(KIND)).unwrap();
    }
    // A call that comes back after what was asked for before it.
    assert!(!outbox.put_journal(delivery_id(99), b"", b"x").unwrap());
    outbox.sweep().unwrap();
    let ids = |all: Vec<Attempt>| all.iter().map(|one| one.id.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(failed(&outbox)), [20, 19, 18, 17, 16]);
    assert_eq!(ids(outbox.failed(None, 2).unwrap()), [20, 19]);
    let page = |before| ids(outbox.failed(Some(delivery_id(before)), 2).unwrap());
    assert_eq!((page(19), page(16)), (vec![18, 17], vec![]));
    assert!(
        outbox.attempt(delivery_id(1)).unwrap().is_some(),
        "is being received"
    );
    drop(receiving);
}

fn a_journal_is_changed_only_by_who_knows_what_it_says(place: &Place) {
    let outbox = place.open();
    outbox.record_failure(&attempt(1), end(KIND)).unwrap();
    let id = delivery_id(1);
    assert!(outbox.put_journal(id, b"", b"first").unwrap());
    assert!(!outbox.put_journal(id, b"", b"other").unwrap());
    assert!(outbox.put_journal(id, b"first", b"second").unwrap());
    let outbox = outbox.reopen(place);
    let one = outbox.attempt(id).unwrap().unwrap();
    assert_eq!(*one.journal, *b"second");
    assert_eq!(one.end.unwrap().message, "a sentence");
}
