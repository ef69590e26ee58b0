//! Allocations a row, decoded and mapped: counted, not timed. A program of its own, since the
//! counting allocator would slow what others measure.

#[path = "kit/mod.rs"]
mod kit;

use std::alloc::System;
use std::process::ExitCode;

use kit::{Bound, Verdict};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROWS: u64 = 50_000;
/// What one row may cost.
const MOST: f64 = 2.0;

fn main() -> ExitCode {
    println!("Allocations ({ROWS} rows)");
    let mut good = true;
    for (what, shape) in [
        ("a row, decoded and mapped", kit::shape(ROWS)),
        (
            "a row, decoded and mapped, pretty-printed",
            looker_feed::looker::Shape {
                pretty: true,
                ..kit::shape(ROWS)
            },
        ),
    ] {
        let document = kit::whole(&shape);
        let region = Region::new(ALLOCATOR);
        let mut rows = 0;
        kit::decode_and_map(document.chunks(kit::CHUNK), |_| rows += 1);
        let change = region.change();
        assert_eq!(rows, ROWS, "all rows were decoded");
        let all = change.allocations + change.reallocations;
        let verdict = Verdict::new(
            format!("allocations {what}"),
            all as f64 / ROWS as f64,
            Bound::AtMost(MOST),
        );
        verdict.print();
        good &= verdict.holds();
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
