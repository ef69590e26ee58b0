//! Who may ask for what, as a table over real requests, and the headers of every answer.

use super::scripted::{DESTINATION, LOOKING, Running, TOKEN};
use crate::control::{Proxy, Token};

type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

async fn check(admin: &Running, cases: &[Case<'_>]) {
    for (method, target, headers, want) in cases {
        // Streams are not read to their end.
        let response = admin.open(method, target, headers, "").await;
        assert_eq!(
            response.status().as_u16(),
            *want,
            "{method} {target} {headers:?}"
        );
    }
}

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
            check(
                &admin,
                &[("GET", "/api/v1/overview", &[("host", &host)], 200)],
            )
            .await;
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
            check(&admin, &[("GET", target, &[("host", host)], 421)]).await;
        }
    }
    let twice = [("host", "localhost"), ("host", "evil.example")];
    let absolute = "http://evil.example/api/v1/overview";
    check(
        &admin,
        &[
            ("GET", "/api/v1/overview", &twice, 421),
            ("GET", absolute, &[("host", "localhost")], 421),
        ],
    )
    .await;
    admin.stop().await;
}

#[tokio::test]
async fn a_foreign_page_can_neither_read_nor_steer() {
    let admin = Running::start().await;
    let own = format!("http://{}", admin.addr);
    let pause = format!("/api/v1/destinations/{DESTINATION}/pause");
    let pause = pause.as_str();
    let mark = ("x-looker-feed", "1");
    let json = ("content-type", "application/json; charset=utf-8");
    check(
        &admin,
        &[
            // A program: no browser's headers.
            ("POST", pause, &[mark], 200),
            ("POST", pause, &[json], 200),
            ("POST", pause, &[], 403),
            ("POST", pause, &[("x-looker-feed", "0")], 403),
            ("POST", pause, &[("content-type", "text/plain")], 403),
            (
                "POST",
                pause,
                &[("content-type", "application/x-www-form-urlencoded")],
                403,
            ),
            // Our own page.
            (
                "POST",
                pause,
                &[mark, ("origin", &own), ("sec-fetch-site", "same-origin")],
                200,
            ),
            ("POST", pause, &[mark, ("origin", &own)], 200),
            ("POST", pause, &[("origin", &own)], 403),
            // Others.
            (
                "POST",
                pause,
                &[mark, ("origin", "http://evil.example")],
                403,
            ),
            ("POST", pause, &[mark, ("origin", "null")], 403),
            ("POST", pause, &[mark, ("origin", "http://127.0.0.1")], 403),
            (
                "POST",
                pause,
                &[mark, ("origin", &format!("{own}.evil.example"))],
                403,
            ),
            (
                "POST",
                pause,
                &[mark, ("origin", &format!("ftp://{}", admin.addr))],
                403,
            ),
            (
                "POST",
                pause,
                &[json, ("sec-fetch-site", "cross-site")],
                403,
            ),
            ("POST", pause, &[json, ("sec-fetch-site", "same-site")], 403),
            ("POST", pause, &[json, ("sec-fetch-site", "none")], 403),
            ("OPTIONS", pause, &[("origin", "http://evil.example")], 403),
            // Reading.
            (
                "GET",
                "/api/v1/overview",
                &[("sec-fetch-site", "cross-site")],
                403,
            ),
            (
                "GET",
                "/api/v1/events",
                &[("sec-fetch-site", "cross-site")],
                403,
            ),
            ("GET", "/metrics", &[("sec-fetch-site", "same-site")], 403),
            (
                "GET",
                "/api/v1/overview",
                &[("sec-fetch-site", "none")],
                200,
            ),
            // A link to the page may stand anywhere.
            ("GET", "/", &[("sec-fetch-site", "cross-site")], 200),
        ],
    )
    .await;
    let calls = admin.daemon.script().calls.clone();
    assert_eq!(calls.len(), 4, "{calls:?}");
    admin.stop().await;
}

