//! mParticle's stand-in.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Method, StatusCode};
use looker_feed::clock::UnixMillis;
use looker_feed::sandbox::{Counts, Fault, Faults, LedgerMode, Rule, Settings, Window};
use serde_json::{Value, json};

use crate::{Running, basic, within};

fn batch(id: &str, events: usize) -> String {
    let event = json!({"event_type": "custom_event", "data": {
        "event_name": "Viewed", "custom_event_type": "other", "timestamp_unixtime_ms": 1}});
    json!({
        "source_request_id": id, "environment": "development",
        "user_identities": {"email": format!("{id}@example.com")},
        "events": vec![event; events],
    })
    .to_string()
}

fn request(batches: &[String]) -> String {
    format!("[{}]", batches.join(","))
}

#[tokio::test]
async fn accepted_batches_are_in_the_ledger_byte_for_byte_and_repeats_are_not() {
    let (running, handle) = Running::sandbox(Settings::default()).await;
    let (a, b) = (batch("a", 2), batch("b", 0));
    let first = running.post(request(&[a.clone(), b.clone()])).await;
    assert_eq!((first.status, first.body.len()), (202, 0));
    assert_eq!(first.header("x-mp-rate-limit-percentage-used"), Some("0"));
    let spaced = format!(" [\n{a} ,{}\t]", batch("c", 1));
    assert_eq!(running.post(spaced).await.status, 202);
    let other_b = batch("b", 1);
    assert_eq!(running.post(request(&[other_b])).await.status, 202);

    let ledger = handle.ledger();
    let batches: Vec<_> = ledger.iter().map(|accepted| &accepted.batch[..]).collect();
    let c = batch("c", 1);
    assert_eq!(batches, [a.as_bytes(), b.as_bytes(), c.as_bytes()]);
    let received: Vec<_> = ledger.iter().map(|accepted| accepted.received).collect();
    assert_eq!(received, [2, 2, 1]);
    let counts = handle.counts();
    assert_eq!((counts.batches, counts.events, counts.requests), (3, 3, 3));
    assert_eq!((counts.duplicates, counts.conflicts), (2, 1));
    assert_eq!(counts.statuses.get(&202), Some(&3));
    running.end().await;
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_whole_and_leaves_no_trace() {
    let settings = Settings {
        credentials: Some(vec![("key".into(), "secret".into())]),
        ..Settings::default()
    };
    let (running, handle) = Running::sandbox(settings).await;
    let many = |count: usize, events| {
        let batches = (0..count).map(|n| batch(&n.to_string(), events));
        request(&batches.collect::<Vec<_>>())
    };
    let long = json!({"environment": "development", "partner_identity": "x".repeat(128_000)});
    let (wide, long) = (format!("[{}]", " ".repeat(256_000)), format!("[{long}]"));
    let other = request(&[batch("a", 1), batch("b", 3).replace("other", "others")]);
    let place = "batch 1: events[0].data.custom_event_type must be one of navigation";
    for (body, status, words) in [
        ("[".to_owned(), 400, "not valid JSON"),
        ("{}".to_owned(), 400, "must be a JSON array"),
        ("[1]".to_owned(), 400, "batch 0: must be an object"),
        (many(101, 0), 400, "more than 100 batches"),
        (many(2, 51), 400, "more than 100 events"),
        (wide, 413, "more than 256000 bytes"),
        (" ".repeat(3_000_000), 413, "more than 256000 bytes"),
        (long, 413, "batch 0: has more than 128000 bytes"),
        (other, 400, place),
    ] {
        let reply = running.post(body).await;
        assert_eq!(reply.status, status, "{words}");
        let message = reply.message();
        assert!(message.contains(words), "{message} {words}");
    }
    assert_eq!(handle.counts().batches, 0);
    assert_eq!(running.post(many(100, 1)).await.status, 202);
    assert_eq!(handle.counts().batches, 100);
    running.end().await;
}

#[tokio::test]
async fn credentials_content_type_address_and_method_are_checked() {
    let settings = Settings {
        credentials: Some(vec![("key".into(), "secret".into())]),
        ..Settings::default()
    };
    let (running, handle) = Running::sandbox(settings).await;
    let json = "application/json; charset=utf-8";
    let (bulk, plain) = ("/v2/bulkevents", "text/plain");
    for (method, path, authorization, kind, status) in [
        ("POST", bulk, basic("key:secret"), json, 202),
        ("POST", bulk, String::new(), json, 401),
        ("POST", bulk, "Bearer x".into(), json, 401),
        ("POST", bulk, "Basic ???".into(), json, 401),
        ("POST", bulk, basic("key"), json, 401),
        ("POST", bulk, basic("key:"), json, 401),
        ("POST", bulk, basic("key:other"), json, 403),
        ("POST", bulk, basic("other:secret"), json, 403),
        ("POST", bulk, basic("key:secret"), plain, 400),
        ("GET", bulk, basic("key:secret"), json, 405),
        ("POST", "/v2/events", basic("key:secret"), json, 404),
    ] {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", running.base))
            .header("authorization", &authorization)
            .header("content-type", kind)
            .body(Full::from("[]"))
            .unwrap();
        let reply = running.send(request).await.expect("a reply");
        let call = format!("{method} {path} {authorization} {kind}");
        assert_eq!(reply.status, status, "{call}");
    }
    assert_eq!(handle.counts().batches, 0);
    running.end().await;
}

#[tokio::test]
async fn too_many_batches_are_throttled_by_key_and_told_when_to_come_back() {
    let settings = Settings {
        batches_per_second: Some(1),
        ..Settings::default()
    };
    let (running, handle) = Running::sandbox(settings).await;
    let full = |from: usize| {
        let batches = (from..from + 100).map(|n| batch(&n.to_string(), 0));
        request(&batches.collect::<Vec<_>>())
    };
    let reply = running.post(full(0)).await;
    assert_eq!(reply.status, 202);
    let used = reply.header("x-mp-rate-limit-percentage-used").unwrap();
    let used: u8 = used.parse().unwrap();
    assert!((99..=100).contains(&used), "{used}");
    let reply = running.post(full(100)).await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("x-mp-rate-limit-exceeded"), Some("account"));
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((40..=100).contains(&seconds), "{seconds}");

    let counts = handle.counts();
    assert_eq!(counts.batches, 100);
    let throttled: u64 = counts.seconds.iter().map(|second| second.throttled).sum();
    assert_eq!(throttled, 1);
    handle.set_rate(None);
    assert_eq!(running.post(full(100)).await.status, 202);
    for (rate, status) in [("{\"batches_per_second\": 0}", 204), ("{}", 400)] {
        let reply = running.call(Method::PUT, "/sandbox/rate", rate).await;
        assert_eq!(reply.status, status, "{rate}");
    }
    running.end().await;
}

