//! What the form and the tags offer beyond Looker's own action, through the real binary and the
//! strict stand-in for mParticle.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::form::{arrived, document, execute, form};
use support::{Daemon, World};

/// Every tag that Looker's own action does not have, in one row.
const EXTRA: [(&str, &str); 26] = [
    ("u.mpid", "mp_mpid"),
    ("u.mail", "mp_email"),
    ("u.o5", "mp_other5"),
    ("u.o6", "mp_other6"),
    ("u.o7", "mp_other7"),
    ("u.o8", "mp_other8"),
    ("u.o9", "mp_other9"),
    ("u.o10", "mp_other10"),
    ("u.mobile", "mp_mobile_number"),
    ("u.phone2", "mp_phone_number_2"),
    ("u.phone3", "mp_phone_number_3"),
    ("u.alias", "mp_alias"),
    ("u.ip", "mp_ip"),
    ("u.lat", "mp_latitude"),
    ("u.long", "mp_longitude"),
    ("u.link", "mp_user_attribute"),
    ("u.gone", "mp_user_attribute"),
    ("d.roku_publisher_id", "mp_device_info"),
    ("d.microsoft_advertising_id", "mp_device_info"),
    ("d.fire_advertising_id", "mp_device_info"),
    ("d.att_authorization_status", "mp_device_info"),
    ("u.adobe_mcid", "mp_partner_identity"),
    ("u.braze", "mp_partner_identity"),
    ("c.marketing", "mp_consent_gdpr"),
    ("c.data_sale_opt_out", "mp_consent_ccpa"),
    ("c.at", "mp_consent_timestamp"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_new_tag_and_choice_reaches_mparticle() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[
        ("MPARTICLE__TRIM_IDENTITIES", "true"),
        ("MPARTICLE__LOWERCASE_EMAIL", "true"),
        ("MPARTICLE__STRIP_HTML", "true"),
        ("MPARTICLE__PLAN_ID", "of the configuration"),
    ]);
    let uuid = "84e1b361-a282-4adf-8a6d-1d31e6dd5a9e";
    let row = json!([
        -9_007_199_254_740_993i64,
        " Ann@Example.COM ",
        5,
        "six ",
        "7",
        "8",
        "9",
        "10",
        "+43 1",
        "2",
        "3",
        "<b>ann</b>",
        "2001:db8::1",
        48.2082,
        "16.3738",
        "<a href=\"x\">R&amp;D</a>",
        null,
        uuid,
        "any",
        uuid,
        "Authorized",
        77,
        null,
        "Yes",
        false,
        "2026-11-20T13:05:00Z",
    ]);
    let row = row.as_array().unwrap().clone();
    let document = document("UTC", &EXTRA, &[row]).to_string();
    let chosen =
        json!({"null_attributes": "delete", "plan_id": "of the form", "plan_version": "4"});
    let chosen = form("user_data", chosen);
    let (success, message) = execute(&world, &daemon, document, chosen).await;
    assert!(success, "{message}\n{}", daemon.log());
    daemon.settled().await;
    let batches = arrived(&world);
    assert_eq!(batches.len(), 1);
    let mut batch = batches[0].clone();
    let id = batch.as_object_mut().unwrap().remove("source_request_id");
    assert!(id.is_some_and(|id| id.is_string()));
    assert_eq!(
        batch,
        json!({
            "environment": "development",
            "mpid": -9_007_199_254_740_993i64,
            "user_identities": {
                "email": "ann@example.com", "other_id_5": "5", "other_id_6": "six", "other_id_7": "7",
                "other_id_8": "8", "other_id_9": "9", "other_id_10": "10", "mobile_number": "+43 1",
                "phone_number_2": "2", "phone_number_3": "3", "alias": "ann",
            },
            "user_attributes": {"looker_u.link": "R&D"},
            "deleted_user_attributes": ["looker_u.gone"],
            "device_info": {
                "roku_publisher_id": uuid, "microsoft_advertising_id": "any",
                "fire_advertising_id": uuid, "att_authorization_status": "authorized",
            },
            "ip": "2001:db8::1",
            "partner_identities": {"adobe_mcid": "77"},
            "consent_state": {
                "gdpr": {"marketing": {"consented": true, "timestamp_unixtime_ms": 1_795_179_900_000i64}},
                "ccpa": {"data_sale_opt_out": {"consented": false, "timestamp_unixtime_ms": 1_795_179_900_000i64}},
            },
            "context": {
                "data_plan": {"plan_id": "of the form", "plan_version": 4},
                "location": {"latitude": 48.2082, "longitude": 16.3738},
            },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_was_saved_with_two_fields_sends_what_it_always_sent() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let columns = [
        ("u.mail", "mp_email"),
        ("u.a", "mp_user_attribute"),
        ("u.b", "mp_user_attribute"),
        ("u.c", "not_ours"),
    ];
    let row = vec![json!(" Ann@X.Y"), json!(null), json!("<b>x</b>"), json!(1)];
    let document = document("UTC", &columns, &[row]).to_string();
    let (success, message) = execute(&world, &daemon, document, form("user_data", json!({}))).await;
    assert!(success, "{message}");
    daemon.settled().await;
    let mut batch = arrived(&world).remove(0);
    batch.as_object_mut().unwrap().remove("source_request_id");
    assert_eq!(
        batch,
        json!({
            "environment": "development",
            "user_identities": {"email": " Ann@X.Y"},
            "user_attributes": {"looker_u.b": "<b>x</b>"},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_are_read_in_the_deliverys_time_zone_and_that_is_told() {
    let columns = [
        ("e.id", "mp_customer_id"),
        ("e.at", "mp_timestamp_unixtime_ms"),
    ];
    let rows = [
        vec![json!(0), json!("2026-11-20 13:05:00")],
        vec![json!(1), json!("2026-11-20T13:05:00Z")],
        vec![json!(2), json!(1_760_000_000)],
        vec![json!(3), json!(1_760_000_000_000i64)],
    ];
    let whole = document("America/New_York", &columns, &rows);
    let first = format!(
        "{{\"timezone\":{},\"fields\":{},\"data\":{}}}",
        whole["timezone"], whole["fields"], whole["data"]
    );
    let last = format!(
        "{{\"fields\":{},\"data\":{},\"timezone\":{}}}",
        whole["fields"], whole["data"], whole["timezone"]
    );
    for (document, local, told) in [
        (first, 1_795_197_900_000i64, "is a date and was turned into"),
        (last, 1_795_179_900_000, "was read as UTC"),
    ] {
        let world = World::new(None).await;
        let daemon = world.daemon(&[]);
        let (success, message) =
            execute(&world, &daemon, document, form("event_data", json!({}))).await;
        assert!(success, "{message}");
        let deliveries = daemon.settled().await;
        let mut times = BTreeMap::new();
        for batch in arrived(&world) {
            let id = batch["user_identities"]["customer_id"].clone();
            let time = &batch["events"][0]["data"]["timestamp_unixtime_ms"];
            times.insert(id.to_string(), time.as_i64().unwrap());
        }
        let times: Vec<_> = times.into_values().collect();
        let utc = 1_795_179_900_000;
        assert_eq!(times, [local, utc, 1_760_000_000_000, 1_760_000_000_000]);
        let notes = deliveries[0].notes.join("\n");
        assert!(notes.contains(told), "{notes}");
        assert!(notes.contains("taken for seconds"), "{notes}");
    }
}

const EVENTS: [(&str, &str); 6] = [
    ("e.user", "mp_customer_id"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("e.name", "mp_event_name"),
    ("e.note", "mp_custom_attribute"),
    ("d.brand", "mp_device_info"),
    ("u.ltv", "mp_user_attribute"),
];

/// Many rows of few users, some of them equal; `ltv` differs from delivery to delivery.
fn event_rows(random: &mut fastrand::Rng, count: usize, ltv: u32) -> Vec<Vec<Value>> {
    (0..count)
        .map(|_| {
            vec![
                json!(random.u32(0..40)),
                json!(format!("2026-11-20 13:{:02}:00", random.u32(0..60))),
                json!(random.choice(["Viewed", "Bought"])),
                json!(random.u32(0..3)),
                json!(random.choice([None, Some("x")])),
                json!(ltv),
            ]
        })
        .collect()
}

/// Events with how often each is there, from rows.
fn of_rows(rows: &[Vec<Value>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        let minute: i64 = row[1].as_str().unwrap()[14..16].parse().unwrap();
        let time = 1_795_179_600_000 + minute * 60_000;
        let event = json!([row[0].to_string(), time, row[2], row[3], row[4]]);
        *counts.entry(event.to_string()).or_default() += 1;
    }
    counts
}

/// The same from what mParticle has.
fn of_batches(batches: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for batch in batches {
        for event in batch["events"].as_array().into_iter().flatten() {
            let data = &event["data"];
            let event = json!([
                batch["user_identities"]["customer_id"],
                data["timestamp_unixtime_ms"],
                data["event_name"],
                data["custom_attributes"]["looker_e.note"],
                batch["device_info"]["brand"],
            ]);
            *counts.entry(event.to_string()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_sent_again_in_another_order_with_others_added_arrive_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let settings = [("MEMORY__GROUP_BUDGET", "256KiB")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let skip = || form("event_data", json!({"skip_sent": "yes"}));
    let first = event_rows(&mut random, 3_000, 1);
    let mut again = event_rows(&mut random, 1_000, 2);
    again.extend(first.iter().cloned().map(|mut row| {
        row[5] = json!(2);
        row
    }));
    random.shuffle(&mut again);

    let one = document("UTC", &EVENTS, &first).to_string();
    let (success, message) = execute(&world, &daemon, one.clone(), skip()).await;
    assert!(success, "{message}");
    daemon.settled().await;
    assert_eq!(of_batches(&arrived(&world)), of_rows(&first));
    let users = world.mparticle.counts().batches - 3_000;
    assert!((1..=40).contains(&users), "one batch of attributes a user");
    // A crash between the two changes nothing.
    daemon.kill();
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let two = document("UTC", &EVENTS, &again).to_string();
    let (success, message) = execute(&world, &daemon, two, skip()).await;
    assert!(success, "{message}");
    // And the first one once more.
    let (success, message) = execute(&world, &daemon, one, skip()).await;
    assert!(success, "{message}");
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 3);
    let whole = deliveries
        .iter()
        .filter(|one| one.rows.delivered == one.rows_in);
    assert_eq!(whole.count(), 3);
    assert_eq!(of_batches(&arrived(&world)), of_rows(&again));
    let counts = world.mparticle.counts();
    assert_eq!((counts.duplicates, counts.conflicts), (6_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn skipping_is_refused_where_nothing_tells_events_apart() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let columns = [("e.id", "mp_customer_id"), ("e.name", "mp_event_name")];
    let rows = [vec![json!(1), json!("a")]];
    let skip = form("event_data", json!({"skip_sent": "yes"}));
    let text = document("UTC", &columns, &rows).to_string();
    let (success, message) = execute(&world, &daemon, text, skip.clone()).await;
    assert!(!success);
    assert!(message.contains("mp_event_id"), "{message}");

    // One row that nothing tells apart is that row's matter.
    let columns = [("e.id", "mp_customer_id"), ("e.eid", "mp_event_id")];
    let rows = [vec![json!(1), json!(5)], vec![json!(1), json!(null)]];
    let text = document("UTC", &columns, &rows).to_string();
    let (success, message) = execute(&world, &daemon, text, skip).await;
    assert!(success, "{message}");
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 1);
    let rows = &deliveries[0].rows;
    assert_eq!((rows.delivered, rows.rejected), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_that_cannot_be_met_are_refused_before_anything_is_fetched() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let nulls = "\"omit\" or \"null\" or \"delete\"";
    for (more, want) in [
        (json!({"pod": "eu1"}), "one fixed address"),
        (json!({"null_attributes": "drop"}), nulls),
        (json!({"plan_version": "1"}), "without a data plan id"),
    ] {
        let rows = [vec![json!(1)]];
        let text = document("UTC", &[("u.id", "mp_customer_id")], &rows).to_string();
        let (success, message) = execute(&world, &daemon, text, form("user_data", more)).await;
        assert!(!success);
        assert!(message.contains(want), "{want:?} in {message:?}");
    }
    assert!(daemon.deliveries().await.is_empty());
    assert_eq!(world.mparticle.counts().requests, 0);
}
