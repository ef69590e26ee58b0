//! What only some deliveries have: ids by content, deleted attributes, places, data plans.

use super::*;
use crate::mapping::{DELETED, EVENT_BITS};
use std::hash::{DefaultHasher, Hash, Hasher};

/// An encoder of a delivery whose rows have an address and a place.
fn encoder(data_type: DataType) -> Encoder {
    let mut delivery = delivery(9, data_type);
    delivery.names = Names {
        device: ["brand", "ip", "location"]
            .map(|name| format!("\"{name}\":").into())
            .into(),
        ip: Some(1),
        location: Some(2),
        ..delivery.names
    };
    Encoder::new(Settings::default(), delivery)
}

/// Identities, device settings and attribute settings of row `row`.
fn row(row: u64, identities: &str, device: &[(u16, &str)], set: &[(u16, &str)]) -> Record {
    let mut record = Record::default();
    record.begin(row);
    say(&mut record, Section::Identities, identities);
    for (slot, literal) in device {
        put(&mut record, Section::Device, *slot, literal);
    }
    for (slot, literal) in set {
        put(&mut record, Section::Attributes, *slot, literal);
    }
    record.end();
    record
}

/// Makes a row that of an event.
fn with_event(mut record: Record) -> Record {
    say(&mut record, Section::Event, "\"event_name\":\"n\"");
    record.end();
    record
}

fn batches(encoder: Encoder, records: &[Record]) -> Vec<Value> {
    let (kept, _) = encoded(encoder, records);
    all(&kept).map(|(batch, ..)| batch.clone()).collect()
}

const MAIL: &str = "\"email\":\"a\"";

#[test]
fn mparticles_own_id_is_a_member_of_the_batch() {
    let mail = serde_json::json!({"email": "a"});
    for (identities, mpid, others) in [
        ("\"mpid\":-5", -5, serde_json::json!({})),
        ("\"mpid\":7,\"email\":\"a\"", 7, mail),
    ] {
        let row = row(0, identities, &[], &[]);
        let made = batches(encoder(DataType::User), &[row]);
        assert_eq!(made[0]["mpid"], mpid);
        assert_eq!(made[0]["user_identities"], others);
    }
}

#[test]
fn of_setting_and_deleting_an_attribute_the_later_row_wins() {
    let deleted = std::str::from_utf8(DELETED).unwrap();
    for data_type in [DataType::User, DataType::Event] {
        let mut records = [
            row(0, MAIL, &[], &[(0, "1"), (1, deleted)]),
            row(1, MAIL, &[], &[(0, deleted), (1, "2")]),
        ];
        if data_type == DataType::Event {
            records = records.map(with_event);
        }
        let made = batches(encoder(data_type), &records);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["user_attributes"], serde_json::json!({"a1": 2}));
        let deleted = &made[0]["deleted_user_attributes"];
        assert_eq!(*deleted, serde_json::json!(["a0"]));
    }
    let row = row(0, MAIL, &[], &[(0, deleted), (1, deleted)]);
    let made = batches(encoder(DataType::User), &[row]);
    assert!(made[0].get("user_attributes").is_none());
    let deleted = &made[0]["deleted_user_attributes"];
    assert_eq!(*deleted, serde_json::json!(["a0", "a1"]));
}

#[test]
fn place_and_data_plan_share_the_context() {
    let place = "{\"latitude\":1,\"longitude\":2}";
    let location = serde_json::json!({"latitude": 1, "longitude": 2});
    let plan = serde_json::json!({"plan_id": "p\"q", "plan_version": 3});
    for data_type in [DataType::User, DataType::Event] {
        for with_plan in [false, true] {
            for with_place in [false, true] {
                let device = [(0, "\"x\""), (1, "\"::1\""), (2, place)];
                let device = &device[..if with_place { 3 } else { 1 }];
                let mut encoder = encoder(data_type);
                if with_plan {
                    encoder = encoder.with_data_plan(&DataPlan {
                        id: "p\"q".to_owned(),
                        version: Some(3),
                    });
                }
                let mut record = row(0, MAIL, device, &[]);
                if data_type == DataType::Event {
                    record = with_event(record);
                }
                let made = batches(encoder, &[record]);
                let batch = &made[0];
                assert_eq!(batch["device_info"], serde_json::json!({"brand": "x"}));
                assert_eq!(batch.get("ip").is_some(), with_place);
                assert_eq!(batch.get("context").is_some(), with_plan || with_place);
                let want = |there: bool, value: &Value| there.then(|| value.clone());
                let context = batch.get("context").cloned().unwrap_or_default();
                let found = |name: &str| context.get(name).cloned();
                assert_eq!(found("location"), want(with_place, &location));
                assert_eq!(found("data_plan"), want(with_plan, &plan));
            }
        }
    }
    let latest = encoder(DataType::User).with_data_plan(&DataPlan {
        id: "p".to_owned(),
        version: None,
    });
    let made = batches(latest, &[row(0, MAIL, &[], &[])]);
    let want = serde_json::json!({"data_plan": {"plan_id": "p"}});
    assert_eq!(made[0]["context"], want);
}

