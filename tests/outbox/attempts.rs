//! Deliveries that have begun and are not committed: what is known of them, and after what.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use looker_feed::outbox::{
    Attempt, Disk, Error, Health, INTERRUPTED, MAX_ABOUT, NewAttempt, Op, Outbox, Settings,
    WebhookState,
};
use looker_feed::seal::{Key, Keyring};

use crate::kit::*;

const KIND: u8 = 3;

#[test]
fn what_was_being_received_at_a_crash_is_found_and_what_was_committed_is_not() {
    let home = home();
    let outbox = open(home.path());
    let kept: Vec<_> = (1..=3)
        .map(|n| outbox.reserve(attempt(n)).unwrap())
        .collect();
    assert_eq!(outbox.receiving().len(), 3);
    kept[1].arrived().rows.store(5, Relaxed);
    deliver(&outbox, 2, 1, 4).unwrap();
    assert_eq!(outbox.receiving().len(), 2, "committed");
    assert_eq!(kinds(&outbox), []);
    // As a kill would leave it: nothing is written down any more.
    outbox.close();
    drop(kept);
    drop(outbox);

    let outbox = open(home.path());
    assert_eq!(kinds(&outbox), [(3, INTERRUPTED), (1, INTERRUPTED)]);
    let first = outbox.attempt(delivery_id(1)).unwrap().unwrap();
    assert_eq!(first.title, "title 1");
    assert_eq!(*first.about, *b"about 1");
    assert_eq!(outbox.attempt(delivery_id(2)).unwrap(), None);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
    assert!(matches!(
        outbox.webhook("webhook 2").unwrap(),
        WebhookState::Committed(..)
    ));
    drop(outbox);
    assert_eq!(kinds(&open(home.path())).len(), 2, "ended once");
}

#[test]
fn a_delivery_that_was_accepted_by_its_footer_alone_is_no_failed_one() {
    let home = home();
    // The state cannot be written behind the footer, nor the footer be taken back: as a crash between.
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let at = Arc::clone(&armed);
    let disk = Disk::with_hook(move |op| {
        let late = matches!(op, Op::StateBatch(_) | Op::Rename { .. });
        match late && at.load(Relaxed) {
            true => Err(std::io::Error::other("injected")),
            false => Ok(()),
        }
    });
    let outbox = Outbox::open_on(settings(home.path()), disk).unwrap();
    let reservation = outbox.reserve(attempt(1)).unwrap();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    armed.store(true, Relaxed);
    assert!(staging.commit(totals(1, 0)).is_err());
    outbox.close();
    drop(reservation);
    drop(outbox);
    let outbox = open(home.path());
    let taken = outbox.delivery(delivery_id(1)).unwrap().is_some();
    // Either it is there, or it failed; never both, never neither.
    assert_eq!(taken, kinds(&outbox).is_empty());
}

#[test]
fn a_failure_is_listed_at_once_and_after_a_restart() {
    let home = home();
    let outbox = open(home.path());
    let reservation = outbox.reserve(attempt(1)).unwrap();
    reservation.arrived().rows.store(7, Relaxed);
    reservation.arrived().bytes.store(70, Relaxed);
    reservation.describe("renamed", b"more about it").unwrap();
    assert_eq!(outbox.receiving()[0].title, "renamed");
    drop(outbox.begin(new_delivery(1, 1)).unwrap());
    assert_eq!(
        outbox.receiving().len(),
        1,
        "reserved, and not staged any more"
    );
    reservation.fail(KIND, "it broke");
    outbox.record_failure(&attempt(2), end(9)).unwrap();
    assert_eq!(outbox.receiving().len(), 0);
    for reopened in [false, true] {
        let outbox = match reopened {
            true => {
                outbox.close();
                open(home.path())
            }
            false => outbox.clone(),
        };
        assert_eq!(kinds(&outbox), [(2, 9), (1, KIND)]);
        let one = outbox.attempt(delivery_id(1)).unwrap().unwrap();
        let end = one.end.unwrap();
        assert_eq!((end.rows, end.bytes), (7, 70));
        assert_eq!(end.message, "it broke");
        assert_eq!(one.title, "renamed");
        assert_eq!(*one.about, *b"more about it");
    }
}

