//! Execute requests: what is checked, what Looker is told, and when.

use std::sync::atomic::Ordering;
use std::time::Duration;

use looker_feed::intake::NotReserved;
use looker_feed::model::FailureKind;
use looker_feed::model::{DataType, Environment};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::support::*;

const DOCUMENT: &str = r#"{"fields":{},"data":[{"a":1},{"a":2}]}"#;

/// What Looker is told of [`DOCUMENT`].
fn accepted() -> String {
    format!("4 rows accepted as delivery {DELIVERY}.")
}

#[tokio::test]
async fn a_delivery_in_url_mode_reaches_the_receiver_whole() {
    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url()).to_string();
    let id = "0123456789abcdef0123456789abcdef";
    let answer = feed.execute_chunked(Some(id), &body, 11).await;
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"looker": {"success": true, "message": accepted(), "refresh_query": false, "validation_errors": {}}})
    );

    let accepted = feed.script.accepted();
    let [(order, document)] = accepted.as_slice() else {
        panic!("{} deliveries", accepted.len());
    };
    assert_eq!(document, DOCUMENT.as_bytes());
    assert_eq!(order.api_key, "key");
    assert_eq!(order.api_secret.expose(), "hunter2");
    assert_eq!(order.data_type, DataType::Event);
    assert_eq!(order.environment, Environment::Development);
    assert_eq!(order.webhook_id.as_deref(), Some(id));
    assert_eq!(order.title, "Daily users");
    assert_eq!(order.link.as_deref(), Some("https://looker.test/looks/3"));
    assert_eq!(order.instance.as_deref(), Some("instance-1"));
    assert_eq!(order.schedule_id.as_deref(), Some("12"));
    assert!(!format!("{order:?}").contains("hunter2"));

    let heads = looker_server.heads.lock().unwrap().clone();
    let [head] = heads.as_slice() else {
        panic!("{} downloads", heads.len());
    };
    assert!(head.starts_with("GET /downloads/dddd"), "{head}");
    let host = format!("\r\nhost: {}\r\n", looker_server.address);
    assert!(head.contains(&host), "{head}");
    assert!(!head.contains("hunter2"), "{head}");
    assert!(!head.contains(&feed.key), "{head}");
}

