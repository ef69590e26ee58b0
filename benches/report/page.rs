//! The report as a page: verdicts, tables, plots, and what bounds each stage (which is known from
//! profiles: `perf record` on the daemon while `-- --intake 2000000` runs).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::kit::{Bound, Verdict, number};
use crate::lines::{TARGETS, lines, machine};
use crate::many::{LARGE, SILENT};
use crate::svg::{Axis, Line, plot};
use crate::{Case, Measured, beside, interactive, long};

/// What Looker's own Action Hub on Node 20 takes in on this shape, in rows a second.
const BASELINE: f64 = 15_000.0;

/// Every target that this program measures.
pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let reference = measured.reference();
    let rows = number(reference.rows() as f64);
    verdicts.push(Verdict::new(
        format!("rows/s, {rows} rows, socket to durable"),
        reference.median(|intake, _| intake.rows_a_second()).round(),
        Bound::AtLeast(20.0 * BASELINE),
    ));
    verdicts.push(Verdict::new(
        format!("of pure parse + plain write and fdatasync, {rows} rows"),
        reference.median(|intake, floor| {
            (floor.parse + floor.write).as_secs_f64() / intake.received.as_secs_f64()
        }),
        Bound::AtLeast(0.65),
    ));
    verdicts.push(Verdict::new(
        format!("processor s a million rows, {rows} rows"),
        reference.median(|intake, _| intake.processor_micros_a_row()),
        Bound::AtMost(1.2),
    ));
    let largest = measured.largest();
    if largest.rows() > reference.rows() {
        let many = number(largest.rows() as f64);
        verdicts.push(Verdict::new(
            format!("times the time a row, {many} rows beside {rows}"),
            micros_a_row(largest) / micros_a_row(reference),
            Bound::AtMost(1.15),
        ));
        verdicts.push(Verdict::new(
            format!("MB on the disk at most, {many} rows"),
            (largest.median(|intake, _| intake.disk_peak as f64 / 1e6)).round(),
            Bound::AtMost(1_500.0),
        ));
    }
    let cases = || measured.sizes.iter().chain(&measured.others);
    let large = || cases().filter(|case| case.rows() >= reference.rows());
    for case in large() {
        verdicts.push(Verdict::new(
            format!(
                "MB resident, {} rows, {}",
                number(case.rows() as f64),
                case.name
            ),
            memory(case),
            Bound::AtMost(64.0),
        ));
    }
    let (least, most) = large()
        .map(memory)
        .fold((f64::MAX, 0.0), |(least, most), memory| {
            (memory.min(least), memory.max(most))
        });
    verdicts.push(Verdict::new(
        "MB between the least and the most resident of these",
        most - least,
        Bound::AtMost(20.0),
    ));
    let batches = |case: &Case| {
        case.median(|intake, _| intake.batches as f64 / intake.least_batches() as f64)
    };
    verdicts.push(Verdict::new(
        "times the least possible number of batches, worst of all",
        cases().map(batches).fold(0.0, f64::max),
        Bound::AtMost(1.02),
    ));
    verdicts.push(Verdict::new(
        format!("events a request, {rows} rows"),
        reference.median(|intake, _| intake.rows as f64 / intake.requests as f64),
        Bound::AtLeast(95.0),
    ));
    verdicts.push(Verdict::new(
        "MB on the disk once all has been sent, most of all",
        cases()
            .map(|case| case.median(|intake, _| intake.disk_sent as f64 / 1e6))
            .fold(0.0, f64::max),
        Bound::AtMost(16.0),
    ));
    let steady = &measured.steady;
    verdicts.push(Verdict::new(
        format!(
            "of the allowed batches, worst {} s after the ramp",
            steady.window.as_secs()
        ),
        steady.worst_share,
        Bound::AtLeast(0.98),
    ));
    verdicts.push(Verdict::new(
        "share of 429 replies then",
        steady.throttled,
        Bound::AtMost(0.001),
    ));
    let restart = &measured.restart;
    verdicts.push(Verdict::new(
        format!(
            "s to the first request, {} batches waiting",
            number(restart.batches as f64)
        ),
        restart.first_request.as_secs_f64(),
        Bound::AtMost(1.0),
    ));
    verdicts.push(Verdict::new(
        "MB resident then",
        (restart.memory as f64 / 1e6).round(),
        Bound::AtMost(128.0),
    ));
    let midnight = &measured.midnight;
    let large = format!(
        "{LARGE} deliveries of {} rows at once, {SILENT} silent ones beside them",
        number(midnight.rows as f64)
    );
    verdicts.push(Verdict::new(
        format!("rows/s, {large}"),
        midnight.rows_a_second().round(),
        // As many as one alone must have.
        Bound::AtLeast(20.0 * BASELINE),
    ));
    verdicts.push(Verdict::new(
        format!(
            "of the rows/s of one delivery of {}, {large}",
            number(largest.rows() as f64)
        ),
        midnight.rows_a_second() / largest.median(|intake, _| intake.rows_a_second()),
        Bound::AtLeast(0.9),
    ));
    verdicts.push(Verdict::new(
        format!("MB resident, {large}"),
        (midnight.memory as f64 / 1e6).round(),
        Bound::AtMost(128.0),
    ));
    let small = &measured.small;
    let deliveries = number(small.deliveries as f64);
    verdicts.push(Verdict::new(
        format!("deliveries/s of one request each, {deliveries} waiting"),
        small.deliveries_a_second().round(),
        Bound::AtLeast(250.0),
    ));
    verdicts.push(Verdict::new(
        "syncs of the disk for each of these",
        small.syncs as f64 / small.deliveries as f64,
        Bound::AtMost(2.0),
    ));
    verdicts.push(Verdict::new(
        format!("syncs a request, one delivery of {deliveries} requests"),
        small.busy_syncs as f64 / small.deliveries as f64,
        Bound::AtMost(0.1),
    ));
    let backlog = &measured.backlog;
    let waiting = format!(
        "{} small deliveries waiting",
        number(backlog.deliveries as f64)
    );
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e3).round();
    verdicts.push(Verdict::new(
        format!("s until the ports are open, {waiting}"),
        backlog.ready.as_secs_f64(),
        Bound::AtMost(1.0),
    ));
    verdicts.push(Verdict::new(
        format!("ms of the slowest page, {waiting}"),
        milliseconds(backlog.page),
        Bound::AtMost(50.0),
    ));
    verdicts.push(Verdict::new(
        format!("ms of the metrics, {waiting}"),
        milliseconds(backlog.metrics),
        Bound::AtMost(50.0),
    ));
    verdicts.push(Verdict::new(
        format!("MB resident, {waiting}"),
        (backlog.memory as f64 / 1e6).round(),
        Bound::AtMost(64.0),
    ));
    verdicts
}