#[test]
fn one_reservation_holds_the_webhook_id_and_the_id() {
    let home = home();
    let outbox = open(home.path());
    let first = outbox.reserve(attempt(1)).unwrap();
    let same_webhook = NewAttempt {
        webhook: Some("webhook 1".to_owned()),
        ..attempt(2)
    };
    let refused = outbox.reserve(same_webhook.clone());
    assert!(matches!(
        refused,
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
    let again = outbox.reserve(same_webhook).unwrap();
    deliver(&outbox, 2, 1, 1).unwrap();
    drop(again);
    assert_eq!(
        kinds(&outbox),
        [(1, KIND)],
        "the one that was committed is none"
    );
    let last = outbox.reserve(attempt(3)).unwrap();
    deliver(&outbox, 3, 1, 1).unwrap();
    assert!(matches!(
        outbox.reserve(NewAttempt {
            id: delivery_id(4),
            ..attempt(3)
        }),
        Err(Error::Webhook(WebhookState::Committed(..)))
    ));
    drop(last);
    assert_eq!(outbox.attempt(delivery_id(3)).unwrap(), None);
}

#[test]
fn only_the_newest_are_kept_and_pages_go_back_in_time() {
    let home = home();
    let outbox = Outbox::open(Settings {
        history: 5,
        ..settings(home.path())
    })
    .unwrap();
    let receiving = outbox.reserve(attempt(1)).unwrap();
    for n in 2..=20 {
        outbox.record_failure(&attempt(n), end(KIND)).unwrap();
    }
    // A call that comes back after what was asked for before it.
    assert!(!outbox.put_journal(delivery_id(99), b"", b"x").unwrap());
    let ids = |all: Vec<Attempt>| all.iter().map(|one| one.id.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(failed(&outbox)), [20, 19, 18, 17, 16]);
    assert_eq!(ids(outbox.failed(None, 2).unwrap()), [20, 19]);
    assert_eq!(
        ids(outbox.failed(Some(delivery_id(19)), 2).unwrap()),
        [18, 17]
    );
    assert!(outbox.failed(Some(delivery_id(16)), 2).unwrap().is_empty());
    assert!(
        outbox.attempt(delivery_id(1)).unwrap().is_some(),
        "is being received"
    );
    drop(receiving);
}

#[test]
fn a_journal_is_changed_only_by_who_knows_what_it_says() {
    let home = home();
    let outbox = open(home.path());
    outbox.record_failure(&attempt(1), end(KIND)).unwrap();
    let id = delivery_id(1);
    assert!(outbox.put_journal(id, b"", b"first").unwrap());
    assert!(!outbox.put_journal(id, b"", b"other").unwrap());
    assert!(outbox.put_journal(id, b"first", b"second").unwrap());
    outbox.close();
    let outbox = open(home.path());
    let one = outbox.attempt(id).unwrap().unwrap();
    assert_eq!(*one.journal, *b"second");
    assert_eq!(one.end.unwrap().message, "a sentence");
}

#[test]
fn nothing_of_it_stands_in_the_clear_and_a_new_key_takes_it_over() {
    let home = home();
    let ring = |current: u8, previous: &[u8]| {
        let key = |n: &u8| Key::new([*n; 32]);
        Arc::new(Keyring::new(
            key(&current),
            previous.iter().map(key).collect(),
        ))
    };
    let open = |keys| {
        let settings = Settings {
            reserve_bytes: 0,
            ..Settings::new(home.path(), keys)
        };
        Outbox::open(settings).unwrap()
    };
    let outbox = open(ring(1, &[]));
    outbox.record_failure(&attempt(1), end(KIND)).unwrap();
    outbox
        .put_journal(delivery_id(1), b"", b"the journal")
        .unwrap();
    outbox.close();
    for entry in std::fs::read_dir(home.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for word in [&b"title 1"[..], b"about 1", b"a sentence", b"the journal"] {
            let found = bytes.windows(word.len()).any(|part| part == word);
            assert!(!found, "{} holds {word:?}", path.display());
        }
    }
    // Without the key the numbers are there, and the texts come back with it.
    let blind = open(ring(2, &[]));
    let one = blind.attempt(delivery_id(1)).unwrap().unwrap();
    assert_eq!((&*one.title, one.end.unwrap().kind), ("", KIND));
    assert!(!blind.put_journal(delivery_id(1), b"", b"x").unwrap());
    blind.close();
    let both = open(ring(2, &[1]));
    assert_eq!(
        both.attempt(delivery_id(1)).unwrap().unwrap().title,
        "title 1"
    );
    both.close();
    let new = open(ring(2, &[]));
    let one = new.attempt(delivery_id(1)).unwrap().unwrap();
    assert_eq!(one.title, "title 1");
    assert_eq!(*one.journal, *b"the journal");
}

#[test]
fn a_failure_while_nothing_can_be_written_is_written_when_it_can() {
    let home = home();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let at = Arc::clone(&broken);
    let disk = Disk::with_hook(move |op| {
        let state = matches!(op, Op::StateBatch(_) | Op::StateFlush(_) | Op::StateSync(_));
        match state && at.load(Relaxed) {
            true => Err(std::io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }
    });
    let outbox = Outbox::open_on(settings(home.path()), disk).unwrap();
    let held = outbox.reserve(attempt(1)).unwrap();
    broken.store(true, Relaxed);
    outbox.reserve(attempt(2)).unwrap_err();
    outbox.record_failure(&attempt(2), end(4)).unwrap();
    held.fail(KIND, "no space");
    assert!(outbox.reserve(attempt(3)).is_err(), "it refuses writes");
    assert_eq!(kinds(&outbox), [(2, 4), (1, KIND)]);
    broken.store(false, Relaxed);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while outbox.health() != Health::Ok {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            outbox.health()
        );
        std::thread::yield_now();
    }
    // Durable when what is asked for later is.
    deliver(&outbox, 5, 1, 1).unwrap();
    outbox.close();
    let outbox = open(home.path());
    assert_eq!(kinds(&outbox), [(2, 4), (1, KIND)]);
    let messages: Vec<_> = failed(&outbox)
        .into_iter()
        .map(|one| one.end.unwrap().message)
        .collect();
    assert_eq!(messages, ["a sentence", "no space"]);
}

#[test]
fn many_that_begin_at_once_share_their_syncs() {
    let home = home();
    let syncs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = Arc::clone(&syncs);
    let disk = Disk::with_hook(move |op| {
        if matches!(op, Op::StateBatch(_)) {
            seen.fetch_add(1, Relaxed);
            // As long as a slow disk takes, so that the others gather.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    });
    let outbox = Outbox::open_on(settings(home.path()), disk).unwrap();
    syncs.store(0, Relaxed);
    let held: Vec<_> = std::thread::scope(|scope| {
        let begin = |n: u8| {
            let outbox = outbox.clone();
            scope.spawn(move || outbox.reserve(attempt(n)).unwrap())
        };
        let threads: Vec<_> = (1..=200).map(begin).collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let begun = syncs.load(Relaxed);
    assert!(begun < 60, "{begun} batches for 200 deliveries");
    assert_eq!(outbox.receiving().len(), 200);
    drop(held);
}
