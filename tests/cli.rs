//! The commands, on the real binary: exit codes, output for people and for programs, and that what
//! `preview` shows is what a delivery sends.

mod support;

use std::path::Path;
use std::process::Stdio;

use looker_feed::looker::{Shape, document};
use looker_feed::model::DataType;
use looker_feed::sandbox::Fault;
use serde_json::{Value, json};
use support::{Daemon, SECRET, World, command, refuses, run, run_line, run_with};

const COMMANDS: &str = "serve demo preview send status deliveries dead-letters rejected cancel pause resume \
    retry ask-again sandbox token check-config looker completions manual";

fn written(directory: &Path, name: &str, text: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn generated(rows: u64, users: u64, data_type: DataType) -> Vec<u8> {
    let shape = Shape {
        rows,
        users,
        data_type,
        ..Shape::default()
    };
    document(&shape).flatten().collect()
}

/// Ids and events of a batch without the delivery's own part.
fn without_delivery(batch: &Value) -> Value {
    fn row(id: &mut Value) {
        let text = id.as_str().expect("an id is text").to_owned();
        let (delivery, row) = text.rsplit_once('-').expect("delivery and row");
        assert_eq!(delivery.len(), 32, "{text}");
        *id = json!(row.parse::<u64>().expect("a row's number"));
    }
    let mut batch = batch.clone();
    row(&mut batch["source_request_id"]);
    if let Some(events) = batch.get_mut("events").and_then(Value::as_array_mut) {
        for event in events {
            row(&mut event["data"]["source_message_id"]);
        }
    }
    batch
}

fn sorted(mut batches: Vec<Value>) -> Vec<Value> {
    batches.sort_by_key(|batch| batch["source_request_id"].as_u64());
    batches
}

/// Columns first, as Looker streams them; `serde_json` sorts keys, and `data` comes before `fields`.
fn columns_first(document: &Value) -> String {
    let mut others = document.clone();
    let rows = others["data"].take();
    let others = others.to_string().replacen("\"data\":null,", "", 1);
    let others = others.strip_suffix('}').expect("an object");
    format!("{others},\"data\":{rows}}}")
}

/// Captured streams with tags added, where they are; and generated ones.
fn documents() -> Vec<(String, Vec<u8>, DataType)> {
    let (event, user) = (DataType::Event, DataType::User);
    let mut documents = vec![
        (
            "generated events".to_owned(),
            generated(700, 90, event),
            event,
        ),
        (
            "generated users".to_owned(),
            generated(300, 120, user),
            user,
        ),
    ];
    let rows: Vec<_> = (0..40)
        .map(|row| json!({"u.id": {"value": (row % 7 > 0).then_some(row % 7)}, "e.n": {"value": row}}))
        .collect();
    let early = json!({"data": rows, "fields": {
        "dimensions": [{"name": "u.id", "tags": ["mp_other"]}],
        "measures": [{"name": "e.n", "tags": ["mp_custom_attribute"]}],
    }});
    let early = early.to_string();
    assert!(early.starts_with("{\"data\""), "{early}");
    let name = "rows before columns, some without a user".to_owned();
    documents.push((name, early.into_bytes(), event));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/looker");
    for (file, identity, data_type) in [
        (
            "lite_stream_183_rows.json",
            "order_items.created_week",
            event,
        ),
        ("lite_stream_2995_rows_formatted.json", "users.state", user),
        ("json_detail_2017.json", "orders.created_month", event),
    ] {
        let Ok(text) = std::fs::read_to_string(format!("{folder}/{file}")) else {
            eprintln!("skipped: no captured stream at {folder}/{file}");
            continue;
        };
        let mut document: Value = serde_json::from_str(&text).expect("a captured stream");
        let other = match data_type {
            DataType::Event => "mp_custom_attribute",
            DataType::User => "mp_user_attribute",
        };
        for kind in ["dimensions", "measures"] {
            for field in document["fields"][kind].as_array_mut().expect("columns") {
                let is_identity = field["name"] == identity;
                field["tags"] = json!([if is_identity { "mp_customer_id" } else { other }]);
            }
        }
        let first = [columns_first(&document), document.to_string()].map(String::into_bytes);
        let [columns_first, rows_first] = first;
        documents.push((file.to_owned(), columns_first, data_type));
        documents.push((format!("{file}, rows first"), rows_first, data_type));
    }
    documents
}

fn word(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Event => "event",
        DataType::User => "user",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_preview_shows_is_what_a_delivery_sends() {
    let home = tempfile::tempdir().unwrap();
    for (name, document, data_type) in documents() {
        let file = written(home.path(), "document.json", &document);
        let kind = word(data_type);
        let line = format!("preview {file} --data-type {kind} --batches 1000000 --json");
        let (code, out, err) = run_line(&line, &[]);
        assert_eq!(code, Some(0), "{name}: {err}");
        let preview: Value = serde_json::from_str(&out).expect("one JSON object");

        let world = World::new(None).await;
        let daemon = world.daemon(&[]);
        let url = world.looker.publish_bytes(document);
        daemon.accepts(url, data_type).await;
        let deliveries = daemon.settled().await;

        let shown = preview["first_batches"].as_array().expect("batches");
        let shown = shown.iter().map(|batch| without_delivery(&batch["batch"]));
        let arrived = world.batches();
        let arrived = arrived.iter().map(|batch| {
            without_delivery(&serde_json::from_slice(batch).expect("a batch is JSON"))
        });
        assert_eq!(sorted(shown.collect()), sorted(arrived.collect()), "{name}");

        let counts = &preview["counts"];
        let of = &deliveries[0];
        assert_eq!(counts["rows"], of.rows_in, "{name}");
        assert_eq!(counts["rejected_rows"], of.rows.rejected, "{name}");
        assert_eq!(counts["users"], of.users, "{name}");
        assert_eq!(counts["batches"], of.batches, "{name}");
        let rejected = preview["rejected"].as_array().expect("reasons");
        let rejected: u64 = rejected.iter().filter_map(|r| r["rows"].as_u64()).sum();
        assert_eq!(rejected, of.rows.rejected, "{name}");
    }
}

/// A document with everything that a person can get wrong.
fn muddle() -> String {
    let rows: Vec<_> = (0..6)
        .map(|row| {
            json!({
                "u.id": {"value": (row != 2).then_some(row % 2)},
                "u.age": {"value": row},
                "e.at": {"value": if row == 3 { json!("yesterday") } else { json!(1_760_000_000_000_u64) }},
                "d.tint": {"value": "x"},
                "u.mail": {"value": "a@b.c"},
                "e.tags": {"value": ["a", "b"]},
            })
        })
        .collect();
    columns_first(&json!({
        "fields": {"dimensions": [
            {"name": "u.id", "tags": ["mp_customer_id"]},
            {"name": "u.age", "tags": ["pii"]},
            {"name": "e.at", "tags": ["mp_timestamp_unixtime_ms"]},
            {"name": "d.tint", "tags": ["mp_device_info"]},
            {"name": "u.mail", "tags": ["mp_emial"]},
            {"name": "e.tags", "tags": ["mp_custom_attribute", "mp_other"]},
            {"name": "u.none"},
        ]},
        "truncated": true,
        "errors": [{"message": "Note: a developer's model"}],
        "data": rows,
    }))
}

#[test]
fn preview_names_each_column_its_fate_and_why() {
    let home = tempfile::tempdir().unwrap();
    let file = written(home.path(), "m.json", muddle().as_bytes());
    let (code, out, err) = run(&["preview", &file, "--batches", "1"], &[]);
    assert_eq!((code, &*err), (Some(0), ""));
    let line = |name: &str| {
        let found = out.lines().find(|line| line.trim().starts_with(name));
        found.unwrap_or_else(|| panic!("no line {name} in\n{out}"))
    };
    let tags = "→ events[].data.custom_attributes.\"looker_e.tags\"";
    for (column, want) in [
        ("u.id", "→ user_identities.customer_id"),
        ("u.age", "none of its tags begins with mp_"),
        ("e.at", "→ events[].data.timestamp_unixtime_ms"),
        ("d.tint", "device_info has no field named tint"),
        ("u.mail", "did you mean mp_email?"),
        ("e.tags", tags),
        ("it has several", "only the first, mp_custom_attribute"),
        ("u.none", "not sent: no mp_ tag"),
        ("rejected rows", "2"),
        ("1 row: no identity", "(row 3)"),
        ("1 row: the timestamp", "(row 4)"),
        ("time", "at 270 batches a second"),
        ("Looker cut the result", "row limit"),
        ("Column e.tags", "was sent as its JSON text (4 rows"),
        ("Note:", "a developer's model"),
        ("FIRST BATCHES", "1 of 2"),
        ("\"customer_id\"", "\"0\""),
    ] {
        assert!(line(column).contains(want), "{want} in {}", line(column));
    }
    assert!(!out.contains('\u{1b}'), "no colours in a pipe");
    let columns: Vec<_> = ["u.id ", "u.age ", "e.at ", "u.none "]
        .map(|name| line(name).find(['→', '·', '✗']).expect("a mark"))
        .into();
    let aligned: Vec<_> = ["u.id ", "u.age ", "e.at ", "u.none "]
        .map(|name| line(name).chars().position(|c| "→·✗".contains(c)))
        .into();
    let is_aligned = aligned.iter().all(|at| *at == aligned[0]);
    assert!(is_aligned, "{columns:?}\n{out}");
}

#[test]
fn preview_says_what_the_daemon_would_say_and_shows_the_columns_all_the_same() {
    let home = tempfile::tempdir().unwrap();
    let untagged =
        r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_event_name"]}]},"data":[]}"#;
    let nobody = r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_email"]}]},"data":[{"u.id":{"value":null}}]}"#;
    let pivoted = r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_email"]}],"measures":[{"name":"o.n","tags":["mp_custom_attribute"]}],"pivots":[{"name":"o.y"}]},"data":[]}"#;
    for (text, column, want) in [
        (untagged, "u.id", "at least 1 identity tag"),
        (nobody, "u.id", "None of the 1 rows can be sent"),
        (pivoted, "o.n", "the query pivots on o.y"),
        (&muddle()[..muddle().len() - 9], "u.id", "cut off"),
        ("<html>", "", "byte 0"),
        ("", "", "empty"),
    ] {
        let file = written(home.path(), "bad.json", text.as_bytes());
        let (code, out, err) = run(&["preview", &file], &[]);
        assert_eq!(code, Some(1), "{text}");
        assert!(err.contains(want), "{want:?} in {err:?}");
        assert!(out.contains(column), "{column:?} in {out:?}");

        let (code, out, err) = run(&["preview", &file, "--json"], &[]);
        assert_eq!((code, &*err), (Some(1), ""));
        let report: Value = serde_json::from_str(&out).expect("JSON in any case");
        let error = report["error"].as_str().expect("an error");
        assert!(error.contains(want), "{want:?} in {error:?}");
    }
}

#[test]
fn preview_takes_standard_input_the_configuration_and_no_control_characters() {
    let text = r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_other2"]},
        {"name":"u.x\u001b[31m"}]},"data":[{"u.id":{"value":7},"u.x\u001b[31m":{"value":"\u001b]0;"}}]}"#;
    let settings = [
        ("MPARTICLE__IDENTITY_NAMES", "legacy"),
        ("MPARTICLE__UNTAGGED", "user_attribute"),
        ("MPARTICLE__BATCHES_PER_SECOND", "4"),
    ];
    let arguments = ["preview", "-", "--data-type", "user"];
    let (code, out, err) = run_with(text.as_bytes(), &arguments, &settings);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.contains("user_identities.other2"), "{out}");
    assert!(out.contains("user_attributes"), "{out}");
    assert!(out.contains("at 4 batches a second"), "{out}");
    let obeyed = |c: char| c.is_control() && c != '\n';
    assert!(!out.contains(obeyed), "{out:?}");

    let pivoted = r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_email"]}],"measures":[
        {"name":"o.\u001b[2J","tags":["mp_custom_attribute"]}],"pivots":[{"name":"o.y"}]},"data":[]}"#;
    let (code, _, err) = run_with(pivoted.as_bytes(), &["preview", "-"], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("pivots on o.y"), "{err}");
    assert!(!err.contains(obeyed), "{err:?}");

    let wrong = [("MPARTICLE__UNTAGGED", "maybe")];
    let (code, _, err) = run_with(text.as_bytes(), &arguments, &wrong);
    assert_eq!(code, Some(64), "{err}");
    assert_eq!(run(&["preview", "/nowhere/at/all"], &[]).0, Some(1));
    assert_eq!(run(&["preview", "/"], &[]).0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn send_brings_a_file_through_the_daemon_and_waits_for_mparticle() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let document = generated(2_000, 300, DataType::Event);
    let file = written(home.path(), "orders of May.json", &document);
    let (hub, admin) = (daemon.hub.as_str(), daemon.admin.as_str());
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "account-secret")];
    let send = ["send", &file, "--api-key", "account-key", "--hub", hub];

    let waited = [&send[..], &["--admin", admin, "--wait", "--json"]].concat();
    let (code, out, err) = run(&waited, &settings);
    assert_eq!((code, &*err), (Some(0), ""), "{out}\n{}", daemon.log());
    let report: Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!(report["state"]["rows"]["delivered"], 2_000);
    assert_eq!(report["state"]["id"], report["delivery"]);
    assert_eq!(report["state"]["title"], "orders of May.json");
    assert_eq!(world.mparticle.counts().batches, 300);

    // The same rows again, from standard input, as profiles, without waiting.
    let users = generated(50, 10, DataType::User);
    let by_hand = ["--title", "by hand", "--data-type", "user"];
    let arguments = [&["send", "-"], &send[2..], &by_hand].concat();
    let (code, out, err) = run_with(&users, &arguments, &settings);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("50 rows accepted as delivery "), "{out}");
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries[0].title, "by hand");
    assert_eq!(world.mparticle.counts().batches, 310);

    // The secret from standard input, and lines for a pipe.
    let more = ["--admin", admin, "--wait", "--api-secret-stdin"];
    let waited = [&send[..], &more].concat();
    let (code, out, err) = run_with(b"account-secret\n", &waited, &settings[..1]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("2,000 of 2,000 rows delivered."), "{out}");
    assert!(!daemon.log().contains("account-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn send_fails_with_the_daemons_words() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let good = written(home.path(), "g.json", &generated(10, 2, DataType::Event));
    let muddle = muddle();
    let bad = written(
        home.path(),
        "b.json",
        &muddle.as_bytes()[..muddle.len() - 9],
    );
    let (hub, admin) = (&daemon.hub, &daemon.admin);
    let ours = ("INTAKE__SECRET", SECRET);
    let account = ("API_SECRET", "account-secret");
    let (both, another) = ([ours, account], [("INTAKE__SECRET", "another"), account]);
    let nowhere = [ours, account, ("INTAKE__LISTEN", "127.0.0.1:0")];
    let stdin = format!("- --hub {hub} --api-secret-stdin");
    for (what, settings, code, want) in [
        (format!("{bad} --hub {hub}"), &both[..], 1, "cut off"),
        (format!("{good} --hub {hub}"), &another, 1, "another secret"),
        (
            format!("{good} --hub {hub}"),
            &[ours],
            64,
            "LOOKER_FEED_API_SECRET",
        ),
        (
            format!("{good} --hub {hub}"),
            &[account],
            64,
            "intake.secret",
        ),
        (
            format!("{good} --hub http://127.0.0.1:1"),
            &both,
            1,
            "no hub answers",
        ),
        (format!("{good} --hub ftp://x"), &both, 1, "not the address"),
        (
            format!("{good} --hub {admin}"),
            &both,
            1,
            "not an action hub",
        ),
        (format!("/nowhere --hub {hub}"), &both, 1, "/nowhere"),
        (good, &nowhere, 64, "--hub"),
        (stdin, &[ours], 64, "both"),
    ] {
        let line = format!("send --api-key k {what}");
        let (found, out, err) = run_line(&line, settings);
        assert_eq!(found, Some(code), "{line} {out:?} {err:?}");
        assert!(err.contains(want), "{want:?} in {err:?}");
        assert!(!err.contains("account-secret"), "{err}");
    }
    assert!(daemon.deliveries().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_steers_and_replays_from_the_command_line() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", daemon.admin.as_str())]);
    let json_of = |arguments: &[&str]| {
        let (code, out, err) = ask(arguments);
        assert_eq!((code, &*err), (Some(0), ""), "{arguments:?}");
        serde_json::from_str::<Value>(&out).expect("JSON")
    };

    // Nothing yet.
    assert_eq!(ask(&["status"]).0, Some(0));
    assert_eq!(json_of(&["status", "--json"])["ready"], true);
    for nothing in [
        &["deliveries"][..],
        &["deliveries", "--json"],
        &["dead-letters", "list"],
        &["rejected", "0123456789abcdef0123456789abcdef"],
        &["pause", "nobody"],
        &["dead-letters", "replay", "--all"],
    ] {
        let (code, _, err) = ask(nothing);
        assert_eq!(code, Some(3), "{nothing:?}: {err}");
    }

    // Of three users mParticle refuses one, and a row has none.
    world.faults([refuses("unlucky")]);
    let rows = ["a", "unlucky", "c"].map(|id| json!({"u.id": {"value": id}}));
    let rows = [&rows[..], &[json!({"u.id": {"value": null}})]].concat();
    let document = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": rows,
    });
    let file = written(home.path(), "d.json", document.to_string().as_bytes());
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];
    let (hub, admin, key) = (&daemon.hub, &daemon.admin, "a-key-that-is-long-enough");
    let line = format!("send {file} --api-key {key} --hub {hub} --admin {admin} --wait");
    let (code, out, err) = run_line(&line, &settings);
    assert_eq!(code, Some(1), "a dead letter is not a success: {err}");
    let said = "2 of 4 rows delivered, 1 rejected, 1 in the dead letters.";
    assert!(out.contains(said), "{out}");
    assert!(err.contains("dead-letters list --delivery"), "{err}");

    let deliveries = json_of(&["deliveries", "--json"]);
    let id = deliveries[0]["id"].as_str().expect("an id");
    let (_, table, _) = ask(&["deliveries"]);
    assert!(table.contains("d.json"), "{table}");
    let rejected = json_of(&["rejected", id, "--json"]);
    assert_eq!(rejected[0]["row"], 4);
    let outbox = &json_of(&["status", "--json"])["outbox"];
    assert_eq!(outbox["dead_letters"], 1);
    assert_eq!(outbox["rejected_rows"], 1);
    let letters = json_of(&["dead-letters", "list", "--json"]);
    let letter = letters[0]["id"].as_str().expect("an id");
    let (_, shown, _) = ask(&["dead-letters", "show", letter]);
    assert!(shown.contains("unlucky"), "{shown}");
    let export = home.path().join("export.jsonl");
    let export = export.to_str().unwrap();
    assert_eq!(ask(&["dead-letters", "export", "-o", export]).0, Some(0));
    let lines = std::fs::read_to_string(export).expect("the export");
    assert_eq!(lines.lines().count(), 1);
    serde_json::from_str::<Value>(&lines).expect("a line is JSON");

    // Paused, it stays; resumed and with the fault gone, it arrives.
    world.faults([]);
    let status = json_of(&["status", "--json"]);
    let destination = status["destinations"][0]["id"].as_str().expect("an id");
    assert_eq!(ask(&["pause", destination]).0, Some(0));
    let status = json_of(&["status", "--json"]);
    assert_eq!(status["destinations"][0]["state"], "paused");
    assert_eq!(ask(&["dead-letters", "discard", "--all"]).0, Some(1));
    let (code, out, err) = ask(&["dead-letters", "replay", letter]);
    assert_eq!(code, Some(0), "{out} {err}");
    assert_eq!(ask(&["resume", &destination[..8]]).0, Some(0));
    let rows = daemon.settled().await[0].rows;
    assert_eq!((rows.delivered, rows.dead), (3, 0));
    assert_eq!(world.batches().len(), 3);
    assert_eq!(ask(&["dead-letters", "list"]).0, Some(3));
    // Nothing of it waits, so nothing is cancelled; one that nobody knows is the same to a script.
    let (code, out, err) = ask(&["cancel", id]);
    assert_eq!((code, &*err), (Some(3), ""));
    let said = "0 batches (0 rows) are cancelled.";
    assert!(out.starts_with(said), "{out}");
    assert_eq!(ask(&["cancel", &"0".repeat(32)]).0, Some(3));

    // Gone.
    let admin = daemon.admin.clone();
    assert!(daemon.terminate().success());
    let (code, _, err) = run(&["status", "--admin", admin.as_str()], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no daemon answers"), "{err}");
}

