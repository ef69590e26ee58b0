//! Reads of sled's own that fail while the daemon starts: they go by no hook of ours, so the real binary
//! has a library before it that makes the n-th of them fail. Nothing is taken for gone by that, and a
//! later start has all.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use looker_feed::control::view;
use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use looker_feed::sandbox::Faults;
use support::{Daemon, World, down, from_url, spawn_by};

const ROWS: u64 = 500;
const EIO: &str = "5";
const EACCES: &str = "13";
/// A start that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

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
    world.mparticle.set_faults(down()).unwrap();
    let daemon = Daemon::start(home, &world.endpoint, &[]);
    for seed in [1, 2] {
        let shape = Shape {
            rows: ROWS,
            users: 100,
            seed,
            ..Shape::default()
        };
        let url = world.looker.publish(shape);
        let answer = daemon.execute(from_url(url, DataType::Event)).await;
        assert!(answer.is_success(), "{answer:?}");
    }
    daemon.kill();
    std::fs::remove_file(home.join("log")).unwrap();
    world.mparticle.set_faults(Faults::default()).unwrap();
}

/// Starts with the `nth` read of the state failing, and then without; whether there were so many reads.
async fn start_with_failing(
    world: &World,
    before: &Path,
    library: &Path,
    (nth, error): (usize, &str),
) -> bool {
    let home = tempfile::tempdir().unwrap();
    copy(before, home.path());
    let counted = home.path().join("counted");
    let settings = [
        format!("LD_PRELOAD={}", library.display()),
        "FAIL_FILES=/outbox/state".to_owned(),
        format!("FAIL_NTH={nth}"),
        format!("FAIL_ERROR={error}"),
        format!("FAIL_COUNT={}", counted.display()),
    ];
    let mut wrapper = vec!["env"];
    wrapper.extend(settings.iter().map(String::as_str));
    let mut child = spawn_by(&wrapper, home.path(), &world.endpoint, &[]);
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
    let reads = std::fs::metadata(&counted).map_or(0, |meta| meta.len() as usize);
    let damaged = home.path().join("outbox/damaged");
    let set_aside = std::fs::read_dir(&damaged).map_or(0, Iterator::count);
    assert_eq!(set_aside, 0, "read {nth} was taken for damage: {}", log());

    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 2, "read {nth}: {}", daemon.log());
    for delivery in deliveries {
        assert_eq!(delivery.rows.delivered, ROWS, "read {nth}: {delivery:?}");
    }
    let overview: view::Overview = daemon.get("/api/v1/overview").await;
    assert_eq!(overview.outbox.damage, Vec::<String>::new());
    nth < reads
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
        let error = if nth % 3 == 2 { EACCES } else { EIO };
        if !start_with_failing(&world, &home, &library, (nth, error)).await {
            assert!(nth > 5, "only {nth} reads were tried");
            return;
        }
    }
}
