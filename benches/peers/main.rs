//! The daemon beside the script that an engineer would write in an afternoon (`afternoon.py`: Python,
//! `ijson`, `requests`), on the same stream and against the same stand-in for mParticle: in peace,
//! killed half-way, and with mParticle answering 503 for a while.
//!
//! `cargo bench --bench peers` prints; `-- --full` runs a larger delivery and ten minutes of 503, and
//! writes `benches/PEERS.md`. Where Python or the two packages are missing it says so and measures
//! nothing.

#[path = "../report/daemon.rs"]
#[allow(dead_code)] // The report uses more of it.
mod daemon;
#[path = "../kit/mod.rs"]
mod kit;
#[path = "../report/world.rs"]
#[allow(dead_code)]
mod world;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use looker_feed::looker::document;
use looker_feed::sandbox::{Fault, Faults, Rule, Window};
use serde::Deserialize;

use daemon::Daemon;
use world::World;

const PYTHON: &str = "python3";
/// The daemon's limit from which on it has none.
const UNPACED: u32 = 100_000;
const LOOK: Duration = Duration::from_millis(20);
/// Neither side needs longer beyond an outage.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How one delivery went.
#[derive(Clone, Debug)]
struct Run {
    /// From the start of the delivery until the last request was answered.
    took: Duration,
    /// Most memory resident, in bytes.
    memory: u64,
    requests: u64,
    batches: u64,
    events: u64,
}

/// The script's last line.
#[derive(Deserialize)]
struct Said {
    memory_bytes: u64,
    first_error: Option<String>,
}

fn main() {
    if let Err(why) = python() {
        println!("Not measured: {why}");
        return;
    }
    let full = std::env::args().any(|argument| argument == "--full");
    let (rows, outage) = match full {
        true => (1_000_000, Duration::from_secs(600)),
        false => (100_000, Duration::from_secs(45)),
    };
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let document: Arc<[Bytes]> = document(&kit::shape(rows)).collect();
    let bench = Bench {
        home: home.path(),
        document,
        rows,
    };
    let mut page = format!(
        "# Beside a script\n\nWritten by `cargo bench --bench peers{}`; do not edit. {} rows of 11 columns, 5 a user, \
         over loopback on one machine; the stand-in for mParticle checks every batch and has no limit of its own. The \
         script is `benches/peers/afternoon.py`.\n\n\
         | | script | looker-feed | |\n|---|---:|---:|---:|\n",
        if full { " -- --full" } else { "" },
        kit::number(rows as f64)
    );
    println!("In peace ...");
    let (script, daemon) = (bench.script(None), bench.daemon(None));
    let rate = |run: &Run| rows as f64 / run.took.as_secs_f64();
    let mut line = |what: &str, script: f64, daemon: f64, ratio: bool| {
        let times = match ratio {
            true => format!("{} times", kit::number(daemon / script)),
            false => String::new(),
        };
        let (script, daemon) = (kit::number(script), kit::number(daemon));
        println!("  {what:54} {script:>12} {daemon:>12}   {times}");
        let _ = writeln!(page, "| {what} | {script} | {daemon} | {times} |");
    };
    line(
        "rows/s, until the last has arrived",
        rate(&script).round(),
        rate(&daemon).round(),
        true,
    );
    line(
        "MB resident",
        (script.memory as f64 / 1e6).round(),
        (daemon.memory as f64 / 1e6).round(),
        true,
    );
    line(
        "requests",
        script.requests as f64,
        daemon.requests as f64,
        true,
    );
    line(
        "batches (what mParticle's limit counts)",
        script.batches as f64,
        daemon.batches as f64,
        true,
    );
    for (what, run) in [("script", &script), ("daemon", &daemon)] {
        assert_eq!(run.events, rows, "in peace the {what} delivers every row");
    }
    println!("Killed half-way ...");
    let (script, again) = bench.script_killed();
    let daemon = bench.daemon_killed();
    line(
        "rows missing, killed when half had arrived",
        (rows - script) as f64,
        rows.saturating_sub(daemon) as f64,
        false,
    );
    line(
        "rows doubled once it was started again",
        again.saturating_sub(rows) as f64,
        daemon.saturating_sub(rows) as f64,
        false,
    );
    println!("{} s of 503 ...", outage.as_secs());
    let (script, daemon) = (bench.script(Some(outage)), bench.daemon(Some(outage)));
    line(
        &format!("rows missing after {} s of 503", outage.as_secs()),
        (rows - script.events) as f64,
        (rows - daemon.events) as f64,
        false,
    );
    assert_eq!(daemon.events, rows, "the daemon waits for mParticle");
    if full {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/PEERS.md");
        std::fs::write(&path, page).expect("the page can be written");
        println!("\nWritten: {}", path.display());
    }
}

