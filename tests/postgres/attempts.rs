//! Deliveries that have begun and are not visible, from any daemon.

use looker_feed::outbox::{Error, INTERRUPTED, NewAttempt, WebhookState};

use crate::generated::{append, attempt, deliver, delivery_id, end, kinds, new_delivery, totals};
use crate::kit::{on_both, open};

const KIND: u8 = 3;

#[test]
fn what_a_daemon_that_died_was_receiving_has_failed_and_what_was_committed_has_not() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
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
        // Somebody has asked for one of them since.
        assert!(two.put_journal(delivery_id(3), b"", b"asked").unwrap());
        // What it says of the end is better known, but what was asked is not forgotten for it.
        let mut kept = kept.into_iter();
        kept.next().unwrap().fail(KIND, "it broke");
        assert_eq!(kinds(&one), [(3, INTERRUPTED), (1, KIND)]);
        kept.last().unwrap().fail(KIND, "it broke");
        assert_eq!(kinds(&one), [(3, INTERRUPTED), (1, KIND)]);
        let asked = one.attempt(delivery_id(3)).unwrap().unwrap();
        assert_eq!(*asked.journal, *b"asked");
    });
}

#[test]
fn a_failure_is_listed_at_once_by_every_daemon_and_its_webhook_id_is_free() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
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
        reservation.describe("renamed", b"more about it").unwrap();
        reservation.fail(KIND, "it broke");
        one.record_failure(&attempt(3), end(9)).unwrap();
        assert_eq!(kinds(&one), [(3, 9), (1, KIND)]);
        assert_eq!(kinds(&two), kinds(&one));
        let found = two.attempt(delivery_id(1)).unwrap().unwrap();
        let said = (&*found.title, &*found.about, &*found.end.unwrap().message);
        assert_eq!(said, ("renamed", &b"more about it"[..], "it broke"));
        assert!(two.reserve(same).is_ok());
    });
}

#[test]
fn a_journal_is_changed_only_by_the_daemon_that_knows_what_it_says() {
    on_both(|database| {
        let (one, two) = (open(database), open(database));
        one.record_failure(&attempt(6), end(KIND)).unwrap();
        let id = delivery_id(6);
        assert!(one.put_journal(id, b"", b"first").unwrap());
        assert!(!two.put_journal(id, b"", b"other").unwrap());
        assert!(two.put_journal(id, b"first", b"second").unwrap());
        // It has found out by itself that the same delivery failed, a little later.
        two.record_failure(&attempt(6), end(KIND)).unwrap();
        kinds(&two);
        let found = one.attempt(id).unwrap().unwrap();
        assert_eq!(*found.journal, *b"second");
    });
}
