//! Who may ask for what, as a table over real requests, and the headers of every answer.

use super::scripted::{LOOKING, Running, TOKEN};
use crate::control::{Proxy, Token};

/// Makes requests and compares their status. A line is `status METHOD target | header: value | …`.
async fn check(admin: &Running, cases: &str) {
    for case in cases.lines().map(str::trim).filter(|case| !case.is_empty()) {
        let mut parts = case.split(" | ");
        let line: Vec<_> = parts.next().unwrap().split(' ').collect();
        let [want, method, target] = line[..] else {
            panic!("{case}");
        };
        let headers: Vec<_> = parts
            .map(|header| header.split_once(": ").unwrap())
            .collect();
        // Streams are not read to their end.
        let response = admin.open(method, target, &headers, "").await;
        assert_eq!(response.status().as_str(), want, "{case}");
    }
}

const PAUSE: &str = "/api/v1/destinations/d0000000000000000000000000000001/pause";

#[tokio::test]
async fn without_a_token_only_loopback_names_are_answered() {
    let admin = Running::start().await;
    let port = admin.addr.port();
    for host in [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "feed.example.com",
    ] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            check(&admin, &format!("200 GET /api/v1/overview | host: {host}")).await;
        }
    }
    for host in [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8081",
        "192.0.2.1",
        "0.0.0.0",
        "[::2]",
        "localhost@evil.example",
        "evil.example@localhost",
        "0x7f000001",
    ] {
        for target in ["/", "/livez", "/metrics", "/api/v1/overview", "/nowhere"] {
            let response = admin.open("GET", target, &[("host", host)], "").await;
            assert_eq!(response.status(), 421, "{target} {host}");
        }
    }
    let cases = "
        421 GET /api/v1/overview | host: localhost | host: evil.example
        421 GET http://evil.example/api/v1/overview | host: localhost";
    check(&admin, cases).await;
    admin.stop().await;
}

#[tokio::test]
async fn a_foreign_page_can_neither_read_nor_steer() {
    let admin = Running::start().await;
    let addr = admin.addr;
    let cases = [
        // A program: no browser's headers.
        "200 POST PAUSE | x-looker-feed: 1",
        "200 POST PAUSE | JSON",
        "403 POST PAUSE",
        "403 POST PAUSE | x-looker-feed: 0",
        "403 POST PAUSE | content-type: text/plain",
        "403 POST PAUSE | content-type: application/x-www-form-urlencoded",
        // Our own page.
        "200 POST PAUSE | x-looker-feed: 1 | origin: http://OWN | sec-fetch-site: same-origin",
        "200 POST PAUSE | x-looker-feed: 1 | origin: http://OWN",
        "403 POST PAUSE | origin: http://OWN",
        // Others.
        "403 POST PAUSE | x-looker-feed: 1 | origin: http://evil.example",
        "403 POST PAUSE | x-looker-feed: 1 | origin: null",
        "403 POST PAUSE | x-looker-feed: 1 | origin: http://127.0.0.1",
        "403 POST PAUSE | x-looker-feed: 1 | origin: http://OWN.evil.example",
        "403 POST PAUSE | x-looker-feed: 1 | origin: ftp://OWN",
        "403 POST PAUSE | JSON | sec-fetch-site: cross-site",
        "403 POST PAUSE | JSON | sec-fetch-site: same-site",
        "403 POST PAUSE | JSON | sec-fetch-site: none",
        "403 OPTIONS PAUSE | origin: http://evil.example",
        // Reading.
        "403 GET /api/v1/overview | sec-fetch-site: cross-site",
        "403 GET /api/v1/events | sec-fetch-site: cross-site",
        "403 GET /metrics | sec-fetch-site: same-site",
        "200 GET /api/v1/overview | sec-fetch-site: none",
        // A link to the page may stand anywhere.
        "200 GET / | sec-fetch-site: cross-site",
    ];
    let cases = cases.join("\n").replace("PAUSE", PAUSE);
    let cases = cases.replace("JSON", "content-type: application/json; charset=utf-8");
    check(&admin, &cases.replace("OWN", &addr.to_string())).await;
    let calls = admin.daemon.script().calls.clone();
    assert_eq!(calls.len(), 4, "{calls:?}");
    admin.stop().await;
}

