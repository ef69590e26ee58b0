//! Reads of sled's own that fail: they go by no hook of ours, so the real binary has a library before it
//! that makes them fail. At a start nothing is taken for gone by that, and a later start has all. While
//! the daemon runs there are none but for a copy of the state, and what fails there is tried again.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use looker_feed::clock::{self, UnixMillis};
use looker_feed::control::view;
use looker_feed::looker::Shape;
use looker_feed::model::{DataType, DestinationId};
use looker_feed::outbox::{AttemptEnd, MAX_ABOUT, NewAttempt, Outbox, Settings};
use looker_feed::seal::{Key, Keyring};
use support::{Daemon, World, down, from_url, spawn_by};

const ROWS: u64 = 500;
/// How reads fail: EIO, EACCES, and as if the file had been cut off.
const FAULTS: [u32; 3] = [5, 13, 0];
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A larger file of the state is copied.
const STATE_BYTES: u64 = 24 << 20;

/// Builds the library; `None`: there is no C compiler here.
fn library(home: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failing_reads.c");
    let library = home.join("failing_reads.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status();
    let there = built.is_ok_and(|status| status.success());
    assert!(
        there || std::env::var_os("CI").is_none(),
        "there is no C compiler"
    );
    if !there {
        eprintln!("skipped: this needs a C compiler named cc");
    }
    there.then_some(library)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A directory with deliveries of which nothing has been sent.
async fn filled(world: &World, home: &Path) {
    world.faults([down()]);
    let daemon = Daemon::start(home, &world.endpoint, &[]);
    for seed in [1, 2] {
        let shape = Shape {
            rows: ROWS,
            users: 100,
            seed,
            ..Shape::default()
        };
        let url = world.looker.publish(shape);
        daemon.accepts(url, DataType::Event).await;
    }
    daemon.kill();
    std::fs::remove_file(home.join("log")).unwrap();
    world.faults([]);
}

/// The real daemon with the library before it, which does as the file `failing` in its home says.
fn spawn_failing(library: &Path, home: &Path, world: &World, settings: &[(&str, &str)]) -> Child {
    let by = [
        format!("LD_PRELOAD={}", library.display()),
        "FAIL_FILES=/outbox/state".to_owned(),
        format!("FAIL_BY={}", failing(home).display()),
    ];
    let mut wrapper = vec!["env"];
    wrapper.extend(by.iter().map(String::as_str));
    spawn_by(&wrapper, home, &world.endpoint, settings)
}

fn failing(home: &Path) -> PathBuf {
    home.join("failing")
}

/// Says which reads fail from now on; whole at any time.
fn fail(home: &Path, which: &str) {
    let file = home.join("failing.new");
    std::fs::write(&file, which).unwrap();
    std::fs::rename(file, failing(home)).unwrap();
}

/// How many reads have failed.
fn failed_reads(home: &Path) -> u64 {
    std::fs::metadata(home.join("failing.failed")).map_or(0, |meta| meta.len())
}

/// Starts with the `nth` read of the state failing, and then without, and finds so many deliveries; whether
/// there were so many reads.
async fn start_with_failing(
    (world, library): (&World, &Path),
    before: &Path,
    settings: &[(&str, &str)],
    nth: usize,
    want: usize,
) -> bool {
    let home = tempfile::tempdir().unwrap();
    copy(before, home.path());
    fail(
        home.path(),
        &format!("one {nth} {}", FAULTS[nth.count_ones() as usize % 3]),
    );
    let mut child = spawn_failing(library, home.path(), world, settings);
    let log = || std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
    // It ends with a sentence, or it comes up, by trying again.
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(1), "read {nth}: {}", log());
            let log = log();
            let says_so = ["is not opened", "could not be opened"];
            assert!(
                says_so.iter().any(|words| log.contains(words)),
                "read {nth}: {log}"
            );
            break;
        }
        if log().contains("looker-feed is ready") {
            child.kill().unwrap();
            child.wait().unwrap();
            break;
        }
        assert!(start.elapsed() < PATIENCE, "read {nth}: {}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nothing_set_aside(home.path(), &format!("read {nth}"));

    let daemon = Daemon::start(home.path(), &world.endpoint, settings);
    check_delivered(&daemon, want, &format!("read {nth}")).await;
    failed_reads(home.path()) == 1
}

async fn check_delivered(daemon: &Daemon, want: usize, when: &str) {
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), want, "{when}: {}", daemon.log());
    for delivery in deliveries {
        assert_eq!(delivery.rows.delivered, ROWS, "{when}: {delivery:?}");
    }
    let overview: view::Overview = daemon.get("/api/v1/overview").await;
    assert_eq!(overview.outbox.damage, Vec::<String>::new());
}