#[test]
fn help_the_manual_and_the_completions_know_every_command() {
    let (code, help, _) = run(&["--help"], &[]);
    assert_eq!(code, Some(0));
    let (code, manual, err) = run(&["manual"], &[]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(manual.starts_with(".ie") && manual.contains(".TH looker-feed 1"));
    let scripts = ["bash", "zsh", "fish", "elvish", "powershell"].map(|shell| {
        let (code, script, err) = run(&["completions", shell], &[]);
        assert_eq!((code, &*err), (Some(0), ""), "{shell}");
        script
    });
    let listed: Vec<_> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for name in COMMANDS.split(' ') {
        assert!(listed.contains(&name), "{name} in {listed:?}");
    }
    for name in listed {
        let (code, own, _) = run(&[name, "--help"], &[]);
        assert_eq!(code, Some(0), "{name}");
        assert!(own.contains(&format!("Usage: looker-feed {name}")), "{own}");
        let escaped = format!("looker\\-feed {}\"", name.replace('-', "\\-"));
        assert!(manual.contains(&escaped), "{name} in the manual");
        for script in &scripts {
            assert!(script.contains(name), "{name} in a completion script");
        }
    }
    for wrong in [
        &["no-such-command"][..],
        &[],
        &["completions", "tcl"],
        &["preview"],
        &["preview", "x", "--data-type", "row"],
        &["send", "x"],
    ] {
        let (code, out, err) = run(wrong, &[]);
        assert_eq!((code, &*out), (Some(64), ""), "{wrong:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_mended_in_an_editor_and_arrives_once_under_an_id_of_its_own() {
    let world = World::new(None).await;
    world.faults([refuses("unlucky")]);
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let admin = daemon.admin.as_str();
    let rows = ["a", "unlucky", "c"].map(|id| json!({"u.id": {"value": id}}));
    let document = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": rows,
    });
    let file = written(home.path(), "d.json", document.to_string().as_bytes());
    let (hub, key) = (&daemon.hub, "a-key-that-is-long-enough");
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];
    let send = format!("send {file} --api-key {key} --hub {hub}");
    assert_eq!(run_line(&send, &settings).0, Some(0));
    daemon.settled().await;
    let letter = async || {
        let letters: Value = daemon.get("/api/v1/dead-letters").await;
        letters["items"][0]["id"].as_str().map(str::to_owned)
    };
    let first = letter().await.expect("a dead letter");
    let temporary = home.path().join("drafts");
    std::fs::create_dir(&temporary).unwrap();
    let edit = |editor: Option<&str>, arguments: &[&str]| {
        let output = command()
            .args(["dead-letters", "edit", "--admin", admin])
            .args(arguments)
            .env_remove("VISUAL")
            .env_remove("EDITOR")
            .env("TMPDIR", &temporary)
            .envs(editor.map(|editor| ("EDITOR", editor)))
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (out, err) = (text(output.stdout), text(output.stderr));
        (output.status.code(), out, err)
    };
    let drafts = || std::fs::read_dir(&temporary).unwrap().count();

    // No editor, one that fails, one that changes nothing: nothing is changed.
    let (code, _, err) = edit(None, &[&first]);
    assert_eq!(code, Some(1));
    assert!(err.contains("set VISUAL or EDITOR"), "{err}");
    assert_eq!(edit(Some("false"), &[&first]).0, Some(1));
    let (code, out, _) = edit(Some("true"), &[&first]);
    assert_eq!((code, &*out), (Some(3), "Nothing has changed.\n"));
    assert_eq!(edit(Some("true"), &["99-0"]).0, Some(3));
    assert_eq!(drafts(), 0);

    // What mParticle would not take is refused, and what was written is kept for its owner.
    let (code, _, err) = edit(Some("sed -i s/customer_id/customer_idd/"), &[&first]);
    assert_eq!(code, Some(1));
    assert!(err.contains("user_identities.customer_idd"), "{err}");
    assert_eq!(drafts(), 1);
    let draft = std::fs::read_dir(&temporary).unwrap().next().unwrap();
    let draft = draft.unwrap().path();
    let mode = std::fs::metadata(&draft).unwrap().permissions();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o600);
    assert!(err.contains(draft.to_str().unwrap()), "{err}");
    assert_eq!(letter().await.as_deref(), Some(&*first), "it is as it was");

    // Mended, it has another name; and it is that after a restart.
    let (code, out, err) = edit(Some("sed -i s/unlucky/lucky/"), &[&first]);
    assert_eq!(code, Some(0), "{err}");
    let second = letter().await.expect("it waits for its replay");
    assert_ne!(second, first);
    assert!(out.contains(&second), "{out}");
    assert_eq!(world.batches().len(), 2, "nothing is sent by an edit");
    assert!(daemon.log().contains("an operator edits a dead letter"));
    assert!(!daemon.log().contains("lucky"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let admin = daemon.admin.as_str();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", admin)]);
    let (_, shown, _) = ask(&["dead-letters", "show", &second]);
    assert!(shown.contains("\"lucky\""), "{shown}");
    assert!(shown.contains("edited since"), "{shown}");

    let (code, _, err) = ask(&["dead-letters", "replay", &second]);
    assert_eq!(code, Some(0), "{err}");
    let deliveries = daemon.settled().await;
    let rows = deliveries[0].rows;
    assert_eq!((rows.delivered, rows.dead), (3, 0));
    let arrived: Vec<Value> = world
        .batches()
        .iter()
        .map(|batch| serde_json::from_slice(batch).expect("JSON"))
        .collect();
    assert_eq!(arrived.len(), 3);
    let mended = &arrived[2];
    assert_eq!(mended["user_identities"]["customer_id"], "lucky");
    let id = mended["source_request_id"].as_str().expect("an id");
    assert!(id.starts_with(&deliveries[0].id), "{id}");
    assert!(id.contains(".e"), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_may_have_arrived_is_edited_only_by_one_who_knows_it() {
    let world = World::new(None).await;
    world.faults([Fault::DropAfter]);
    let home = tempfile::tempdir().unwrap();
    let settings = [("MPARTICLE__MAX_AGE", "1s")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let document = world.looker.publish(Shape {
        rows: 1,
        users: 1,
        ..Shape::default()
    });
    daemon.accepts(document, DataType::Event).await;
    daemon.settled().await;
    // The stand-in has taken it, and the daemon never heard of that.
    assert_eq!(world.batches().len(), 1);
    world.faults([]);
    let letters: Value = daemon.get("/api/v1/dead-letters").await;
    let letter = &letters["items"][0];
    assert_eq!(letter["may_have_arrived"], true, "{letter}");
    let id = letter["id"].as_str().expect("an id");
    let whole: Value = daemon.get(&format!("/api/v1/dead-letters/{id}")).await;
    let mut batch = whole["batch"].clone();
    batch["user_identities"] = json!({"email": "mended@example.com"});
    let admin = [("ADMIN_URL", daemon.admin.as_str())];
    let edit = ["dead-letters", "edit", id, "--file", "-", "--replay"];
    let (code, _, err) = run_with(batch.to_string().as_bytes(), &edit, &admin);
    assert_eq!(code, Some(1));
    assert!(err.contains("--may-double"), "{err}");
    // As long as the destination counts as down, what is too old dies again without being sent.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let admin = [("ADMIN_URL", daemon.admin.as_str())];
    let edit = [&edit[..], &["--may-double"]].concat();
    let (code, out, err) = run_with(batch.to_string().as_bytes(), &edit, &admin);
    assert_eq!(code, Some(0), "{out} {err}");
    daemon.settled().await;
    assert_eq!(world.batches().len(), 2);
}
