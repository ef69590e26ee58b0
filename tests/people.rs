//! A person is looked for and erased, over the real binary: by the commands, with what waits, what is dead
//! and what was noted, and over a kill.

#[path = "postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
#[path = "support/shared.rs"]
mod shared;
mod support;

use looker_feed::control::people::Lookup;
use looker_feed::control::view::{Action, Listing};
use looker_feed::looker::{Shape, document};
use looker_feed::model::DataType;
use shared::Shared;
use support::{Daemon, World, from_url, run};

fn shape(seed: u64) -> Shape {
    Shape {
        rows: 400,
        users: 40,
        seed,
        ..Shape::default()
    }
}

/// The daemon's destination, paused.
async fn pause(daemon: &Daemon) -> String {
    let id = daemon.overview().await.destinations.remove(0).id;
    let path = format!("/api/v1/destinations/{id}/pause");
    assert_eq!(daemon.call("POST", &path, "{}").await.0, 200);
    id
}

/// Waits until the newest search or erasure has ended.
async fn ended(daemon: &Daemon) -> Lookup {
    let newest = async || {
        let all: Vec<Lookup> = daemon.get("/api/v1/people/lookups").await;
        all.into_iter().next().filter(|one| one.finished.is_some())
    };
    daemon.until("it ends", newest).await
}