/// Whether the script can run here.
fn python() -> Result<(), String> {
    let tried = Command::new(PYTHON)
        .args(["-c", "import ijson, requests"])
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => {
            Err("Python has not got ijson and requests (pip install ijson requests)".to_owned())
        }
        Err(error) => Err(format!("{PYTHON} cannot be started: {error}")),
    }
}

struct Bench<'a> {
    home: &'a Path,
    document: Arc<[Bytes]>,
    rows: u64,
}

impl Bench<'_> {
    fn script(&self, outage: Option<Duration>) -> Run {
        let world = World::new(None);
        refuse(&world, outage);
        let start = Instant::now();
        let child = self.start_script(&world);
        let output = child.wait_with_output().expect("the script ends");
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said = text.lines().last().unwrap_or_default();
        let said: Said = serde_json::from_str(said).expect("its last line is JSON");
        if outage.is_none() {
            assert_eq!(said.first_error, None, "in peace no request fails");
        }
        run(&world, took, said.memory_bytes)
    }

    /// Events that arrived until it was killed, and until it had been run once more.
    fn script_killed(&self) -> (u64, u64) {
        let world = World::new(None);
        let mut child = self.start_script(&world);
        self.wait_for_half(&world);
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
        let killed = world.mparticle.counts().events;
        let again = self.start_script(&world).wait_with_output();
        assert!(again.expect("the script ends").status.success());
        (killed, world.mparticle.counts().events)
    }

    fn start_script(&self, world: &World) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/afternoon.py");
        let url = world.publish_made(&self.document);
        Command::new(PYTHON)
            .arg(script)
            .args([url.as_str(), &world.endpoint])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the script starts")
    }

    fn daemon(&self, outage: Option<Duration>) -> Run {
        let world = World::new(None);
        refuse(&world, outage);
        let directory = tempfile::tempdir_in(self.home).expect("a directory");
        let daemon = Daemon::start(directory.path(), &world.endpoint, UNPACED);
        let start = Instant::now();
        let url = world.publish_made(&self.document);
        world.runtime.block_on(daemon.execute(url));
        world.runtime.block_on(daemon.sent());
        run(&world, start.elapsed(), daemon.peak_memory())
    }

    /// Events that have arrived once it was killed, started again, and has sent all.
    fn daemon_killed(&self) -> u64 {
        let world = World::new(None);
        let directory = tempfile::tempdir_in(self.home).expect("a directory");
        let daemon = Daemon::start(directory.path(), &world.endpoint, UNPACED);
        let url = world.publish_made(&self.document);
        world.runtime.block_on(daemon.execute(url));
        self.wait_for_half(&world);
        daemon.kill();
        let daemon = Daemon::start(directory.path(), &world.endpoint, UNPACED);
        world.runtime.block_on(daemon.sent());
        world.mparticle.counts().events
    }

    fn wait_for_half(&self, world: &World) {
        let start = Instant::now();
        while world.mparticle.counts().events < self.rows / 2 {
            assert!(start.elapsed() < PATIENCE, "half of the rows arrive");
            std::thread::sleep(LOOK);
        }
    }
}

/// Has mParticle answer 503 from now on, for this long.
fn refuse(world: &World, outage: Option<Duration>) {
    let Some(outage) = outage else { return };
    let fault = Fault::Status {
        status: 503,
        retry_after: None,
        exceeded: None,
        body: None,
    };
    let window = Window {
        from_ms: 0,
        until_ms: u64::try_from(outage.as_millis()).expect("some minutes"),
    };
    let rule = Rule {
        window: Some(window),
        ..Rule::always(fault)
    };
    let faults = Faults {
        rules: vec![rule],
        ..Faults::default()
    };
    world
        .mparticle
        .set_faults(faults)
        .expect("a rule that holds");
}

fn run(world: &World, took: Duration, memory: u64) -> Run {
    let counts = world.mparticle.counts();
    Run {
        took,
        memory,
        requests: counts.requests,
        batches: counts.batches,
        events: counts.events,
    }
}
