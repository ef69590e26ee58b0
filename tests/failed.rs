//! Deliveries that fail, over the real binary: each is remembered with its reason and its numbers, over
//! a restart and a kill, and shown wherever an operator looks.

mod support;

use looker_feed::control::view::{FailedDelivery, Listing};
use looker_feed::looker::{Execute, Failure, PushStyle, Shape, Source, document};
use looker_feed::model::DataType;
use support::{Daemon, World, from_url, run};

fn shape(rows: u64) -> Shape {
    Shape {
        rows,
        users: rows / 5 + 1,
        seed: 3,
        ..Shape::default()
    }
}

async fn failed(daemon: &Daemon) -> Vec<FailedDelivery> {
    let listing: Listing<FailedDelivery> = daemon.get("/api/v1/failed-deliveries?limit=500").await;
    listing.items
}

/// Waits until the daemon counts so many deliveries that are being received.
async fn receiving(daemon: &Daemon, count: usize, rows: u64) {
    let begun = async || {
        let receiving = daemon.overview().await.receiving.into_iter();
        (receiving.filter(|one| one.rows >= rows).count() >= count).then_some(())
    };
    daemon.until("they are received", begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_remembered_with_its_reason_and_its_numbers() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let looker = &world.looker;
    let long: Vec<u8> = document(&shape(2_000)).flatten().collect();
    let half = long.len() as u64 / 2;
    let untagged = br#"{"fields": {"dimensions": [{"name": "a.b", "tags": []}]}, "data": [{"a.b": {"value": 1}}]}"#;
    let query = br#"{"errors": [{"message": "The database is gone"}], "fields": {}, "data": []}"#;
    let failing = |failure| looker.publish_failing(long.clone(), failure);
    let elsewhere = "https://10.0.0.1/downloads/x";
    let cases = [
        ("cut", true, failing(Failure::CutAfter(half))),
        ("cut", true, failing(Failure::EndAfter(half))),
        ("looker", true, failing(Failure::Status(503))),
        ("looker", true, failing(Failure::Html)),
        ("columns", false, looker.publish_bytes(untagged.to_vec())),
        ("query", false, looker.publish_bytes(query.to_vec())),
        ("address", false, elsewhere.parse().unwrap()),
    ];
    let mut messages = Vec::new();
    for (reason, _, url) in &cases {
        let answer = daemon.execute(from_url(url.clone(), DataType::Event)).await;
        assert!(!answer.is_success(), "{reason}");
        messages.push(answer.message().unwrap());
    }
    // One that is whole, in between.
    daemon
        .accepts(looker.publish(shape(50)), DataType::Event)
        .await;

    let listed = failed(&daemon).await;
    let newest_first: Vec<_> = cases.iter().zip(&messages).rev().collect();
    assert_eq!(listed.len(), cases.len());
    for (one, ((reason, passing, _), message)) in listed.iter().zip(newest_first) {
        assert_eq!((&*one.reason, one.passing), (*reason, *passing), "{one:?}");
        // What Looker was told, perhaps cut.
        assert!(message.starts_with(&one.message), "{one:?}");
        assert_eq!(one.title, "Large delivery");
        assert_eq!(one.schedule.as_deref(), Some("7"));
        let link = "https://looker.example.com/looks/7";
        assert_eq!(one.link.as_deref(), Some(link));
        assert!(one.ended >= one.received && one.received.0 > 0);
    }
    // By where they were to go, part by part; the one that came in goes there too.
    let destination = daemon.deliveries().await.remove(0).destination;
    let (mut there, mut after) = (Vec::new(), String::new());
    loop {
        let path =
            format!("/api/v1/failed-deliveries?destination={destination}&limit=2&from=1{after}");
        let part: Listing<FailedDelivery> = daemon.get(&path).await;
        there.extend(part.items);
        let Some(next) = part.next else { break };
        after = format!("&after={next}");
    }
    let known = listed
        .iter()
        .filter(|one| one.destination.as_ref() == Some(&destination));
    assert_eq!(there, known.cloned().collect::<Vec<_>>());
    assert!(there.len() >= 4, "{there:?}");
    let first = listed[6].received.0;
    let later = listed.iter().filter(|one| one.received.0 > first).count();
    for (query, wanted) in [
        (format!("from={}", first + 1), later),
        (format!("until={}", first + 1), 7 - later),
        (format!("until={first}"), 0),
        ("schedule=Large%20delivery".to_owned(), 7),
        ("schedule=Large".to_owned(), 0),
        ("search=LARGE".to_owned(), 7),
        (format!("search={}", listed[3].id), 1),
    ] {
        let path = format!("/api/v1/failed-deliveries?{query}");
        let part: Listing<FailedDelivery> = daemon.get(&path).await;
        assert_eq!(part.items.len(), wanted, "{query}");
    }
    let cut = &listed[cases.len() - 1];
    assert!((101..2_000).contains(&cut.rows) && cut.bytes > 0, "{cut:?}");
    let overview = daemon.overview().await;
    assert_eq!(overview.totals.failed["cut"], 2);
    assert_eq!(overview.totals.failed["busy"], 0);
    assert_eq!(overview.totals.deliveries_refused, 7);
    assert_eq!(overview.failures.on_record, 7);
    let (_, metrics) = daemon.call("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let series = "looker_feed_failed_deliveries_total{reason=\"looker\"} 2";
    assert!(metrics.contains(series), "{metrics}");

    let admin = daemon.admin.to_string();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", &admin)]);
    let (code, table, _) = ask(&["deliveries", "--failed"]);
    assert_eq!((code, table.lines().count()), (Some(0), 8), "{table}");
    assert!(table.contains("address"), "{table}");
    assert!(table.contains("10.0.0.1"), "{table}");
    let (code, table, _) = ask(&["deliveries"]);
    assert_eq!((code, table.lines().count()), (Some(0), 9), "{table}");
    let id = &cut.id;
    let one: FailedDelivery = daemon.get(&format!("/api/v1/failed-deliveries/{id}")).await;
    assert_eq!(&one, cut);
    let none = format!("/api/v1/failed-deliveries/{}", "0".repeat(32));
    assert_eq!(daemon.call("GET", &none, "").await.0, 404);

    // Over a restart nothing of it is lost, and the counters start over.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    assert_eq!(failed(&daemon).await, listed);
    assert_eq!(daemon.overview().await.totals.deliveries_refused, 0);
    // Nothing of people stands in the clear.
    let state = home.path().join("outbox/state/db");
    let bytes = std::fs::read(state).unwrap();
    assert!(!bytes.windows(14).any(|part| part == b"/looks/7\",\"ins"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_received_when_the_daemon_was_killed_is_found_at_its_start() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let whole = world.looker.publish(shape(100));
    daemon.accepts(whole, DataType::Event).await;
    let document: Vec<u8> = document(&shape(2_000)).flatten().collect();
    let half = document.len() as u64 / 2;
    let stalled = Failure::StallAfter(half);
    let stalled = world.looker.publish_failing(document.clone(), stalled);
    let one = from_url(stalled, DataType::Event);
    // Pushed rows come before the form: they are spooled, and nothing is known but the schedule.
    let parts = document.chunks(1 << 10).map(bytes::Bytes::copy_from_slice);
    let parts: Vec<_> = parts.collect();
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let held = parts.into_iter().enumerate().map(move |(at, part)| {
        if at == 20 {
            // Until the test ends. A thread of the runtime that just waited could be the one that looks
            // after its sockets.
            let _ = tokio::task::block_in_place(|| open.recv());
        }
        part
    });
    let push = Source::Push(PushStyle::EscapedString, Box::new(held));
    let pushed = Execute::new(push, "key-of-the-account", "secret-of-it");
    let calls = [one, pushed].map(|execute| {
        let (hub, token) = (daemon.hub.clone(), support::token());
        tokio::spawn(async move { looker_feed::looker::execute(&hub, &token, execute).await })
    });
    receiving(&daemon, 2, 0).await;
    receiving(&daemon, 1, 1).await;
    assert!(failed(&daemon).await.is_empty());
    daemon.kill();
    drop(gate);
    for call in calls {
        call.abort();
    }

    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let listed = failed(&daemon).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    for one in &listed {
        assert_eq!((&*one.reason, one.passing), ("interrupted", true));
        assert!(one.message.contains("ended (a crash"), "{one:?}");
        assert_eq!(one.title, "Large delivery");
    }
    assert_eq!(daemon.settled().await.len(), 1, "the one that was accepted");
    assert_eq!(daemon.overview().await.totals.failed["interrupted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_named_with_its_numbers_and_what_to_do_wherever_one_looks() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let settings = [("OUTBOX__RESERVE_BYTES", "900TiB")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let url = world.looker.publish(shape(10));
    let answer = daemon.execute(from_url(url, DataType::Event)).await;
    let told = answer.message().unwrap();
    let parts = [
        "989560.5 GB are to stay free",
        "(outbox.reserve_bytes): make room on it; what was accepted is safe",
    ];
    let failed = failed(&daemon).await;
    let (status, ready) = daemon.call("GET", "/readyz", "").await;
    assert_eq!(status, 503);
    let ready = String::from_utf8(ready.to_vec()).unwrap();
    let admin = daemon.admin.to_string();
    let (_, status, _) = run(&["status"], &[("ADMIN_URL", &admin)]);
    let log = daemon.log();
    for part in parts {
        for place in [&told, &failed[0].message, &ready, &status, &log] {
            assert!(place.contains(part), "{part}: {place}");
        }
    }
    assert!(status.contains("New deliveries are not taken"), "{status}");
    let line = log.lines().find(|line| line.contains("delivery refused"));
    assert!(
        line.is_some_and(|line| line.contains("kind=\"disk\"")),
        "{log}"
    );
}
