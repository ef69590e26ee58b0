//! Bad batches in a request are found, and nothing else is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::world::{Batch, SECOND, Station, accepted, finish, rejected, settings, wait};
use looker_feed::drain::Reply;

/// Sends one entry of `size` slices, of which these are bad. Returns the requests it took.
fn isolate(size: usize, bad: &BTreeSet<usize>, complaint: impl Fn() -> Reply) -> usize {
    let mut stations = [Station::new(settings(4, 0), 1)];
    stations[0].deliver(Duration::ZERO, [size]);
    let mut server = |_, _, batches: &[Batch]| {
        let spoiled = batches.iter().any(|batch| bad.contains(&batch.slice));
        (SECOND / 10, if spoiled { complaint() } else { accepted() })
    };
    finish(&mut stations, &mut server, Duration::ZERO, SECOND * 3600);
    stations[0].check_all_settled();
    let dead: BTreeSet<_> = stations[0].dead.keys().map(|batch| batch.slice).collect();
    assert_eq!(&dead, bad, "exactly the bad ones are dead");
    stations[0].sent.len()
}

fn most_requests(size: usize, bad: usize) -> usize {
    let levels = size.next_power_of_two().ilog2() as usize;
    1 + 2 * bad * levels
}

proptest! {
    #[test]
    fn exactly_the_bad_batches_die_in_few_requests(
        (size, bad) in (1usize..=100).prop_flat_map(|size| {
            (Just(size), proptest::collection::btree_set(0..size, 0..=size))
        }),
        too_large: bool,
    ) {
        let requests = isolate(size, &bad, || {
            let words = "no".to_owned();
            if too_large { Reply::TooLarge { words } } else { rejected() }
        });
        prop_assert!(requests <= most_requests(size, bad.len()), "{requests}");
    }
}

#[test]
fn one_bad_batch_in_a_hundred_takes_fifteen_requests() {
    for bad in [0, 1, 49, 50, 98, 99] {
        let requests = isolate(100, &BTreeSet::from([bad]), rejected);
        assert!(requests <= 15, "{requests}");
    }
    assert_eq!(isolate(100, &BTreeSet::new(), rejected), 1);
    assert_eq!(isolate(1, &BTreeSet::from([0]), rejected), 1);
}

#[test]
fn a_dead_letter_has_the_servers_words() {
    let mut stations = [Station::new(settings(4, 0), 1)];
    stations[0].deliver(Duration::ZERO, [2]);
    let mut server = |_, _, batches: &[Batch]| {
        let reply = if batches.iter().any(|batch| batch.slice == 1) {
            Reply::Rejected {
                status: 422,
                words: "BAD: no such event type".into(),
            }
        } else {
            accepted()
        };
        (SECOND, reply)
    };
    wait(&mut stations, &mut server, Duration::ZERO, SECOND * 60);
    let reasons: Vec<_> = stations[0].dead.values().collect();
    assert_eq!(
        reasons,
        ["rejected with status 422: BAD: no such event type"]
    );
}
