//! Several daemons on one outbox, each with an API key: only one of them asks.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::scene::{all_arrive, calls, found, receives, shape, start, state_of};
use crate::server::{Isolation, database};
use crate::support::{Daemon, World, token};
use looker_feed::control::view::FailedDelivery;
use looker_feed::looker::{Failure, Schedule};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_killed_daemon_was_receiving_is_asked_for_once_by_one_of_the_others() {
    one_asks("0s", "interrupted").await;
}

/// Looker says that the run failed before the others know what became of the daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_looker_says_first_is_asked_for_once_too() {
    one_asks("24h", "missed").await;
}

async fn one_asks(missed_back: &str, reason: &str) {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    std::fs::write(&key, "07".repeat(32)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let (key, url) = (key.display().to_string(), database.url());
    let settings = [
        ("OUTBOX__BACKEND", "postgres"),
        ("OUTBOX__URL", &url),
        ("OUTBOX__LEASE", "3s"),
        ("OUTBOX__ALLOW_UNREPLICATED", "true"),
        ("SEAL__KEY_FILE", &key),
        ("LOOKER__API__MISSED_BACK", missed_back),
    ];
    let on = |directory: &Path| {
        std::fs::create_dir(directory).unwrap();
        start(&world, directory, &settings)
    };
    let [first, second, third] =
        ["first", "second", "third"].map(|name| on(&home.path().join(name)));

    let schedules = world.api.schedules();
    schedules.point_at(&first.hub, &token());
    let nightly = shape(900, 2_000);
    let mut schedule = Schedule::new("Nightly", nightly.clone(), 7);
    schedule.failures = [Some(Failure::Slow {
        bytes: 8 << 10,
        pause: Duration::from_millis(30),
    })]
    .into();
    let id = schedules.add(schedule);
    let run = {
        let schedules = schedules.clone();
        tokio::spawn(async move { schedules.run(id).await })
    };
    let comes = async || receives(&first, "Nightly", 100).await.then_some(());
    first.until("it comes in", comes).await;
    schedules.point_at(&second.hub, &token());
    first.kill();
    assert!(!run.await.unwrap(), "its daemon was killed");

    all_arrive(&world, &second, std::slice::from_ref(&nightly)).await;
    // Where the repeat came in at another daemon than the one that asked, it counts as the schedule's own run.
    let healed = closed(&second, reason).await;
    assert_eq!(closed(&third, reason).await, healed);
    if reason == "missed" {
        closed(&second, "interrupted").await;
    }

    // Whoever starts now has nothing to ask for.
    assert!(third.terminate().success());
    let third = on(&home.path().join("again"));
    assert_eq!(closed(&third, reason).await, healed);
    assert_eq!(schedules.copies(id), 1);
    assert_eq!(calls(&world, "run_once"), 1);
}

/// Waits until nothing more is done about the delivery that failed for this reason; returns its id.
async fn closed(daemon: &Daemon, reason: &str) -> String {
    let over = |one: &FailedDelivery| {
        one.reason == reason && matches!(state_of(one), Some("done" | "called_off"))
    };
    found(daemon, &format!("what is {reason} is over"), over)
        .await
        .id
}
