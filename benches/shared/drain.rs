//! Several daemons send what waits: as fast as they can to many accounts, and at its limit to one.

use std::time::{Duration, Instant};

use looker_feed::control::view::Overview;
use looker_feed::looker::Shape;

use crate::daemon::Daemon;
use crate::intake::down;
use crate::kit::{Bound, Verdict};
use crate::server::Server;
use crate::world::World;
use crate::{UNPACED, fresh, start, until};

/// Accounts that are sent to as fast as it goes.
const ACCOUNTS: [&str; 8] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight",
];
/// mParticle's limit of an account.
const LIMIT: u32 = 270;
/// Until one account is sent to at its limit.
const RAMP: Duration = Duration::from_secs(15);

/// Takes a delivery in for an account, a batch for each row.
fn deliver(world: &World, daemon: &Daemon, key: &str, batches: u64, seed: u64) {
    let shape = Shape {
        rows: batches,
        users: batches,
        seed,
        ..Shape::default()
    };
    let answer = daemon.execute_for(key, world.publish(&shape));
    let answer = world.runtime.block_on(answer).expect("an answer");
    assert!(answer.is_success(), "{:?}", answer.message());
}

/// Batches a second that so many daemons bring to mParticle.
pub fn rate(server: &Server, daemons: usize, backlog: u64) -> f64 {
    let database = fresh(server);
    let world = World::new(None);
    down(&world, true);
    let homes: Vec<_> = (0..daemons)
        .map(|_| tempfile::tempdir().expect("a directory"))
        .collect();
    let daemons: Vec<Daemon> = homes
        .iter()
        .map(|home| start(home.path(), &world.endpoint, &database, UNPACED))
        .collect();
    for (seed, key) in (1..).zip(ACCOUNTS) {
        deliver(&world, &daemons[0], key, backlog, seed);
    }
    let each = ACCOUNTS.len().div_ceil(daemons.len());
    until("they are shared out", || {
        let sql = "SELECT coalesce(max(n), 0) <= $each AND sum(n) = 8 FROM
             (SELECT count(*) AS n FROM looker_feed.destination
              WHERE lease_until > clock_timestamp() GROUP BY owner) c";
        database.psql(&sql.replace("$each", &each.to_string())) == "t"
    });
    let overview = world.runtime.block_on(daemons[0].get("/api/v1/overview"));
    let overview: Overview = serde_json::from_slice(&overview).expect("an overview");
    down(&world, false);
    let begin = Instant::now();
    for destination in &overview.destinations {
        let path = format!("/api/v1/destinations/{}/retry", destination.id);
        world.runtime.block_on(daemons[0].post(&path));
    }
    let all = backlog * ACCOUNTS.len() as u64;
    until("all has arrived", || {
        world.mparticle.counts().batches == all
    });
    all as f64 / begin.elapsed().as_secs_f64()
}

pub fn verdicts(rates: &[(f64, f64)]) -> Vec<Verdict> {
    let (Some((_, one)), Some((daemons, most))) = (rates.first(), rates.last()) else {
        return Vec::new();
    };
    vec![
        Verdict::new(
            "batches/s to 8 accounts, one daemon",
            one.round(),
            Bound::AtLeast(f64::from(LIMIT) * 8.0),
        ),
        Verdict::new(
            format!("of that, {daemons} daemons on the same processors"),
            most / one,
            Bound::AtLeast(0.7),
        ),
    ]
}

/// One account over three daemons at its limit.
pub fn limit(server: &Server, window: Duration) -> Vec<Verdict> {
    let database = fresh(server);
    let world = World::new(Some(LIMIT));
    let homes = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let daemons = homes
        .each_ref()
        .map(|home| start(home.path(), &world.endpoint, &database, LIMIT));
    let batches = u64::from(LIMIT) * (RAMP + window + Duration::from_secs(5)).as_secs();
    deliver(&world, &daemons[1], "account", batches, 1);
    std::thread::sleep(RAMP);
    let (before, begin) = (world.mparticle.counts().batches, Instant::now());
    std::thread::sleep(window);
    let counts = world.mparticle.counts();
    let allowed = begin.elapsed().as_secs_f64() * f64::from(LIMIT);
    let refused = counts.statuses.get(&429).copied().unwrap_or(0);
    vec![
        Verdict::new(
            format!(
                "of the allowed batches of one account, 3 daemons, {} s",
                window.as_secs()
            ),
            (counts.batches - before) as f64 / allowed,
            Bound::AtLeast(0.98),
        ),
        Verdict::new("429 replies then", refused as f64, Bound::AtMost(0.0)),
    ]
}
