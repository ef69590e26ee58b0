//! What `preview` says of documents that people who do this job have reported, to the letter: read by
//! a person, and kept in `tests/field/`.

mod support;

use std::path::Path;

use support::run;

const FIELD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/field");
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/field");

/// What is said of a file, the same on every day: nothing is too old or too far ahead for the machine's
/// clock.
fn preview(name: &str, arguments: &[&str]) -> Option<String> {
    let path = Path::new(FIELD).join(name);
    if !path.exists() {
        eprintln!("skipped: {name} is not in {FIELD}");
        return None;
    }
    let path = path.display().to_string();
    let never = ["--historical-events", "never"];
    let all = [&["preview", path.as_str()], &never[..], arguments].concat();
    let (code, out, err) = run(&all, &[("MPARTICLE__LATEST_EVENT_AHEAD", "36500d")]);
    assert_eq!(code, Some(0), "{err}");
    Some(out.replace(&path, name))
}

#[test]
fn a_preview_of_what_was_seen_in_the_field_reads_as_it_was_read() {
    for (name, arguments) in [
        (
            "calculation_error",
            &["--data-type", "user", "--batches", "1"],
        ),
        ("event_times", &["--data-type", "event", "--batches", "1"]),
        ("long_list", &["--data-type", "user", "--batches", "0"]),
        ("number_ids", &["--data-type", "user", "--batches", "3"]),
        ("tag_spelling", &["--data-type", "user", "--batches", "1"]),
    ] {
        let Some(said) = preview(&format!("{name}.json"), arguments) else {
            continue;
        };
        let kept = Path::new(KEPT).join(format!("{name}.txt"));
        if std::env::var_os("WRITE_SNAPSHOTS").is_some() {
            std::fs::write(&kept, &said).expect("a snapshot is written");
        }
        let want = std::fs::read_to_string(&kept).expect("a snapshot");
        assert_eq!(
            said, want,
            "read what is said of {name} now; if it is right, run this with WRITE_SNAPSHOTS=1"
        );
    }
}

#[test]
fn a_long_list_arrives_whole() {
    let Some(said) = preview("long_list.json", &["--data-type", "user", "--json"]) else {
        return;
    };
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let lists = said["first_batches"].as_array().expect("batches").iter();
    let lists = lists.map(|batch| &batch["batch"]["user_attributes"]["looker_l.skus"]);
    let lengths: Vec<_> = lists.map(|list| list.as_array().map(Vec::len)).collect();
    assert_eq!(lengths, [Some(300), Some(150)]);
    let first = &said["first_batches"][0]["batch"]["user_attributes"]["looker_l.skus"];
    assert_eq!(first[299], "SKU-0000000000000299");
}
