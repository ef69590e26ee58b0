//! What mParticle would drop without a word is refused or told of, through the real binary.

mod support;

use serde_json::{Value, json};
use support::form::{arrived, document, execute, form};
use support::{World, run};

const COLUMNS: [(&str, &str); 3] = [
    ("e.user", "mp_customer_id"),
    ("e.mail", "mp_email"),
    ("e.name", "mp_event_name"),
];
/// Different names; the first has all the events that the others do not need.
const NAMES: usize = 30;

fn text() -> String {
    let rows: Vec<Vec<Value>> = (0..200)
        .map(|row| {
            let name = match row {
                row if row < NAMES => format!("Page {row}"),
                _ => "Page 0".to_owned(),
            };
            // A form that was sent without an address.
            let mail = if row % 2 == 0 {
                json!("NULL")
            } else {
                json!("office@b.c")
            };
            vec![json!(row), mail, json!(name)]
        })
        .collect();
    document("UTC", &COLUMNS, &rows).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_with_more_event_names_than_mparticle_takes_is_refused_before_anything_is_sent()
{
    let world = World::new(None).await;
    let limit = [("MPARTICLE__MAX_EVENT_NAMES", "29")];
    let daemon = world.daemon(&limit);
    let (success, message) = execute(&world, &daemon, text(), form("event_data", json!({}))).await;
    assert!(!success);
    assert!(
        message.contains("more than 29 different names (column e.name)"),
        "{message}"
    );
    assert!(message.contains("mparticle.max_event_names"), "{message}");
    assert!(daemon.settled().await.is_empty(), "{message}");
    assert!(arrived(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notes_of_a_delivery_tell_of_names_and_placeholders() {
    let world = World::new(None).await;
    let limit = [("MPARTICLE__MAX_EVENT_NAMES", "300")];
    let daemon = world.daemon(&limit);
    let rows = [text(), text()];
    for text in rows {
        let (success, message) =
            execute(&world, &daemon, text, form("event_data", json!({}))).await;
        assert!(success, "{message}");
    }
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 2);
    for delivery in &deliveries {
        assert_eq!(
            delivery.notes,
            [
                "The events have 30 different names, and mParticle drops events with new names beyond 300 in a workspace; most often: Page 0 (171), Page 1 (1), Page 10 (1), Page 11 (1), Page 12 (1).",
                "Column e.mail: the identity is a placeholder such as \"null\" and counts as empty (mparticle.placeholder_identities) (100 rows, first in row 1).",
            ]
        );
    }
    for batch in arrived(&world) {
        let mail = &batch["user_identities"]["email"];
        assert!(mail.is_null() || mail == "office@b.c", "{batch}");
    }
}

#[test]
fn a_preview_shows_the_names_of_events() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("names.json");
    std::fs::write(&file, text()).unwrap();
    let file = file.display().to_string();
    let (code, out, err) = run(&["preview", &file, "--json"], &[]);
    assert_eq!(code, Some(0), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["event_names"]["distinct"], 30);
    assert_eq!(report["event_names"]["most"], 1000);
    assert_eq!(
        report["event_names"]["most_common"][0],
        json!({"name": "Page 0", "events": 171})
    );
    // Below a tenth of the limit there is nothing to worry about.
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .all(|text| !text.as_str().unwrap().contains("names"))
    );
    let notes = report["notes"][0].as_str().unwrap();
    assert!(notes.starts_with("The events have 30 different names; most often: Page 0 (171)"));
    let (code, _, err) = run(&["preview", &file], &[("MPARTICLE__MAX_EVENT_NAMES", "29")]);
    assert_eq!(code, Some(1));
    assert!(err.contains("more than 29 different names"), "{err}");
}
