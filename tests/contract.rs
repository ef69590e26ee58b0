//! Whatever Looker sends, every batch that leaves is valid by mParticle's published schema, with
//! unknown properties refused; and no row is lost between the document and the batches.
//!
//! Runs the pure half of the pipeline: decode, mapping, group, encode.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use looker_feed::clock::UnixMillis;
use looker_feed::decode::{Decoder, Limits, Step};
use looker_feed::group::{self, GroupError, Grouper};
use looker_feed::mapping::{self, AttributeTypes, Historical, Nulls, Plan, Tally, Untagged};
use looker_feed::model::{DataType, DeliveryId, Environment};
use looker_feed::mparticle::encode::{self, Batches, DataPlan, Encoder, Sink, Unsendable};
use looker_feed::mparticle::route::Route;
use looker_feed::record::{Record, RecordView};
use looker_feed::seal::Space;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const SCHEMAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/mparticle");

const FIELD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/field");

static SCHEMA: LazyLock<Option<jsonschema::Validator>> = LazyLock::new(|| {
    let read = |name: &str| -> Option<Value> {
        let text = std::fs::read_to_string(Path::new(SCHEMAS).join(name)).ok()?;
        Some(serde_json::from_str(&text).expect("a published schema is JSON"))
    };
    let (bulk, batch) = ("eventsapi.bulk.schema.json", "eventsapi.schema.json");
    let (Some(bulk), Some(batch)) = (read(bulk), read(batch)) else {
        eprintln!(
            "skipped: mParticle's schema is not at {SCHEMAS}; batches are checked against the limits only"
        );
        return None;
    };
    let id = batch["$id"].as_str().expect("an id").to_owned();
    let batch = jsonschema::Resource::from_contents(batch).expect("the schema is a schema");
    let options = jsonschema::options().with_resource(id, batch);
    Some(options.build(&bulk).expect("the schema compiles"))
});

/// The schema leaves `events[].data` and products open; these are the members that it names and
/// that we send: of every event, and of each kind.
const EVENT_DATA: &str = "timestamp_unixtime_ms event_id session_id session_uuid \
                          source_message_id custom_attributes";
const KINDS: [(&str, &str); 3] = [
    ("custom_event", "event_name custom_event_type"),
    ("screen_view", "screen_name"),
    (
        "commerce_event",
        "event_name screen_name currency_code product_action",
    ),
];
const PRODUCT: &str = "id name brand category variant price quantity custom_attributes";

/// Whether a list of words holds this one.
fn lists(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|one| one == word)
}