/// A delivery that skips what was sent, from rows in this order.
fn send(rows: &[Given], account: u8, environment: Environment) -> (Kept, Made) {
    let records = (0..).zip(rows).map(|(row, given)| {
        let mut record = record(row, given, DataType::Event);
        let mut hasher = DefaultHasher::new();
        let view = record.view();
        (view.identities, view.device, view.event).hash(&mut hasher);
        let content = hasher.finish();
        record.user = (u64::from(given.customer) << 24) | (content & EVENT_BITS);
        record
    });
    let mut delivery = delivery(fastrand::u8(..), DataType::Event);
    delivery.environment = environment;
    let encoder = Encoder::new(Settings::default(), delivery).skipping_sent([account; 16]);
    encoded(encoder, &grouped(records))
}

#[test]
fn an_event_that_has_grown_old_since_has_the_id_that_it_had() {
    let young = plain(1, 1);
    let old = Given {
        old: true,
        ..young.clone()
    };
    let ids = [young, old].map(|event| {
        let (kept, _) = send(&[event], 1, Environment::Development);
        let (batch, ..) = &kept.requests[0][0];
        (kept.routes[0], batch["source_request_id"].clone())
    });
    assert_eq!(ids[0].1, ids[1].1);
    assert_eq!((ids[0].0, ids[1].0), (Route::Current, Route::Historical));
}

/// What mParticle has after these deliveries: events by `source_request_id`.
fn arrived(deliveries: &[&Kept]) -> BTreeMap<String, Value> {
    let mut ledger = BTreeMap::new();
    for (batch, ..) in deliveries.iter().flat_map(|kept| all(kept)) {
        let events = batch["events"].as_array().map_or(&[][..], Vec::as_slice);
        if let [event] = events {
            let id = batch["source_request_id"].as_str().unwrap().to_owned();
            assert_eq!(event["data"]["source_message_id"], id.as_str());
            let before = ledger.insert(id, batch.clone());
            assert!(before.is_none_or(|before| before == *batch), "{batch}");
        } else {
            assert!(events.is_empty(), "an event travels alone: {batch}");
        }
    }
    ledger
}

/// What tells an event apart.
type Content = [String; 4];

/// How often each is there.
fn counted(events: impl Iterator<Item = Content>) -> BTreeMap<Content, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event).or_default() += 1;
    }
    counts
}

fn of_batch(batch: &Value) -> Content {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    [
        text(&batch["user_identities"]["customer_id"]),
        text(&batch["user_identities"]["email"]),
        text(&batch["device_info"]["brand"]),
        text(&batch["events"][0]["data"]["custom_attributes"]["note"]),
    ]
}

fn of_row(given: &Given) -> Content {
    let [customer, email, device] =
        [given.customer, given.email, given.device].map(|n| n.to_string());
    [customer, email, device, given.note.clone()]
}

fn few() -> impl Strategy<Value = Given> {
    // Short notes, so that equal events occur.
    (given(), "[a-b]{0,2}").prop_map(|(given, note)| Given {
        old: note == "b",
        note,
        ..given
    })
}

proptest! {
    #[test]
    fn rows_that_come_again_in_any_order_with_others_added_arrive_once(
        (first, again) in prop::collection::vec((few(), any::<bool>()), 0..40).prop_flat_map(|rows| {
            let first: Vec<_> = rows.iter().filter(|(_, in_first)| *in_first).map(|(row, _)| row.clone()).collect();
            let all: Vec<_> = rows.into_iter().map(|(row, _)| row).collect();
            (Just(first), Just(all).prop_shuffle())
        }),
    ) {
        let (one, made) = send(&first, 1, Environment::Production);
        prop_assert_eq!(made.events as usize, first.len());
        let (two, _) = send(&again, 1, Environment::Production);
        let ledger = arrived(&[&one, &two]);
        prop_assert_eq!(counted(ledger.values().map(of_batch)), counted(again.iter().map(of_row)));
        let rows: u32 = all(&two).map(|(.., rows)| *rows).sum();
        prop_assert_eq!(rows as usize, again.len());
        // The latest row's attributes win, although rows come in the order of their content.
        prop_assert_eq!(final_attributes(&two), want_attributes(&again, &two));
    }
}

#[test]
fn another_account_or_environment_has_other_ids() {
    let rows = [plain(1, 1), plain(1, 1)];
    let ids = |account, environment| {
        let (kept, _) = send(&rows, account, environment);
        arrived(&[&kept]).into_keys().collect::<BTreeSet<_>>()
    };
    let here = ids(1, Environment::Production);
    assert_eq!(here.len(), 2);
    assert_eq!(here, ids(1, Environment::Production));
    assert!(here.is_disjoint(&ids(2, Environment::Production)));
    assert!(here.is_disjoint(&ids(1, Environment::Development)));
}

#[test]
fn the_ids_of_events_never_change() {
    // Another id would make every event of the last 30 days arrive again.
    let (kept, _) = send(&[plain(1, 2)], 3, Environment::Production);
    let ids: Vec<_> = arrived(&[&kept]).into_keys().collect();
    assert_eq!(ids, ["event-9d571dc2e1c6110f027a3303d9128133"]);
}
