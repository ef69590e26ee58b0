//! People's data at rest, with the real binary: keys that change, keys that are missing, and what
//! the disk holds meanwhile.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use hyper::body::Bytes;
use looker_feed::looker::{Execute, PushStyle, Shape, Source, document};
use looker_feed::model::DataType;
use support::{Daemon, PATIENCE, World, down, from_url, run, spawn};

fn shape(rows: u64, seed: u64) -> Shape {
    Shape {
        rows,
        users: rows / 5,
        seed,
        ..Shape::default()
    }
}

fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

fn holds(bytes: &[u8], what: &str) -> bool {
    memchr::memmem::find(bytes, what.as_bytes()).is_some()
}

/// Starts a daemon that must not start; what it says.
fn refused(home: &Path, endpoint: &str, settings: &[(&str, &str)]) -> String {
    let log = home.join("log");
    let _ = std::fs::remove_file(&log);
    let status = spawn(home, endpoint, settings).wait().unwrap();
    assert!(!status.success(), "{status}");
    std::fs::read_to_string(log).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_with_a_backlog_and_taken_away_when_nothing_needs_it() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).display().to_string();
    let (old, new, outbox) = (place("old.key"), place("new.key"), place("outbox"));
    let backlog = shape(3_000, 1);
    world.faults([down()]);

    let with_old = [("SEAL__KEY_FILE", old.as_str())];
    let daemon = Daemon::start(home.path(), &world.endpoint, &with_old);
    assert!(daemon.log().contains("made a key"), "{}", daemon.log());
    let url = world.looker.publish(backlog.clone());
    daemon.accepts(url, DataType::Event).await;
    daemon.kill();

    // Neither another key, nor none, nor a new one in its place.
    let before = files(Path::new(&outbox));
    let with_new = [("SEAL__KEY_FILE", new.as_str())];
    let said = refused(home.path(), &world.endpoint, &with_new);
    assert!(said.contains("is not there"), "{said}");
    assert!(said.contains(&new), "{said}");
    let made = Path::new(&new).exists();
    assert!(!made, "no key is made that opens nothing");
    std::fs::copy(&old, place("kept")).unwrap();
    std::fs::remove_file(&old).unwrap();
    let said = refused(home.path(), &world.endpoint, &with_old);
    assert!(said.contains("is not there"), "{said}");
    assert!(said.contains(&old), "{said}");
    std::fs::rename(place("kept"), &old).unwrap();
    // A key there is, and it is another one.
    let check = ["outbox", "check", "--path", &outbox, "--key-file", &old];
    assert_eq!(run(&check, &[]).0, Some(0));
    let other = place("other.key");
    std::fs::write(&other, "ab".repeat(32)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&other, mode).unwrap();
    let with_other = [("SEAL__KEY_FILE", other.as_str())];
    let said = refused(home.path(), &world.endpoint, &with_other);
    assert!(said.contains("needs the key"), "{said}");
    assert!(said.contains("seal.previous_key_files"), "{said}");
    assert_eq!(files(Path::new(&outbox)), before, "nothing was touched");

    // The new key is made, and the old one opens what waits.
    let with_both = [
        ("SEAL__KEY_FILE", new.as_str()),
        ("SEAL__PREVIOUS_KEY_FILES", old.as_str()),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &with_both);
    daemon.says("credentials were resealed").await;
    daemon.says("this previous key is still needed").await;
    let url = world.looker.publish(shape(1_000, 2));
    daemon.accepts(url, DataType::Event).await;
    world.faults([]);
    daemon.settled().await;
    assert!(daemon.terminate().success());
    let events = world.batches().into_iter().map(|batch| {
        let batch: serde_json::Value = serde_json::from_slice(&batch).unwrap();
        batch["events"].as_array().unwrap().len()
    });
    let events: usize = events.sum();
    assert_eq!(events, 4_000, "all of it was delivered, once");

    let daemon = Daemon::start(home.path(), &world.endpoint, &with_both);
    let words = "nothing needs this previous key any more";
    daemon.says(words).await;
    daemon.kill();
    std::fs::remove_file(&old).unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &with_new);
    let url = world.looker.publish(shape(500, 3));
    daemon.accepts(url, DataType::Event).await;
    daemon.settled().await;
    let log = daemon.log();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_is_looked_at_and_salvaged_with_its_key() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).display().to_string();
    world.faults([down()]);
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let url = world.looker.publish(shape(200, 1));
    daemon.accepts(url, DataType::Event).await;
    daemon.kill();
    // Where it is looked for by itself, and where it is not.
    let (outbox, key) = (place("outbox"), place("elsewhere.key"));
    let check = |more: &[&str]| {
        let arguments = [&["outbox", "check", "--path", &outbox], more].concat();
        run(&arguments, &[])
    };
    let salvage = |lines: &str, more: &[&str]| {
        let salvage = ["outbox", "salvage", "--path", &outbox];
        run(
            &[&salvage[..], &["--json-lines", lines], more].concat(),
            &[],
        )
    };
    let (code, text, _) = check(&[]);
    assert_eq!(code, Some(0));
    assert!(text.contains("Sealed under the key") && !text.contains("Nothing was opened"));
    std::fs::rename(place("outbox.key"), &key).unwrap();
    let (code, text, _) = check(&[]);
    assert_eq!(code, Some(0));
    assert!(text.contains("Nothing was opened"), "{text}");
    let (code, text, _) = check(&["--key-file", &key, "--json"]);
    assert_eq!(code, Some(0));
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["opened"], true);
    assert_eq!(found["keys"][0]["files"], 1);
    let (code, _, err) = check(&["--key-file", &place("nowhere")]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("nowhere"), "{err}");

    let lines = place("lines");
    let (code, _, err) = salvage(&lines, &[]);
    assert_eq!(code, Some(1));
    let id = found["keys"][0]["id"].as_str().unwrap();
    assert!(err.contains(id) && err.contains("--key-file"), "{err}");
    assert!(!Path::new(&lines).exists());
    let configuration = place("feed.toml");
    std::fs::write(&configuration, format!("[seal]\nkey_file = {key:?}\n")).unwrap();
    let (code, _, err) = salvage(&lines, &["--config", &configuration]);
    assert_eq!(code, Some(0), "{err}");
    let written = std::fs::read_to_string(&lines).unwrap();
    assert!(written.contains(&shape(200, 1).row(7).customer_id));
}