#[tokio::test]
async fn a_schedule_without_results_is_a_success_of_no_rows() {
    let feed = feed(Script::default()).await;
    let none = |data: Value| json!({"mimetype": "a/b", "extension": "json", "data": data});
    for (plan, attachment) in [
        (json!(null), json!(null)),
        (json!({"title": "x"}), json!({})),
        (json!({"download_url": null}), none(json!(null))),
        (json!({"download_url": ""}), none(json!(""))),
    ] {
        let mut body = order_with("");
        body["scheduled_plan"] = plan;
        body["attachment"] = attachment;
        let told = message(&feed.execute(&body).await, true);
        assert_eq!(told, "0 rows: the schedule had no results.");
    }
    assert_eq!(feed.script.begun_count(), 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_the_url_is_not_spent() {
    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    // A place in the request, what stands there, and what is said of it.
    for case in [
        r#"/type = "dashboard": This action supports type "query" only (a Look or an Explore), but the request is of type "dashboard"."#,
        r#"/data = null: Required setting "API Key" not specified in action settings."#,
        r#"/data/apiSecret = null: Required setting "API Secret" not specified in action settings."#,
        r#"/form_params = null: Missing data type (user|event)."#,
        r#"/form_params/data_type = "": Missing data type (user|event)."#,
        r#"/form_params/data_type = "users": Unknown data type "users": it must be "user_data" or "event_data"."#,
        r#"/form_params/environment = null: Missing environment (production|development)."#,
        r#"/form_params/environment = "staging": Unknown environment "staging": it must be "production" or "development"."#,
        r#"/scheduled_plan/download_url = ["x"]: The `scheduled_plan` section of Looker's request is not what an action hub expects."#,
    ] {
        let (place, expect) = case.split_once(": ").unwrap();
        let (pointer, value) = place.split_once(" = ").unwrap();
        let mut body = order_with(&looker_server.url());
        *body.pointer_mut(pointer).unwrap() = serde_json::from_str(value).unwrap();
        assert_eq!(feed.refusal(&body).await, expect);
    }
    assert_eq!(looker_server.hits(), 0);
    assert_eq!(feed.script.begun_count(), 0);
}

#[tokio::test]
async fn a_body_that_is_no_execute_request_is_a_failure_with_a_sentence() {
    let feed = feed(Script::default()).await;
    let complete = order_with("").to_string();
    let twice = r#"{"type": "query", "type": "query"}"#;
    for (body, part) in [
        ("", "empty"),
        ("[]", "not a JSON object"),
        ("<html>", "not a JSON object"),
        (&complete[..complete.len() - 1], "cut off"),
        (r#"{"type": "query" "data": {}}"#, "not valid JSON"),
        (&format!("{complete}x"), "something follows"),
        (twice, "two `type` sections"),
    ] {
        let answer = feed.execute_chunked(None, body, 5).await;
        let sentence = message(&looker(&answer), false);
        assert!(sentence.contains(part), "{sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}

#[tokio::test]
async fn a_webhook_that_was_committed_is_a_success_without_a_second_delivery() {
    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url()).to_string();
    *feed.script.webhook.lock().unwrap() = Some(NotReserved::Committed { rows: 41 });
    let told = feed.told(Some("abc"), &body, true).await;
    assert_eq!(told, "41 rows were accepted before.");

    *feed.script.webhook.lock().unwrap() = Some(NotReserved::Receiving);
    let told = feed.told(Some("abc"), &body, false).await;
    let words = "This delivery is already being received; this second request for it was ignored.";
    assert_eq!(told, words);
    assert_eq!((looker_server.hits(), feed.script.begun_count()), (0, 0));
    assert!(feed.script.failed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn whatever_fails_before_its_rows_come_is_written_down_once() {
    let feed = feed(Script::default()).await;
    let busy = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
    let url = Looker::raw(busy, false).await.url();
    let mut spent = order_with(&url);
    spent["scheduled_plan"]["title"] = "Nightly".into();
    let mut foreign = order_with("https://10.0.0.1/downloads/x");
    foreign["scheduled_plan"]["title"] = "Elsewhere".into();
    let mut incomplete = order_with(&url);
    incomplete["data"] = serde_json::Value::Null;
    for body in [&spent, &foreign, &incomplete] {
        feed.refusal(body).await;
    }
    let failed = feed.script.failed.lock().unwrap().clone();
    let told = failed
        .iter()
        .map(|(title, reserved, kind, _)| (&**title, *reserved, *kind));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 3, "{failed:?}");
    assert_eq!(
        told[0],
        ("Nightly", true, FailureKind::Looker),
        "its url was tried"
    );
    assert_eq!(told[1], ("Elsewhere", true, FailureKind::Address));
    assert_eq!((told[2].1, told[2].2), (false, FailureKind::Request));
    assert!(failed[2].3.contains("API Key"), "{failed:?}");
    assert!(feed.script.reserved.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_webhook_that_is_being_received_is_refused_and_one_that_failed_may_come_again() {
    let feed = feed(Script::held()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url()).to_string();
    *feed.script.plan.lock().unwrap() = Plan::Refuse("No room.");
    let first = feed.told(Some("abc"), &body, false);
    let second = async {
        feed.script.begun.notified().await;
        let told = feed.told(Some("abc"), &body, false).await;
        feed.script.gate.add_permits(1);
        told
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first, "No room.");
    assert!(second.contains("already being received"));
    assert_eq!(looker_server.hits(), 1);

    *feed.script.plan.lock().unwrap() = Plan::Accept;
    feed.script.gate.add_permits(2);
    let again = feed.told(Some("abc"), &body, true).await;
    assert_eq!(again, accepted());
}

/// A receiver that gives nobody a turn.
fn without_turns() -> Script {
    Script {
        turns: Semaphore::new(0),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_delivery_waits_for_its_turn_with_newlines_and_its_url_unspent() {
    let feed = feed_with(without_turns(), fast).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url()).to_string();
    let mut stream = feed.raw_whole(&body).await;
    read_until(&mut stream, "\r\n\r\n").await;
    feed.script.queued.notified().await;
    for _ in 0..3 {
        assert_eq!(read_until(&mut stream, "\n\r\n").await, "1\r\n\n\r\n");
    }
    assert_eq!(looker_server.hits(), 0);
    feed.script.turns.add_permits(1);
    let rest = rest(&mut stream).await;
    assert!(rest.contains(r#""success":true"#), "{rest}");
    assert_eq!(looker_server.hits(), 1);
}

#[tokio::test]
async fn a_delivery_whose_turn_does_not_come_is_refused_before_its_url_is_spent() {
    let feed = feed(without_turns()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url());
    let refusal = feed.refusal(&body);
    let ends = async {
        feed.script.queued.notified().await;
        feed.script.turns.close();
    };
    let (refusal, ()) = tokio::join!(refusal, ends);
    assert_eq!(refusal, "No place became free.");
    assert_eq!(looker_server.hits(), 0);
}

#[tokio::test]
async fn a_delivery_that_is_refused_gives_its_place_to_the_next() {
    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url());
    *feed.script.full.lock().unwrap() = Some("The outbox is full.");
    assert_eq!(feed.refusal(&body).await, "The outbox is full.");
    *feed.script.full.lock().unwrap() = None;
    assert_eq!(message(&feed.execute(&body).await, true), accepted());
}

#[tokio::test]
async fn a_full_outbox_refuses_before_the_url_is_spent() {
    let feed = feed(Script::default()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    *feed.script.full.lock().unwrap() = Some("The outbox is full.");
    let body = order_with(&looker_server.url());
    assert_eq!(feed.refusal(&body).await, "The outbox is full.");
    assert_eq!(looker_server.hits(), 0);
}

/// Sends a url-mode request, reads the answer's head and `newlines` keep-alive newlines while the
/// receiver is held, then lets it go on and returns the rest of the answer.
async fn answer_after_newlines(feed: &Feed, url: &str, newlines: usize) -> String {
    let body = order_with(url).to_string();
    let mut stream = feed.raw_whole(&body).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    feed.script.begun.notified().await;
    for _ in 0..newlines {
        assert_eq!(read_until(&mut stream, "\n\r\n").await, "1\r\n\n\r\n");
    }
    feed.script.gate.add_permits(2);
    let rest = rest(&mut stream).await;
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest:?}");
    rest
}

fn fast(settings: &mut looker_feed::intake::Settings) {
    settings.intake.keep_alive = Duration::from_millis(15);
}

#[tokio::test]
async fn while_a_delivery_is_received_looker_gets_newlines() {
    let feed = feed_with(Script::held(), fast).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let rest = answer_after_newlines(&feed, &looker_server.url(), 4).await;
    assert!(rest.contains(r#""success":true"#), "{rest}");
}

#[tokio::test]
async fn a_failure_after_the_first_newline_still_ends_the_answer() {
    let feed = feed_with(Script::held(), fast).await;
    let looker_server = Looker::with(DOCUMENT).await;
    *feed.script.plan.lock().unwrap() = Plan::Refuse("The rows have no identity.");
    let rest = answer_after_newlines(&feed, &looker_server.url(), 2).await;
    let told = r#""message":"The rows have no identity.""#;
    assert!(rest.contains(told), "{rest}");
    assert!(rest.contains(r#""success":false"#), "{rest}");
}

#[tokio::test]
async fn a_panic_after_the_first_newline_still_ends_the_answer_and_frees_the_place() {
    let feed = feed_with(Script::held(), fast).await;
    let looker_server = Looker::with(DOCUMENT).await;
    *feed.script.plan.lock().unwrap() = Plan::Panic;
    let rest = answer_after_newlines(&feed, &looker_server.url(), 1).await;
    assert!(rest.contains(r#""success":false"#), "{rest}");
    assert!(rest.contains("a mistake in its program"), "{rest}");
    assert!(!rest.contains("the script says so"), "{rest}");

    *feed.script.plan.lock().unwrap() = Plan::Accept;
    feed.script.gate.add_permits(2);
    let body = order_with(&looker_server.url());
    assert_eq!(message(&feed.execute(&body).await, true), accepted());
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_end_its_delivery() {
    let feed = feed(Script::held()).await;
    let looker_server = Looker::with(DOCUMENT).await;
    let body = order_with(&looker_server.url()).to_string();
    let mut stream = feed.raw_whole(&body).await;
    read_until(&mut stream, "\r\n\r\n").await;
    feed.script.begun.notified().await;
    drop(stream);
    feed.script.gate.add_permits(2);
    feed.script.ended.notified().await;
    assert_eq!(feed.script.accepted().len(), 1);
    assert_eq!(feed.script.begun_count.load(Ordering::SeqCst), 1);
}
