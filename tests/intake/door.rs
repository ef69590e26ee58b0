//! Who is let in, and what strangers can do to those who are.

use bytes::Bytes;
use looker_feed::config::Secret;
use looker_feed::intake::new_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

async fn status_with(feed: &Feed, key: &str) -> hyper::Response<hyper::body::Incoming> {
    let mut request = feed.request("POST", "/").body(Bytes::new()).unwrap();
    let value = format!("Token token=\"{key}\"").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    feed.send(request).await
}

#[tokio::test]
async fn keys_of_a_previous_secret_are_good_until_they_are_revoked() {
    let before = Secret::new("the secret before".to_owned());
    let [good, revoked] = [(); 2].map(|()| new_key(&before).unwrap());
    let (nonce, _) = revoked.split_once('/').unwrap();
    let feed = feed_with(Script::default(), |settings| {
        settings.intake.previous_secrets = vec![before];
        settings.intake.revoked_keys = vec![nonce.to_owned()];
    })
    .await;
    assert_eq!(status_with(&feed, &good).await.status(), 200);
    assert_eq!(status_with(&feed, &feed.key).await.status(), 200);
    assert_eq!(status_with(&feed, &revoked).await.status(), 403);
}

#[tokio::test]
async fn who_fails_too_often_is_held_and_a_good_key_from_the_same_address_is_not() {
    let feed = feed(Script::default()).await;
    for _ in 0..10 {
        let response = status_with(&feed, "wrong/key").await;
        assert_eq!(response.status(), 403);
        let answer = text(response).await;
        let words = "Invalid 'Authorization' header.";
        assert!(answer.contains(words), "{answer}");
    }
    let response = status_with(&feed, "wrong/key").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "6");
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(status_with(&feed, &feed.key).await.status(), 200);
}

#[tokio::test]
async fn connections_that_ask_for_nothing_make_room_for_one_that_does() {
    let feed = feed(Script::default()).await;
    // A known connection, older than all of the others.
    let mut known = TcpStream::connect(feed.address).await.unwrap();
    let request = format!(
        "POST /actions/mparticle/form HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: 0\r\n\r\n",
        feed.authorization()
    );
    known.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut known, "]}").await;
    let mut idle = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(feed.address).await.unwrap();
        // Some are silent, some have begun to ask.
        if n % 2 == 0 {
            stream.write_all(b"POST / HTTP/1.1\r\nhost:").await.unwrap();
        }
        idle.push(stream);
    }
    let request = feed.request("POST", "/").body(Bytes::new()).unwrap();
    assert_eq!(feed.send(request).await.status(), 200);
    // The oldest was sent away (it had sent bytes that were not read, so a reset will do too).
    let end = idle[0].read(&mut [0]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let request = b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n";
    known.write_all(request).await.unwrap();
    let answer = read_until(&mut known, "}").await;
    assert!(answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_compressed_request_is_refused_in_words_that_looker_shows() {
    let feed = feed(Script::default()).await;
    let encodings = ["gzip", "deflate", "br", "zstd", "x-unknown"];
    for encoding in encodings.iter().chain(&["identity, gzip"]) {
        let headers =
            format!("connection: close\r\ncontent-encoding: {encoding}\r\ncontent-length: 4\r\n");
        let mut stream = feed.raw_execute(&headers).await;
        stream.write_all(b"\x1f\x8b\x08\x00").await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("body is compressed"), "{answer}");
        assert!(answer.contains(r#""success":false"#), "{answer}");
    }
    assert_eq!(feed.script.begun_count(), 0);
}

#[tokio::test]
async fn nothing_behind_a_chunked_body_is_taken_for_a_request() {
    let feed = feed(Script::default()).await;
    for framing in [
        "transfer-encoding: chunked\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let bytes = format!(
            "POST /actions/mparticle/form HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n{framing}\r\n\
             0\r\n\r\nGET /status HTTP/1.1\r\nhost: x\r\n\r\n",
            feed.authorization()
        );
        answered_once(&feed, &bytes, 200).await;
    }
}

/// Sends bytes, of which only the first request gets an answer.
async fn answered_once(feed: &Feed, bytes: &str, status: u16) {
    let mut stream = TcpStream::connect(feed.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was not read may turn the end into a reset, after the answer.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let line = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&line), "{bytes}: {answer}");
    assert!(answer.contains("connection: close"), "{bytes}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{bytes}: {answer}");
}

#[tokio::test]
async fn nothing_behind_the_body_of_a_refused_request_is_taken_for_a_request() {
    let feed = feed(Script::default()).await;
    let authorization = format!("authorization: {}\r\n", feed.authorization());
    for (line, key, status) in [
        ("POST /actions/mparticle/form", "", 403),
        ("POST /status", "", 405),
        ("POST /nowhere", authorization.as_str(), 404),
        ("PUT /", authorization.as_str(), 405),
    ] {
        for framing in [
            "content-length: 5\r\n\r\nhello",
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let behind = "GET /status HTTP/1.1\r\nhost: x\r\n\r\n";
            let bytes = format!("{line} HTTP/1.1\r\nhost: x\r\n{key}{framing}{behind}");
            answered_once(&feed, &bytes, status).await;
        }
    }
}
