//! Deliveries that have begun and are not committed, on a disk.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use looker_feed::outbox::{Disk, Health, Op, Outbox, Settings};
use looker_feed::seal::{Key, Keyring};

use crate::kit::*;

const KIND: u8 = 3;

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
