//! One very large delivery. Its document does not fit into the memory: it is made while it is sent.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::intake::{self, Intake};
use crate::kit::{self, number};
use crate::lines::machine;

/// Beside it stands one of this part of its rows.
const PART: u64 = 10;
const COLUMNS: &str = "| rows | durable in | µs a row | processor µs a row | resident | disk, most | after commit | \
                       after sending | batches | requests | sent in |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";

/// Where its part of the report lies.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/long.md")
}

/// Measures, prints, and writes its part of the report, which the next whole report takes in.
pub fn run(home: &Path, rows: u64) -> std::io::Result<()> {
    let runs = [rows / PART, rows].map(|rows| {
        println!("{} rows ...", number(rows as f64));
        let intake = intake::run(home, &kit::shape(rows), None, true);
        println!("{}", line(&intake));
        intake
    });
    std::fs::write(path(), text(&runs))?;
    println!("Written: {}", path().display());
    Ok(())
}

fn text([part, whole]: &[Intake; 2]) -> String {
    let rows = number(whole.rows as f64);
    let mut out = format!(
        "## {rows} rows, once\n\nWritten by `cargo bench --bench report -- --long {}`; do not edit. {}\n\n\
         The document is made while it is sent, beside the daemon on the same processors, so that a row takes longer than above; \
         a delivery of {} rows, made in the same way, stands beside it. A row takes {:.3} times as long in the larger one.\n\n{COLUMNS}",
        whole.rows,
        machine(),
        number(part.rows as f64),
        whole.micros_a_row() / part.micros_a_row(),
    );
    for intake in [part, whole] {
        let _ = writeln!(out, "{}", line(intake));
    }
    out
}

fn line(intake: &Intake) -> String {
    let megabytes = |bytes: u64| format!("{} MB", number((bytes as f64 / 1e6).round()));
    let cells = [
        number(intake.rows as f64),
        format!("{:.1} s", intake.received.as_secs_f64()),
        format!("{:.3}", intake.micros_a_row()),
        format!("{:.3}", intake.processor_micros_a_row()),
        megabytes(intake.memory_sent),
        megabytes(intake.disk_peak),
        megabytes(intake.disk_received),
        megabytes(intake.disk_sent),
        number(intake.batches as f64),
        number(intake.requests as f64),
        format!("{:.1} s", intake.sent.unwrap_or_default().as_secs_f64()),
    ];
    format!("| {} |", cells.join(" | "))
}
