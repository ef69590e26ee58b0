//! Files that the daemon cannot read, with the real binary: nothing is lost to a bad moment, and it
//! says so.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use looker_feed::control::view;
use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use support::{Daemon, World, down, refuses, run, spawn_by};

/// Dead letters that [`with_dead_letters`] makes.
const DEAD: usize = 5;

/// How to run the daemon as somebody whom file modes hold for; `None`: that cannot be done here.
fn as_somebody(home: &Path) -> Option<Vec<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let there = Command::new("setpriv").arg("--version").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "setpriv is not installed"
    );
    if !there {
        eprintln!("skipped: as root this needs setpriv");
        return None;
    }
    std::os::unix::fs::chown(home, Some(65534), Some(65534)).unwrap();
    Some(vec![
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ])
}

/// A delivery of which some batches are refused for good.
async fn with_dead_letters(world: &World, daemon: &Daemon) -> Shape {
    let shape = Shape {
        rows: 500,
        users: 100,
        seed: 3,
        ..Shape::default()
    };
    world.faults((0..DEAD).map(|n| refuses(shape.row(n as u64).customer_id)));
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
    daemon.settled().await;
    world.faults([]);
    shape
}

async fn letters(daemon: &Daemon) -> usize {
    let listing: view::Listing<view::DeadLetter> = daemon.get("/api/v1/dead-letters").await;
    listing.items.len()
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_cannot_be_read_are_there_when_they_can_be_again() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let Some(wrapper) = as_somebody(home.path()) else {
        return;
    };
    let start = || {
        let child = spawn_by(&wrapper, home.path(), &world.endpoint, &[]);
        Daemon::of(child, home.path())
    };
    let daemon = start();
    let shape = with_dead_letters(&world, &daemon).await;
    let dead = letters(&daemon).await;
    assert!(dead > 0);
    let file = files(home.path().join("outbox/dead")).remove(0);
    set_mode(&file, 0o000);
    for _ in 0..3 {
        let (status, body) = daemon.call("GET", "/api/v1/dead-letters", "").await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 500, "{body}");
        assert!(body.contains("cannot be read now"), "{body}");
    }
    let (status, _) = daemon
        .call("POST", "/api/v1/dead-letters/replay", r#"{"all":true}"#)
        .await;
    assert_eq!(status, 500);
    let (status, body) = daemon.call("GET", "/readyz", "").await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("cannot be read"), "{body}");
    let overview: view::Overview = daemon.get("/api/v1/overview").await;
    assert!(overview.outbox.unreadable.is_some());
    assert_eq!(overview.outbox.dead_letters as usize, dead);
    // Deliveries are taken and sent meanwhile.
    let url = world.looker.publish(Shape { seed: 4, ..shape });
    daemon.accepts(url, DataType::Event).await;
    let said = daemon
        .log()
        .matches("the outbox cannot be read; nothing is lost")
        .count();
    assert_eq!(said, 1, "once, and then once a minute\n{}", daemon.log());
    daemon.terminate();

    // Nor does it start on what it cannot read.
    let mut child = spawn_by(&wrapper, home.path(), &world.endpoint, &[]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert!(
        log.contains(&format!("{} cannot be read", file.display())),
        "{log}"
    );
    set_mode(&file, 0o600);

    let daemon = start();
    assert_eq!(letters(&daemon).await, dead);
    let overview: view::Overview = daemon.get("/api/v1/overview").await;
    assert_eq!(overview.outbox.unreadable, None);
    assert_eq!(overview.outbox.damage, Vec::<String>::new());
    assert!(files(home.path().join("outbox/damaged")).is_empty());
    let (status, _) = daemon
        .call("POST", "/api/v1/dead-letters/replay", r#"{"all":true}"#)
        .await;
    assert_eq!(status, 200);
    for delivery in daemon.settled().await {
        assert_eq!(delivery.rows.delivered, delivery.rows_in);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_out_of_descriptors_loses_nothing() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let wrapper = ["sh", "-c", "ulimit -n 160; exec \"$@\"", "sh"];
    let child = spawn_by(&wrapper, home.path(), &world.endpoint, &[]);
    let daemon = Daemon::of(child, home.path());
    let shape = with_dead_letters(&world, &daemon).await;
    let dead = letters(&daemon).await;
    let address = format!("127.0.0.1:{}", daemon.hub.port().unwrap());
    // What is to be sent waits, so that the segments are read while nothing can be opened.
    world.faults([down()]);
    let url = world.looker.publish(Shape { seed: 4, ..shape });
    daemon.accepts(url, DataType::Event).await;

    let mut idle = Vec::new();
    for _ in 0..260 {
        let connecting = tokio::net::TcpStream::connect(&address);
        if let Ok(Ok(one)) = tokio::time::timeout(Duration::from_secs(1), connecting).await {
            idle.push(one);
        }
    }
    assert!(idle.len() > 100, "{} connections", idle.len());
    world.faults([]);
    for path in ["/api/v1/dead-letters", "/api/v1/dead-letters/replay"] {
        for _ in 0..4 {
            let method = if path.ends_with("replay") {
                "POST"
            } else {
                "GET"
            };
            // It may find no descriptor for the connection either.
            let call = daemon.try_call(method, path, r#"{"all":true}"#);
            let _ = tokio::time::timeout(Duration::from_millis(500), call).await;
        }
    }
    drop(idle);
    let deliveries = daemon.settled().await;
    for delivery in &deliveries {
        assert_eq!(delivery.rows.damaged, 0, "{delivery:?}\n{}", daemon.log());
    }
    // A replay that came through has sent them; nothing else may be gone.
    let left = letters(&daemon).await;
    assert!(left == dead || left == 0, "{left} of {dead}");
    let (status, _) = daemon
        .call("POST", "/api/v1/dead-letters/replay", r#"{"all":true}"#)
        .await;
    assert_eq!(status, 200);
    for delivery in daemon.settled().await {
        assert_eq!(delivery.rows.delivered, delivery.rows_in, "{delivery:?}");
    }
    let overview: view::Overview = daemon.get("/api/v1/overview").await;
    assert_eq!(overview.outbox.damage, Vec::<String>::new());
    assert!(files(home.path().join("outbox/damaged")).is_empty());
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

/// One byte of a segment is wrong for a while: it is given up, and a salvage takes it in again.
#[tokio::test(flavor = "multi_thread")]
async fn check_and_salvage_agree_on_what_was_given_up_and_it_comes_back() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    world.faults([down()]);
    let shape = Shape {
        rows: 2_000,
        users: 400,
        seed: 5,
        ..Shape::default()
    };
    let url = world.looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
    daemon.kill();
    let outbox = home.path().join("outbox");
    let segment = files(outbox.join("segments")).remove(0);
    let flip = |file: &Path| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[2_000] ^= 0x20;
        std::fs::write(file, bytes).unwrap();
    };
    flip(&segment);
    world.faults([]);
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let lost = daemon.settled().await.remove(0).rows.damaged;
    assert!(lost > 0 && lost < 2_000);
    daemon.terminate();

    let path = outbox.display().to_string();
    let check = || run(&["outbox", "check", "--path", &path], &[]);
    let (code, text, err) = check();
    assert_eq!(code, Some(0), "{text}{err}");
    assert!(
        text.contains(&format!("given up earlier ({lost} rows)")),
        "{text}"
    );
    flip(&files(outbox.join("damaged")).remove(0));
    let (code, text, err) = check();
    assert_eq!(code, Some(1), "{text}{err}");
    assert!(err.contains("can be read after all"), "{err}");
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("outbox");
    let name = to.display().to_string();
    let (code, text, err) = run(&["outbox", "salvage", "--path", &path, "--to", &name], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(text.contains("Taken in again"), "{text}");
    assert!(text.contains(&format!("{lost} rows")), "{text}");
    assert!(!text.contains("lost\n"), "{text}");
    std::fs::copy(
        home.path().join("outbox.key"),
        elsewhere.path().join("outbox.key"),
    )
    .unwrap();
    let daemon = Daemon::start(elsewhere.path(), &world.endpoint, &[]);
    let delivery = daemon.settled().await.remove(0);
    assert_eq!(delivery.rows.delivered, 2_000, "{delivery:?}");
    assert_eq!(delivery.rows.damaged, 0);
    assert_eq!(world.mparticle.counts().conflicts, 0);
}