impl Measured {
    /// The size at which targets are judged: a million rows, or the largest up to there.
    pub fn reference(&self) -> &Case {
        let mut sizes = self.sizes.iter().filter(|case| case.rows() <= 1_000_000);
        sizes.next_back().expect("there are sizes")
    }

    /// The largest size.
    pub fn largest(&self) -> &Case {
        self.sizes.last().expect("there are sizes")
    }
}

fn micros_a_row(case: &Case) -> f64 {
    case.median(|intake, _| intake.micros_a_row())
}

fn memory(case: &Case) -> f64 {
    case.median(|intake, _| intake.memory_sent as f64 / 1e6)
        .round()
}

/// Writes `REPORT.md` and the plots into a directory.
pub fn write(directory: &Path, measured: &Measured) -> std::io::Result<()> {
    for (name, svg) in plots(measured) {
        std::fs::write(directory.join(name), svg)?;
    }
    std::fs::write(directory.join("REPORT.md"), page(measured))
}

fn page(measured: &Measured) -> String {
    let mut out = String::from("# Performance, measured\n\n");
    let command = if measured.full { " -- --full" } else { "" };
    let _ = writeln!(
        out,
        "Written by `cargo bench --bench report{command}`; do not edit. {}\n\n\
         The daemon is the real binary, built as for a release, in a process of its own, with its default \
         settings but ports, paths and rate; memory is its `VmHWM`. The stand-ins for Looker (which has \
         the document in its memory before the clock starts) and for mParticle (which checks every batch) run in the \
         bench's process and share the processors with it. Each run is followed by what bounds it, measured alone: decoding and \
         mapping the same rows from memory on one core, a plain write and fdatasync of as many bytes as the outbox \
         came to, and a client that downloads the same document and throws it away. Values are medians of the runs.\n",
        machine()
    );
    let _ = write!(out, "## Targets\n\n{TARGETS}");
    lines(&mut out, &verdicts(measured));
    lines(&mut out, &interactive::verdicts(&measured.pages));
    if measured.pages.is_none() {
        let _ = writeln!(out, "\n{}", interactive::NOT_MEASURED);
    }
    for (title, verdicts) in &measured.stages {
        let _ = write!(out, "\n{title}, alone:\n\n{TARGETS}");
        lines(&mut out, verdicts);
    }
    out.push_str(
        "\nStages alone are measured in pairs with what they are compared to, in one process (`cargo bench --bench \
         ratios`); allocations are counted by `cargo bench --bench allocations`.\n\n## How cost grows\n\n",
    );
    table(&mut out, &measured.sizes);
    out.push_str("\n![Time](report-time.svg) ![Time a row](report-row.svg) ![Memory](report-memory.svg) ![Disk](report-disk.svg) ![Requests](report-requests.svg) ![Rate](report-rate.svg)\n");
    out.push_str("\n## Other users\n\n");
    table(&mut out, &measured.others);
    // Measured by other runs of this program, `-- --beside` and `-- --long`.
    for part in [beside::path(), long::path()] {
        if let Ok(part) = std::fs::read_to_string(part) {
            let _ = write!(out, "\n{part}");
        }
    }
    let _ = writeln!(out, "\n## What bounds each stage\n\n{}", bounds(measured));
    // Measured by another program, `--bench shared`.
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/shared.md");
    if let Ok(shared) = std::fs::read_to_string(shared) {
        let _ = write!(out, "\n{shared}");
    }
    out
}

