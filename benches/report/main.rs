//! One program that measures the whole feed: the real daemon as a child process between stand-ins
//! for Looker and mParticle.
//!
//! `cargo bench --bench report` runs small sizes and prints; `-- --page` measures the pages alone; `cargo bench --bench report -- --full`
//! runs large ones (some 10 minutes; 10 GB of disk, and 6 GB of memory for the document) and writes `benches/REPORT.md` with its plots;
//! `-- --long 100000000` measures one delivery of so many rows (some 15 minutes; 20 GB of disk), and `-- --beside <binary> <name> [s]`
//! another binary and this one in turns (a minute), both for the same report.

#[allow(dead_code)] // The rest of it is for tests.
#[path = "../../tests/page/browser.rs"]
mod browser;
#[path = "../../tests/page/history.rs"]
mod history;
#[path = "../kit/mod.rs"]
mod kit;

mod backlog;
mod beside;
#[allow(dead_code)] // Each bench uses its own part of this.
mod daemon;
mod intake;
mod interactive;
mod lines;
mod long;
mod many;
mod page;
mod small;
#[allow(dead_code)] // Its criterion benches are for `--bench ratios`.
#[path = "../ratios/stages.rs"]
mod stages;
mod steady;
mod svg;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backlog::Backlog;
use hyper::body::Bytes;
use intake::{Floor, Intake};
use interactive::Pages;
use kit::Verdict;
use looker_feed::looker::{Shape, document};
use many::Midnight;
use small::Small;
use steady::{Restart, Steady};

/// Everything that was measured.
pub(crate) struct Measured {
    pub full: bool,
    /// By size, 5 rows a user.
    pub sizes: Vec<Case>,
    /// Other users, by size.
    pub others: Vec<Case>,
    pub steady: Steady,
    pub restart: Restart,
    pub midnight: Midnight,
    pub small: Small,
    pub backlog: Backlog,
    pub pages: Pages,
    /// Each stage alone; empty at small sizes, where `--bench ratios` is run beside this.
    pub stages: Vec<(&'static str, Vec<Verdict>)>,
}

/// Some runs of one shape.
pub(crate) struct Case {
    pub name: String,
    pub runs: Vec<(Intake, Floor)>,
}

impl Case {
    /// The median of something over the runs.
    pub fn median(&self, of: impl Fn(&Intake, &Floor) -> f64) -> f64 {
        kit::median_of(self.runs.iter().map(|(intake, floor)| of(intake, floor)))
    }

