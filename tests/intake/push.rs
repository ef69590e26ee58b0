//! Results inside the request: every way to write them, every order of keys, cut anywhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use looker_feed::seal::Space;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::support::*;

const DOCUMENT: &str = r#"{"fields":{"dimensions":[]},"data":[{"a":{"value":"é \"q\" \\ \u00e9"}},{"a":{"value":1}}]}"#;

/// The attachment in each of the three ways that Looker has.
fn attachments(document: &str) -> [(&'static str, String); 3] {
    let base64 = STANDARD.encode(document).into_bytes();
    let lines = base64.chunks(60).flat_map(|line| [line, b"\n"].concat());
    let base64 = json!(String::from_utf8(lines.collect()).unwrap());
    let attachment = |mimetype: &str, data: &str| {
        format!(r#"{{"mimetype": "{mimetype}", "extension": "json", "data": {data}}}"#)
    };
    let escaped = json!(document).to_string();
    [
        ("escaped", attachment("application/json", &escaped)),
        ("inline", attachment("application/json", document)),
        (
            "base64",
            attachment("application/json;base64", &base64.to_string()),
        ),
    ]
}

fn sections(attachment: &str) -> [(&'static str, String); 5] {
    let mut order = order_with("");
    let take = |key: &'static str, order: &mut Value| (key, order[key].take().to_string());
    [
        take("type", &mut order),
        take("scheduled_plan", &mut order),
        ("attachment", attachment.to_owned()),
        take("data", &mut order),
        take("form_params", &mut order),
    ]
}

fn envelope<'a>(sections: impl IntoIterator<Item = &'a (&'static str, String)>) -> String {
    let sections = sections.into_iter();
    let members = sections.map(|(key, json)| format!("{key:?}: {json}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// All orders of five things.
fn orders() -> Vec<[usize; 5]> {
    let mut all = Vec::new();
    for number in 0..5usize.pow(5) {
        let order = [0u32, 1, 2, 3, 4].map(|place| number / 5usize.pow(place) % 5);
        if (0..5).all(|thing| order.contains(&thing)) {
            all.push(order);
        }
    }
    assert_eq!(all.len(), 120);
    all
}

#[tokio::test]
async fn a_pushed_document_arrives_unchanged_in_every_style_and_any_order_of_keys() {
    let feed = feed(Script::default()).await;
    for (style, attachment) in attachments(DOCUMENT) {
        let sections = sections(&attachment);
        for (number, order) in orders().into_iter().enumerate() {
            let body = envelope(order.map(|place| &sections[place]));
            let answer = feed.execute_chunked(None, &body, 1 + number).await;
            message(&looker(&answer), true);
            let accepted = feed.script.accepted();
            let (seen, document) = accepted.last().unwrap();
            assert_eq!(accepted.len(), 1);
            assert_eq!(document, DOCUMENT.as_bytes(), "{style} {order:?}");
            assert_eq!(seen.api_secret.expose(), "hunter2");
            feed.script.accepted.lock().unwrap().clear();
        }
    }
    assert!(is_empty(feed.spool.path()));
}

#[tokio::test]
async fn a_push_whose_settings_came_first_is_received_while_it_arrives() {
    let feed = feed(Script::default()).await;
    let [type_, plan, attachment, data, form] = sections(&attachments(DOCUMENT)[0].1);
    let body = envelope([&type_, &data, &form, &attachment, &plan]);
    let half = body.find("value").unwrap() + 20;
    let mut stream = feed.raw_sized(body.len()).await;
    stream.write_all(&body.as_bytes()[..half]).await.unwrap();
    feed.script.bytes.notified().await;
    stream.write_all(&body.as_bytes()[half..]).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.contains(r#""success":true"#), "{answer}");
    assert_eq!(feed.script.accepted()[0].1, DOCUMENT.as_bytes());
}

#[tokio::test]
async fn a_push_that_is_cut_anywhere_is_never_accepted() {
    let attachment = &attachments(DOCUMENT)[0].1;
    let [type_, plan, attachment, data, form] = sections(attachment);
    for body in [
        envelope([&type_, &plan, &attachment, &data, &form]),
        envelope([&type_, &plan, &data, &form, &attachment]),
    ] {
        let feed = feed(Script::default()).await;
        for at in (0..body.len()).step_by(7).chain([body.len() - 1]) {
            // The request says that it is complete, but it is not.
            let answer = feed.execute_chunked(None, &body.as_bytes()[..at], 50).await;
            assert_eq!(looker(&answer)["success"], json!(false), "{at}: {answer}");
            // The connection is closed under it.
            let mut stream = feed.raw_sized(body.len()).await;
            stream.write_all(&body.as_bytes()[..at]).await.unwrap();
        }
        let spool = feed.spool.path().to_owned();
        let script = feed.stop().await;
        assert_eq!(script.accepted().len(), 0);
        assert!(!spool.exists() || is_empty(&spool));
    }
}

#[tokio::test]
async fn what_comes_after_the_rows_still_counts() {
    let feed = feed(Script::default()).await;
    let [type_, plan, attachment, data, form] = sections(&attachments(DOCUMENT)[0].1);
    let cell = ("type", "\"cell\"".to_owned());
    let nowhere = r#"{"data_type": "user_data", "environment": "x"}"#;
    let unknown = ("form_params", nowhere.to_owned());
    for (sections, part) in [
        (
            [&plan, &attachment, &data, &form, &cell],
            "of type \"cell\"",
        ),
        (
            [&plan, &data, &form, &attachment, &cell],
            "of type \"cell\"",
        ),
        (
            [&type_, &plan, &attachment, &data, &unknown],
            "Unknown environment \"x\"",
        ),
        (
            [&type_, &data, &form, &attachment, &form],
            "two `form_params` sections",
        ),
    ] {
        let sentence = feed.told(None, &envelope(sections), false).await;
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!(feed.script.accepted().len(), 0);
}

#[tokio::test]
async fn a_large_push_that_is_refused_at_its_beginning_still_hears_why() {
    let feed = feed(Script::default()).await;
    let document = format!(r#"{{"data":["{}"]}}"#, "x".repeat(24 << 20));
    let [type_, plan, attachment, data, form] = sections(&attachments(&document)[0].1);
    *feed.script.full.lock().unwrap() = Some("The outbox is full.");
    for body in [
        envelope([&type_, &plan, &attachment, &data, &form]),
        envelope([&type_, &plan, &data, &form, &attachment]),
    ] {
        let answer = feed.execute_chunked(None, &body, 256 << 10).await;
        assert_eq!(message(&looker(&answer), false), "The outbox is full.");
    }
    *feed.script.full.lock().unwrap() = None;
    *feed.script.plan.lock().unwrap() = Plan::Refuse("No identity.");
    let body = envelope([&type_, &plan, &data, &form, &attachment]);
    let answer = feed.execute_chunked(None, &body, 256 << 10).await;
    assert_eq!(message(&looker(&answer), false), "No identity.");
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_a_failure_with_a_sentence() {
    let feed = feed_with(Script::default(), |settings| {
        settings.spool = Space::new("/nonexistent/spool");
    })
    .await;
    let [type_, plan, attachment, data, form] = sections(&attachments(DOCUMENT)[0].1);
    let body = envelope([&type_, &plan, &attachment, &data, &form]);
    let told = feed.told(None, &body, false).await;
    let words = "The feed could not store the delivery in its directory.";
    assert_eq!(told, words);
}

#[tokio::test]
async fn a_spool_that_fails_at_any_step_fails_its_delivery_and_no_other() {
    let document = format!(r#"{{"data":["{}"]}}"#, "x".repeat(1 << 20));
    let [type_, plan, attachment, data, form] = sections(&attachments(&document)[0].1);
    let body = envelope([&type_, &plan, &attachment, &data, &form]);
    for nth in 0.. {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let directory = tempfile::tempdir().unwrap();
        let space = Space::with_hook(directory.path(), move |_| {
            match counted.fetch_add(1, Ordering::SeqCst) == nth {
                true => Err(io::Error::from_raw_os_error(5)),
                false => Ok(usize::MAX),
            }
        });
        let feed = feed_with(Script::default(), |settings| settings.spool = space).await;
        let answer = looker(&feed.execute_chunked(None, &body, 64 << 10).await);
        let begun = steps.load(Ordering::SeqCst);
        if begun <= nth {
            message(&answer, true);
            assert!(nth > 8, "only {nth} steps were tried");
            return;
        }
        let said = message(&answer, false);
        let expected = "The feed could not ";
        assert!(said.starts_with(expected), "step {nth}: {said}");
        assert!(feed.script.accepted().is_empty());
        // The fault is over.
        let answer = feed.execute_chunked(None, &body, 64 << 10).await;
        message(&looker(&answer), true);
        assert_eq!(feed.script.accepted()[0].1, document.as_bytes());
    }
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let feed = feed(Script::default()).await;
    let [type_, plan, attachment, data, form] = sections(&attachments(DOCUMENT)[0].1);
    let body = envelope([&type_, &plan, &attachment, &data, &form]);
    let headers = "connection: close\r\nexpect: 100-continue\r\n";
    let headers = format!("{headers}content-length: {}\r\n", body.len());
    let mut stream = feed.raw_execute(&headers).await;
    let go_on = read_until(&mut stream, "\r\n\r\n").await;
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#""success":true"#), "{answer}");
}
