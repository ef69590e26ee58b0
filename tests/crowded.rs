//! Many at once, with the real binary: connections that are held open, Lookers that stay silent,
//! deliveries beyond what may be received at once.

mod support;

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::looker::{Failure, Shape};
use looker_feed::model::DataType;
use looker_feed::net::descriptors;
use support::{Daemon, PATIENCE, World, from_url, run};
use url::Url;

/// What holds a connection open is given up by then, whoever needs its place; a probe must not have to
/// wait for that.
const BEFORE_GIVEN_UP: Duration = Duration::from_secs(15);

fn shape(rows: u64) -> Shape {
    Shape {
        rows,
        users: rows.div_ceil(5),
        data_type: DataType::Event,
        ..Shape::default()
    }
}

/// The status of an answer, over a connection of its own.
async fn status(url: Url) -> u16 {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let reply = client.get(url.as_str().parse().unwrap()).await.unwrap();
    let status = reply.status().as_u16();
    reply.into_body().collect().await.unwrap();
    status
}

fn connect(url: &Url, count: usize) -> Vec<TcpStream> {
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let connections = (0..count).map(|_| TcpStream::connect(address).unwrap());
    connections.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_neither_probes_nor_looker_out() {
    descriptors::raise();
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let (hub, admin) = (daemon.hub.clone(), daemon.admin.clone());
    let held = tokio::task::spawn_blocking(move || [connect(&admin, 2_000), connect(&hub, 2_000)]);
    let mut held = held.await.unwrap();
    // Some have begun to ask, and do not go on.
    for stream in held.iter_mut().flatten().step_by(3) {
        // It may have been closed meanwhile.
        let _ = std::io::Write::write_all(stream, b"GET /livez HTTP/1.1\r\nhost:");
    }
    let probes = async {
        for path in ["livez", "readyz", "metrics", "api/v1/overview"] {
            assert_eq!(
                status(daemon.admin.join(path).unwrap()).await,
                200,
                "{path}"
            );
        }
        let admin = daemon.admin.to_string();
        let ran = tokio::task::spawn_blocking(move || run(&["status", "--admin", &admin], &[]));
        let (code, _, err) = ran.await.unwrap();
        assert_eq!(code, Some(0), "{err}");
        let url = world.looker.publish(shape(50));
        let answer = daemon.execute(from_url(url, DataType::Event)).await;
        assert!(answer.is_success(), "{:?}", answer.message());
    };
    tokio::time::timeout(BEFORE_GIVEN_UP, probes)
        .await
        .unwrap_or_else(|_| panic!("nobody gets through\n{}", daemon.log()));
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_have_asked_and_are_kept_open_make_room_too() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let admin = daemon.admin.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut asked = connect(&admin, 0);
        for _ in 0..300 {
            let mut stream = connect(&admin, 1).remove(0);
            let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
            std::io::Write::write_all(&mut stream, request).unwrap();
            let mut first = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            asked.push(stream);
        }
        asked
    });
    let asked = tokio::time::timeout(BEFORE_GIVEN_UP, asked);
    let asked = asked.await.expect("each gets through").unwrap();
    assert_eq!(status(daemon.admin.join("readyz").unwrap()).await, 200);
    drop(asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_lookers_keep_nobody_else_out() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[("LOOKER__MAX_DELIVERIES", "2")]);
    let silent: Vec<_> = (0..100)
        .map(|_| world.looker.publish_failing("{}", Failure::StallAfter(0)))
        .collect();
    let asked = silent.iter().map(|url| {
        // Nobody waits for what never comes.
        let execute = daemon.execute(from_url(url.clone(), DataType::Event));
        tokio::time::timeout(Duration::from_secs(50), execute)
    });
    let asked = futures::future::join_all(asked);
    let others = async {
        while silent.iter().any(|url| world.looker.is_unspent(url)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..4 {
            let url = world.looker.publish(shape(100));
            let answer = daemon.execute(from_url(url, DataType::Event)).await;
            assert!(answer.is_success(), "{:?}", answer.message());
        }
    };
    tokio::select! {
        () = others => {}
        _ = asked => panic!("the others were kept out\n{}", daemon.log()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_beyond_the_bound_wait_for_their_turn_and_all_are_taken() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[
        ("LOOKER__MAX_DELIVERIES", "2"),
        ("MEMORY__GROUP_BUDGET", "1MiB"),
        ("INTAKE__KEEP_ALIVE", "50ms"),
    ]);
    let executed = (0..12).map(|_| {
        let url = world.looker.publish(shape(2_000));
        daemon.execute(from_url(url, DataType::Event))
    });
    for answer in futures::future::join_all(executed).await {
        assert!(answer.is_success(), "{:?}", answer.message());
    }
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 12);
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.rows.delivered == 2_000)
    );
    assert_eq!(world.mparticle.counts().events, 24_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_does_not_come_in_time_is_refused_and_its_url_kept() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[
        ("LOOKER__MAX_DELIVERIES", "1"),
        ("LOOKER__QUEUE_TIMEOUT", "200ms"),
    ]);
    // It has begun to come, and stops.
    let held = world
        .looker
        .publish_failing_shape(shape(1_000), Failure::StallAfter(20_000));
    let first = daemon.execute(from_url(held, DataType::Event));
    let second = async {
        loop {
            let overview: looker_feed::control::view::Overview =
                daemon.get("/api/v1/overview").await;
            if overview
                .receiving
                .iter()
                .any(|receiving| receiving.bytes > 0)
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let url = world.looker.publish(shape(10));
        let answer = daemon.execute(from_url(url.clone(), DataType::Event)).await;
        (answer, world.looker.is_unspent(&url))
    };
    let (answer, unspent) = tokio::select! {
        second = second => second,
        _ = tokio::time::timeout(PATIENCE, first) => panic!("the first does not end"),
    };
    assert!(!answer.is_success());
    let message = answer.message().unwrap_or_default();
    assert!(
        message.contains("as many deliveries at once as it may (1)"),
        "{message}"
    );
    assert!(message.contains("within 200ms"), "{message}");
    assert!(unspent, "it can be sent again");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_others_could_look_into_are_closed_to_them_and_it_is_said() {
    let world = World::new(None).await;
    let directory = tempfile::tempdir().unwrap();
    let outbox = directory.path().join("outbox");
    std::fs::create_dir(&outbox).unwrap();
    std::fs::set_permissions(&outbox, std::fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start(directory.path(), &world.endpoint, &[]);
    assert_eq!(mode(&outbox), 0o700);
    daemon.says("it was closed to them").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tries_what_a_delivery_would_need_and_life_is_another_matter() {
    let world = World::new(None).await;
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &world.endpoint, &[]);
    let probe = |path: &str| status(daemon.admin.join(path).unwrap());
    assert_eq!(probe("readyz").await, 200);
    let segments = directory.path().join("outbox/segments");
    let away = directory.path().join("away");
    std::fs::rename(&segments, &away).unwrap();
    let until = |wanted: u16| async move {
        let seen = async {
            while probe("readyz").await != wanted {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .unwrap_or_else(|_| panic!("/readyz does not become {wanted}"));
    };
    until(503).await;
    assert_eq!(probe("livez").await, 200);
    let url = world.looker.publish(shape(10));
    let answer = daemon.execute(from_url(url.clone(), DataType::Event)).await;
    assert!(!answer.is_success());
    std::fs::rename(&away, &segments).unwrap();
    until(200).await;
    let url = world.looker.publish(shape(10));
    let answer = daemon.execute(from_url(url, DataType::Event)).await;
    assert!(answer.is_success(), "{:?}", answer.message());
}