const COLUMNS: [(&str, &str); 73] = [
    ("u.id", "mp_customer_id"),
    ("u.email", "mp_email"),
    ("u.facebook", "mp_facebook"),
    ("u.google", "mp_google"),
    ("u.microsoft", "mp_microsoft"),
    ("u.twitter", "mp_twitter"),
    ("u.yahoo", "mp_yahoo"),
    ("u.other", "mp_other"),
    ("u.other2", "mp_other2"),
    ("u.other3", "mp_other3"),
    ("u.other4", "mp_other4"),
    ("u.ltv", "mp_user_attribute"),
    ("u.tags \"quoted\"", "mp_user_attribute"),
    ("u.plan", "mp_user_attribute"),
    ("e.name", "mp_event_name"),
    ("e.type", "mp_custom_event_type"),
    ("e.id", "mp_event_id"),
    ("e.session", "mp_session_id"),
    ("e.uuid", "mp_session_uuid"),
    ("e.a", "mp_custom_attribute"),
    ("e.b", "mp_custom_attribute"),
    ("e.c", "mp_custom_attribute"),
    ("d.brand", "mp_device_info"),
    ("d.platform", "mp_device_info"),
    ("d.screen_width", "mp_device_info"),
    ("d.is_tablet", "mp_device_info"),
    ("d.ios_advertising_id", "mp_device_info"),
    ("d.att_authorization_status", "mp_device_info"),
    ("d.roku_publisher_id", "mp_device_info"),
    ("d.timezone_offset", "mp_device_info"),
    ("d.unknown", "mp_device_info"),
    ("x.untagged", "primary_key"),
    ("x.typo", "mp_costumer_id"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("u.mpid", "mp_mpid"),
    ("u.other5", "mp_other5"),
    ("u.other6", "mp_other6"),
    ("u.other7", "mp_other7"),
    ("u.other8", "mp_other8"),
    ("u.other9", "mp_other9"),
    ("u.other10", "mp_other10"),
    ("u.mobile", "mp_mobile_number"),
    ("u.phone2", "mp_phone_number_2"),
    ("u.phone3", "mp_phone_number_3"),
    ("u.alias", "mp_alias"),
    ("e.ip", "mp_ip"),
    ("e.ip2", "mp_ip"),
    ("e.lat", "mp_latitude"),
    ("e.long", "mp_longitude"),
    ("e.kind", "mp_event_type"),
    ("o.action", "mp_product_action"),
    ("o.id", "mp_transaction_id"),
    ("e.screen", "mp_screen_name"),
    ("o.total", "mp_total_amount"),
    ("o.tax", "mp_tax_amount"),
    ("o.shipping", "mp_shipping_amount"),
    ("o.coupon", "mp_coupon_code"),
    ("o.currency", "mp_currency_code"),
    ("p.sku", "mp_product_id"),
    ("p.name", "mp_product_name"),
    ("p.brand", "mp_product_brand"),
    ("p.category", "mp_product_category"),
    ("p.variant", "mp_product_variant"),
    ("p.price", "mp_product_price"),
    ("p.quantity", "mp_product_quantity"),
    ("p.size", "mp_product_custom_attribute"),
    ("p.color", "mp_product_custom_attribute"),
    ("c.adobe", "mp_partner_identity"),
    ("c.\"x\"", "mp_partner_identity"),
    ("c.marketing", "mp_consent_gdpr"),
    ("c.analytics", "mp_consent_gdpr"),
    ("c.data_sale_opt_out", "mp_consent_ccpa"),
    ("c.at", "mp_consent_timestamp"),
];
/// Columns whose values are words; others would refuse the row.
const WORDS: [(usize, &str); 3] = [
    (
        49,
        "null|custom_event|screen_view|commerce_event|Commerce_Event |crash_report",
    ),
    (50, "null|refund|remove_from_wishlist|steal"),
    (51, "null|T 1|T 2"),
];
/// The columns of COLUMNS that tell events apart.
const TIME: usize = 33;

fn choices() -> impl Strategy<Value = (mapping::Settings, Option<DataPlan>)> {
    let nulls = prop::sample::select(vec![Nulls::Omit, Nulls::Null, Nulls::Delete]);
    let plan = prop::option::of(("[a-z\"]{1,5}", prop::option::of(1..9u32)));
    use Historical::{Always, Auto, Never};
    let historical = prop::sample::select(vec![Auto, Never, Always]);
    (nulls, any::<[bool; 6]>(), plan, historical).prop_map(
        |(nulls, [trim, lower, html, untagged, skip, typed], plan, historical)| {
            let settings = mapping::Settings {
                trim_identities: trim,
                lowercase_email: lower,
                strip_html: html,
                nulls,
                untagged: [Untagged::Ignore, Untagged::UserAttribute][usize::from(untagged)],
                skip_sent: skip,
                attribute_types: [AttributeTypes::AsIs, AttributeTypes::Typed][usize::from(typed)],
                historical,
                now: UnixMillis(1_795_000_000_000),
                ..mapping::Settings::new(DataType::User)
            };
            (settings, plan.map(|(id, version)| DataPlan { id, version }))
        },
    )
}

fn cell() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(Value::Null),
        6 => "[a-c]{1,2}".prop_map(Value::from),
        3 => ".{0,20}".prop_map(Value::from),
        1 => "[a-zé]{250,300}".prop_map(Value::from),
        1 => Just(Value::from("é".repeat(5000))),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => any::<f64>().prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        1 => Just(json!("84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E")),
        1 => prop::sample::select(vec!["iOS", "web", "navigation", "Search", "authorized", "yes"]).prop_map(Value::from),
        2 => (-100i32..100, 0..99u8).prop_map(|(whole, part)| {
            let text = format!("{whole}.{part}");
            serde_json::from_str(&text).expect("a number")
        }),
        2 => prop::sample::select(vec![
            "2026-11-20", "2026-11-20 13:05:00", "2026-11-20T13:05:00+02:00", "1760000000",
            "192.0.2.7", "2001:db8::1", "::ffff:1.2.3.4", "1.2.3", "45.5", " Ann@Example.COM ",
            "<a href=\"x\">R&amp;D</a>", "<b></b>",
        ]).prop_map(Value::from),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(|list| json!(list)),
        1 => Just(json!({"nested": [1, {"deep": null}]})),
        1 => (0..1200usize).prop_map(|count| json!(vec!["entry"; count])),
        1 => Just(json!(["é".repeat(600), null, [1]])),
        1 => prop::sample::select(vec!["null", "N/A", "12.50", "Yes", "2026-11-03 17:15:00 +0000"])
            .prop_map(Value::from),
    ]
}

