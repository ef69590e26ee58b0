//! `looker-feed outbox check` and `salvage`, on what a killed daemon and a bad disk leave behind.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use serde_json::Value;
use support::{Daemon, World, down, refuses, run};

const SETTINGS: [(&str, &str); 3] = [
    ("OUTBOX__SEGMENT_BYTES", "64KiB"),
    ("MPARTICLE__MAX_REQUEST_BYTES", "30000"),
    ("MPARTICLE__MAX_BATCH_BYTES", "30000"),
];

/// An outbox whose daemon was killed: one delivery settled but for a dead letter, two that wait.
struct Left {
    world: World,
    home: tempfile::TempDir,
    shapes: [Shape; 3],
}

impl Left {
    async fn behind() -> Self {
        let world = World::new(None).await;
        let home = tempfile::tempdir().unwrap();
        let shapes = [(1_000, 1), (5_000, 2), (6_000, 3)].map(|(rows, seed)| Shape {
            rows,
            users: rows / 5,
            seed,
            ..Shape::default()
        });
        let bad = refuses(shapes[0].row(7).customer_id);
        let daemon = Daemon::start(home.path(), &world.endpoint, &SETTINGS);
        for (n, shape) in shapes.iter().enumerate() {
            world.faults([if n == 0 { bad.clone() } else { down() }]);
            let url = world.looker.publish(shape.clone());
            daemon.accepts(url, DataType::Event).await;
            if n == 0 {
                daemon.settled().await;
            }
        }
        // While it runs, nobody else may.
        let left = Self {
            world,
            home,
            shapes,
        };
        let (code, _, err) = left.check();
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("in use"), "{err}");
        let nowhere = left.home.path().join("nowhere");
        let (code, _, err) = left.salvage(&["--to", &nowhere.display().to_string()]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("in use") && !nowhere.exists(), "{err}");
        daemon.kill();
        left
    }

    fn outbox(&self) -> PathBuf {
        self.home.path().join("outbox")
    }

    fn check(&self) -> (Option<i32>, Value, String) {
        let path = self.outbox().display().to_string();
        let (code, out, err) = run(&["outbox", "check", "--path", &path, "--json"], &[]);
        (code, serde_json::from_str(&out).unwrap_or_default(), err)
    }

    fn salvage(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let path = self.outbox().display().to_string();
        let mut all = vec!["outbox", "salvage", "--path", &path];
        all.extend(arguments);
        run(&all, &[])
    }

    /// Files of a directory of the outbox, in the order of their names.
    fn files(&self, directory: &str) -> Vec<PathBuf> {
        files_below(&self.outbox().join(directory))
    }

    /// Everything, byte by byte.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = files_below(&self.outbox()).into_iter();
        files
            .map(|file| (file.clone(), std::fs::read(file).unwrap()))
            .collect()
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(file, bytes).unwrap();
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// Ids and rows of the lines of a file of batches.
fn read_lines(file: &Path) -> (BTreeSet<String>, u64, usize) {
    let text = std::fs::read_to_string(file).unwrap();
    let (mut ids, mut rows, mut dead) = (BTreeSet::new(), 0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let id = line["batch"]["source_request_id"].as_str().unwrap();
        assert!(id.starts_with(line["delivery"].as_str().unwrap()), "{id}");
        assert!(ids.insert(id.to_owned()), "{id} stands there twice");
        rows += number(&line["rows"]);
        dead += usize::from(line["dead_letter"].is_string());
    }
    (ids, rows, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_outbox_passes_and_its_batches_can_be_read() {
    let left = Left::behind().await;
    let before = left.bytes();
    let (code, found, err) = left.check();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(found["sound"], true);
    let deliveries = found["deliveries"].as_array().unwrap();
    let standings: Vec<_> = deliveries.iter().map(|one| &one["standing"]).collect();
    assert_eq!(standings, ["settled", "unsettled", "unsettled"]);
    for (delivery, shape) in deliveries.iter().zip(&left.shapes) {
        assert_eq!(delivery["rows"], shape.rows);
        assert_eq!(delivery["damaged_rows"], 0);
        assert_eq!(delivery["damaged_records"], 0);
    }
    assert_eq!(deliveries[0]["rows_left"], 0);
    assert_eq!(deliveries[0]["rows_dead"], 5);
    assert_eq!(deliveries[1]["rows_left"], 5_000);
    assert_eq!(deliveries[2]["requests_left"], deliveries[2]["requests"]);

    let path = left.outbox().display().to_string();
    let (code, text, _) = run(&["outbox", "check", "--path", &path], &[]);
    assert_eq!(code, Some(0));
    assert!(text.contains("Nothing is damaged"), "{text}");
    assert!(text.contains("6000 rows"), "{text}");

    let file = left.home.path().join("batches.jsonl");
    let name = file.display().to_string();
    let (code, _, err) = left.salvage(&["--json-lines", &name]);
    assert_eq!(code, Some(0), "{err}");
    let (ids, rows, dead) = read_lines(&file);
    assert_eq!((ids.len(), rows, dead), (2_201, 11_005, 1));
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "user data is for its owner only");
    let (code, _, err) = left.salvage(&["--json-lines", &name]);
    assert_eq!(code, Some(1), "an old file is not written over: {err}");
    assert_eq!(left.bytes(), before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bad_disk_has_left_is_salvaged_and_delivered_and_the_loss_is_named() {
    let left = Left::behind().await;
    let segments = left.files("segments");
    assert!(segments.len() > 6, "{segments:?}");
    // One of each: a record, an end, a whole file.
    flip(&segments[0], 20_000);
    let cut = std::fs::File::options().write(true).open(&segments[1]);
    cut.unwrap().set_len(30_000).unwrap();
    std::fs::remove_file(segments.last().unwrap()).unwrap();
    let before = left.bytes();

    let (code, found, err) = left.check();
    assert_eq!(code, Some(1), "{err}");
    assert_eq!(found["faults"].as_array().unwrap().len(), 3, "{found}");
    let lost = |found: &Value, key: &str| -> Vec<u64> {
        let deliveries = found["deliveries"].as_array().unwrap();
        deliveries.iter().map(|one| number(&one[key])).collect()
    };
    let damaged = lost(&found, "damaged_rows");
    assert!(damaged[0] == 0 && damaged[1] > 100 && damaged[2] > 100);
    assert!(damaged[1] < 3_000 && damaged[2] < 3_000, "{damaged:?}");
    assert!(lost(&found, "damaged_records")[1] > 1);
    let path = left.outbox().display().to_string();
    let (code, text, _) = run(&["outbox", "check", "--path", &path], &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("DAMAGED"), "{text}");

    let file = left.home.path().join("batches.jsonl");
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("outbox");
    let (code, out, err) = left.salvage(&[
        "--json",
        "--json-lines",
        &file.display().to_string(),
        "--to",
        &to.display().to_string(),
    ]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(left.bytes(), before, "the source is as it was");
    let told: Value = serde_json::from_str(&out).unwrap();
    // Newest first there, oldest first here.
    let salvaged = told["salvaged"]["deliveries"].as_array().unwrap().iter();
    let said: Vec<u64> = salvaged
        .rev()
        .map(|one| number(&one["rows_lost"]))
        .collect();
    assert_eq!(said, damaged, "check and salvage say the same");
    let (ids, rows, _) = read_lines(&file);
    assert_eq!(rows, 11_005 - damaged.iter().sum::<u64>());

    // The copy is an outbox like any other, its losses written off, and a daemon delivers it.
    let path = to.display().to_string();
    let (code, out, _) = run(&["outbox", "check", "--path", &path, "--json"], &[]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(lost(&found, "rows_lost"), damaged);
    assert_eq!(lost(&found, "damaged_rows"), [0, 0, 0]);
    let key = |home: &Path| home.join("outbox.key");
    std::fs::copy(key(left.home.path()), key(elsewhere.path())).unwrap();
    left.world.faults([]);
    let mparticle = &left.world.mparticle;
    let already: usize = mparticle.ledger().len();
    let daemon = Daemon::start(elsewhere.path(), &left.world.endpoint, &SETTINGS);
    let mut deliveries = daemon.settled().await;
    deliveries.reverse();
    let rows: Vec<_> = deliveries.iter().map(|one| one.rows).collect();
    assert_eq!((rows[0].delivered, rows[0].dead), (995, 5));
    for (rows, lost) in rows.iter().zip(&damaged) {
        assert_eq!((rows.damaged, rows.waiting), (*lost, 0));
    }
    let arrived: BTreeSet<String> = mparticle.ledger()[already..]
        .iter()
        .filter_map(|accepted| accepted.id.clone())
        .collect();
    let waiting: BTreeSet<String> = ids
        .iter()
        .filter(|id| !id.starts_with(&deliveries[0].id))
        .cloned()
        .collect();
    assert_eq!(arrived, waiting, "what could be read was sent, once");
    assert_eq!(mparticle.counts().conflicts, 0);
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_state_an_outbox_is_salvaged_from_its_files() {
    let left = Left::behind().await;
    let state = left.outbox().join("state/db");
    std::fs::write(&state, b"no database").unwrap();
    let before = left.bytes();
    let (code, found, _) = left.check();
    assert_eq!(code, Some(1));
    let faults = found["faults"].as_array().unwrap();
    assert!(
        faults
            .iter()
            .any(|fault| fault["file"].as_str().unwrap().ends_with("state")),
        "{found}"
    );
    let standings: Vec<_> = found["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["standing"], number(&one["rows_left"])))
        .collect();
    assert_eq!(standings.len(), 2, "those with segments: {found}");
    assert!(standings.iter().all(|(one, _)| *one == "unrecorded"));

    let file = left.home.path().join("batches.jsonl");
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("outbox").display().to_string();
    let lines = file.display().to_string();
    let (code, text, err) = left.salvage(&["--json-lines", &lines, "--to", &to]);
    assert_eq!(code, Some(0), "{err}");
    assert!(text.contains("The state cannot be read"), "{text}");
    assert!(text.contains("outbox.key"), "the way on: {text}");
    assert_eq!(read_lines(&file).1, 11_005);
    assert_eq!(left.bytes(), before, "the source is as it was");
    let (code, ..) = run(&["outbox", "check", "--path", &to], &[]);
    assert_eq!(code, Some(0), "the copy is sound");

    // It is not put where something is, nor into what it comes from.
    let (code, _, err) = left.salvage(&["--to", &to]);
    assert_eq!(code, Some(1));
    assert!(err.contains("not empty"), "{err}");
    let inside = left.outbox().join("new").display().to_string();
    let (code, _, err) = left.salvage(&["--to", &inside]);
    assert_eq!(code, Some(1));
    assert!(err.contains("another place"), "{err}");
    assert_eq!(left.bytes(), before);
}

#[test]
fn a_place_that_is_no_outbox_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nothing").display().to_string();
    for directory in [path, home.path().display().to_string()] {
        let (code, out, err) = run(&["outbox", "check", "--path", &directory], &[]);
        assert_eq!((code, &out[..]), (Some(2), ""), "{err}");
        assert!(err.contains(&directory), "{err}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    let (code, ..) = run(&["outbox", "salvage", "--path", "x"], &[]);
    assert_eq!(code, Some(64), "where to is not said");
}
