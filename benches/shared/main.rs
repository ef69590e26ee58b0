//! The shared outbox on a PostgreSQL of this machine, which this program starts, where it is installed.
//!
//! `cargo bench --bench shared` runs small sizes; `cargo bench --bench shared -- --full` those of the
//! targets (some 15 minutes). Each line has its target; the numbers are printed, and nothing fails by them.
//! Server, daemon and stand-ins share the processors and one disk.

#[path = "../report/daemon.rs"]
#[allow(dead_code)]
mod daemon;
#[path = "../../tests/postgres/server.rs"]
#[allow(dead_code)]
mod server;
mod settle;
#[path = "../report/world.rs"]
#[allow(dead_code)]
mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::Daemon;
use looker_feed::looker::Shape;
use server::{Database, Isolation, Server};
use world::World;

/// As fast as it can.
const UNPACED: u32 = 1_000_000;

fn main() {
    // `cargo test --benches` runs it with no measuring in mind.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let full = std::env::args().any(|argument| argument == "--full");
    let Some(bin) = server::bin() else {
        println!("NOT MEASURED: PostgreSQL is not installed (Debian: postgresql)");
        return;
    };
    // As a server comes: its commits wait for the disk.
    let server = Server::start(&bin, &[]);
    intake(&server, if full { 1_000_000 } else { 50_000 });
    let time = Duration::from_secs(if full { 600 } else { 10 });
    let destinations = if full { 300 } else { 30 };
    settle::measure(&fresh(&server), destinations, time, false);
    settle::measure(&fresh(&server), destinations, time, true);
    idle(&server, Duration::from_secs(if full { 60 } else { 10 }));
}

fn fresh(server: &Server) -> Database {
    server.database(Isolation::Default, "template0")
}

fn line(what: &str, figure: &str, target: &str) {
    println!("{what:52} {figure:>22}   target {target}");
}

/// A key file in `home`.
fn key(home: &Path) -> PathBuf {
    let path = home.join("key");
    std::fs::write(&path, "05".repeat(32)).expect("a key");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    path
}

fn start(home: &Path, endpoint: &str, database: &Database) -> Daemon {
    let more = [
        ("OUTBOX__BACKEND", "postgres".to_owned()),
        ("OUTBOX__URL", database.url()),
        ("OUTBOX__ALLOW_UNREPLICATED", "true".to_owned()),
        ("SEAL__KEY_FILE", key(home).display().to_string()),
    ];
    Daemon::start_with(home, endpoint, UNPACED, &more)
}

/// A delivery through the real daemon, until Looker hears of success; and the blocks that came of it,
/// written by a plain client.
fn intake(server: &Server, rows: u64) {
    let database = fresh(server);
    let world = World::new(None);
    let home = tempfile::tempdir().expect("a directory");
    // Nothing is sent while it is measured: nobody answers there.
    let daemon = start(home.path(), "http://127.0.0.1:9/v2", &database);
    let shape = Shape {
        rows,
        users: rows.div_ceil(5),
        ..Shape::default()
    };
    let begin = Instant::now();
    world
        .runtime
        .block_on(daemon.execute(world.publish(&shape)));
    let took = begin.elapsed().as_secs_f64();
    let memory = daemon.peak_memory() / 1_000_000;
    line(
        &format!("intake of {rows} rows"),
        &format!("{:.0} rows/s", rows as f64 / took),
        "250,000 rows/s, no standby",
    );
    line("its memory at most", &format!("{memory} MB"), "80 MB");
    daemon.kill();
    let bytes: u64 = database
        .psql("SELECT sum(length(body)) FROM looker_feed.block")
        .parse()
        .expect("a number");
    database.psql(
        "CREATE TABLE plain (body bytea); ALTER TABLE plain ALTER COLUMN body SET STORAGE EXTERNAL",
    );
    let begin = Instant::now();
    database.psql("INSERT INTO plain SELECT body FROM looker_feed.block");
    let plain = begin.elapsed().as_secs_f64();
    line(
        &format!(
            "the same blocks copied by the server ({} MB)",
            bytes / 1_000_000
        ),
        &format!("{:.2} of its rate", plain / took),
        "0.5 of a plain client's",
    );
}

/// A daemon that has nothing to do: statements a minute.
fn idle(server: &Server, time: Duration) {
    let database = fresh(server);
    let world = World::new(None);
    let home = tempfile::tempdir().expect("a directory");
    let daemon = start(home.path(), &world.endpoint, &database);
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
    let (before, begin) = (count(), Instant::now());
    std::thread::sleep(time);
    let statements = count() - before;
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    line(
        "an idle daemon asks",
        &format!("{:.0} statements/min", statements as f64 / minutes),
        "next to nothing: 1 a second and the beat",
    );
    drop(daemon);
}
