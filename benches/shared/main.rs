//! The shared outbox on a PostgreSQL of this machine, which this program starts, where it is installed.
//!
//! `cargo bench --bench shared` runs small sizes and prints; `cargo bench --bench shared -- --full` those of
//! the targets (some 14 minutes, 4 GB of disk, and 5 GB of memory for the document). With `--write` what was measured becomes a part of
//! `benches/REPORT.md`, by `benches/shared.md`. Server, daemons and stand-ins share the processors and one
//! disk.

#[path = "../report/daemon.rs"]
#[allow(dead_code)] // Each bench uses its own part of this.
mod daemon;
mod drain;
mod intake;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../report/lines.rs"]
mod lines;
mod page;
#[path = "../../tests/postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
mod settle;
#[path = "../report/svg.rs"]
mod svg;
#[path = "../report/world.rs"]
#[allow(dead_code)] // Each bench uses its own part of this.
mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::Daemon;
use kit::{Bound, Verdict};
use server::{Database, Isolation, Server};
use world::World;

/// As fast as it can.
const UNPACED: u32 = 1_000_000;
/// What a server is given that is meant for more than a test.
const OPTIONS: [&str; 2] = ["-c shared_buffers=512MB", "-c max_wal_size=4GB"];

/// How much is measured.
struct Plan {
    /// Rows of a delivery, and how often.
    sizes: &'static [(u64, usize)],
    destinations: u16,
    /// Settling, and the same beside a session that holds an old snapshot.
    settle: [Duration; 2],
    /// Batches of each of the accounts that several daemons send to.
    backlog: u64,
    /// One account over several daemons at its limit.
    window: Duration,
    idle: Duration,
}

const SMALL: Plan = Plan {
    sizes: &[(20_000, 1)],
    destinations: 20,
    settle: [Duration::from_secs(8), Duration::from_secs(5)],
    backlog: 2_000,
    window: Duration::from_secs(5),
    idle: Duration::from_secs(10),
};

const FULL: Plan = Plan {
    sizes: &[(1_000_000, 3), (10_000_000, 1)],
    destinations: 300,
    settle: [Duration::from_secs(180), Duration::from_secs(90)],
    backlog: 40_000,
    window: Duration::from_secs(60),
    idle: Duration::from_secs(60),
};

fn main() {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo test --benches` runs it with no measuring in mind.
    if !has("--bench") {
        return;
    }
    let plan = if has("--full") { FULL } else { SMALL };
    let Some(bin) = server::bin() else {
        println!("NOT MEASURED: PostgreSQL is not installed (Debian: postgresql)");
        return;
    };
    // As a server comes: its commits wait for the disk.
    let server = Server::start(&bin, &OPTIONS);
    let begin = Instant::now();
    let mut verdicts = Vec::new();
    let mut add = |more: Vec<Verdict>| {
        more.iter().for_each(Verdict::print);
        verdicts.extend(more);
    };
    for &(rows, runs) in plan.sizes {
        add(intake::measure(&server, rows, runs));
    }
    add(settle::measure(
        &fresh(&server),
        plan.destinations,
        plan.settle[0],
        false,
    ));
    add(settle::measure(
        &fresh(&server),
        plan.destinations,
        plan.settle[1],
        true,
    ));
    let rates: Vec<(f64, f64)> = (1..=4)
        .map(|daemons| {
            let rate = drain::rate(&server, daemons, plan.backlog);
            println!("{daemons} daemons: {rate:.0} batches/s");
            (daemons as f64, rate)
        })
        .collect();
    add(drain::verdicts(&rates));
    add(drain::limit(&server, plan.window));
    add(vec![idle(&server, plan.idle)]);
    println!("in {:.0?}", begin.elapsed());
    if has("--write") {
        let version = server::psql(&server.directory, "postgres", "SHOW server_version");
        page::write(&verdicts, &rates, &version, has("--full")).expect("it can be written");
    }
}

fn fresh(server: &Server) -> Database {
    server.database(Isolation::Default, "template0")
}

/// A key file in `home`.
fn key(home: &Path) -> PathBuf {
    let path = home.join("key");
    std::fs::write(&path, "05".repeat(32)).expect("a key");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    path
}

fn start(home: &Path, endpoint: &str, database: &Database, rate: u32) -> Daemon {
    let more = [
        ("OUTBOX__BACKEND", "postgres".to_owned()),
        ("OUTBOX__URL", database.url()),
        ("OUTBOX__ALLOW_UNREPLICATED", "true".to_owned()),
        ("SEAL__KEY_FILE", key(home).display().to_string()),
    ];
    Daemon::start_with(home, endpoint, rate, &more)
}

/// Waits for something that must come.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "it does not come to it that {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A daemon that has nothing to do: statements a minute.
fn idle(server: &Server, time: Duration) -> Verdict {
    let database = fresh(server);
    let world = World::new(None);
    let home = tempfile::tempdir().expect("a directory");
    let daemon = start(home.path(), &world.endpoint, &database, UNPACED);
    let count = || -> u64 {
        // The server tells of them a moment later.
        std::thread::sleep(Duration::from_secs(2));
        let sql = format!(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{}'",
            database.name
        );
        let text = server::psql(&database.directory, "postgres", &sql);
        text.parse().expect("a number")
    };
    // What a start asks is asked by then.
    std::thread::sleep(Duration::from_secs(15));
    let (before, begin) = (count(), Instant::now());
    std::thread::sleep(time);
    let statements = count() - before;
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    drop(daemon);
    let what = "statements a minute of a daemon without work";
    Verdict::new(
        what,
        (statements as f64 / minutes).round(),
        Bound::AtMost(180.0),
    )
}