#[tokio::test]
async fn with_a_token_all_that_shows_or_changes_something_needs_it() {
    let admin = Running::with(Some(TOKEN)).await;
    let auth = format!("authorization: Bearer {TOKEN}");
    for target in [
        "/metrics",
        "/api/v1/overview",
        "/api/v1/events",
        "/api/v1/history",
        "/api/v1/deliveries",
        "/api/v1/dead-letters",
        "/api/v1/dead-letters/export",
        "/api/v1/dead-letters/17-0",
    ] {
        let cases = format!(
            "
            401 GET {target}
            401 GET {target} | authorization: Bearer wrong
            401 GET {target} | authorization: {TOKEN}
            401 GET {target} | {auth}x
            401 GET {target} | authorization: Basic {TOKEN}
            200 GET {target} | {auth}
            200 GET {target} | {auth} | host: feed.anywhere.example
            403 GET {target} | {auth} | sec-fetch-site: cross-site"
        );
        check(&admin, &cases).await;
    }
    let cases = format!(
        "
        200 GET /
        200 GET /deliveries/x
        200 GET /assets/main.js
        200 GET /livez
        200 GET /readyz
        200 GET /api/v1/openapi.json
        401 GET /nowhere
        401 POST {PAUSE} | x-looker-feed: 1
        401 POST / | x-looker-feed: 1
        403 POST {PAUSE} | {auth}
        403 POST {PAUSE} | {auth} | x-looker-feed: 1 | origin: http://evil.example
        200 POST {PAUSE} | {auth} | x-looker-feed: 1"
    );
    check(&admin, &cases).await;
    admin.stop().await;
}