fn document() -> impl Strategy<Value = (Value, usize)> {
    let row = prop::collection::vec(cell(), COLUMNS.len());
    (
        prop::collection::btree_set(0..COLUMNS.len(), 1..COLUMNS.len()),
        prop::collection::vec((row, any::<[u8; 3]>()), 0..25),
    )
        .prop_map(|(chosen, rows)| {
            let chosen: BTreeSet<usize> = chosen.into_iter().chain([0, TIME]).collect();
            let field = |&at: &usize| {
                let lookml = ["string", "yesno", "number", "date_time"][at % 4];
                json!({"name": COLUMNS[at].0, "type": lookml, "tags": ["x", COLUMNS[at].1]})
            };
            let fields: Vec<_> = chosen.iter().map(field).collect();
            let count = rows.len();
            let data: Vec<_> = rows
                .into_iter()
                .map(|(mut cells, words)| {
                    for ((column, known), word) in WORDS.iter().zip(words) {
                        let known: Vec<_> = known.split('|').collect();
                        let word = known[usize::from(word) % known.len()];
                        cells[*column] = json!((word != "null").then_some(word));
                    }
                    let cell =
                        |&at: &usize| (COLUMNS[at].0.to_owned(), json!({"value": cells[at]}));
                    Value::Object(chosen.iter().map(cell).collect())
                })
                .collect();
            let fields = json!({"dimensions": fields, "measures": null});
            (json!({"fields": fields, "data": data}), count)
        })
}

#[derive(Default)]
struct Collected {
    requests: Vec<Vec<Value>>,
    rows: u64,
    refused: u64,
}

impl Sink for Collected {
    type Error = GroupError;

    fn request(&mut self, _: Route, batches: &mut Batches) -> Result<(), GroupError> {
        let rows = batches.iter().map(|batch| u64::from(batch.rows));
        self.rows += rows.sum::<u64>();
        let parsed = batches
            .iter()
            .map(|batch| serde_json::from_slice(batch.json));
        self.requests
            .push(parsed.collect::<Result<_, _>>().expect("JSON"));
        Ok(())
    }

    fn unsendable(&mut self, _row: RecordView<'_>, _why: Unsendable) -> Result<(), GroupError> {
        self.refused += 1;
        Ok(())
    }
}

fn run(document: &Value, settings: mapping::Settings, data_plan: Option<&DataPlan>) -> Collected {
    // serde_json would put `data` first; rows before their columns are another test's.
    let text = format!(
        "{{\"timezone\":\"Europe/Vienna\",\"fields\":{},\"data\":{}}}",
        document["fields"], document["data"]
    );
    run_text(&text, settings, data_plan)
}

fn run_text(text: &str, settings: mapping::Settings, data_plan: Option<&DataPlan>) -> Collected {
    let data_type = settings.data_type;
    let mut decoder = Decoder::new(Limits::default());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut grouper = Grouper::new(group::Settings {
        memory: group::Memory::new(20_000),
        space: Space::new(directory.path()),
    });
    let mut chunks = text.as_bytes().chunks(1000);
    let mut plan: Option<Plan> = None;
    let mut tally = Tally::new(0);
    let mut record = Record::default();
    let mut collected = Collected::default();
    loop {
        match decoder.next().expect("the document is valid") {
            Step::NeedBytes => match chunks.next() {
                Some(chunk) => decoder.push(chunk),
                None => decoder.close(),
            },
            Step::Header(header) => {
                let made = Plan::new(header, &settings, [1; 16]).expect("an identity column");
                tally = Tally::new(made.columns().len());
                let columns: Vec<_> = made.columns().iter().map(String::as_str).collect();
                decoder.select(&columns);
                plan = Some(made);
            }
            Step::EarlyRow(_) => panic!("the columns came first"),
            Step::Row(row) => {
                let plan = plan.as_mut().expect("the header came first");
                match plan.map(&row, &mut record, &mut tally) {
                    Ok(()) => grouper.push(&record).expect("room for a record"),
                    Err(_) => collected.refused += 1,
                }
            }
            Step::End(_) => break,
        }
    }
    let delivery = encode::Delivery {
        id: DeliveryId([0xcd; 16]),
        data_type,
        environment: Environment::Development,
        names: plan.expect("a header").names().clone(),
    };
    let mut encoder = Encoder::new(encode::Settings::default(), delivery);
    if let Some(plan) = data_plan {
        encoder = encoder.with_data_plan(plan);
    }
    if settings.skip_sent {
        encoder = encoder.skipping_sent([5; 16]);
    }
    let finished = grouper.finish(|record| encoder.push(record, &mut collected));
    finished.expect("grouping works");
    encoder.finish(&mut collected).expect("encoding works");
    collected
}

