//! The real daemon on a shared outbox: several of them, between the stand-ins for Looker and mParticle.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use looker_feed::control::view::{Done, Overview};
use looker_feed::looker::{Shape, audit};

use crate::server::{Database, Isolation, database, empty_database};
use crate::support::{Daemon, World, from_url, run};

fn shape(rows: u64, seed: u64) -> Shape {
    Shape {
        rows,
        users: rows / 5,
        seed,
        ..Shape::default()
    }
}

/// A directory of a daemon, with the key that all share.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    std::fs::write(&key, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    home
}

fn settings(database: &Database, home: &Path) -> Vec<(String, String)> {
    let text = |path: &str| home.join(path).display().to_string();
    [
        ("INTAKE__SECRET", crate::support::SECRET.to_owned()),
        ("OUTBOX__BACKEND", "postgres".to_owned()),
        ("OUTBOX__URL", database.url()),
        ("OUTBOX__PATH", text("outbox")),
        ("OUTBOX__LEASE", "3s".to_owned()),
        ("OUTBOX__ALLOW_UNREPLICATED", "true".to_owned()),
        ("SEAL__KEY_FILE", text("key")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn start(database: &Database, home: &Path, world: &World, more: &[(&str, &str)]) -> Daemon {
    let settings = settings(database, home);
    let mut all: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    all.extend(more);
    Daemon::start(home, &world.endpoint, &all)
}

async fn deliver(daemon: &Daemon, world: &World, shape: &Shape) {
    let url = world.looker.publish(shape.clone());
    let answer = daemon.execute(from_url(url, shape.data_type)).await;
    assert!(
        answer.is_success(),
        "{:?}\n{}",
        answer.message(),
        daemon.log()
    );
}

/// All that was accepted, each batch once, is all that was delivered.
fn check_ledger(world: &World, shapes: &[Shape]) {
    let ledger = world.mparticle.ledger();
    assert_eq!(world.mparticle.counts().conflicts, 0);
    let delivery = |id: &Option<String>| id.as_deref().unwrap_or_default()[..32].to_owned();
    let order: Vec<String> = ledger
        .iter()
        .map(|accepted| delivery(&accepted.id))
        .collect();
    assert!(order.is_sorted(), "deliveries overtook each other");
    let parts: Vec<_> = ledger
        .chunk_by(|a, b| delivery(&a.id) == delivery(&b.id))
        .collect();
    assert_eq!(parts.len(), shapes.len());
    for (shape, part) in shapes.iter().zip(parts) {
        let rows = audit(shape, part.iter().map(|accepted| &accepted.batch[..]))
            .unwrap_or_else(|mismatch| panic!("{mismatch}"));
        assert_eq!(rows, shape.rows);
    }
}

async fn until(daemon: &Daemon, what: &str, so: impl Fn(&Overview) -> bool) {
    let wait = async {
        loop {
            let overview: Overview = daemon.get("/api/v1/overview").await;
            if so(&overview) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(crate::support::PATIENCE, wait).await;
    assert!(waited.is_ok(), "{what}\n{}", daemon.log());
}

fn sent(overview: &Overview) -> u64 {
    overview
        .destinations
        .iter()
        .map(|one| one.batches_accepted)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_or_stopped_leaves_its_destination_to_the_next() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    // Slow enough that there is time to end a daemon in the middle.
    let world = World::new(None).await;
    let slow = [("MPARTICLE__BATCHES_PER_SECOND", "300")];
    let homes = [home(), home(), home()];
    let [one, two, three] = homes
        .each_ref()
        .map(|home| start(&database, home.path(), &world, &slow));
    let shapes = [shape(4_000, 1), shape(3_000, 2), shape(2_000, 3)];
    deliver(&one, &world, &shapes[0]).await;
    until(&one, "the first daemon sends", |overview| {
        sent(overview) > 100
    })
    .await;
    deliver(&two, &world, &shapes[1]).await;
    // Every daemon answers for the whole outbox.
    assert_eq!(two.deliveries().await.len(), 2);
    one.kill();
    let sends = |overview: &Overview| sent(overview) > 0;
    let (first, second) = (until(&two, "", sends), until(&three, "", sends));
    let two_sends = tokio::select! {
        () = first => true,
        () = second => false,
    };
    let (sending, other) = match two_sends {
        true => (two, three),
        false => (three, two),
    };
    // What a person asks of one daemon is done by the one that sends.
    let overview: Overview = other.get("/api/v1/overview").await;
    let id = overview.destinations[0].id.clone();
    let (status, body) = other
        .call("POST", &format!("/api/v1/destinations/{id}/pause"), "")
        .await;
    assert_eq!(status, 200);
    let done: Done = serde_json::from_slice(&body).unwrap();
    assert!(!done.message.contains("could not"), "{}", done.message);
    until(&sending, "it is paused where it is sent", |overview| {
        overview
            .destinations
            .iter()
            .any(|one| one.state == "paused")
    })
    .await;
    deliver(&sending, &world, &shapes[2]).await;
    let (status, _) = other
        .call("POST", &format!("/api/v1/destinations/{id}/resume"), "")
        .await;
    assert_eq!(status, 200);
    until(&sending, "it goes on", |overview| {
        overview
            .destinations
            .iter()
            .all(|one| one.state != "paused")
    })
    .await;
    // Told to stop, it gives the destination back.
    assert!(sending.terminate().success());
    let settled = other.settled().await;
    assert_eq!(settled.len(), 3);
    check_ledger(&world, &shapes);
    assert!(other.terminate().success());
    assert_eq!(
        database.psql("SELECT count(*) FROM looker_feed.daemon"),
        "1",
        "only the one that was killed has not taken its leave"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fails_is_on_record_at_every_daemon() {
    let Some(database) = database(Isolation::Serializable) else {
        return;
    };
    let world = World::new(None).await;
    let homes = [home(), home()];
    let [one, two] = homes
        .each_ref()
        .map(|home| start(&database, home.path(), &world, &[]));
    let url = world
        .looker
        .publish(shape(10, 2))
        .join("/nothing-there")
        .unwrap();
    let answer = one.execute(from_url(url, shape(10, 2).data_type)).await;
    assert!(!answer.is_success());
    until(&two, "the failure is known", |overview| {
        overview.failures.on_record == 1
    })
    .await;
}

#[test]
fn check_config_says_what_the_database_is() {
    let Some(database) = empty_database(Isolation::Default) else {
        return;
    };
    let home = home();
    let check = |more: &[(&str, &str)]| {
        let settings = settings(&database, home.path());
        let mut all: Vec<(&str, &str)> = settings
            .iter()
            .filter(|(name, _)| !more.iter().any(|(other, _)| name == other))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.extend(more);
        run(&["check-config", "--online"], &all)
    };
    let (code, out, err) = check(&[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("PostgreSQL"), "{out}");
    assert!(out.contains("no synchronous standby"), "{out}");
    assert!(out.contains("`serve` makes them"), "{out}");
    assert_eq!(
        database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'looker_feed'"),
        "0",
        "nothing was made"
    );
    let (code, _, err) = check(&[("OUTBOX__ALLOW_UNREPLICATED", "false")]);
    assert_eq!(code, Some(1));
    assert!(err.contains("outbox.allow_unreplicated = true"), "{err}");
    let gone = database.url().replace("test_", "gone_");
    let (code, _, err) = check(&[("OUTBOX__URL", &gone)]);
    assert_eq!(code, Some(1));
    assert!(err.contains("make the database"), "{err}");
    let (code, _, err) = check(&[("OUTBOX__URL", "mysql://user:word@host/feed")]);
    assert_eq!(code, Some(64));
    assert!(err.contains("outbox.url") && !err.contains("word"), "{err}");
    std::fs::remove_file(home.path().join("key")).unwrap();
    let (code, _, err) = check(&[]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("all daemons on one database need the same key"),
        "{err}"
    );
}
