//! Limits of a connection, and the end of all of them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::*;

async fn first_line(feed: &Feed, head: &str) -> String {
    let mut stream = TcpStream::connect(feed.address).await.unwrap();
    // The hub may answer and close before all is written.
    let _ = stream.write_all(head.as_bytes()).await;
    read_until(&mut stream, "\r\n").await
}

#[tokio::test]
async fn heads_that_are_too_large_or_have_too_many_lines_are_refused() {
    let feed = feed(Script::default()).await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(40 << 10));
    for lines in [many, long] {
        let head = format!("GET /status HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
        let line = first_line(&feed, &head).await;
        assert!(line.starts_with("HTTP/1.1 431 "), "{line}");
    }
    let line = first_line(&feed, "what is this\r\n\r\n").await;
    assert!(line.starts_with("HTTP/1.1 400 "), "{line}");
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_its_request() {
    let feed = feed_with(Script::default(), |settings| {
        settings.looker.idle_timeout = Duration::from_millis(100);
    })
    .await;
    let mut stream = feed.raw_sized(1000).await;
    stream.write_all(b"{\"type\":").await.unwrap();
    let answer = rest(&mut stream).await;
    let told = r#""message":"Looker stopped sending its request for 100ms.""#;
    assert!(answer.contains(told), "{answer}");
}

#[tokio::test]
async fn at_shutdown_a_delivery_that_is_under_way_finishes_and_no_other_begins() {
    let feed = feed(Script::held()).await;
    let looker = Looker::with(r#"{"data":[{}]}"#).await;
    let body = order_with(&looker.url()).to_string();
    let length = format!("content-length: {}\r\n", body.len());
    let mut stream = feed.raw_execute(&length).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    feed.script.begun.notified().await;
    // A second connection that has sent half a request when the shutdown begins.
    let mut late = feed.raw_execute(&length).await;
    late.write_all(&body.as_bytes()[..10]).await.unwrap();
    read_until(&mut late, "\r\n\r\n").await;

    feed.trigger.pull();
    late.write_all(&body.as_bytes()[10..]).await.unwrap();
    feed.script.gate.add_permits(4);
    for stream in [&mut stream, &mut late] {
        // The late one had begun.
        let answer = rest(stream).await;
        assert!(answer.contains(r#""success":true"#), "{answer}");
    }

    let address = feed.address;
    let script = feed.stop().await;
    assert_eq!(script.accepted().len(), 2);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_has_not_finished_by_the_deadline_is_given_up_and_its_client_is_told() {
    let feed = feed_with(Script::held(), |settings| {
        settings.deadline = Duration::from_millis(50);
    })
    .await;
    let looker = Looker::with(r#"{"data":[{}]}"#).await;
    let body = order_with(&looker.url()).to_string();
    let length = format!("content-length: {}\r\n", body.len());
    let mut stream = feed.raw_execute(&length).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    feed.script.begun.notified().await;

    feed.trigger.pull();
    let answer = rest(&mut stream).await;
    assert!(answer.contains(r#""success":false"#), "{answer}");
    let words = "The feed was stopped before the delivery was complete.";
    assert!(answer.contains(words), "{answer}");
    let script = feed.stop().await;
    script.ended.notified().await;
    assert_eq!(script.accepted().len(), 0);
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_shutdown_up() {
    let feed = feed(Script::default()).await;
    let mut idle = TcpStream::connect(feed.address).await.unwrap();
    let request = "GET /status HTTP/1.1\r\nhost: x\r\n\r\n";
    idle.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut idle, "}").await;
    let mut half = TcpStream::connect(feed.address).await.unwrap();
    half.write_all(b"GET /status HTTP/1.1\r\nho").await.unwrap();
    // Neither the deadline nor the time for a head must pass: a hang ends here.
    timeout(Duration::from_secs(20), feed.stop()).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let feed = feed_with(Script::default(), |settings| {
        settings.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(feed.address).await.unwrap();
    let requests = b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let asking = async { while stream.write_all(&requests).await.is_ok() {} };
    let closed = timeout(Duration::from_secs(60), asking).await;
    closed.expect("the connection is closed");
    let line = first_line(&feed, "GET /status HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(line.starts_with("HTTP/1.1 "), "{line}");
    feed.stop().await;
}
