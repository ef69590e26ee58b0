//! Downloads that fail: each way has its sentence, none is taken for a complete one, and none is
//! tried twice.

use std::time::Duration;

use looker_feed::config::{self, AllowedHost};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::*;

fn allow(list: &str) -> Vec<AllowedHost> {
    let env = ["LOOKER_FEED_LOOKER__ALLOWED_HOSTS", list].map(str::to_owned);
    let config = config::load(None, [env.into()].into_iter());
    config.unwrap().looker.allowed_hosts
}

async fn refusal_of(response: impl Into<Vec<u8>>) -> (String, usize) {
    let feed = feed(Script::default()).await;
    let looker = Looker::raw(response, false).await;
    let message = feed.refusal(&order_with(&looker.url())).await;
    assert!(!message.contains("dddd"), "the url is a secret: {message}");
    assert_eq!(looker.hits(), 1, "the url can be used once");
    assert_eq!(feed.script.accepted().len(), 0);
    (message, feed.script.begun_count())
}

#[tokio::test]
async fn any_status_but_200_is_a_failure_that_names_it() {
    for (line, more) in [
        ("404 Not Found", ""),
        ("410 Gone", ""),
        ("500 Internal Server Error", ""),
        ("201 Created", ""),
        ("206 Partial Content", "content-range: bytes 0-1/2\r\n"),
        ("302 Found", "location: http://127.0.0.1:1/\r\n"),
    ] {
        let response = format!("HTTP/1.1 {line}\r\n{more}content-length: 2\r\n\r\n{{}}");
        let (message, begun) = refusal_of(response).await;
        let code = &line[..3];
        let words = "There was an error with Action Hub calling back to Looker, status code:";
        assert_eq!(message, format!("{words} {code}"));
        assert_eq!(begun, 0);
    }
}

#[tokio::test]
async fn a_download_that_is_cut_cannot_look_complete() {
    let cut = "The connection to Looker was cut before all rows had arrived.";
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"data\":[{\"a\":1}]}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n4\r\n:",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{\"a\"\r\n",
    ] {
        let (message, begun) = refusal_of(response).await;
        assert!(message.starts_with(cut), "{response:?}: {message}");
        assert_eq!(begun, 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_a_failure() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(600_000));
    for response in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "no http at all\r\n\r\n",
        &long,
    ] {
        let (message, begun) = refusal_of(response).await;
        let words = "Looker gave no valid answer when its download address was asked for rows.";
        assert_eq!(message, words);
        assert_eq!(begun, 0);
    }
}

#[tokio::test]
async fn a_compressed_answer_that_nobody_asked_for_is_a_failure() {
    let response = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x0b";
    let (message, begun) = refusal_of(response).await;
    let words = "Looker sent its rows in an encoding that was not asked for.";
    assert_eq!((&*message, begun), (words, 0));
}

#[tokio::test]
async fn a_silence_longer_than_the_limit_ends_the_delivery() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"data\":[";
    for (response, begun) in [("", 0), (half, 1)] {
        let feed = feed_with(Script::default(), |settings| {
            settings.looker.idle_timeout = Duration::from_millis(100);
        })
        .await;
        let looker = Looker::raw(response, true).await;
        let message = feed.refusal(&order_with(&looker.url())).await;
        let words = "Looker sent nothing for 100ms.";
        assert!(message.starts_with(words), "{message}");
        assert_eq!((looker.hits(), feed.script.begun_count()), (1, begun));
    }
}

