//! Several daemons on one outbox, each with an API key: only one of them asks.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use looker_feed::control::view::Overview;
use looker_feed::looker::{Failure, Schedule};
use tokio::time::{sleep, timeout};

use crate::scene::{all_arrive, calls, shape, stands, start};
use crate::server::{Isolation, database};
use crate::support::{Daemon, PATIENCE, World, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_killed_daemon_was_receiving_is_asked_for_once_by_one_of_the_others() {
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
        ("OUTBOX__LEASE", "2s"),
        ("OUTBOX__ALLOW_UNREPLICATED", "true"),
        ("SEAL__KEY_FILE", &key),
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
    receives(&first, "Nightly").await;
    schedules.point_at(&second.hub, &token());
    first.kill();
    assert!(!run.await.unwrap(), "its daemon was killed");

    all_arrive(&world, &second, std::slice::from_ref(&nightly)).await;
    let healed = stands(&second, "Nightly", "done").await;
    assert_eq!(healed.reason, "interrupted");
    assert_eq!(stands(&third, "Nightly", "done").await.id, healed.id);

    // Whoever starts now has nothing to ask for.
    assert!(third.terminate().success());
    let third = on(&home.path().join("again"));
    assert_eq!(stands(&third, "Nightly", "done").await.id, healed.id);
    assert_eq!(schedules.copies(id), 1);
    assert_eq!(calls(&world, "run_once"), 1);
}

/// Waits until some rows have come.
async fn receives(daemon: &Daemon, title: &str) {
    let wait = async {
        loop {
            let overview: Overview = daemon.get("/api/v1/overview").await;
            let mut all = overview.receiving.iter();
            if all.any(|one| one.title == title && one.rows >= 100) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("nothing comes in\n{}", daemon.log());
    }
}
