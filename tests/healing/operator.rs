//! What an operator sees of deliveries that failed, and how they take them off the list.

use looker_feed::control::view::Level;
use looker_feed::looker::{ApiFault, Schedule};

use crate::scene::{all_arrive, calls, cut, failed, paused, shape, stands, start};
use crate::support::{Daemon, World, run, token};

/// Level and kinds of the roll-up.
async fn health(daemon: &Daemon) -> (Level, Vec<&'static str>) {
    let health = daemon.overview().await.health;
    let kinds = health.issues.iter().map(|issue| issue.kind.name());
    (health.level, kinds.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_trouble_until_somebody_or_something_mends_it() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let schedules = world.api.schedules();
    let daily = shape(80, 400);
    let id = schedules.add(cut("Daily", daily.clone(), 2));
    // Without a key nobody asks.
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    schedules.point_at(&daemon.hub, &token());
    assert!(!schedules.run(id).await);
    let trouble = (Level::Attention, vec!["deliveries_failed"]);
    assert_eq!(health(&daemon).await, trouble);
    let (_, probe) = daemon.call("GET", "/readyz", "").await;
    let probe = String::from_utf8_lossy(&probe);
    assert!(probe.contains("attention: deliveries_failed"), "{probe}");
    let admin = daemon.admin.to_string();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", &admin)]);
    let (_, out, _) = ask(&["status"]);
    assert!(out.contains("1 delivery failed of late."), "{out}");
    // A person says that it is settled.
    let id_of_it = failed(&daemon).await[0].id.clone();
    let (code, out, err) = ask(&["ask-again", &id_of_it]);
    assert_ne!(code, Some(0), "{out}");
    assert!(err.contains("[looker.api]"), "{err}");
    let (code, out, err) = ask(&["ask-again", "--stop", &id_of_it[..16]]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("dismissed"), "{out}");
    assert_eq!(health(&daemon).await, (Level::Ok, vec![]));
    // The next one is mended by a later success.
    assert!(!schedules.run(id).await);
    assert_eq!(health(&daemon).await, trouble);
    assert!(schedules.run(id).await);
    daemon.settled().await;
    assert_eq!(health(&daemon).await, (Level::Ok, vec![]));
    // It is so after a restart; and what is asked for is no trouble, but told.
    assert!(daemon.terminate().success());
    let daemon = start(&world, home.path(), &paused("60s"));
    assert_eq!(health(&daemon).await, (Level::Ok, vec![]));
    let id = schedules.add(cut("Other", shape(81, 400), 1));
    assert!(!schedules.run(id).await);
    stands(&daemon, "Other", "waiting").await;
    let waits = (Level::Waiting, vec!["deliveries_failed"]);
    assert_eq!(health(&daemon).await, waits);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_lookers_api_gives_pages_of_html_it_is_said_once_and_asked_when_it_answers() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let (api, schedules) = (&world.api, world.api.schedules());
    api.fail_all(Some(ApiFault::Html));
    let nightly = shape(82, 400);
    let id = schedules.add(cut("Nightly", nightly.clone(), 1));
    assert!(!schedules.run(id).await);
    let told = async || {
        let one = stands(&daemon, "Nightly", "waiting").await;
        let why = one.again.and_then(|again| again.why);
        why.filter(|why| why.contains("did not answer as Looker's API does"))
    };
    daemon.until("it is told", told).await;
    let (level, kinds) = health(&daemon).await;
    assert_eq!(level, Level::Waiting);
    assert_eq!(kinds, ["deliveries_failed", "looker_api"]);
    assert_eq!(schedules.copies(id), 0);
    api.fail_all(None);
    stands(&daemon, "Nightly", "done").await;
    all_arrive(&world, &daemon, &[nightly]).await;
    assert_eq!(schedules.copies(id), 1);
    let log = daemon.log();
    let said = log.matches("Looker cannot be asked again now").count();
    assert_eq!(said, 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_broke_off_at_once_are_asked_for_one_by_one_and_all_arrive() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let few = [("LOOKER__MAX_DELIVERIES", "3")];
    let daemon = start(&world, home.path(), &few);
    let schedules = world.api.schedules();
    let shapes: Vec<_> = (200..216).map(|seed| shape(seed, 200)).collect();
    let mut ids = Vec::new();
    let mut runs = tokio::task::JoinSet::new();
    for shape in &shapes {
        let title = format!("Job {}", shape.seed);
        let id = schedules.add(Schedule {
            look: shape.seed,
            ..cut(&title, shape.clone(), 1)
        });
        ids.push(id);
        let schedules = schedules.clone();
        runs.spawn(async move { schedules.run(id).await });
    }
    while let Some(ran) = runs.join_next().await {
        assert!(!ran.expect("no panic"));
    }
    all_arrive(&world, &daemon, &shapes).await;
    for id in ids {
        assert_eq!(schedules.copies(id), 1);
    }
    // Looker's limit was never met, and one login was enough.
    assert_eq!(calls(&world, "run_once"), shapes.len());
    assert_eq!(calls(&world, "login"), 1);
}