fn speaks_of(batch: &[u8], word: &str) -> bool {
    memchr::memmem::find(batch, word.as_bytes()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_found_and_erased_and_nothing_of_them_is_sent_or_written_down() {
    is_found_and_erased(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_found_and_erased_on_a_shared_outbox_too() {
    if let Some(shared) = Shared::new() {
        is_found_and_erased(&shared.settings()).await;
        let left = "SELECT count(*) FROM looker_feed.erasure";
        assert_eq!(shared.database.psql(left), "0");
    }
}

async fn is_found_and_erased(backend: &[(&str, &str)]) {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, backend);
    let send = async |daemon: &Daemon, seed| {
        let url = world.looker.publish(shape(seed));
        daemon.accepts(url, DataType::Event).await;
    };
    send(&daemon, 1).await;
    daemon.settled().await;
    let destination = pause(&daemon).await;
    send(&daemon, 2).await;
    let row = shape(2).row(7);
    let others = document(&shape(2)).flatten().count();
    assert!(others > 0);
    let admin = daemon.admin.to_string();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", &admin)]);

    let (code, said, error) = ask(&["find", "--email", &row.email.to_uppercase()]);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("Found in one delivery."), "{said}");
    let nobody = ask(&["find", "--customer-id", "nobody-has-this"]);
    assert_eq!(nobody.0, Some(3));
    assert_eq!(ask(&["find"]).0, Some(64));
    let (code, _, error) = ask(&["find", "--identity", "shoe_size=44"]);
    assert!(code == Some(1) && error.contains("shoe_size"), "{error}");
    let found: Vec<Lookup> = daemon.get("/api/v1/people/lookups").await;
    let place = &found[1].places[0];
    assert!(place.waiting > 0 && place.dead == 0, "{place:?}");

    let id = &row.customer_id;
    let whom = ["--customer-id", id, "--reference", "request 17"];
    let (code, _, error) = ask(&[&["erase"], &whom[..]].concat());
    assert!(code == Some(1) && error.contains("--yes"), "{error}");
    let erase = [&["erase", "--yes"], &whom[..]].concat();
    let (code, said, error) = ask(&erase);
    assert_eq!(code, Some(0), "{said}{error}");
    let words = format!("Erased: {} rows that waited", place.waiting);
    assert!(said.contains(&words), "{said}");
    assert_eq!(ask(&["find", "--email", &row.email]).0, Some(3));
    let deliveries = daemon.deliveries().await;
    let waits = deliveries.iter().find(|one| one.rows.waiting > 0).unwrap();
    assert_eq!(waits.rows.erased, place.waiting);
    assert_eq!(waits.rows.total(), waits.rows_in);

    // What is left is sent, and nothing of theirs.
    let before = world.batches().len();
    let path = format!("/api/v1/destinations/{destination}/resume");
    assert_eq!(daemon.call("POST", &path, "{}").await.0, 200);
    let settled = daemon.settled().await;
    assert!(settled.iter().all(|one| one.rows.total() == one.rows_in));
    let sent = world.batches();
    assert!(sent.len() > before);
    let second = &sent[before..];
    assert!(second.iter().all(|batch| !speaks_of(batch, &row.email)));

    // On record, without the person.
    let audit: Listing<Action> = daemon.get("/api/v1/audit?limit=50").await;
    let mut actions = audit.items.iter();
    let over = actions.find(|one| one.call.starts_with("erasure "));
    let over = over.expect("the end of the erasure is on record");
    assert!(over.said.contains("request 17"), "{over:?}");
    assert!(daemon.terminate().success());
    for file in ["outbox.audit", "log"] {
        let text = std::fs::read_to_string(home.path().join(file)).unwrap();
        assert!(!text.contains(&row.email), "{file}");
        assert!(!text.contains(&row.customer_id), "{file}");
    }
    assert!(!home.path().join("outbox/erasing").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_after_a_kill() {
    goes_on_after_a_kill(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_at_another_daemon_after_a_kill() {
    if let Some(shared) = Shared::new() {
        goes_on_after_a_kill(Some(&shared)).await;
    }
}

async fn goes_on_after_a_kill(shared: Option<&Shared>) {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let backend = shared.map_or(Vec::new(), Shared::settings);
    let daemon = Daemon::start(home.path(), &world.endpoint, &backend);
    let url = world.looker.publish(shape(1));
    daemon.accepts(url, DataType::Event).await;
    daemon.settled().await;
    pause(&daemon).await;
    // One that is being received keeps an erasure waiting for it.
    let document: Vec<u8> = document(&shape(3)).flatten().collect();
    let half = document.len() as u64 / 2;
    let stalled = looker_feed::looker::Failure::StallAfter(half);
    let url = world.looker.publish_failing(document, stalled);
    let (hub, token) = (daemon.hub.clone(), support::token());
    let call = tokio::spawn(async move {
        let execute = from_url(url, DataType::Event);
        looker_feed::looker::execute(&hub, &token, execute).await
    });
    let received = async || daemon.overview().await.receiving.pop();
    daemon.until("it is received", received).await;
    let url = world.looker.publish(shape(2));
    daemon.accepts(url, DataType::Event).await;
    let row = shape(2).row(7);
    let body = serde_json::json!({ "identities": { "email": row.email } }).to_string();
    let (status, _) = daemon.call("POST", "/api/v1/people/erase", &body).await;
    assert_eq!(status, 200);
    let (status, said) = daemon.call("POST", "/api/v1/people/erase", &body).await;
    assert_eq!(status, 409, "{said:?}");
    let daemon = match shared {
        None => {
            daemon.kill();
            call.abort();
            assert!(home.path().join("outbox/erasing").exists());
            let note = std::fs::read(home.path().join("outbox/erasing")).unwrap();
            assert!(!speaks_of(&note, &row.email));
            Daemon::start(home.path(), &world.endpoint, &[])
        }
        // Another one is there before that.
        Some(shared) => {
            let other = home.path().join("other");
            std::fs::create_dir(&other).unwrap();
            let other = Daemon::start(&other, &world.endpoint, &backend);
            let (status, said) = other.call("POST", "/api/v1/people/erase", &body).await;
            assert_eq!(status, 409, "{said:?}");
            daemon.kill();
            call.abort();
            let note = shared.database.psql("SELECT what FROM looker_feed.erasure");
            let clear: String = row
                .email
                .bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert!(note.len() > 40 && !note.contains(&clear), "{note}");
            other
        }
    };
    let over = ended(&daemon).await;
    assert!(over.erases && over.state == "done", "{over:?}");
    assert!(!home.path().join("outbox/erasing").exists());
    let find = daemon.call("POST", "/api/v1/people/find", &body).await;
    assert_eq!(find.0, 200);
    let found = ended(&daemon).await;
    assert_eq!((found.erases, found.places.len()), (false, 0), "{found:?}");
    let deliveries = daemon.deliveries().await;
    assert!(deliveries.iter().any(|one| one.rows.erased > 0));
    assert!(deliveries.iter().all(|one| one.rows.total() == one.rows_in));
}