fn table(out: &mut String, cases: &[Case]) {
    out.push_str(
        "| rows | users | runs | durable in | processor | rows/s | MB/s | resident | disk, most | after commit | after sending | batches | requests | sent in | parse alone | write alone | download alone |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for case in cases {
        let seconds = |value: f64| format!("{value:.2} s");
        let megabytes = |value: f64| format!("{:.0} MB", value / 1e6);
        let cells = [
            number(case.rows() as f64),
            case.name.clone(),
            case.runs.len().to_string(),
            seconds(case.median(|i, _| i.received.as_secs_f64())),
            seconds(case.median(|i, _| i.processor.as_secs_f64())),
            number(case.median(|i, _| i.rows_a_second()).round()),
            number(
                case.median(|i, _| i.bytes as f64 / 1e6 / i.received.as_secs_f64())
                    .round(),
            ),
            megabytes(case.median(|i, _| i.memory_sent as f64)),
            megabytes(case.median(|i, _| i.disk_peak as f64)),
            megabytes(case.median(|i, _| i.disk_received as f64)),
            megabytes(case.median(|i, _| i.disk_sent as f64)),
            number(case.median(|i, _| i.batches as f64)),
            number(case.median(|i, _| i.requests as f64)),
            seconds(case.median(|i, _| i.sent.map_or(0.0, |sent| sent.as_secs_f64()))),
            seconds(case.median(|_, f| f.parse.as_secs_f64())),
            seconds(case.median(|_, f| f.write.as_secs_f64())),
            seconds(case.median(|_, f| f.download.as_secs_f64())),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn plots(measured: &Measured) -> Vec<(&'static str, String)> {
    let rows = Axis {
        label: "rows".to_owned(),
        logarithmic: true,
    };
    let line = |name: &str, of: &dyn Fn(&Case) -> f64| Line {
        name: name.to_owned(),
        points: measured
            .sizes
            .iter()
            .map(|case| (case.rows() as f64, of(case)))
            .collect(),
    };
    let axis = |label: &str, logarithmic| Axis {
        label: label.to_owned(),
        logarithmic,
    };
    let steady = measured.steady.curve.iter().enumerate();
    vec![
        (
            "report-time.svg",
            plot(
                "Time until durable",
                &rows,
                &axis("seconds", true),
                &[
                    line("intake", &|case| {
                        case.median(|i, _| i.received.as_secs_f64())
                    }),
                    line("parse alone", &|case| {
                        case.median(|_, f| f.parse.as_secs_f64())
                    }),
                    line("write alone", &|case| {
                        case.median(|_, f| f.write.as_secs_f64())
                    }),
                    line("download alone", &|case| {
                        case.median(|_, f| f.download.as_secs_f64())
                    }),
                ],
            ),
        ),
        (
            "report-row.svg",
            plot(
                "Time a row until durable",
                &rows,
                &axis("microseconds", false),
                &[
                    line("intake", &micros_a_row),
                    line("processor", &|case| {
                        case.median(|i, _| i.processor_micros_a_row())
                    }),
                    line("parse alone", &|case| {
                        case.median(|i, f| f.parse.as_secs_f64() * 1e6 / i.rows as f64)
                    }),
                ],
            ),
        ),
        (
            "report-memory.svg",
            plot(
                "Peak resident memory of the daemon",
                &rows,
                &axis("MB", false),
                &[
                    line("until durable", &|case| {
                        case.median(|i, _| i.memory_received as f64 / 1e6)
                    }),
                    line("until sent", &memory),
                    line("target", &|_| 64.0),
                ],
            ),
        ),
        (
            "report-disk.svg",
            plot(
                "Disk",
                &rows,
                &axis("MB", true),
                &[
                    line("at most", &|case| {
                        case.median(|i, _| i.disk_peak as f64 / 1e6)
                    }),
                    line("durable", &|case| {
                        case.median(|i, _| i.disk_received as f64 / 1e6)
                    }),
                    line("all sent", &|case| {
                        case.median(|i, _| i.disk_sent as f64 / 1e6)
                    }),
                ],
            ),
        ),
        (
            "report-requests.svg",
            plot(
                "What is made of the rows",
                &rows,
                &axis("number", true),
                &[
                    line("requests", &|case| case.median(|i, _| i.requests as f64)),
                    line("batches", &|case| case.median(|i, _| i.batches as f64)),
                ],
            ),
        ),
        (
            "report-rate.svg",
            plot(
                "Share of 270 batches/s that is used",
                &axis("seconds since the delivery was durable", false),
                &axis("share", false),
                &[Line {
                    name: "share".to_owned(),
                    points: steady
                        .map(|(at, share)| (at as f64 + 1.0, *share))
                        .collect(),
                }],
            ),
        ),
    ]
}

fn bounds(measured: &Measured) -> String {
    let case = measured.reference();
    let share = |of: &dyn Fn(&crate::intake::Floor) -> f64| {
        let share = case.median(|intake, floor| of(floor) / intake.received.as_secs_f64());
        format!("{:.0}%", share * 100.0)
    };
    let steady = &measured.steady;
    format!(
        "**Whole intake.** At {rows} rows it takes {seconds:.2} s. Alone, the download from the stand-in would take {download} \
         of that, decoding and mapping {parse}, and writing the outbox's bytes {write}; a stage that shares the processors \
         with the others takes longer than alone. Bounded by the worker, which decodes and maps while rows come and merges and \
         encodes afterwards; in the first part the other threads and the stand-in take the other core.\n\n\
         **Decode and map.** One thread, while the network is read by another. Bounded by that core: by the row's scan for \
         the ends of its values, the copies into the record, and the check for UTF-8.\n\n\
         **Grouping.** What does not fit into the budget is sorted, sealed and written to a temporary file by a thread of \
         its own, and read back: at {rows} rows the daemon's files come to {disk:.0} MB at most, {kept:.0} MB of which \
         stay. A row is two bytes and its text for each value, and 16 bytes in front of them all. \
         Bounded by copies in the memory, since the records of a user lie all over it, and by the disk when that is slower. From \
         256 MB on the temporary file is compressed, and what has been read of it is given back. In a profile of the daemon at \
         10,000,000 rows (`perf record -e cpu-clock`), lz4 has 27% of the processor, the kernel 17% (sockets, the page cache, waking \
         threads), mapping 14%, decoding 11%, copies in the memory 7%, sorting and merging 6%, and AES-GCM 2%.\n\n\
         **Encode and outbox.** Begins when the last row is in; one thread merges and encodes, another compresses and \
         writes. Bounded by the slower of them, and they take about as long: copies, AES-GCM and the heap here, lz4 there.\n\n\
         **Drain.** Bounded by the rate limit: {share:.1}% of it in the worst {window} s. Without a limit, by the stand-in, \
         which checks every batch and takes two thirds of the processors; of the rest most is opening, decompressing and copying bodies.\n\n\
         **Restart.** No body is read at a start, only the state and one footer. Bounded by opening sled and by syncs.",
        rows = number(case.rows() as f64),
        seconds = case.median(|intake, _| intake.received.as_secs_f64()),
        download = share(&|floor| floor.download.as_secs_f64()),
        parse = share(&|floor| floor.parse.as_secs_f64()),
        write = share(&|floor| floor.write.as_secs_f64()),
        disk = case.median(|intake, _| intake.disk_peak as f64 / 1e6),
        kept = case.median(|intake, _| intake.disk_received as f64 / 1e6),
        share = steady.worst_share * 100.0,
        window = steady.window.as_secs(),
    )
}
