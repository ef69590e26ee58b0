//! Daemons are killed and frozen at any moment, and the database fails over.
//!
//! A long run goes in chapters, each with a fleet, a database and a seed of its own, which is printed: so
//! it grows neither on the disk nor in memory, and a chapter that fails is run again by its seed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fleet::{Fleet, LEASE, Terms, until};
use crate::number;
use crate::own::{self, Own};
use crate::server::{Isolation, database, psql};

/// How often a daemon is killed or frozen in a chapter.
const CHAPTER: u64 = 25;

/// How often a daemon is killed or frozen.
fn rounds() -> u64 {
    number("LOOKER_FEED_TEST_DAEMONS").unwrap_or(8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_killed_or_frozen_all_that_was_accepted_arrives_once() {
    let mut seed = number("LOOKER_FEED_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let (mut left, mut killed, mut frozen) = (rounds(), 0, 0);
    while left > 0 {
        let rounds = left.min(CHAPTER);
        println!("LOOKER_FEED_TEST_SEED={seed} LOOKER_FEED_TEST_DAEMONS={rounds}");
        let Some(counts) = chapter(seed, rounds).await else {
            return;
        };
        killed += counts.0;
        frozen += counts.1;
        left -= rounds;
        println!("{killed} killed, {frozen} frozen so far");
        seed = seed.wrapping_add(1);
    }
    assert!(killed > 0 && killed >= frozen);
}

/// How many were killed and frozen; `None` where there is no server.
async fn chapter(seed: u64, rounds: u64) -> Option<(u64, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let database = database(Isolation::Default)?;
    let socket = database.directory.join(".s.PGSQL.5432");
    let terms = Terms {
        hours: [0, 0, 0].map(|_| rng.i32(-1..=1)),
        ..Terms::default()
    };
    let mut fleet = Fleet::on(socket, &database.name, 3, terms).await;
    let streams = fleet.streams();
    let frozen_for = number("LOOKER_FEED_TEST_FREEZE").map_or(LEASE, Duration::from_secs);
    let (mut killed, mut frozen) = (0, BTreeSet::new());
    for round in 0..rounds {
        let at = rng.usize(..3);
        // Anywhere between a request and the next, an answer and the next.
        tokio::time::sleep(Duration::from_micros(rng.u64(..400_000))).await;
        if round % 3 == 2 {
            fleet.freeze(at, true);
            tokio::time::sleep(frozen_for + Duration::from_millis(rng.u64(500..2_000))).await;
            fleet.freeze(at, false);
            frozen.insert((round, fleet.pid(at).as_raw_nonzero().get() as u32));
        } else {
            fleet.kill(at);
            tokio::time::sleep(Duration::from_millis(rng.u64(..1_500))).await;
            fleet.start(at);
            killed += 1;
        }
        streams.more(2).await;
    }
    let ends = fleet.finish(streams).await;
    println!("{killed} killed, {} frozen: {ends:?}", frozen.len());
    assert!(ends.told as u64 > rounds, "{ends:?}");
    // Only the request that a daemon was writing as it was frozen may end beside one of the next daemon's.
    let was_frozen = |pid| frozen.iter().any(|(_, other)| *other == pid);
    let mut overlaps = fleet.tap.overlaps();
    overlaps.retain(|overlap| !was_frozen(overlap.other) && !was_frozen(overlap.pid));
    assert_eq!(overlaps, []);
    drop(fleet);
    let sql = format!("DROP DATABASE {} WITH (FORCE)", database.name);
    psql(&database.directory, "postgres", &sql);
    Some((killed, frozen.len() as u64))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_promotion_of_a_synchronous_standby_nothing_accepted_is_missing() {
    let times = (rounds() / 10).max(1);
    for time in 1..=times {
        if failover().await.is_none() {
            return;
        }
        println!("failover {time} of {times}");
    }
}

async fn failover() -> Option<()> {
    let primary = Own::start(&["wal_level = replica"])?;
    let standby = primary.standby(&[]);
    primary.set(&["synchronous_standby_names = 'standby'"]);
    primary.reload();
    let url = own::url(&[&primary, &standby]);
    let terms = Terms {
        replicated: true,
        ..Terms::default()
    };
    let fleet = Fleet::at(&url, 2, terms).await;
    let streams = fleet.streams();
    streams.more(9).await;
    primary.crash();
    standby.promote();
    // A server that nobody stands by takes no more deliveries, unless that is allowed.
    until("none is ready", || fleet.balancer.ready() == 0).await;
    standby.set(&["synchronous_standby_names = ''"]);
    standby.reload();
    let ends = fleet.finish(streams).await;
    println!("{ends:?}");
    assert!(ends.told >= 6, "{ends:?}");
    assert_eq!(fleet.tap.overlaps(), []);
    Some(())
}