#[tokio::test]
async fn with_a_token_all_that_shows_or_changes_something_needs_it() {
    let admin = Running::with(Some(TOKEN)).await;
    let right = format!("Bearer {TOKEN}");
    let auth = ("authorization", right.as_str());
    let pause = format!("/api/v1/destinations/{DESTINATION}/pause");
    let pause = pause.as_str();
    let mark = ("x-looker-feed", "1");
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
        check(
            &admin,
            &[
                ("GET", target, &[], 401),
                ("GET", target, &[("authorization", "Bearer wrong")], 401),
                ("GET", target, &[("authorization", TOKEN)], 401),
                (
                    "GET",
                    target,
                    &[("authorization", &format!("{right}x"))],
                    401,
                ),
                (
                    "GET",
                    target,
                    &[("authorization", &format!("Basic {TOKEN}"))],
                    401,
                ),
                ("GET", target, &[auth], 200),
                (
                    "GET",
                    target,
                    &[auth, ("host", "feed.anywhere.example")],
                    200,
                ),
                (
                    "GET",
                    target,
                    &[auth, ("sec-fetch-site", "cross-site")],
                    403,
                ),
            ],
        )
        .await;
    }
    for target in [
        "/",
        "/deliveries/x",
        "/assets/main.js",
        "/livez",
        "/readyz",
        "/api/v1/openapi.json",
    ] {
        check(&admin, &[("GET", target, &[], 200)]).await;
    }
    check(
        &admin,
        &[
            ("GET", "/nowhere", &[], 401),
            ("POST", pause, &[mark], 401),
            ("POST", "/", &[mark], 401),
            ("POST", pause, &[auth], 403),
            (
                "POST",
                pause,
                &[auth, mark, ("origin", "http://evil.example")],
                403,
            ),
            ("POST", pause, &[auth, mark], 200),
        ],
    )
    .await;
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
    let pause = &format!("/api/v1/destinations/{DESTINATION}/pause");
    let mark = ("x-looker-feed", "1");
    let user = ("x-forwarded-user", "zoe@example.com");
    let host = ("host", "feed.example.com");
    // With a token beside it, and without one.
    for token in [Some(TOKEN), None] {
        let admin = Running::behind(token, Some(proxy("127.0.0.1", true))).await;
        check(
            &admin,
            &[
                ("GET", "/api/v1/overview", &[user, host], 200),
                ("POST", pause, &[user, host, mark], 200),
                ("POST", pause, &[user, host], 403),
            ],
        )
        .await;
        let log = admin.ask("GET", "/api/v1/audit", &[user, host], "").await.1;
        assert!(log.contains("\"who\":\"zoe@example.com\""), "{log}");
        admin.stop().await;
    }
    let admin = Running::behind(Some(TOKEN), Some(proxy("127.0.0.1", false))).await;
    let long = "x".repeat(65);
    check(
        &admin,
        &[
            ("GET", "/api/v1/overview", &[user, host], 200),
            ("POST", pause, &[user, host, mark], 403),
            ("POST", "/api/v1/people/erase", &[user, host, mark], 403),
            // Not a name of ours: a page whose name was rebound could send the header too.
            (
                "GET",
                "/api/v1/overview",
                &[user, ("host", "evil.example")],
                401,
            ),
            (
                "GET",
                "/api/v1/overview",
                &[("x-forwarded-user", " "), host],
                401,
            ),
            (
                "GET",
                "/api/v1/overview",
                &[("x-forwarded-user", &long), host],
                401,
            ),
            ("GET", "/api/v1/overview", &[user, user, host], 401),
            ("GET", "/api/v1/overview", &[host], 401),
        ],
    )
    .await;
    admin.stop().await;
    // From another address the header means nothing.
    let admin = Running::behind(Some(TOKEN), Some(proxy("192.0.2.7", true))).await;
    check(&admin, &[("GET", "/api/v1/overview", &[user, host], 401)]).await;
    admin.stop().await;
}

#[tokio::test]
async fn refused_attempts_are_on_record_and_cannot_flood_it() {
    let admin = Running::with(Some(TOKEN)).await;
    let pause = "/api/v1/destinations/d0000000000000000000000000000001/pause";
    let wrong = ("authorization", "Bearer wrong-horse-battery");
    let looking = format!("Bearer {LOOKING}");
    check(
        &admin,
        &[
            // The page asks before it has a token: that is no attempt.
            ("GET", "/api/v1/overview", &[], 401),
            ("POST", pause, &[wrong, ("x-looker-feed", "1")], 401),
            ("GET", "/api/v1/overview", &[wrong], 401),
            (
                "POST",
                pause,
                &[("authorization", &looking), ("x-looker-feed", "1")],
                403,
            ),
        ],
    )
    .await;
    let auth = format!("Bearer {TOKEN}");
    let log = admin
        .ask("GET", "/api/v1/audit", &[("authorization", &auth)], "")
        .await
        .1;
    assert_eq!(log.matches("somebody who was refused").count(), 1, "{log}");
    assert!(log.contains(pause) && log.contains("401"), "{log}");
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
