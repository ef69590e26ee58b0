//! Deliveries that have begun and are not visible, from any daemon.

use std::sync::atomic::Ordering::Relaxed;

use looker_feed::outbox::{Attempt, Error, INTERRUPTED, NewAttempt, Outbox, WebhookState};

use crate::generated::{
    append, attempt, deliver, delivery_id, end, failed, kinds, new_delivery, totals,
};
use crate::kit::{open, settings};
use crate::server::{BOTH, Isolation, database};

const KIND: u8 = 3;

#[test]
fn what_a_daemon_that_died_was_receiving_has_failed_and_what_was_committed_has_not() {
    for isolation in BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let (one, two) = (open(&database), open(&database));
        let kept: Vec<_> = (1..=3).map(|n| one.reserve(attempt(n)).unwrap()).collect();
        assert_eq!(one.receiving().len(), 3);
        assert_eq!(two.usage().unwrap().receiving, 3);
        deliver(&one, 2, 1, 4).unwrap();
        assert_eq!(one.receiving().len(), 2, "committed");
        // Half-way in.
        let mut staging = one.begin(new_delivery(3, 1)).unwrap();
        append(&mut staging, 3, 0).unwrap();
        assert_eq!(two.usage().unwrap().receiving, 2);
        two.sweep().unwrap();
        let elsewhere = two.receiving();
        assert_eq!(elsewhere[0].title, "title 1");
        assert_eq!(kinds(&two), []);
        database.psql("UPDATE looker_feed.daemon SET beat = beat - interval '1 hour'");
        two.sweep().unwrap();
        assert_eq!(kinds(&two), [(3, INTERRUPTED), (1, INTERRUPTED)]);
        let first = two.attempt(delivery_id(1)).unwrap().unwrap();
        assert_eq!((&*first.title, &*first.about), ("title 1", &b"about 1"[..]));
        assert_eq!(two.attempt(delivery_id(2)).unwrap(), None);
        assert_eq!(two.webhook("webhook 1").unwrap(), WebhookState::Unknown);
        assert_eq!(two.webhook("webhook 3").unwrap(), WebhookState::Unknown);
        // It comes back, and can neither begin nor commit what was given up.
        assert!(matches!(
            one.begin(new_delivery(1, 1)),
            Err(Error::Database { .. })
        ));
        assert!(staging.commit(totals(1, 0)).is_err());
        assert_eq!(two.deliveries(None, 9).unwrap().deliveries.len(), 1);
        // What it says of the end is better known.
        let mut kept = kept.into_iter();
        kept.next().unwrap().fail(KIND, "it broke");
        assert_eq!(kinds(&one), [(3, INTERRUPTED), (1, KIND)]);
        drop(kept);
    }
}

#[test]
fn a_failure_is_listed_at_once_by_every_daemon_and_its_webhook_id_is_free() {
    for isolation in BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let (one, two) = (open(&database), open(&database));
        let reservation = one.reserve(attempt(1)).unwrap();
        let same = NewAttempt {
            webhook: Some("webhook 1".to_owned()),
            ..attempt(2)
        };
        assert!(matches!(
            two.reserve(same.clone()),
            Err(Error::Webhook(WebhookState::Receiving))
        ));
        assert!(matches!(two.reserve(attempt(1)), Err(Error::Duplicate(_))));
        assert!(matches!(one.reserve(attempt(1)), Err(Error::Duplicate(_))));
        reservation.arrived().rows.store(7, Relaxed);
        reservation.arrived().bytes.store(70, Relaxed);
        reservation.describe("renamed", b"more about it").unwrap();
        assert_eq!(one.receiving()[0].title, "renamed");
        one.begin(new_delivery(1, 1)).unwrap().abort();
        assert_eq!(
            two.webhook("webhook 1").unwrap(),
            WebhookState::Receiving,
            "reserved, and not staged any more"
        );
        reservation.fail(KIND, "it broke");
        one.record_failure(&attempt(3), end(9)).unwrap();
        assert!(one.receiving().is_empty());
        assert_eq!(kinds(&one), [(3, 9), (1, KIND)]);
        assert_eq!(kinds(&two), kinds(&one));
        let found = two.attempt(delivery_id(1)).unwrap().unwrap();
        assert_eq!(
            (&*found.title, &*found.about),
            ("renamed", &b"more about it"[..])
        );
        let ended = found.end.unwrap();
        assert_eq!(
            (ended.rows, ended.bytes, &*ended.message),
            (7, 70, "it broke")
        );
        // Looker sends it again.
        let again = two.reserve(same).unwrap();
        let mut new = new_delivery(2, 1);
        new.webhook = Some("webhook 1".to_owned());
        let mut staging = two.begin(new).unwrap();
        append(&mut staging, 2, 0).unwrap();
        staging.commit(totals(1, 0)).unwrap();
        drop(again);
        assert_eq!(kinds(&one), [(3, 9), (1, KIND)]);
        assert!(matches!(
            one.reserve(NewAttempt {
                webhook: Some("webhook 1".to_owned()),
                ..attempt(4)
            }),
            Err(Error::Webhook(WebhookState::Committed(..)))
        ));
        let ids = |all: Vec<Attempt>| all.iter().map(|one| one.id.0[0]).collect::<Vec<_>>();
        assert_eq!(ids(one.failed(None, 1).unwrap()), [3]);
        assert_eq!(ids(one.failed(Some(delivery_id(3)), 9).unwrap()), [1]);
    }
}

#[test]
fn a_journal_is_changed_only_by_who_knows_what_it_says_and_the_oldest_are_forgotten() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let mut few = settings(&database, "daemon");
    few.history = 3;
    let outbox = Outbox::open_shared(few).unwrap();
    let other = open(&database);
    for n in 1..=6 {
        outbox.record_failure(&attempt(n), end(KIND)).unwrap();
        // On the server, so that none is pushed out before.
        failed(&outbox);
    }
    let id = delivery_id(6);
    assert!(outbox.put_journal(id, b"", b"first").unwrap());
    assert!(!other.put_journal(id, b"", b"other").unwrap());
    assert!(other.put_journal(id, b"first", b"second").unwrap());
    let one = outbox.attempt(id).unwrap().unwrap();
    assert_eq!(*one.journal, *b"second");
    assert_eq!(one.end.unwrap().message, "a sentence");
    assert!(!outbox.put_journal(delivery_id(99), b"", b"x").unwrap());
    outbox.sweep().unwrap();
    assert_eq!(kinds(&other), [(6, KIND), (5, KIND), (4, KIND)]);
    let text = database.psql("SELECT * FROM looker_feed.attempt");
    for word in ["title 6", "about 6", "a sentence", "second"] {
        let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(word) && !text.contains(&hex), "{word}");
    }
}
