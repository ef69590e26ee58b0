mod changes_tests;
mod choice_tests;
mod commerce_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::mparticle::route::Route;
use crate::record::{FIRST_ATTRIBUTE, Mark, Record, Section, begin_setting, end_setting};

/// One row of a small world: few users, few devices, few attributes, values of any length.
#[derive(Clone, Debug)]
struct Given {
    customer: u8,
    email: u8,
    device: u8,
    attributes: Vec<(u16, String)>,
    note: String,
    old: bool,
}

fn given() -> impl Strategy<Value = Given> {
    (
        0..4u8,
        0..3u8,
        0..3u8,
        prop::collection::vec((0..4u16, "[a-z]{1,30}"), 0..3),
        "[a-z]{0,60}",
    )
        .prop_map(|(customer, email, device, mut attributes, note)| {
            attributes.sort();
            attributes.dedup_by_key(|(slot, _)| *slot);
            Given {
                customer,
                email,
                device,
                attributes,
                // As of real events: equal ones are equally old.
                old: note.len() % 5 == 4,
                note,
            }
        })
}

/// Adds a setting to a section.
fn put(record: &mut Record, section: Section, slot: u16, literal: &str) {
    let bytes = record.section(section);
    let start = begin_setting(bytes, slot);
    bytes.extend_from_slice(literal.as_bytes());
    end_setting(bytes, start);
}

/// Adds text to a section.
fn say(record: &mut Record, section: Section, text: &str) {
    record.section(section).extend_from_slice(text.as_bytes());
}

/// The beginning of a row of somebody with a device.
fn row_of(row: u64, customer: u8, email: u8, device: u8) -> Record {
    let mut record = Record::default();
    record.begin(row);
    let identities = format!("\"customer_id\":\"{customer}\",\"email\":\"{email}\"");
    say(&mut record, Section::Identities, &identities);
    put(&mut record, Section::Device, 0, &format!("\"{device}\""));
    record
}

fn record(row: u64, given: &Given, data_type: DataType) -> Record {
    let mut record = row_of(row, given.customer, given.email, given.device);
    record.user = u64::from(given.customer);
    for (slot, value) in &given.attributes {
        put(
            &mut record,
            Section::Attributes,
            *slot,
            &format!("\"{value}\""),
        );
    }
    if data_type == DataType::Event {
        if given.old {
            let mark = Mark {
                old: true,
                ..Mark::default()
            };
            record.section(Section::Event).push(mark.byte());
        }
        let event = format!(
            "\"event_name\":\"n\",\"custom_event_type\":\"other\",\"custom_attributes\":{{\"note\":\"{}\"}}",
            given.note
        );
        say(&mut record, Section::Event, &event);
    }
    record.end();
    record
}

/// A delivery of this id with the attributes and the device of [`record`].
fn delivery(id: u8, data_type: DataType) -> Delivery {
    Delivery {
        id: DeliveryId([id; 16]),
        data_type,
        environment: Environment::Development,
        names: Names {
            attributes: (0..4).map(|slot| format!("\"a{slot}\":").into()).collect(),
            device: vec!["\"brand\":".into()],
            ..Names::default()
        },
    }
}

/// Encodes records to the end.
fn encoded(mut encoder: Encoder, records: &[Record]) -> (Kept, Made) {
    let mut kept = Kept::default();
    for record in records {
        encoder.push(record.view(), &mut kept).unwrap();
    }
    let made = encoder.finish(&mut kept).unwrap();
    (kept, made)
}

/// The same records as the grouping gives them.
fn grouped(records: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|record| (record.user, record.row));
    records
}

#[derive(Default)]
struct Kept {
    requests: Vec<Vec<(Value, usize, u32)>>,
    /// The route of each request.
    routes: Vec<Route>,
    unsendable: BTreeSet<u64>,
}

impl Sink for Kept {
    type Error = Infallible;

    fn request(&mut self, route: Route, batches: &mut Batches) -> Result<(), Infallible> {
        self.routes.push(route);
        let parsed = batches.iter().map(|batch| {
            let json = serde_json::from_slice(batch.json).unwrap();
            (json, batch.json.len(), batch.rows)
        });
        self.requests.push(parsed.collect());
        Ok(())
    }

    fn unsendable(&mut self, row: RecordView<'_>, _why: Unsendable) -> Result<(), Infallible> {
        assert!(self.unsendable.insert(row.row));
        Ok(())
    }
}

fn encode(rows: &[Given], data_type: DataType, settings: Settings) -> (Kept, Made) {
    let records = (0..)
        .zip(rows)
        .map(|(row, given)| record(row, given, data_type));
    let encoder = Encoder::new(settings, delivery(9, data_type));
    encoded(encoder, &grouped(records))
}

