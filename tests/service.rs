//! Life as a service, with the real binary: what the supervisor is told, a new configuration
//! without a restart, callbacks, and a delivery that is cancelled.

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use serde_json::Value;
use support::{Daemon, PATIENCE, SECRET, World, command, from_url};
use tokio::sync::mpsc::{Sender, channel};

fn shape(rows: u64) -> Shape {
    Shape {
        rows,
        users: rows,
        data_type: DataType::Event,
        ..Shape::default()
    }
}

/// A daemon with a file and nothing else.
fn serve(directory: &Path, file: &str, environment: &[(&str, &str)]) -> Daemon {
    let path = directory.join("config.toml");
    std::fs::write(&path, file).unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let child = command()
        .args(["serve", "--config"])
        .arg(&path)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    Daemon::of(child, directory)
}

fn file(directory: &Path, secret: &str, level: &str, more: &str) -> String {
    format!(
        "[intake]\nlisten = '127.0.0.1:0'\nsecret = '{secret}'\n[admin]\nlisten = '127.0.0.1:0'\n\
         [outbox]\npath = '{}'\nreserve_bytes = 0\n[log]\nlevel = '{level}'\n{more}",
        directory.join("outbox").display()
    )
}

/// What the hub answers to one who signs in with a key made from `secret`.
async fn hub_status(daemon: &Daemon, secret: &str) -> StatusCode {
    let key = intake::new_key(&Secret::new(secret.to_owned())).unwrap();
    let request = hyper::Request::post(daemon.hub.as_str())
        .header("authorization", format!("Token token=\"{key}\""))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_is_told_of_readiness_life_and_the_end() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let daemon = serve(
        home.path(),
        &file(home.path(), SECRET, "info", ""),
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "100000"),
        ],
    );
    assert!(next().starts_with("READY=1"));
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    let (status, body) = daemon.call("GET", "/livez", "").await;
    assert_eq!((status, &body[..]), (200, &b"ok\n"[..]));
    assert!(daemon.terminate().success());
    while !next().starts_with("STOPPING=1") {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_taken_over_as_far_as_it_can_and_a_wrong_one_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.toml");
    let daemon = serve(home.path(), &file(home.path(), SECRET, "info", ""), &[]);
    assert_eq!(hub_status(&daemon, SECRET).await, 200);

    std::fs::write(&path, file(home.path(), "other", "info", "[nonsense]\n")).unwrap();
    daemon.hang_up();
    daemon.says("is refused, and the old one stays").await;
    assert_eq!(hub_status(&daemon, SECRET).await, 200);
    assert_eq!(hub_status(&daemon, "other").await, 403);

    let more = "[mparticle]\nbatches_per_second = 12\npod = 'eu1'\n";
    std::fs::write(&path, file(home.path(), "other", "warn", more)).unwrap();
    daemon.hang_up();
    daemon.says("it has changes that need a restart").await;
    let log = daemon.log();
    for key in [
        "intake.secret",
        "mparticle.batches_per_second",
        "log.level",
        "[mparticle]",
    ] {
        assert!(log.contains(key), "{key}\n{log}");
    }
    assert!(!log.contains("other") && !log.contains("[outbox]"), "{log}");
    assert_eq!(hub_status(&daemon, "other").await, 200);
    assert_eq!(hub_status(&daemon, SECRET).await, 403);
    // From here on only warnings are written: these two say nothing more of what was taken over.
    std::fs::write(&path, file(home.path(), SECRET, "warn", more)).unwrap();
    daemon.hang_up();
    let again = async {
        while daemon.log().matches("need a restart").count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert_eq!(daemon.log().matches("intake.secret").count(), 1);
    assert_eq!(hub_status(&daemon, SECRET).await, 200);
    assert!(daemon.terminate().success());
}

async fn hear(State(heard): State<Sender<Value>>, body: String) {
    let message = serde_json::from_str(&body).unwrap();
    heard.send(message).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_tells_of_a_finished_delivery_and_its_address_is_not_logged() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/very-secret", listener.local_addr().unwrap());
    let (sender, mut heard) = channel(100);
    let router = Router::new().fallback(hear).with_state(sender);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = [
        ("NOTIFY__WEBHOOK_URL", url.as_str()),
        ("LOG__LEVEL", "trace"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let document = world.looker.publish(shape(200));
    let answer = daemon.execute(from_url(document, DataType::Event)).await;
    assert!(answer.is_success(), "{answer:?}");
    let message = tokio::time::timeout(PATIENCE, heard.recv()).await;
    let message = message.unwrap().unwrap();
    assert_eq!(message["event"], "delivery_finished");
    assert_eq!(message["delivery"]["rows"]["delivered"], 200);
    assert!(message["delivery"]["finished"].is_u64(), "{message}");
    assert!(!daemon.log().contains("very-secret"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_cancelled_delivery_is_not_sent_and_the_next_one_is() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    // One batch a request and two a second: the rest would take minutes.
    let settings = [
        ("MPARTICLE__BATCHES_PER_SECOND", "2"),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "1"),
        ("MPARTICLE__MAX_IN_FLIGHT", "1"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    for rows in [2_000, 1] {
        let document = world.looker.publish(shape(rows));
        let answer = daemon.execute(from_url(document, DataType::Event)).await;
        assert!(answer.is_success(), "{answer:?}");
    }
    let long = daemon.deliveries().await.pop().unwrap();
    let (status, body) = daemon
        .call(
            "POST",
            &format!("/api/v1/deliveries/{}/cancel", long.id),
            "{}",
        )
        .await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{text}");
    let deliveries = daemon.settled().await;
    let long = deliveries.last().unwrap();
    assert_eq!(long.state, "cancelled");
    assert!(
        long.rows.cancelled > 1_000 && long.finished.is_some(),
        "{long:?}"
    );
    assert_eq!(
        (deliveries[0].state.as_str(), deliveries[0].rows.delivered),
        ("done", 1)
    );
    let arrived = world.batches().len() as u64;
    assert_eq!(arrived, long.rows.delivered + 1, "{long:?}");
    let again: view::Delivery = daemon.get(&format!("/api/v1/deliveries/{}", long.id)).await;
    assert_eq!(&again, long);
    assert!(daemon.terminate().success());
}
