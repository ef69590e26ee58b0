//! Old events, through the real binary: they go to mParticle's address for historical events,
//! where the strict stand-in drops in silence what mParticle documents to drop.

mod support;

use looker_feed::clock::UnixMillis;
use looker_feed::sandbox::{Accepted, Fault, Faults, Rule};
use serde_json::{Value, json};
use support::form::{document, execute, form};
use support::{Daemon, World};

const COLUMNS: [(&str, &str); 4] = [
    ("e.user", "mp_customer_id"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("e.note", "mp_custom_attribute"),
    ("u.plan", "mp_user_attribute"),
];

/// A time in milliseconds, so many days ago.
fn days_ago(days: u64) -> Value {
    json!(UnixMillis::now().0 - days * 86_400_000)
}

fn rows() -> Vec<Vec<Value>> {
    let row =
        |user: &str, at, note: &str, plan: &str| vec![json!(user), at, json!(note), json!(plan)];
    vec![
        row("both", days_ago(40), "forty", "old"),
        row("both", days_ago(10), "ten", "new"),
        row("both", Value::Null, "none", "newest"),
        row("only old", days_ago(400), "far", "a"),
        row("only old", days_ago(41), "near", "b"),
        row(
            "future",
            json!(UnixMillis::now().0 + 86_400_000),
            "soon",
            "c",
        ),
    ]
}

/// What arrived: user, whether as historical, the events' notes, and the user attribute.
fn seen(ledger: &[Accepted]) -> Vec<(String, bool, Vec<String>, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut seen: Vec<_> = ledger
        .iter()
        .map(|one| {
            let batch: Value = serde_json::from_slice(&one.batch).expect("a batch is JSON");
            let events = batch["events"].as_array().cloned().unwrap_or_default();
            let notes = events
                .iter()
                .filter_map(|event| text(&event["data"]["custom_attributes"]["looker_e.note"]));
            (
                text(&batch["user_identities"]["customer_id"]).unwrap_or_default(),
                one.historical,
                notes.collect(),
                text(&batch["user_attributes"]["looker_u.plan"]),
            )
        })
        .collect();
    seen.sort();
    seen
}

fn expected() -> Vec<(String, bool, Vec<String>, Option<String>)> {
    let batch = |user: &str, historical, notes: &[&str], plan: Option<&str>| {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        (user.to_owned(), historical, notes, plan.map(str::to_owned))
    };
    vec![
        batch("both", false, &["ten", "none"], Some("newest")),
        batch("both", true, &["forty"], None),
        batch("future", false, &["soon"], Some("c")),
        // The user's attributes are those of today.
        batch("only old", false, &[], Some("b")),
        batch("only old", true, &["far", "near"], None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn events_older_than_thirty_days_go_to_their_own_address_and_nothing_is_dropped_there() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let text = document("UTC", &COLUMNS, &rows()).to_string();
    let (success, message) = execute(&world, &daemon, text, form("event_data", json!({}))).await;
    assert!(success, "{message}\n{}", daemon.log());
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries[0].rows.delivered, 6);
    let notes = deliveries[0].notes.join("\n");
    assert!(notes.contains("3 of 6 events are sent to"), "{notes}");
    assert_eq!(seen(&world.mparticle.ledger()), expected());
    let counts = world.mparticle.counts();
    assert_eq!((counts.dropped_batches, counts.dropped_events), (0, 0));
    assert_eq!(
        (counts.historical_batches, counts.historical_events),
        (2, 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_after_a_crash_and_a_replayed_dead_letter_go_to_the_same_address() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    // Every batch with the note "forty" is refused, and the answers to the rest are lost.
    let refuse = Fault::RejectMarker {
        marker: "forty".to_owned(),
        status: 400,
    };
    let lose = Fault::DropAfter;
    let faults = |faults: Vec<Fault>| Faults {
        rules: faults.into_iter().map(Rule::always).collect(),
        ..Faults::default()
    };
    world
        .mparticle
        .set_faults(faults(vec![refuse.clone(), lose]))
        .unwrap();
    let text = document("UTC", &COLUMNS, &rows()).to_string();
    let (success, message) = execute(&world, &daemon, text, form("event_data", json!({}))).await;
    assert!(success, "{message}");
    let lost = async {
        while world.mparticle.counts().connections_dropped == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, lost).await.unwrap();
    daemon.kill();
    world.mparticle.set_faults(faults(vec![refuse])).unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries[0].rows.dead, 1);
    world.faults([]);
    let (status, body) = daemon
        .call("POST", "/api/v1/dead-letters/replay", r#"{"all": true}"#)
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let deliveries = daemon.settled().await;
    assert_eq!(
        (deliveries[0].rows.delivered, deliveries[0].rows.dead),
        (6, 0)
    );
    assert_eq!(seen(&world.mparticle.ledger()), expected());
    let counts = world.mparticle.counts();
    assert_eq!((counts.dropped_events, counts.conflicts), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_dropped_is_rejected_when_all_events_are_to_be_historical() {
    let world = World::new(None).await;
    let settings = [("MPARTICLE__HISTORICAL_EVENTS", "always")];
    let daemon = world.daemon(&settings);
    let mut rows = rows();
    rows.push(vec![json!("young"), days_ago(2), json!("two"), json!("d")]);
    rows.push(vec![json!("four"), days_ago(4), json!("four"), json!("e")]);
    let text = document("UTC", &COLUMNS, &rows).to_string();
    let events = || form("event_data", json!({}));
    let (success, message) = execute(&world, &daemon, text.clone(), events()).await;
    assert!(success, "{message}");
    let deliveries = daemon.settled().await;
    assert_eq!(
        (deliveries[0].rows.delivered, deliveries[0].rows.rejected),
        (5, 3)
    );
    let rejected: Value = daemon
        .get(&format!("/api/v1/deliveries/{}/rejected", deliveries[0].id))
        .await;
    let rejected = rejected.to_string();
    for reason in ["no time", "younger than 73 hours"] {
        assert!(rejected.contains(reason), "{reason} in {rejected}");
    }
    let counts = world.mparticle.counts();
    assert_eq!((counts.dropped_batches, counts.dropped_events), (0, 0));
    assert_eq!(counts.historical_events, 5);

    // Without a time there is nothing to decide on, and the whole delivery says so.
    let untimed: Vec<_> = COLUMNS
        .into_iter()
        .filter(|(name, _)| *name != "e.at")
        .collect();
    let rows = [vec![json!("a"), json!("b"), json!("c")]];
    let untimed = document("UTC", &untimed, &rows).to_string();
    let (success, message) = execute(&world, &daemon, untimed, events()).await;
    assert!(!success);
    assert!(message.contains("mp_timestamp_unixtime_ms"), "{message}");

    // The form's choice goes before the configuration's.
    world.mparticle.reset();
    let never = form("event_data", json!({"historical_events": "never"}));
    let (success, message) = execute(&world, &daemon, text, never).await;
    assert!(success, "{message}");
    daemon.settled().await;
    let counts = world.mparticle.counts();
    assert_eq!((counts.events, counts.historical_events), (8, 0));
}
