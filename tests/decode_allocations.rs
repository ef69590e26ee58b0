//! Rows cost no allocation. A file of its own, since the counting allocator is for a whole program
//! and other tests would be counted.

use std::alloc::System;

use looker_feed::decode::{Decoder, Limits, RowParser, Step};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COLUMNS: [&str; 3] = ["users.id", "users.email", "events.tags"];
const ROW: &str = r#"{"users.id":{"value":17},"users.email":{"value":"\u0061@b.c"},"x.y":{"value":null},"events.tags":{"value":["a",{"b":1}]}}"#;
/// The same in another layout and order: it can't be predicted from the row before.
const OTHER: &str = r#"{"events.tags": {"value": null}, "users.email": {"a|b": {"value": 1}}, "users.id": {"rendered": "", "value": 1.5}}"#;
/// For the buffers of a decoder, however many rows it reads.
const FIXED: usize = 100;

#[test]
fn rows_cost_no_allocation_in_any_layout_and_any_chunks() {
    let document = |rows: &[&str]| {
        let rows = rows.iter().cycle().take(10_000);
        let rows: Vec<&str> = rows.copied().collect();
        format!(r#"{{"fields":null,"data":[{}]}}"#, rows.join(","))
    };
    for document in [document(&[ROW]), document(&[ROW, OTHER])] {
        for size in [100, 1_460, 65_536] {
            let region = Region::new(ALLOCATOR);
            let mut decoder = Decoder::new(Limits::default());
            let mut chunks = document.as_bytes().chunks(size);
            loop {
                match decoder.next().unwrap() {
                    Step::NeedBytes => match chunks.next() {
                        Some(chunk) => decoder.push(chunk),
                        None => decoder.close(),
                    },
                    Step::Header(_) => decoder.select(&COLUMNS),
                    Step::Row(row) => assert!(row.number < 10_000),
                    Step::EarlyRow(_) => panic!("`fields` came first"),
                    Step::End(_) => break,
                }
            }
            let change = region.change();
            assert_eq!(decoder.rows(), 10_000);
            let all = change.allocations + change.reallocations;
            assert!(all < FIXED, "{all} allocations by {size}");
        }
    }
    let mut parser = RowParser::new(Limits::default(), &COLUMNS);
    let region = Region::new(ALLOCATOR);
    for number in 0..1_000 {
        let row = if number % 3 == 0 { OTHER } else { ROW };
        assert!(parser.parse(row.as_bytes(), number).is_ok());
    }
    let all = region.change().allocations;
    assert!(all < FIXED, "{all} allocations");
}
