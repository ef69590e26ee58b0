//! Mapping a row costs no allocation, in whatever form its numbers, times and lists come. A file of
//! its own, since the counting allocator is for a whole program and other tests would be counted.

use std::alloc::System;

use looker_feed::clock::UnixMillis;
use looker_feed::decode::{Decoder, Limits, Step};
use looker_feed::mapping::{self, Plan, Tally};
use looker_feed::model::DataType;
use looker_feed::record::Record;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FIELDS: &str = r#"{"dimensions": [
    {"name": "u.id", "tags": ["mp_customer_id"]}, {"name": "u.mail", "tags": ["mp_email"]},
    {"name": "u.skus", "tags": ["mp_user_attribute"]}, {"name": "u.ltv", "tags": ["mp_user_attribute"]},
    {"name": "e.at", "tags": ["mp_timestamp_unixtime_ms"]}, {"name": "e.name", "tags": ["mp_event_name"]},
    {"name": "e.session", "tags": ["mp_session_id"]}, {"name": "e.size", "tags": ["mp_custom_attribute"]},
    {"name": "d.brand", "tags": ["mp_device_info"]}]}"#;
/// The identity, the time, the session and the size of a row, as they are written.
const FORMS: [[&str; 4]; 5] = [
    ["4653", "1763650000123", "77", "42"],
    ["4653.0", "1763650000123456", "77.0", "1.50"],
    ["3.241201784E9", "1.763650000123E12", "7.7e1", "1E+2"],
    ["\"7\"", "\"2025-11-20 14:46:40 +0000\"", "\"77\"", "\"L\""],
    ["\"8\"", "1763650000", "null", "true"],
];
const ROWS: usize = 10_000;
/// For what grows to size once, and for what is kept of a delivery.
const FIXED: usize = 200;

#[test]
fn rows_cost_no_allocation_in_any_form_of_their_values() {
    for form in FORMS {
        let [id, at, session, size] = form;
        let row = format!(
            r#"{{"u.id":{{"value":{id}}},"u.mail":{{"value":"a@b.c"}},"u.skus":{{"value":["a","b",1.5]}},"u.ltv":{{"value":12.50}},"e.at":{{"value":{at}}},"e.name":{{"value":"Viewed"}},"e.session":{{"value":{session}}},"e.size":{{"value":{size}}},"d.brand":{{"value":12.0}}}}"#
        );
        let rows = vec![row.as_str(); ROWS].join(",");
        let document = format!(r#"{{"timezone":"UTC","fields":{FIELDS},"data":[{rows}]}}"#);
        let settings = mapping::Settings {
            now: UnixMillis(1_795_000_000_000),
            ..mapping::Settings::new(DataType::Event)
        };
        let mut decoder = Decoder::new(Limits::default());
        let mut chunks = document.as_bytes().chunks(65_536);
        let mut mapper: Option<(Plan, Tally)> = None;
        let mut record = Record::default();
        let mut mapped = 0;
        let region = Region::new(ALLOCATOR);
        loop {
            match decoder.next().unwrap() {
                Step::NeedBytes => match chunks.next() {
                    Some(chunk) => decoder.push(chunk),
                    None => decoder.close(),
                },
                Step::Header(header) => {
                    let plan = Plan::new(header, &settings, [7; 16]).unwrap();
                    let columns: Vec<_> = plan.columns().iter().map(String::as_str).collect();
                    decoder.select(&columns);
                    let tally = Tally::new(plan.columns().len());
                    mapper = Some((plan, tally));
                }
                Step::Row(row) => {
                    let (plan, tally) = mapper.as_mut().unwrap();
                    plan.map(&row, &mut record, tally).unwrap();
                    mapped += 1;
                }
                Step::EarlyRow(_) => panic!("`fields` came first"),
                Step::End(_) => break,
            }
        }
        let change = region.change();
        assert_eq!(mapped, ROWS);
        let all = change.allocations + change.reallocations;
        assert!(all < FIXED, "{all} allocations for {form:?}");
    }
}