fn check(collected: &Collected) {
    let mut ids = BTreeSet::new();
    for request in &collected.requests {
        for batch in request {
            let id = batch["source_request_id"].to_string();
            assert!(ids.insert(id), "{batch}");
        }
        if let Some(schema) = SCHEMA.as_ref() {
            let errors: Vec<_> = schema
                .iter_errors(&Value::Array(request.clone()))
                .map(|error| format!("{} at {}", error, error.instance_path))
                .collect();
            assert!(errors.is_empty(), "{errors:#?}");
        }
        for batch in request {
            for event in batch["events"].as_array().into_iter().flatten() {
                let kind = event["event_type"].as_str().expect("an event has a type");
                let own = KINDS.iter().find(|(known, _)| *known == kind);
                let (_, own) = own.expect("a kind that is sent");
                for (name, _) in event["data"].as_object().expect("data is an object") {
                    assert!(lists(EVENT_DATA, name) || lists(own, name), "{name}");
                }
                let products = event["data"]["product_action"]["products"].as_array();
                for product in products.into_iter().flatten() {
                    for (name, _) in product.as_object().expect("a product is an object") {
                        assert!(lists(PRODUCT, name), "{name}");
                    }
                }
            }
            for value in batch["user_identities"].as_object().into_iter().flatten() {
                assert!(value.1.is_string(), "identities are strings: {value:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_batch_is_valid_and_every_row_is_in_one_or_refused(
        (document, rows) in document(),
        (settings, data_plan) in choices(),
    ) {
        for data_type in [DataType::Event, DataType::User] {
            let settings = mapping::Settings { data_type, ..settings.clone() };
            let collected = run(&document, settings, data_plan.as_ref());
            check(&collected);
            prop_assert_eq!(collected.rows + collected.refused, rows as u64);
        }
    }
}

/// Every column, each with a value that mParticle takes, and one null attribute.
fn full_row(tag: &str, column: &str) -> Value {
    match (tag, column) {
        ("mp_mpid" | "mp_event_id" | "mp_session_id", _) => json!(7),
        ("mp_timestamp_unixtime_ms" | "mp_consent_timestamp", _) => json!("2026-11-20 13:05:00"),
        ("mp_session_uuid", _) | (_, "d.ios_advertising_id" | "d.roku_publisher_id") => {
            json!("84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E")
        }
        ("mp_custom_event_type", _) => json!("search"),
        ("mp_event_type" | "mp_product_action", _) => Value::Null,
        ("mp_total_amount" | "mp_product_price", _) => json!("45.50"),
        ("mp_consent_gdpr" | "mp_consent_ccpa", _) => json!("no"),
        ("mp_ip", _) => json!("2001:db8::1"),
        ("mp_latitude" | "mp_longitude", _) => json!("45.50"),
        (_, "d.platform") => json!("web"),
        (_, "d.screen_width" | "d.timezone_offset") => json!(640),
        (_, "d.is_tablet") => json!("yes"),
        (_, "d.att_authorization_status") => json!("denied"),
        (_, "u.plan" | "e.c") => Value::Null,
        _ => json!(" <b>Text</b>"),
    }
}

#[test]
fn a_batch_with_every_tag_is_valid_under_every_choice() {
    let columns = || COLUMNS.iter();
    let fields: Vec<_> = columns()
        .map(|(name, tag)| json!({"name": name, "tags": [tag]}))
        .collect();
    let row: Map<_, _> = columns()
        .map(|(name, tag)| ((*name).to_owned(), json!({"value": full_row(tag, name)})))
        .collect();
    let document = json!({"fields": {"dimensions": fields}, "data": [row]});
    let plan = DataPlan {
        id: "plan".to_owned(),
        version: Some(1),
    };
    for nulls in [Nulls::Omit, Nulls::Null, Nulls::Delete] {
        for [skip_sent, strip_html, trim_identities] in
            [[false; 3], [true, false, false], [true; 3]]
        {
            let settings = mapping::Settings {
                nulls,
                skip_sent,
                strip_html,
                trim_identities,
                lowercase_email: trim_identities,
                now: UnixMillis(1_795_000_000_000),
                ..mapping::Settings::new(DataType::Event)
            };
            let collected = run(&document, settings, Some(&plan));
            check(&collected);
            assert_eq!((collected.rows, collected.refused), (1, 0));
            let batches: Vec<_> = collected.requests.concat();
            assert_eq!(batches.len(), 1 + usize::from(skip_sent));
            let first = &batches[0];
            assert_eq!(first["mpid"], 7);
            assert_eq!(first["user_identities"].as_object().unwrap().len(), 21);
            let text = if strip_html { "text" } else { " <b>Text</b>" };
            let mail = &first["user_identities"]["email"];
            assert_eq!(mail, text);
            assert_eq!(first["device_info"].as_object().unwrap().len(), 8);
            assert_eq!(first["ip"], "2001:db8::1");
            let consent =
                json!({"consented": false, "timestamp_unixtime_ms": 1_795_176_300_000i64});
            assert_eq!(
                first["consent_state"],
                json!({
                    "gdpr": {"analytics": consent, "marketing": consent},
                    "ccpa": {"data_sale_opt_out": consent},
                })
            );
            assert_eq!(first["partner_identities"].as_object().unwrap().len(), 2);
            assert_eq!(first["context"]["location"]["longitude"], 45.5);
            assert_eq!(first["context"]["data_plan"]["plan_version"], 1);
            let data = &first["events"][0]["data"];
            assert_eq!(data["timestamp_unixtime_ms"], 1_795_176_300_000i64);
            let custom = data["custom_attributes"].as_object().unwrap();
            assert_eq!(custom.get("looker_e.c").is_some(), nulls == Nulls::Null);
            let last = batches.last().unwrap();
            let user = last["user_attributes"].as_object().unwrap();
            assert_eq!(user.get("looker_u.plan").is_some(), nulls == Nulls::Null);
            let deleted = last.get("deleted_user_attributes");
            let want = (nulls == Nulls::Delete).then(|| json!(["looker_u.plan"]));
            assert_eq!(deleted, want.as_ref());
        }
    }
}

/// Numbers as floats, times in every form, long lists, tags that are nearly right: what people who do this
/// job have reported.
#[test]
fn what_was_seen_in_the_field_makes_valid_batches() {
    let folder = Path::new(FIELD);
    for (name, rows, refused) in [
        ("calculation_error.json", 2, 0),
        ("event_times.json", 19, 12),
        ("long_list.json", 2, 0),
        ("number_ids.json", 4, 1),
        ("tag_spelling.json", 1, 0),
    ] {
        let Ok(text) = std::fs::read_to_string(folder.join(name)) else {
            eprintln!("skipped: {name} is not in {FIELD}");
            continue;
        };
        for data_type in [DataType::Event, DataType::User] {
            for attribute_types in [AttributeTypes::AsIs, AttributeTypes::Typed] {
                let settings = mapping::Settings {
                    attribute_types,
                    now: UnixMillis(1_795_000_000_000),
                    ..mapping::Settings::new(data_type)
                };
                let collected = run_text(&text, settings, None);
                check(&collected);
                // Profiles have no times.
                let (rows, refused) = match (name, data_type) {
                    ("event_times.json", DataType::User) => (rows + refused, 0),
                    _ => (rows, refused),
                };
                let counts = (collected.rows, collected.refused);
                assert_eq!(counts, (rows, refused), "{name}");
            }
        }
    }
}

#[test]
fn the_check_itself_refuses_what_the_schema_refuses() {
    let Some(schema) = SCHEMA.as_ref() else {
        return;
    };
    let good = json!([{"environment": "production", "user_identities": {"email": "a"}}]);
    assert!(schema.is_valid(&good));
    for bad in [
        json!([{"environment": "staging"}]),
        json!([{"environment": "production", "surprise": 1}]),
        json!([{"environment": "production", "user_identities": {"customerid": "1"}}]),
        json!([{"environment": "production", "device_info": {"screen_width": "640"}}]),
        json!([{"environment": "production", "mpid": "7"}]),
        json!([{"environment": "production", "ip": "1.2.3"}]),
        json!([{"environment": "production", "deleted_user_attributes": [1]}]),
        json!([{"environment": "production", "context": {"location": {"latitude": 1}}}]),
        json!([{"environment": "production", "context": {"data_plan": {"plan_version": 1}}}]),
    ] {
        assert!(!schema.is_valid(&bad), "{bad}");
    }
}