#[tokio::test]
async fn faults_set_over_http_do_what_they_say() {
    let (running, handle) = Running::sandbox(Settings::default()).await;
    let body = || request(&[batch("BAD", 1)]);
    let path = "/v2/bulkevents";

    let faults = async |rules: Value| running.set_faults(json!({ "rules": rules })).await;
    let status =
        json!({"status": 503, "retry_after": "7", "exceeded": "acceleration", "body": "down"});
    faults(json!([{"next": 1, "fault": {"status": status}}])).await;
    let reply = running.post(body()).await;
    assert_eq!((reply.status, &reply.body[..]), (503, &b"down"[..]));
    assert_eq!(reply.header("retry-after"), Some("7"));
    let exceeded = reply.header("x-mp-rate-limit-exceeded");
    assert_eq!(exceeded, Some("acceleration"));

    faults(json!([{"next": 1, "fault": "drop_before"}])).await;
    assert!(running.post_to(path, body()).await.is_none());
    assert_eq!(handle.counts().batches, 0);

    faults(json!([{"fault": {"reject_marker": {"marker": "BAD"}}}])).await;
    assert_eq!(running.post(body()).await.status, 400);
    assert_eq!(running.post(request(&[batch("good", 1)])).await.status, 202);

    faults(json!([{"next": 1, "fault": "drop_after"}])).await;
    assert!(running.post_to(path, body()).await.is_none());
    let recorded = handle.counts().batches;
    assert_eq!(recorded, 2, "recorded, though nobody was told");
    assert_eq!(running.post(body()).await.status, 202);
    assert_eq!(handle.counts().duplicates, 1);

    let slow = json!({"slow_body": {"bytes": 3, "pause_ms": 1}});
    faults(json!([{"fault": {"delay": {"ms": 1}}}, {"fault": slow}])).await;
    let reply = running.post(body()).await;
    assert_eq!((reply.status, &reply.body[..]), (202, &b"   "[..]));

    let shown = running.call(Method::GET, "/sandbox/faults", "").await;
    let shown: Faults = serde_json::from_slice(&shown.body).unwrap();
    assert_eq!(shown.rules.len(), 2);
    let bad = json!({"rules": [{"share": 2, "fault": "drop_after"}]}).to_string();
    let reply = running.call(Method::PUT, "/sandbox/faults", bad).await;
    assert_eq!(reply.status, 400);

    let counts = handle.counts();
    assert_eq!(counts.connections_dropped, 2);
    assert_eq!(counts.statuses.values().sum::<u64>(), counts.requests - 2);
    running.end().await;
}

