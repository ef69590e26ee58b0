//! What the log says of deliveries, and what it must not say.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tracing_subscriber::fmt::MakeWriter;

use super::support::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_names_deliveries_and_reasons_but_no_secret_and_no_user_text() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    // For the whole process: lines of the other tests mingle with these, and must hold no secret
    // either.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(r#"{"data":[{"cell":"rowdata"}]}"#).await;
    let body = order_with(&looker_server.url()).to_string();
    feed.execute_chunked(Some("logged-1"), &body, 1000).await;
    *feed.script.plan.lock().unwrap() = Plan::Refuse("Row rowdata is bad.");
    feed.execute_chunked(Some("logged-2"), &body, 1000).await;
    *feed.script.plan.lock().unwrap() = Plan::Panic;
    feed.execute_chunked(Some("logged-3"), &body, 1000).await;
    let gone = Looker::raw("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", false).await;
    let body = order_with(&gone.url()).to_string();
    feed.execute_chunked(Some("logged-4"), &body, 1000).await;
    let mut stranger = feed.request("POST", "/").body(Bytes::new()).unwrap();
    let wrong = "Token token=\"wrongkey/wrongkey\"".parse().unwrap();
    stranger.headers_mut().insert("authorization", wrong);
    feed.send(stranger).await;
    let key = feed.key.clone();
    feed.stop().await;

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line_of = |webhook: &str| {
        let of = |line: &&str| line.contains(webhook) && line.contains("looker_feed::intake");
        log.lines()
            .find(of)
            .unwrap_or_else(|| panic!("{webhook} in {log}"))
    };
    let delivery = format!("delivery={DELIVERY}");
    let refused = "delivery refused";
    for (webhook, parts) in [
        ("logged-1", [" INFO ", "delivery accepted", &delivery]),
        ("logged-2", [" WARN ", refused, "Looker was told why"]),
        (
            "logged-3",
            ["ERROR ", "panicked", "whether it was committed"],
        ),
        ("logged-4", [" WARN ", refused, "status code: 410"]),
    ] {
        let line = line_of(webhook);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(log.contains("a request without a valid hub key"), "{log}");
    let ours = log.lines().filter(|line| line.contains("looker_feed"));
    let ours = ours.collect::<Vec<_>>().join("\n");
    for secret in [
        "hunter2",
        "hub secret",
        "wrongkey",
        &key,
        "dddd",
        "Daily users",
        "rowdata",
    ] {
        assert!(!ours.contains(secret), "{secret} in {ours}");
    }
}