#[tokio::test]
async fn a_looker_that_cannot_be_reached_is_named_without_its_path() {
    let feed = feed(Script::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let order = order_with(&format!("http://{address}/secret"));
    let words = "The feed could not connect to Looker at";
    assert_eq!(feed.refusal(&order).await, format!("{words} {address}."));
    // Plain http where TLS is spoken.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        // Open until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let order = order_with(&format!("https://{address}/x"));
    let (message, ()) = tokio::join!(feed.refusal(&order), plain);
    assert_eq!(message, format!("{words} {address}."));
    assert_eq!(feed.script.begun_count(), 0);
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_given_up() {
    let feed = feed_with(Script::default(), |settings| {
        settings.looker.connect_timeout = Duration::from_millis(100);
    })
    .await;
    // Accepted by the system, but nobody ever speaks TLS on it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let message = feed
        .refusal(&order_with(&format!("https://{address}/x")))
        .await;
    let words = format!("The feed could not connect to Looker at {address} within 100ms.");
    assert_eq!(message, words);
}

#[tokio::test]
async fn without_a_list_only_public_https_hosts_are_fetched_from() {
    let feed = feed_with(Script::default(), |settings| {
        settings.looker.allowed_hosts.clear()
    })
    .await;
    let private = "127.0.0.1/x 127.1/x 0x7f000001/x 2130706433/x 0177.0.0.1/x localhost:8080/x [::1]/x \
        [::]/x 0.0.0.0/x [::ffff:127.0.0.1]/x [::ffff:10.0.0.1]/x [64:ff9b::a9fe:a9fe]/x \
        10.1.2.3/x 192.168.0.1/x 172.16.0.1/x 100.64.0.1/x 169.254.169.254/latest/meta-data \
        [fd00:ec2::254]/latest [fe80::1]/x";
    for url in private.split(' ') {
        let url = format!("https://{url}");
        let message = feed.refusal(&order_with(&url)).await;
        let words = "is private, link-local or reserved";
        assert!(message.contains(words), "{url}: {message}");
    }
    for url in [
        "http://127.0.0.1/x",
        "http://looker.example.com/x",
        "ftp://looker.example.com/x",
    ] {
        let message = feed.refusal(&order_with(url)).await;
        assert!(message.contains("is not https"), "{url}: {message}");
    }
    for url in [
        "not a url",
        "https://",
        "data:,x",
        "https://a@b.example.com/",
        "/downloads/x",
        "https://u:p@10.0.0.1/",
    ] {
        let message = feed.refusal(&order_with(url)).await;
        let words = "Looker's download address is not a valid url.";
        assert_eq!(message, words, "{url}");
    }
    assert_eq!(feed.script.begun_count(), 0);
}

#[tokio::test]
async fn with_a_list_only_its_hosts_are_fetched_from() {
    let looker = Looker::with(r#"{"data":[{}]}"#).await;
    let port = looker.address.port();
    let list = format!("127.0.0.1:{port},10.0.0.1,169.254.169.254,looker.example.com");
    let feed = feed_with(Script::default(), |settings| {
        settings.looker.allowed_hosts = allow(&list)
    })
    .await;
    let unlisted = "it is not listed in `looker.allowed_hosts`";
    let reserved = "is private, link-local or reserved";
    for (url, part) in [
        ("https://other.example.com/x", unlisted),
        ("https://looker.example.com.evil.test/x", unlisted),
        ("https://8.8.8.8/x", unlisted),
        (&format!("https://127.0.0.1:{}/x", port ^ 1), unlisted),
        (&format!("http://localhost:{port}/x"), "is not https"),
        (&format!("http://127.0.0.2:{port}/x"), "is not https"),
        ("http://10.0.0.1/x", "is not https"),
        ("http://looker.example.com/x", "is not https"),
        ("https://169.254.169.254/x", reserved),
    ] {
        let message = feed.refusal(&order_with(url)).await;
        assert!(message.contains(part), "{url}: {message}");
    }
    assert_eq!(looker.hits(), 0);
    message(&feed.execute(&order_with(&looker.url())).await, true);
}

#[tokio::test]
async fn a_listed_localhost_is_reached_by_its_name() {
    let feed = feed(Script::default()).await;
    let looker = Looker::with(r#"{"data":[{}]}"#).await;
    let url = looker.url().replace("127.0.0.1", "LOCALHOST");
    message(&feed.execute(&order_with(&url)).await, true);
    let heads = looker.heads.lock().unwrap().clone();
    assert!(heads[0].contains(&format!("host: localhost:{}\r\n", looker.address.port())));
}
