//! Two binaries in turns on one machine. What takes so many seconds depends on the machine and on what else
//! it does; how many times as long the other one takes, in pairs, does so much less.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Bytes;
use looker_feed::looker::document;

use crate::daemon;
use crate::intake::{self, Intake};
use crate::kit::{self, number};
use crate::lines::machine;

const ROWS: u64 = 1_000_000;
const PAIRS: usize = 9;

/// The other one first.
type Pair = (Intake, Intake);
type Measure = fn(&Intake) -> f64;

/// Where its part of the report lies.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/beside.md")
}

/// Measures another binary, which is called `name`, and this one; writes its part of the report, which the
/// next whole report takes in. `once` is how many processor seconds a million rows took the other one on
/// the machine that the targets are for.
pub fn run(home: &Path, other: &OsStr, name: &str, once: Option<f64>) -> std::io::Result<()> {
    let shape = kit::shape(ROWS);
    let document: Arc<[Bytes]> = document(&shape).collect();
    let this = daemon::binary();
    let take_in = |what: &str, binary: &OsStr| {
        let intake = intake::run_of(binary, home, &shape, Some(&document), false);
        println!(
            "  {what}: {} rows/s, {:.2} processor s",
            number(intake.rows_a_second().round()),
            intake.processor.as_secs_f64(),
        );
        intake
    };
    let pairs = kit::in_turns(
        PAIRS,
        || take_in(name, other),
        || take_in("this one", &this),
    );
    let parse = kit::median_of((0..PAIRS).map(|_| kit::parse(&shape).as_secs_f64()));
    std::fs::write(path(), text(name, once, &pairs, parse))?;
    println!("Written: {}", path().display());
    Ok(())
}

fn text(name: &str, once: Option<f64>, pairs: &[Pair], parse: f64) -> String {
    let argument = once.map_or_else(String::new, |once| format!(" {once}"));
    let mut out = format!(
        "## Beside {name}, in pairs\n\nWritten by `cargo bench --bench report -- --beside <its binary> '{name}'{argument}`; do not edit. {}\n\n\
         One delivery of {} rows by each binary in turns, {} pairs: medians, and the median of the pairs' ratios. Decoding and mapping \
         alone takes {parse:.2} s here, with this commit's parser.\n\n| | {name} | this commit | times |\n|---|---:|---:|---:|\n",
        machine(),
        number(ROWS as f64),
        pairs.len(),
    );
    let processor = Intake::processor_micros_a_row;
    let measures: [(&str, Measure); 3] = [
        ("rows/s, socket to durable", Intake::rows_a_second),
        ("processor s a million rows", processor),
        ("MB resident", |intake| intake.memory_received as f64 / 1e6),
    ];
    let times = |measure: Measure| {
        let times = pairs
            .iter()
            .map(|(other, this)| measure(this) / measure(other));
        kit::median_of(times)
    };
    for (what, measure) in measures {
        let other = kit::median_of(pairs.iter().map(|(other, _)| measure(other)));
        let this = kit::median_of(pairs.iter().map(|(_, this)| measure(this)));
        let (other, this) = (number(other), number(this));
        let _ = writeln!(out, "| {what} | {other} | {this} | {:.3} |", times(measure));
    }
    if let Some(once) = once {
        let _ = writeln!(
            out,
            "\nThe targets are for a machine on which {name} took {} processor s; by the ratio this commit would take {} there.",
            number(once),
            number(once * times(processor))
        );
    }
    out
}
