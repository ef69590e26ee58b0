//! What was measured, as a part of the report.

use std::fmt::Write as _;
use std::path::Path;

use crate::kit::Verdict;
use crate::lines::{TARGETS, lines, machine};
use crate::svg::{Axis, Line, plot};

const TITLE: &str = "## A shared outbox";

/// Writes `benches/shared.md`, and puts it at the end of `benches/REPORT.md`.
pub fn write(
    verdicts: &[Verdict],
    rates: &[(f64, f64)],
    version: &str,
    full: bool,
) -> std::io::Result<()> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    std::fs::write(benches.join("report-daemons.svg"), daemons(rates))?;
    let text = text(verdicts, version, full);
    std::fs::write(benches.join("shared.md"), &text)?;
    let path = benches.join("REPORT.md");
    let report = std::fs::read_to_string(&path)?;
    let before = report.split(TITLE).next().unwrap_or_default().trim_end();
    std::fs::write(&path, format!("{before}\n\n{text}"))?;
    println!("Written: {}", path.display());
    Ok(())
}

fn text(verdicts: &[Verdict], version: &str, full: bool) -> String {
    let command = if full { " --full" } else { "" };
    let mut out = format!(
        "{TITLE}\n\nWritten by `cargo bench --bench shared --{command} --write`; do not edit. {}\n\n\
         PostgreSQL {version} on the same machine and disk, with its defaults but 512 MB of shared buffers and 4 GB of WAL; no \
         standby. It shares the processors with daemons and stand-ins. A plain client copies the same blocks into a table \
         of its own, 4 MB with each statement. Blocks are compressed to a seventh of the rows, so it needs less time for \
         them than the rows take to be decoded alone. Beside it stand decoding and such a client together, and such a client \
         with the requests as they are sent, which are not compressed.\n\n{TARGETS}",
        machine()
    );
    lines(&mut out, verdicts);
    let _ = writeln!(
        out,
        "\n![Batches a second over daemons](report-daemons.svg)"
    );
    out
}

fn daemons(rates: &[(f64, f64)]) -> String {
    let axis = |label: &str| Axis {
        label: label.to_owned(),
        logarithmic: false,
    };
    let line = Line {
        name: "8 accounts".to_owned(),
        points: rates.to_vec(),
    };
    plot(
        "Draining, by number of daemons",
        &axis("daemons on two processors"),
        &axis("batches/s"),
        &[line],
    )
}