#[tokio::test]
async fn the_ledger_can_be_read_over_http_and_everything_reset() {
    let (running, handle) = Running::sandbox(Settings {
        batches_per_second: None,
        ..Settings::default()
    })
    .await;
    for part in 0..10 {
        let batches: Vec<_> = (0..100).map(|n| batch(&format!("{part}-{n}"), 1)).collect();
        assert_eq!(running.post(request(&batches)).await.status, 202);
        assert_eq!(running.post(request(&batches[..part])).await.status, 202);
    }
    let read = running.call(Method::GET, "/sandbox/ledger", "").await.body;
    let read = std::str::from_utf8(&read).unwrap();
    let ledger = handle.ledger();
    assert_eq!(read.lines().count(), 1_000);
    for (line, accepted) in read.lines().zip(&ledger) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["id"].as_str(), accepted.id.as_deref());
        assert_eq!(line["key"], "key");
        assert_eq!(line["received"], json!(accepted.received));
        let batch: Value = serde_json::from_slice(&accepted.batch).unwrap();
        assert_eq!(line["batch"], batch);
    }

    let counts = running.call(Method::GET, "/sandbox/counts", "").await.body;
    let counts: Counts = serde_json::from_slice(&counts).unwrap();
    assert_eq!(counts, handle.counts());
    assert_eq!((counts.batches, counts.duplicates), (1_000, 45));
    assert_eq!((counts.distinct_ids, counts.conflicts), (1_000, 0));

    let (from_ms, until_ms) = (0, u64::MAX);
    let rules = vec![Rule {
        window: Some(Window { from_ms, until_ms }),
        ..Rule::always(Fault::DropBefore)
    }];
    handle.set_faults(Faults { seed: 0, rules }).unwrap();
    let reply = running.call(Method::POST, "/sandbox/reset", "").await;
    assert_eq!(reply.status, 204);
    assert_eq!(handle.counts(), Counts::default());
    assert_eq!(running.post(request(&[batch("0-0", 1)])).await.status, 202);
    let counts = handle.counts();
    assert_eq!((counts.batches, counts.duplicates), (1, 0));
    let page = running.call(Method::GET, "/", "").await;
    let page = std::str::from_utf8(&page.body).unwrap();
    assert!(page.contains("1 batches with 1 events"));
    running.end().await;
}

#[tokio::test]
async fn in_counts_mode_repeats_are_known_and_nothing_is_stored() {
    let (running, handle) = Running::sandbox(Settings {
        ledger: LedgerMode::Counts,
        ..Settings::default()
    })
    .await;
    for _ in 0..2 {
        assert_eq!(running.post(request(&[batch("a", 3)])).await.status, 202);
    }
    let counts = handle.counts();
    let counted = (counts.batches, counts.events, counts.duplicates);
    assert_eq!(counted, (1, 3, 1));
    assert!(handle.ledger().is_empty());
    let reply = running.call(Method::GET, "/sandbox/ledger", "").await;
    assert_eq!(reply.status, 409);
    running.end().await;
}

#[tokio::test]
async fn the_historical_address_accepts_and_drops_in_silence() {
    let (running, handle) = Running::sandbox(Settings::default()).await;
    let path = "/v2/bulkevents/historical";
    let young = UnixMillis::now().0 - 71 * 3_600_000;
    let young = batch("young", 2).replace("ms\":1}", &format!("ms\":{young}}}"));
    assert!(young.len() > batch("young", 2).len());
    let old = batch("old", 2);
    let body = request(&[old.clone(), young, batch("none", 0)]);
    assert_eq!(running.post_to(path, body).await.unwrap().status, 202);
    let counts = handle.counts();
    assert_eq!(counts.batches, 1);
    assert_eq!((counts.dropped_batches, counts.dropped_events), (2, 2));
    assert_eq!(handle.ledger()[0].batch, old.as_bytes());
    running.end().await;
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_cuts_one_that_does_not() {
    for (bytes, pause_ms, ends) in [(2, 50, true), (2, 3_600_000, false)] {
        let (running, handle) = Running::sandbox(Settings {
            close_within: Duration::from_secs(if ends { 30 } else { 0 }),
            ..Settings::default()
        })
        .await;
        let rules = vec![Rule::always(Fault::SlowBody { bytes, pause_ms })];
        handle.set_faults(Faults { seed: 0, rules }).unwrap();
        let request = hyper::Request::post(format!("{}/v2/bulkevents", running.base))
            .header("authorization", basic("key:secret"))
            .header("content-type", "application/json")
            .body(Full::from("[]"))
            .unwrap();
        let response = within(running.client.request(request)).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let address = running.base.trim_start_matches("http://").to_owned();
        running.end().await;
        let body = within(response.into_body().collect()).await;
        assert_eq!(body.is_ok(), ends);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