/// What a process has written to files of this directory that have no name any more.
fn unnamed(pid: u32, directory: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        // One that was closed in between is of no interest.
        let Ok(target) = std::fs::read_link(&path) else {
            continue;
        };
        if target.starts_with(directory)
            && target.to_string_lossy().ends_with("(deleted)")
            && let Ok(bytes) = std::fs::read(&path)
        {
            found.push(bytes);
        }
    }
    found
}

/// Waits until a daemon has written this much to a temporary file.
fn wait_for_temporary(daemon: u32, outbox: &Path, length: usize) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        let found = unnamed(daemon, outbox);
        if let Some(bytes) = found.into_iter().find(|bytes| bytes.len() >= length) {
            return bytes;
        }
        assert!(begun.elapsed() < PATIENCE, "no temporary file is written");
        std::thread::yield_now();
    }
}

fn check_temporary(bytes: &[u8], shape: &Shape, sent: &[u8]) {
    for number in [0, 1, 2, 3, 50, 100] {
        let row = shape.row(number);
        assert!(holds(sent, &row.customer_id), "it was sent: {number}");
        assert!(!holds(bytes, &row.customer_id), "row {number} in the clear");
    }
    // Nor what stands in every row.
    for word in ["users.email", "@example."] {
        assert!(holds(sent, word) && !holds(bytes, word), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_temporary_files_cannot_be_read_either() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let outbox = home.path().join("outbox");
    let settings = [("MEMORY__GROUP_BUDGET", "1MiB")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let pid = daemon.pid();
    let shape = shape(20_000, 5);
    let chunks: Vec<Bytes> = document(&shape).collect();
    let whole = chunks.concat();
    let cut = whole.len() - 1_000;

    // A document that comes before its settings, halted before its end.
    let (seen, go) = mpsc::channel::<()>();
    let (head, tail) = (whole[..cut].to_vec(), whole[cut..].to_vec());
    let head_chunks = head.chunks(50_000).map(Bytes::copy_from_slice);
    let halted = head_chunks.collect::<Vec<_>>().into_iter();
    let last = std::iter::once_with(move || {
        go.recv_timeout(PATIENCE).expect("the file was looked at");
        Bytes::from(tail)
    });
    let push = Source::Push(PushStyle::EscapedString, Box::new(halted.chain(last)));
    let mut execute = Execute::new(push, "key-of-the-account", "secret-of-it");
    execute.data_type = DataType::Event;
    execute.timeout = PATIENCE;
    let (looked_at, sent, looked) = (outbox.clone(), shape.clone(), whole.clone());
    let look = tokio::task::spawn_blocking(move || {
        let bytes = wait_for_temporary(pid, &looked_at, 500_000);
        check_temporary(&bytes, &sent, &looked);
        seen.send(()).unwrap();
    });
    let (answer, looked) = tokio::join!(daemon.execute(execute), look);
    looked.unwrap();
    assert!(answer.is_success(), "{answer:?}");

    // A document that is fetched and sorted by user, halted before its end.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rows", listener.local_addr().unwrap());
    let (looked_at, sent) = (outbox.clone(), shape.clone());
    let serve = tokio::task::spawn_blocking(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).unwrap() > 0);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            whole.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&whole[..cut]).unwrap();
        let bytes = wait_for_temporary(pid, &looked_at, 500_000);
        check_temporary(&bytes, &sent, &whole);
        socket.write_all(&whole[cut..]).unwrap();
    });
    let fetch = from_url(url.parse().unwrap(), DataType::Event);
    let (answer, served) = tokio::join!(daemon.execute(fetch), serve);
    served.unwrap();
    assert!(answer.is_success(), "{answer:?}");

    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|one| one.rows.delivered == 20_000));
    // The search finds what is in the clear.
    let titled = files(&outbox);
    let stands = |words: &str| titled.values().any(|bytes| holds(bytes, words));
    assert!(stands(&deliveries[0].title));
    let link = deliveries[0].link.clone().expect("a link back to Looker");
    assert!(!stands(&link));
    assert!(!stands(&shape.row(3).customer_id));
}
