//! Between the stand-ins with an API key: what the tests of healing share.

use std::path::Path;
use std::time::Duration;

use looker_feed::control::view::{FailedDelivery, Listing};
use looker_feed::looker::{Failure, Schedule, Shape, audit, document};
use tokio::time::{Instant, sleep};

use crate::support::{Daemon, PATIENCE, World, token};

pub fn shape(seed: u64, rows: u64) -> Shape {
    Shape {
        rows,
        users: rows / 4 + 1,
        seed,
        ..Shape::default()
    }
}

/// How many bytes the document of a shape has, halved.
pub fn half(shape: &Shape) -> u64 {
    let bytes: usize = document(shape).map(|chunk| chunk.len()).sum();
    bytes as u64 / 2
}

/// A schedule whose next runs are cut half-way.
pub fn cut(title: &str, shape: Shape, times: usize) -> Schedule {
    let failure = Failure::CutAfter(half(&shape));
    let mut schedule = Schedule::new(title, shape, 7);
    schedule.failures = std::iter::repeat_n(Some(failure), times).collect();
    schedule
}

/// The daemon with an API key; `more` comes on top.
pub fn start(world: &World, home: &Path, more: &[(&str, &str)]) -> Daemon {
    let url = world.looker.base().to_string();
    let mut settings = vec![
        ("LOOKER__API__URL", url.as_str()),
        ("LOOKER__API__CLIENT_ID", "client-of-the-feed"),
        ("LOOKER__API__CLIENT_SECRET", "secret-of-the-client"),
        ("LOOKER__API__HUB_ID", "3"),
        ("LOOKER__API__PAUSE", "200ms"),
        ("LOOKER__API__PAUSE_MAX", "1s"),
        ("LOOKER__API__ARRIVAL", "4s"),
        ("LOOKER__API__MISSED_EVERY", "2s"),
    ];
    settings.extend_from_slice(more);
    let daemon = Daemon::start(home, &world.endpoint, &settings);
    world.api.put_hub(3, "https://feed.example.com");
    world.api.schedules().point_at(&daemon.hub, &token());
    daemon
}

/// Settings by which Looker is asked after this pause.
pub fn paused(pause: &str) -> [(&str, &str); 2] {
    ["LOOKER__API__PAUSE", "LOOKER__API__PAUSE_MAX"].map(|key| (key, pause))
}

/// Waits until the daemon has looked twice for what it missed.
pub async fn looks_again(world: &World, daemon: &Daemon) {
    let seen = calls(world, "queries/run");
    let again = async || (calls(world, "queries/run") >= seen + 2).then_some(());
    daemon.until("it looks again", again).await;
}

pub async fn failed(daemon: &Daemon) -> Vec<FailedDelivery> {
    let listing: Listing<FailedDelivery> = daemon.get("/api/v1/failed-deliveries?limit=500").await;
    listing.items
}

/// Waits until what is done about the newest failed delivery of a title stands so.
pub async fn stands(daemon: &Daemon, title: &str, state: &str) -> FailedDelivery {
    found(daemon, &format!("{title} is {state}"), |one| {
        one.title == title && one.repeat_of.is_none() && state_of(one) == Some(state)
    })
    .await
}

/// What is done about a failed delivery.
pub fn state_of(one: &FailedDelivery) -> Option<&str> {
    one.again.as_ref().map(|again| &*again.state)
}

/// Waits for a failed delivery that is so; of several, the newest.
pub async fn found(
    daemon: &Daemon,
    wanted: &str,
    is_so: impl Fn(&FailedDelivery) -> bool,
) -> FailedDelivery {
    let look = async || failed(daemon).await.into_iter().find(&is_so);
    daemon.until(wanted, look).await
}

/// Whether a delivery is coming in, with so many rows by now.
pub async fn receives(daemon: &Daemon, title: &str, rows: u64) -> bool {
    let receiving = daemon.overview().await.receiving;
    receiving
        .iter()
        .any(|one| one.title == title && one.rows >= rows)
}

/// That all rows of a shape arrived once, among those of others.
pub fn arrived(world: &World, shape: &Shape) -> Result<u64, String> {
    let mark = shape.row(0).customer_id[..5].to_owned();
    let batches = world.batches();
    let own = batches.iter().filter(|batch| {
        let batch: serde_json::Value = serde_json::from_slice(batch).expect("a batch is JSON");
        let id = batch["user_identities"]["customer_id"].as_str();
        id.is_some_and(|id| id.starts_with(&mark))
    });
    audit(shape, own.map(|batch| &batch[..])).map_err(|mismatch| mismatch.what)
}

pub async fn all_arrive(world: &World, daemon: &Daemon, shapes: &[Shape]) {
    let deadline = Instant::now() + PATIENCE;
    for shape in shapes {
        loop {
            match arrived(world, shape) {
                Ok(rows) => break assert_eq!(rows, shape.rows),
                Err(what) if Instant::now() > deadline => {
                    panic!("seed {}: {what}\n{}", shape.seed, daemon.log())
                }
                // A row that came twice stays doubled, and fails in the end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

pub fn calls(world: &World, part: &str) -> usize {
    let calls = world.api.calls();
    calls.iter().filter(|call| call.contains(part)).count()
}
