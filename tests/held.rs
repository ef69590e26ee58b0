//! A delivery of an unusual size waits for a person, over the real binary.

#[path = "postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
#[path = "support/shared.rs"]
mod shared;
mod support;

use looker_feed::control::view::{Delivery, Level, Standing};
use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use shared::Shared;
use support::{Daemon, World, run};

async fn send(world: &World, daemon: &Daemon, rows: u64, seed: u64) {
    let shape = Shape {
        rows,
        users: rows / 5 + 1,
        seed,
        ..Shape::default()
    };
    let url = world.looker.publish(shape);
    daemon.accepts(url, DataType::Event).await;
}

/// The one that is held.
async fn held(daemon: &Daemon) -> Option<Delivery> {
    let mut all = daemon.deliveries().await.into_iter();
    all.find(|one| one.held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_an_unusual_size_is_held_until_a_person_releases_it() {
    is_held_until_released(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_held_on_a_shared_outbox_too() {
    if let Some(shared) = Shared::new() {
        is_held_until_released(&shared.settings()).await;
    }
}

async fn is_held_until_released(backend: &[(&str, &str)]) {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let settings = [backend, &[("HOLD__UNUSUAL_PERCENT", "50")]].concat();
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    for seed in 1..=4 {
        // Nothing is usual yet, however they differ.
        send(&world, &daemon, 100 * seed, seed).await;
    }
    // 100, 200, 300, 400: the middle is 300.
    send(&world, &daemon, 450, 5).await;
    assert!(held(&daemon).await.is_none());
    daemon.settled().await;
    let before = world.batches().len();
    send(&world, &daemon, 2_000, 6).await;
    let one = held(&daemon).await.expect("it is held");
    assert_eq!((one.rows.waiting, one.standing), (2_000, Standing::Held));
    let words = "Held: 2000 rows, where 150 to 450";
    assert!(one.notes[0].starts_with(words), "{:?}", one.notes);
    // The next one goes on.
    send(&world, &daemon, 310, 7).await;
    let sent = async || {
        let all = daemon.deliveries().await;
        all.into_iter()
            .find(|one| one.rows_in == 310 && one.rows.delivered == 310)
    };
    daemon.until("it is sent", sent).await;
    let between = world.batches().len();
    assert!(between > before);
    let health = daemon.overview().await.health;
    assert_eq!(health.level, Level::Attention);
    assert_eq!(health.issues[0].title, "1 delivery is held.");
    assert!(daemon.terminate().success());

    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    assert_eq!(held(&daemon).await.map(|one| one.id), Some(one.id.clone()));
    let (_, metrics) = daemon.call("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let series = "looker_feed_held_deliveries 1";
    assert!(metrics.contains(series), "{metrics}");
    assert_eq!(world.batches().len(), between);
    let admin = daemon.admin.to_string();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", &admin)]);
    let (code, said, error) = ask(&["status"]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("1 delivery is held."), "{said}");
    let (code, said, error) = ask(&["release", &one.id]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.starts_with("Released"), "{said}");
    assert_eq!(ask(&["release", &one.id]).0, Some(3));
    let settled = daemon.settled().await;
    let one = settled.iter().find(|other| other.id == one.id).unwrap();
    assert_eq!((one.rows.delivered, one.held), (2_000, false));
    assert!(world.batches().len() > between);
}