    pub fn rows(&self) -> u64 {
        self.runs.first().map_or(0, |(intake, _)| intake.rows)
    }
}

/// How much is measured.
struct Plan {
    sizes: &'static [(u64, usize)],
    others: &'static [u64],
    ramp: Duration,
    window: Duration,
    backlog: u64,
    /// Rows of each of the deliveries that come at once.
    midnight: u64,
    /// Deliveries of one request each.
    small: u64,
    /// As many waiting at a start.
    waiting: u64,
}

const SMALL: Plan = Plan {
    sizes: &[(10_000, 3), (100_000, 3)],
    others: &[100_000],
    ramp: Duration::from_secs(12),
    window: Duration::from_secs(10),
    backlog: 100_000,
    midnight: 20_000,
    small: 1_000,
    waiting: 1_000,
};

const FULL: Plan = Plan {
    sizes: &[(10_000, 5), (100_000, 5), (1_000_000, 5), (10_000_000, 1)],
    others: &[1_000_000, 10_000_000],
    ramp: Duration::from_secs(15),
    window: Duration::from_secs(60),
    backlog: 1_000_000,
    midnight: 100_000,
    small: 5_000,
    waiting: 20_000,
};

fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    // For work on one thing: `-- --intake 1000000`.
    let only = |name: &str| {
        let number = std::env::args().skip_while(|argument| argument != name);
        let number = number.take(2).nth(1);
        number.map(|number| number.parse().expect("a number"))
    };
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    if let Some(rows) = only("--intake") {
        case("5 rows a user", &kit::shape(rows), 3, home.path(), false);
        return;
    }
    if let Some(rows) = only("--long") {
        long::run(home.path(), rows).expect("its part of the report can be written");
        return;
    }
    let beside = std::env::args_os().skip_while(|argument| argument != "--beside");
    if let [_, other, name, more @ ..] = &beside.take(4).collect::<Vec<_>>()[..] {
        let name = name.to_string_lossy();
        let once = more.first().and_then(|more| more.to_str()?.parse().ok());
        beside::run(home.path(), other, &name, once)
            .expect("its part of the report can be written");
        return;
    }
    if let Some(rows) = only("--midnight") {
        println!("{:?}", many::run(home.path(), rows));
        return;
    }
    if let Some(deliveries) = only("--small") {
        println!("{:?}", small::run(home.path(), deliveries));
        return;
    }
    if let Some(deliveries) = only("--backlog") {
        println!("{:?}", backlog::run(home.path(), deliveries));
        return;
    }
    if std::env::args().any(|argument| argument == "--page") {
        print_pages(&interactive::run(home.path()));
        return;
    }
    let plan = if full { FULL } else { SMALL };
    let sizes = plan
        .sizes
        .iter()
        .map(|&(rows, runs)| case("5 rows a user", &kit::shape(rows), runs, home.path(), true))
        .collect();
    let mut others = Vec::new();
    for &rows in plan.others {
        for (name, users) in [("1 row a user", rows), ("all rows one user", 1)] {
            let shape = Shape {
                users,
                ..kit::shape(rows)
            };
            others.push(case(name, &shape, 1, home.path(), true));
        }
    }
    println!("Sending at 270 batches/s ...");
    let steady = steady::run(home.path(), plan.ramp, plan.window);
    println!(
        "Starting with a backlog of {} batches ...",
        kit::number(plan.backlog as f64)
    );
    let restart = steady::restart(home.path(), plan.backlog);
    println!("{} large deliveries at once ...", many::LARGE);
    let midnight = many::run(home.path(), plan.midnight);
    println!("A backlog of {} small deliveries ...", plan.small);
    let small = small::run(home.path(), plan.small);
    println!("A start with {} small deliveries ...", plan.waiting);
    let backlog = backlog::run(home.path(), plan.waiting);
    println!(
        "The pages, {} deliveries in the history ...",
        kit::number(interactive::DELIVERIES as f64)
    );
    let pages = interactive::run(home.path());
    let measured = Measured {
        full,
        sizes,
        others,
        steady,
        restart,
        midnight,
        small,
        backlog,
        pages,
        stages: if full { stages() } else { Vec::new() },
    };

    println!();
    for verdict in page::verdicts(&measured) {
        verdict.print();
    }
    print_pages(&measured.pages);
    let out = if full {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches")
    } else {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
    };
    page::write(&out, &measured).expect("the report can be written");
    println!("\nWritten: {}", out.join("REPORT.md").display());
}

fn print_pages(pages: &Pages) {
    let verdicts = interactive::verdicts(pages);
    verdicts.iter().for_each(Verdict::print);
    if pages.is_none() {
        println!("{}", interactive::NOT_MEASURED);
    }
}

fn stages() -> Vec<(&'static str, Vec<Verdict>)> {
    let measured = stages::ALL.into_iter().map(|(title, stage)| {
        println!("{title} ...");
        let verdicts = stage();
        verdicts.iter().for_each(Verdict::print);
        (title, verdicts)
    });
    measured.collect()
}

fn case(name: &str, shape: &Shape, runs: usize, home: &Path, send: bool) -> Case {
    println!("{} rows, {name} ...", kit::number(shape.rows as f64));
    // Made before any clock runs: Looker has other processors than the daemon.
    let document: Arc<[Bytes]> = document(shape).collect();
    let runs = (0..runs).map(|_| {
        let intake = intake::run(home, shape, Some(&document), send);
        let floor = Floor::measure(home, shape, &document, intake.disk_received);
        println!(
            "  {:>9} rows/s, {:>4} MB/s, {:.2} processor s, {:>5} MB resident, {:>5} MB on disk at most; alone: parse {:.2} s, write {:.2} s, download {:.2} s",
            kit::number(intake.rows_a_second().round()),
            kit::number((intake.bytes as f64 / 1e6 / intake.received.as_secs_f64()).round()),
            intake.processor.as_secs_f64(),
            kit::number((intake.memory_sent as f64 / 1e6).round()),
            kit::number((intake.disk_peak as f64 / 1e6).round()),
            floor.parse.as_secs_f64(),
            floor.write.as_secs_f64(),
            floor.download.as_secs_f64(),
        );
        (intake, floor)
    });
    Case {
        name: name.to_owned(),
        runs: runs.collect(),
    }
}
