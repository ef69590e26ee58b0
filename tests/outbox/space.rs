//! Disk space comes back while the outbox runs.

use std::os::unix::fs::MetadataExt;

use looker_feed::outbox::{Entry, Outbox, Settings, Slice, Totals};

use crate::kit::*;

#[test]
fn the_directory_shrinks_as_a_backlog_of_100_megabytes_drains() {
    const ENTRIES: u64 = 420;
    const BYTES: usize = 250_000;
    let directory = home();
    let outbox = Outbox::open(Settings {
        segment_bytes: 8 << 20,
        ..settings(directory.path())
    })
    .unwrap();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    let mut noise = vec![0u8; BYTES];
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..ENTRIES {
        random.fill(&mut noise);
        let slices = [Slice {
            bytes: &noise,
            rows: 1,
        }];
        staging
            .append(Entry {
                slices: &slices,
                route: 0,
            })
            .unwrap();
    }
    let totals = Totals {
        rows_in: ENTRIES,
        batches: ENTRIES,
        requests: ENTRIES,
        ..Totals::default()
    };
    staging.commit(totals).unwrap();
    let peak = size_of(directory.path());
    assert!(peak >= 100 << 20, "{peak}");
    assert!(outbox.usage().unwrap().bytes >= 100 << 20);
    let mut half = None;
    let mut sent = 0;
    loop {
        let claims = lease(&outbox, 1).claim(20).unwrap();
        if claims.is_empty() {
            break;
        }
        sent += claims.len() as u64;
        lease(&outbox, 1).settle(delivered(&claims)).unwrap();
        if sent >= ENTRIES / 2 && half.is_none() {
            half = Some(size_of(directory.path()));
        }
    }
    assert_eq!(sent, ENTRIES);
    assert!(
        half.unwrap() < peak * 2 / 3,
        "nothing came back half-way: {half:?} of {peak}"
    );
    let left = size_of(directory.path());
    assert!(left <= peak / 10, "{left} of {peak}");
    assert!(outbox.usage().unwrap().bytes <= peak / 10);
}

#[test]
fn many_small_changes_do_not_let_the_state_grow() {
    const ROUNDS: u8 = 60;
    const LIMIT: u64 = 1 << 20;
    let directory = home();
    let outbox = Outbox::open(Settings {
        history: 5,
        state_bytes: LIMIT,
        segment_bytes: 1 << 20,
        ..settings(directory.path())
    })
    .unwrap();
    let db = directory.path().join("state").join("db");
    let first = db.metadata().unwrap().ino();
    let mut largest = 0;
    for round in 1..=ROUNDS {
        deliver(&outbox, round, 1, 60).unwrap();
        loop {
            let claims = lease(&outbox, 1).claim(1).unwrap();
            if claims.is_empty() {
                break;
            }
            lease(&outbox, 1).settle(delivered(&claims)).unwrap();
        }
        largest = largest.max(outbox.usage().unwrap().bytes);
    }
    outbox.close();
    assert_eq!(outbox.deliveries(None, 99).unwrap().deliveries.len(), 5);
    assert_ne!(
        db.metadata().unwrap().ino(),
        first,
        "sled's file was never copied"
    );
    assert!(largest <= 6 * LIMIT, "{largest}");
}