#[test]
fn events_by_slot_fill_batches_up_to_the_limit_with_their_names_counted() {
    let name = |slot| format!("\"{}{slot}\":", "n".repeat(200)).into();
    let mut delivery = delivery(9, DataType::Event);
    delivery.names = Names {
        event: Some((0..3).map(name).collect()),
        ..Names::default()
    };
    let settings = Settings {
        max_batch_bytes: 3_000,
        ..Settings::default()
    };
    // Each event has one of the three names only, so that a bound with all of them is too high.
    let records = (0..40u16).map(|row| {
        let mut record = Record::default();
        record.begin(row.into());
        say(&mut record, Section::Identities, "\"customer_id\":\"1\"");
        record.section(Section::Event).push(Mark::default().byte());
        put(&mut record, Section::Event, 0, "\"seen\"");
        put(&mut record, Section::Event, FIRST_ATTRIBUTE + row % 3, "1");
        record.end();
        record
    });
    let records: Vec<_> = records.collect();
    let (kept, made) = encoded(Encoder::new(settings, delivery), &records);
    check_limits(&kept, &made, &settings);
    let batches: Vec<_> = kept.requests.iter().flatten().collect();
    let events = batches
        .iter()
        .map(|(batch, ..)| batch["events"].as_array().map_or(0, Vec::len));
    assert_eq!(events.sum::<usize>(), 40);
    // Some 320 bytes an event, and 128 more that are set aside for each.
    assert_eq!(batches.len(), 6);
    let attribute = &batches[0].0["events"][1]["data"]["custom_attributes"];
    assert_eq!(attribute[format!("{}1", "n".repeat(200))], 1);
}

fn settings_strategy() -> impl Strategy<Value = Settings> {
    (1..6usize, 1..6usize, 500..1500usize).prop_map(|(batches, events, bytes)| Settings {
        max_batches_per_request: batches,
        max_events_per_request: events,
        max_batch_bytes: bytes,
        max_request_bytes: bytes + 400,
    })
}

fn check_limits(kept: &Kept, made: &Made, settings: &Settings) {
    let mut ids = BTreeSet::new();
    let mut batches = 0;
    let mut total = 0;
    for request in &kept.requests {
        assert!(!request.is_empty());
        assert!(request.len() <= settings.max_batches_per_request);
        let events = request
            .iter()
            .map(|(batch, ..)| batch["events"].as_array().map_or(0, Vec::len));
        assert!(events.sum::<usize>() <= settings.max_events_per_request);
        let bytes: usize = request.iter().map(|(_, bytes, _)| bytes + 1).sum();
        assert!(bytes < settings.max_request_bytes);
        for (batch, bytes, _) in request {
            assert!(*bytes <= settings.max_batch_bytes, "{bytes}");
            assert_eq!(batch["environment"], "development");
            let id = batch["source_request_id"].to_string();
            assert!(ids.insert(id), "id used twice");
            batches += 1;
            total += bytes;
        }
    }
    assert_eq!((made.batches, made.bytes), (batches, total as u64));
    assert_eq!(made.requests, kept.requests.len() as u64);
}

fn all(kept: &Kept) -> impl Iterator<Item = &(Value, usize, u32)> {
    kept.requests.iter().flatten()
}

/// The value that each user's each attribute has after all batches, in the order of sending.
fn final_attributes(kept: &Kept) -> BTreeMap<(String, String), String> {
    let mut last = BTreeMap::new();
    for (batch, ..) in all(kept) {
        let user = batch["user_identities"].to_string();
        for (name, value) in batch["user_attributes"].as_object().into_iter().flatten() {
            last.insert((user.clone(), name.clone()), value.to_string());
        }
    }
    last
}

fn want_attributes(rows: &[Given], kept: &Kept) -> BTreeMap<(String, String), String> {
    let mut last = BTreeMap::new();
    for (row, given) in rows.iter().enumerate() {
        if kept.unsendable.contains(&(row as u64)) {
            continue;
        }
        let user = serde_json::json!({
            "customer_id": given.customer.to_string(), "email": given.email.to_string()
        });
        let user = user.to_string();
        for (slot, value) in &given.attributes {
            last.insert((user.clone(), format!("a{slot}")), format!("\"{value}\""));
        }
    }
    last
}