#[test]
fn a_token_that_can_be_guessed_or_not_be_sent_is_refused() {
    for bad in [
        "",
        "short",
        "fifteen-letters",
        "with a space in between",
        "umläute-sind-nicht-da",
    ] {
        assert!(Token::new(bad).is_err(), "{bad}");
    }
    let token = Token::new(TOKEN).unwrap();
    assert_eq!(format!("{token:?}"), "(token)");
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_protect_it() {
    let admin = Running::start().await;
    for (method, target, host) in [
        ("GET", "/", "localhost"),
        ("GET", "/assets/main.js", "localhost"),
        ("GET", "/api/v1/overview", "localhost"),
        ("GET", "/api/v1/events", "localhost"),
        ("GET", "/api/v1/dead-letters/export", "localhost"),
        ("GET", "/nowhere", "localhost"),
        ("PUT", "/", "localhost"),
        ("POST", "/api/v1/dead-letters/replay", "localhost"),
        ("GET", "/", "evil.example"),
    ] {
        let response = admin.open(method, target, &[("host", host)], "").await;
        let headers = response.headers();
        let is = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        let policy = is("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{target}");
        assert!(policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(is("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(is("referrer-policy"), Some("no-referrer"), "{target}");
        assert_eq!(is("cache-control"), Some("no-store"), "{target}");
        assert_eq!(is("access-control-allow-origin"), None, "{target}");
        assert!(is("content-type").is_some(), "{method} {target}");
    }
    admin.stop().await;
}

#[tokio::test]
async fn a_proxy_says_who_somebody_is_and_nobody_else_can() {
    let proxy = |address: &str, may_act| Proxy {
        header: "x-forwarded-user".parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        may_act,
    };
    let user = "x-forwarded-user: zoe@example.com | host: feed.example.com";
    // With a token beside it, and without one.
    for token in [Some(TOKEN), None] {
        let admin = Running::behind(token, Some(proxy("127.0.0.1", true))).await;
        let cases = format!(
            "
            200 GET /api/v1/overview | {user}
            200 POST {PAUSE} | {user} | x-looker-feed: 1
            403 POST {PAUSE} | {user}"
        );
        check(&admin, &cases).await;
        let headers = [
            ("x-forwarded-user", "zoe@example.com"),
            ("host", "feed.example.com"),
        ];
        let log = admin.ask("GET", "/api/v1/audit", &headers, "").await.1;
        assert!(log.contains("\"who\":\"zoe@example.com\""), "{log}");
        admin.stop().await;
    }
    let admin = Running::behind(Some(TOKEN), Some(proxy("127.0.0.1", false))).await;
    let long = "x".repeat(65);
    // A host that is no name of ours: a page whose name was rebound could send the header too.
    let cases = format!(
        "
        200 GET /api/v1/overview | {user}
        403 POST {PAUSE} | {user} | x-looker-feed: 1
        403 POST /api/v1/people/erase | {user} | x-looker-feed: 1
        401 GET /api/v1/overview | x-forwarded-user: zoe@example.com | host: evil.example
        401 GET /api/v1/overview | x-forwarded-user:   | host: feed.example.com
        401 GET /api/v1/overview | x-forwarded-user: {long} | host: feed.example.com
        401 GET /api/v1/overview | x-forwarded-user: zoe@example.com | {user}
        401 GET /api/v1/overview | host: feed.example.com"
    );
    check(&admin, &cases).await;
    admin.stop().await;
    // From another address the header means nothing.
    let admin = Running::behind(Some(TOKEN), Some(proxy("192.0.2.7", true))).await;
    check(&admin, &format!("401 GET /api/v1/overview | {user}")).await;
    admin.stop().await;
}

#[tokio::test]
async fn refused_attempts_are_on_record_and_cannot_flood_it() {
    let admin = Running::with(Some(TOKEN)).await;
    // The page asks before it has a token: that is no attempt.
    let cases = format!(
        "
        401 GET /api/v1/overview
        401 POST {PAUSE} | authorization: Bearer wrong-horse-battery | x-looker-feed: 1
        401 GET /api/v1/overview | authorization: Bearer wrong-horse-battery
        403 POST {PAUSE} | authorization: Bearer {LOOKING} | x-looker-feed: 1"
    );
    check(&admin, &cases).await;
    let auth = format!("Bearer {TOKEN}");
    let log = admin
        .ask("GET", "/api/v1/audit", &[("authorization", &auth)], "")
        .await
        .1;
    assert_eq!(log.matches("somebody who was refused").count(), 1, "{log}");
    assert!(log.contains(PAUSE) && log.contains("401"), "{log}");
    assert!(!log.contains("wrong-horse"), "{log}");
    admin.stop().await;
}

#[tokio::test]
async fn whoever_may_look_may_look_for_a_person_and_not_erase_one() {
    let admin = Running::with(Some(TOKEN)).await;
    let looking = format!("Bearer {LOOKING}");
    let body = "{\"identities\": {\"email\": \"ada@example.com\"}}";
    let headers = [("authorization", &*looking), ("x-looker-feed", "1")];
    for (target, want) in [("/api/v1/people/find", 200), ("/api/v1/people/erase", 403)] {
        let response = admin.open("POST", target, &headers, body).await;
        assert_eq!(response.status().as_u16(), want, "{target}");
    }
    for bad in [
        "{}",
        "{\"identities\": {}}",
        "{\"identities\": {\"email\": \" \"}}",
        "{\"identities\": {\"email\": \"a\\u0007\"}}",
    ] {
        let response = admin
            .open("POST", "/api/v1/people/find", &headers, bad)
            .await;
        assert_eq!(response.status().as_u16(), 400, "{bad}");
    }
    let log = admin.ask("GET", "/api/v1/audit", &headers[..1], "").await.1;
    assert!(
        log.contains("people/find") && !log.contains("ada@example.com"),
        "{log}"
    );
    admin.stop().await;
}