fn nothing_set_aside(home: &Path, what: &str) {
    let set_aside = std::fs::read_dir(home.join("outbox/damaged")).map_or(0, Iterator::count);
    let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
    assert_eq!(set_aside, 0, "{what} was taken for damage: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_the_state_that_fails_at_a_start_loses_nothing() {
    let world = World::new(None).await;
    let before = tempfile::tempdir().unwrap();
    let Some(library) = library(before.path()) else {
        return;
    };
    let home = before.path().join("home");
    std::fs::create_dir(&home).unwrap();
    filled(&world, &home).await;
    for nth in 0.. {
        if !start_with_failing((&world, &library), &home, &[], nth, 2).await {
            assert!(nth > 5, "only {nth} reads were tried");
            return;
        }
    }
}

/// A state of failed deliveries whose file is as large as it may be before it is copied.
fn fill_state(home: &Path) {
    let key = home.join("key");
    std::fs::write(&key, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let keys = Arc::new(Keyring::new(Key::new([0x5a; 32]), Vec::new()));
    let path = home.join("outbox");
    let outbox = Outbox::open(Settings {
        reserve_bytes: 0,
        history: 100_000,
        state_bytes: 1 << 30,
        ..Settings::new(&path, keys)
    })
    .unwrap();
    while path.join("state/db").metadata().unwrap().len() < STATE_BYTES - (2 << 20) {
        for _ in 0..100 {
            let received = UnixMillis::now();
            let new = NewAttempt {
                id: clock::new_delivery_id(received).unwrap(),
                webhook: None,
                title: "A delivery that failed".to_owned(),
                about: std::iter::repeat_with(|| fastrand::u8(..))
                    .take(MAX_ABOUT)
                    .collect(),
                received,
            };
            let end = AttemptEnd {
                at: received,
                kind: 1,
                rows: 0,
                bytes: 0,
                message: String::new(),
            };
            outbox.record_failure(&new, end).unwrap();
        }
        // Behind them, so that they are on the disk.
        outbox.note((DestinationId([1; 16]), 9), None).unwrap();
    }
    outbox.close();
}

/// Looker executes a delivery; whether it was taken.
async fn deliver(daemon: &Daemon, world: &World, seed: u64) -> bool {
    let shape = Shape {
        rows: ROWS,
        users: 100,
        seed,
        ..Shape::default()
    };
    let url = world.looker.publish(shape);
    let answer = daemon.execute(from_url(url, DataType::Event)).await;
    answer.is_success()
}

/// Deliveries that fail, with much to be said of them.
async fn fail_deliveries(daemon: &Daemon, world: &World) {
    let url = world.looker.publish(Shape::default());
    let failing = (0..32).map(|n| {
        let mut failing = from_url(url.join("/nothing-there").unwrap(), DataType::Event);
        failing.plan.title = format!("Title {n}. ").repeat(40);
        failing.plan.link = format!("https://looker.example.com/looks/7?n={n}&").repeat(20);
        daemon.execute(failing)
    });
    let answers = futures::future::join_all(failing).await;
    assert!(answers.iter().all(|answer| !answer.is_success()));
}

async fn until(what: &str, daemon: &Daemon, so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "{what}: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_ready(daemon: &Daemon) -> bool {
    daemon.call("GET", "/readyz", "").await.0 == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_reads_nothing_of_its_state_and_copies_it_again_when_that_failed() {
    let world = World::new(None).await;
    let built = tempfile::tempdir().unwrap();
    let Some(library) = library(built.path()) else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fill_state(home);
    let key = home.join("key").display().to_string();
    let settings = [
        ("SEAL__KEY_FILE", key.as_str()),
        ("OUTBOX__HISTORY", "100000"),
    ];
    let child = spawn_failing(&library, home, &world, &settings);
    let daemon = Daemon::of(child, home);

    // Nothing of it is read for what comes and goes, until it has grown so far that it is copied.
    fail(home, "all");
    let mut taken = 0;
    while failed_reads(home) == 0 {
        assert!(taken < 40, "the state is not copied");
        taken += usize::from(deliver(&daemon, &world, taken as u64).await);
        fail_deliveries(&daemon, &world).await;
    }
    assert!(taken > 3, "{taken} deliveries before the state grew");
    // The copy cannot be read back: the old state is put back, and the daemon says so, and refuses.
    until("it refuses", &daemon, async || !is_ready(&daemon).await).await;
    let state_bytes = || {
        let meta = home.join("outbox/state/db").metadata();
        meta.map_or(0, |meta| meta.len())
    };
    until("the old state is put back", &daemon, async || {
        state_bytes() > STATE_BYTES
    })
    .await;
    assert!(!deliver(&daemon, &world, 1_000).await);
    let before = built.path().join("home");
    copy(home, &before);
    std::fs::remove_file(before.join("log")).unwrap();

    // When the disk can be read again, all goes on.
    std::fs::remove_file(failing(home)).unwrap();
    until("it is ready", &daemon, async || is_ready(&daemon).await).await;
    assert!(deliver(&daemon, &world, 1_001).await);
    check_delivered(&daemon, taken + 1, "after it was copied").await;
    nothing_set_aside(home, "a read that failed");
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home, &world.endpoint, &settings);
    check_delivered(&daemon, taken + 1, "after another start").await;
    drop(daemon);

    // One read here or there fails while it is opened, or copied then.
    std::fs::remove_file(before.join("failing")).unwrap();
    std::fs::remove_file(before.join("failing.failed")).unwrap();
    let mut nth = 0;
    while start_with_failing((&world, &library), &before, &settings, nth, taken).await {
        nth = nth * 4 + 3;
    }
    assert!(nth > 1_000, "only {nth} reads were tried");
    assert_eq!(world.mparticle.counts().conflicts, 0);
}
