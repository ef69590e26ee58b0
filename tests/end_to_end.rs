//! The real binary between stand-ins for Looker and mParticle, over real sockets; what arrived is
//! compared in full with what was sent in.

mod support;

use looker_feed::looker::{Execute, Failure, PushStyle, RowOrder, Shape, Source, audit, document};
use looker_feed::model::DataType;
use serde_json::{Value, json};
use support::{Daemon, World, from_url, run};

fn shape(rows: u64, users: u64, data_type: DataType) -> Shape {
    Shape {
        rows,
        users,
        data_type,
        seed: 42,
        ..Shape::default()
    }
}

fn audited(world: &World, shape: &Shape) {
    let batches = world.batches();
    let rows = audit(shape, batches.iter().map(|batch| &batch[..]))
        .unwrap_or_else(|mismatch| panic!("{mismatch}"));
    assert_eq!(rows, shape.rows);
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_once_each_grouped_by_user() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[("MEMORY__GROUP_BUDGET", "1MiB")]);
    let shape = shape(20_000, 3_000, DataType::Event);
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].rows.delivered, 20_000);
    assert_eq!((deliveries[0].users, deliveries[0].batches), (3_000, 3_000));
    audited(&world, &shape);
    let counts = world.mparticle.counts();
    assert_eq!((counts.batches, counts.duplicates), (3_000, 0));
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_arrive_once_a_user_with_their_latest_values() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let shape = shape(5_000, 900, DataType::User);
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::User).await;
    daemon.settled().await;
    audited(&world, &shape);
    assert_eq!(world.mparticle.counts().batches, 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_pushing_rows_delivers_them() {
    use PushStyle::{Base64, EscapedString, InlineJson};
    for style in [EscapedString, InlineJson, Base64] {
        for pretty in [false, true] {
            let world = World::new(None).await;
            let daemon = world.daemon(&[]);
            let shape = Shape {
                pretty,
                order: RowOrder::Sorted,
                ..shape(1_000, 100, DataType::Event)
            };
            let source = Source::Push(style, Box::new(document(&shape)));
            let answer = daemon.execute(Execute::new(source, "key", "secret")).await;
            assert!(answer.is_success(), "{style:?}: {answer:?}");
            daemon.settled().await;
            audited(&world, &shape);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_streams_arrive_row_by_row() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/looker");
    for (file, identity) in [
        ("lite_stream_183_rows.json", "order_items.created_week"),
        ("lite_stream_2995_rows_formatted.json", "users.state"),
        ("json_detail_2017.json", "orders.created_month"),
    ] {
        let Ok(text) = std::fs::read_to_string(format!("{folder}/{file}")) else {
            eprintln!("skipped: no captured stream at {folder}/{file}");
            continue;
        };
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let mut columns = Vec::new();
        for kind in ["dimensions", "measures"] {
            for field in document["fields"][kind].as_array_mut().unwrap() {
                let name = field["name"].as_str().unwrap().to_owned();
                let kind = if name == identity {
                    "customer_id"
                } else {
                    "custom_attribute"
                };
                field["tags"] = json!([format!("mp_{kind}")]);
                columns.push(name);
            }
        }
        let world = World::new(None).await;
        let daemon = world.daemon(&[]);
        let url = world.looker.publish_bytes(document.to_string());
        daemon.accepts(url, DataType::Event).await;
        daemon.settled().await;

        let rows = document["data"].as_array().unwrap();
        let mut arrived = vec![None; rows.len()];
        for batch in world.batches() {
            let batch: Value = serde_json::from_slice(&batch).unwrap();
            for event in batch["events"].as_array().unwrap() {
                let id = event["data"]["source_message_id"].as_str().unwrap();
                let row: usize = id.rsplit('-').next().unwrap().parse().unwrap();
                let who = batch["user_identities"]["customer_id"].clone();
                let attributes = event["data"]["custom_attributes"].clone();
                let before = arrived[row].replace((who, attributes));
                assert_eq!(before, None, "row {row} twice");
            }
        }
        for (row, arrived) in rows.iter().zip(arrived) {
            let (who, attributes) = arrived.expect("every row arrives");
            for column in &columns {
                let sent = &row[column]["value"];
                if column == identity {
                    assert_eq!(&who, sent);
                } else if sent.is_null() {
                    assert!(attributes[format!("looker_{column}")].is_null());
                } else {
                    assert_eq!(&attributes[format!("looker_{column}")], sent);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_not_whole_fails_with_a_sentence_and_leaves_nothing() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let shape = shape(2_000, 100, DataType::Event);
    let whole: Vec<u8> = document(&shape).flatten().collect();
    let cut = whole[..whole.len() / 2].to_vec();
    let no_columns = b"{\"fields\": {}, \"data\": []}";
    let cases = [
        (whole.clone(), Some(Failure::CutAfter(300_000)), "row"),
        (cut, None, "row"),
        (b"<html><body>Sign in</body></html>".to_vec(), None, "HTML"),
        (Vec::new(), None, "empty"),
        (no_columns.to_vec(), None, "identity tag"),
        (b"[]".to_vec(), None, "json_detail"),
    ];
    for (document, failure, want) in cases {
        let url = match failure {
            Some(failure) => world.looker.publish_failing(document, failure),
            None => world.looker.publish_bytes(document),
        };
        let answer = daemon.execute(from_url(url, DataType::Event)).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.is_success());
        let message = answer.message().unwrap_or_default();
        assert!(message.contains(want), "{want:?} in {message:?}");
    }
    assert!(daemon.deliveries().await.is_empty());
    assert_eq!(world.mparticle.counts().requests, 0);
    // And a good one goes through as if nothing had been.
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
    daemon.settled().await;
    audited(&world, &shape);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_everything_accepted_arrives_under_the_same_ids() {
    let world = World::new(Some(270)).await;
    let home = tempfile::tempdir().unwrap();
    let shape = shape(3_000, 600, DataType::Event);
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
    let begun = async || (world.mparticle.counts().batches > 0).then_some(());
    daemon.until("sending begins", begun).await;
    daemon.kill();
    let sent = world.mparticle.counts().batches;
    assert!(sent < 600, "killed while it was sending");
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries[0].rows.delivered, 3_000);
    audited(&world, &shape);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_id_that_was_committed_is_answered_and_not_sent_again() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let shape = shape(100, 10, DataType::Event);
    let execute = || {
        let mut execute = from_url(world.looker.publish(shape.clone()), DataType::Event);
        execute.webhook_id = "0123456789abcdef0123456789abcdef".to_owned();
        execute
    };
    assert!(daemon.execute(execute()).await.is_success());
    daemon.settled().await;
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    assert!(daemon.execute(execute()).await.is_success());
    assert_eq!(daemon.settled().await.len(), 1);
    audited(&world, &shape);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_rows_are_counted_and_kept_and_the_others_arrive() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let document = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": [{"u.id": {"value": 1}}, {"u.id": {"value": null}}, {"u.id": {"value": ""}}],
    });
    let url = world.looker.publish_bytes(document.to_string());
    daemon.accepts(url, DataType::Event).await;
    let rows = daemon.settled().await[0].rows;
    assert_eq!((rows.delivered, rows.rejected), (1, 2));

    let nobody = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": [{"u.id": {"value": null}}],
    });
    let url = world.looker.publish_bytes(nobody.to_string());
    let answer = daemon.execute(from_url(url, DataType::Event)).await;
    assert!(!answer.is_success());
    let message = answer.message().unwrap();
    assert!(message.contains("None of the 1 rows"), "{answer:?}");
}

#[test]
fn a_wrong_configuration_is_named_and_nothing_starts() {
    for (settings, want) in [
        (vec![("INTAKE__LISTEN", "nonsense")], "intake.listen"),
        (vec![("INTAKE__LISTNE", "127.0.0.1:1")], "INTAKE__LISTNE"),
        (vec![], "secret"),
        (vec![("ADMIN__LISTEN", "0.0.0.0:0")], "admin.token"),
    ] {
        let (code, out, err) = run(&["serve"], &settings);
        assert_eq!(code, Some(64), "{err}");
        assert!(err.contains(want), "{want:?} in {err:?}");
        assert!(out.is_empty(), "{out:?}");
    }
    let (code, out, _) = run(&["check-config"], &[("INTAKE__SECRET", "s")]);
    assert_eq!(code, Some(0));
    assert!(out.contains("is valid"), "{out:?}");
    let (code, out, _) = run(&["token"], &[("INTAKE__SECRET", "s")]);
    assert_eq!(code, Some(0));
    assert!(out.trim().contains('/'), "{out:?}");
    assert_eq!(run(&["no-such-command"], &[]).0, Some(64));
}