proptest! {
    #[test]
    fn every_event_is_sent_once_with_its_user_and_device_within_the_limits(
        rows in prop::collection::vec(given(), 0..60),
        settings in settings_strategy(),
    ) {
        let (kept, made) = encode(&rows, DataType::Event, settings);
        check_limits(&kept, &made, &settings);
        let mut seen = kept.unsendable.clone();
        for (batch, _, rows_of_batch) in all(&kept) {
            let events = batch["events"].as_array().cloned().unwrap_or_default();
            prop_assert_eq!(events.len(), *rows_of_batch as usize);
            for event in events {
                let id = event["data"]["source_message_id"].as_str().unwrap();
                let row: u64 = id.rsplit('-').next().unwrap().parse().unwrap();
                prop_assert!(seen.insert(row), "row {} sent twice", row);
                let given = &rows[row as usize];
                let customer = given.customer.to_string();
                prop_assert_eq!(&batch["user_identities"]["customer_id"], &customer);
                prop_assert_eq!(&batch["device_info"]["brand"], &given.device.to_string());
                let note = &event["data"]["custom_attributes"]["note"];
                prop_assert_eq!(note, &given.note);
            }
        }
        for (request, route) in kept.requests.iter().zip(&kept.routes) {
            for (batch, ..) in request {
                let events = batch["events"].as_array().cloned().unwrap_or_default();
                prop_assert!(*route == Route::Current || !events.is_empty(), "dropped in silence");
                prop_assert!(*route == Route::Current || batch.get("user_attributes").is_none());
                for event in events {
                    let id = event["data"]["source_message_id"].as_str().unwrap();
                    let row: usize = id.rsplit('-').next().unwrap().parse().unwrap();
                    prop_assert_eq!(rows[row].old, *route == Route::Historical);
                }
            }
        }
        let old = rows.iter().enumerate().filter(|(row, given)| {
            given.old && !kept.unsendable.contains(&(*row as u64))
        });
        prop_assert_eq!(made.historical.events as usize, old.count());
        prop_assert_eq!(seen.len(), rows.len());
        prop_assert_eq!(made.events as usize, rows.len() - kept.unsendable.len());
        prop_assert_eq!(final_attributes(&kept), want_attributes(&rows, &kept));
    }

    #[test]
    fn every_profile_is_sent_once_with_its_latest_values_within_the_limits(
        rows in prop::collection::vec(given(), 0..60),
        settings in settings_strategy(),
    ) {
        let (kept, made) = encode(&rows, DataType::User, settings);
        check_limits(&kept, &made, &settings);
        let sent: u64 = all(&kept).map(|(_, _, rows)| u64::from(*rows)).sum();
        prop_assert_eq!(sent + kept.unsendable.len() as u64, rows.len() as u64);
        prop_assert_eq!(final_attributes(&kept), want_attributes(&rows, &kept));
        for (batch, ..) in all(&kept) {
            prop_assert!(batch.get("events").is_none());
        }
    }
}

fn plain(customer: u8, email: u8) -> Given {
    Given {
        customer,
        email,
        device: 0,
        attributes: Vec::new(),
        note: String::new(),
        old: false,
    }
}

#[test]
fn events_of_a_user_share_batches_and_batches_share_requests() {
    let rows: Vec<_> = (0..200).map(|row| plain(row % 40, 0)).collect();
    let (kept, made) = encode(&rows, DataType::Event, Settings::default());
    assert_eq!((made.users, made.batches, made.events), (40, 40, 200));
    assert_eq!(kept.requests.len(), 2);
}

#[test]
fn a_user_with_more_events_than_a_request_takes_needs_the_fewest_batches() {
    let rows = vec![plain(1, 1); 1001];
    let (_, made) = encode(&rows, DataType::Event, Settings::default());
    assert_eq!((made.users, made.batches), (1, 11));
}

#[test]
fn attributes_beyond_what_a_batch_takes_go_out_in_batches_of_their_own() {
    let mut record = Record::default();
    record.begin(0);
    say(&mut record, Section::Identities, "\"email\":\"a\"");
    for slot in 0..250 {
        put(&mut record, Section::Attributes, slot, &slot.to_string());
    }
    record.end();
    for data_type in [DataType::User, DataType::Event] {
        let mut delivery = delivery(0, data_type);
        let name = |slot| format!("\"a{slot}\":").into();
        delivery.names.attributes = (0..250).map(name).collect();
        if data_type == DataType::Event {
            say(&mut record, Section::Event, "\"event_name\":\"n\"");
            record.end();
        }
        let encoder = Encoder::new(Settings::default(), delivery);
        let (kept, _) = encoded(encoder, std::slice::from_ref(&record));
        let mut names = BTreeSet::new();
        for (batch, ..) in all(&kept) {
            let attributes = batch["user_attributes"].as_object();
            let count = attributes.map_or(0, serde_json::Map::len);
            assert!(count <= 100, "{count}");
            names.extend(
                attributes
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.clone()),
            );
        }
        assert_eq!(names.len(), 250);
        let rows: u32 = all(&kept).map(|(_, _, rows)| rows).sum();
        assert_eq!(rows, 1);
    }
}
