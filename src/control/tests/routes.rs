//! Every route, and its agreement with the description that the daemon serves.

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::scripted::{DELIVERY, DESTINATION, EXACT, HOSTILE, PATIENCE, Running};
use crate::clock::Clock;
use crate::control::api::{OPENAPI, routes};
use crate::control::view::{
    DeadLetter, Delivery, Done, Edited, FailedDelivery, Health, Listing, Overview, RejectedRow,
    Standing,
};
use crate::control::{Admin, AdminSettings, Problem, Which};

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_a_token() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8081"] {
        let settings = AdminSettings {
            listen: listen.parse().unwrap(),
            tokens: Vec::new(),
            hosts: Vec::new(),
            write_timeout: Running::WRITE_TIMEOUT,
            history: None,
            configuration: Vec::new(),
            audit: None,
            proxy: None,
            clock: Clock::default(),
        };
        let error = Admin::bind(settings).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{listen}");
        assert!(error.to_string().contains("admin.token"), "{error}");
    }
}

#[tokio::test]
async fn lists_and_entries_come_as_the_daemon_has_them() {
    let admin = Running::start().await;
    let mut overview: Overview = admin.read("/api/v1/overview").await;
    // What the admin side adds: the roll-up, which is that of what the daemon said.
    let mut said = admin.daemon.script().overview.clone();
    assert_eq!(overview.health, Health::of(&said));
    assert_eq!(overview.health.headline, "1 thing needs you");
    overview.health = Health::default();
    overview.destinations[0].seconds_left = None;
    said.destinations[0].seconds_left = None;
    assert_eq!(overview, said);

    let mut listing: Listing<Delivery> = admin.read("/api/v1/deliveries").await;
    assert_eq!(listing.items[0].standing, Standing::Sending);
    listing.items[0].standing = Standing::default();
    listing.items[0].seconds_left = None;
    assert_eq!(listing.items, admin.daemon.script().deliveries);

    let delivery: Delivery = admin.read(&format!("/api/v1/deliveries/{DELIVERY}")).await;
    assert_eq!(delivery.title, HOSTILE);
    assert_eq!(delivery.rows.total(), delivery.rows_in);

    let mut after = String::new();
    let mut rows = Vec::new();
    loop {
        let target = format!("/api/v1/deliveries/{DELIVERY}/rejected?limit=2{after}");
        let listing: Listing<RejectedRow> = admin.read(&target).await;
        rows.extend(listing.items);
        let Some(next) = listing.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(rows, admin.daemon.script().rejected);

    let listing: Listing<DeadLetter> = admin
        .read(&format!("/api/v1/dead-letters?delivery={DELIVERY}"))
        .await;
    assert_eq!(listing.items.len(), 2);
    assert_eq!(listing.next.as_deref(), Some("2"));

    let listing: Listing<FailedDelivery> = admin.read("/api/v1/failed-deliveries").await;
    assert_eq!(listing.items, admin.daemon.script().failed[..2]);
    let id = listing.items[1].id.clone();
    let one: FailedDelivery = admin.read(&format!("/api/v1/failed-deliveries/{id}")).await;
    assert_eq!(one, listing.items[1]);

    let letter: DeadLetter = admin.read("/api/v1/dead-letters/17-1").await;
    assert_eq!(letter.batch.unwrap().0.get(), EXACT);
    admin.stop().await;
}

#[tokio::test]
async fn changing_calls_reach_the_daemon_and_say_what_they_did() {
    let admin = Running::start().await;
    let check = async |target: &str, body: &str, call: String, changed: u64| {
        let (status, text) = admin.post(&format!("/api/v1/{target}"), body).await;
        assert_eq!(status, 200, "{target}: {text}");
        let done: Done = serde_json::from_str(&text).unwrap();
        assert_eq!(done.changed, changed, "{target} {body}");
        assert_eq!(admin.daemon.script().calls.last(), Some(&call));
    };
    let some = Which::Ids(vec!["17-0".into(), "gone".into()]);
    for (verb, body, which, changed) in [
        ("replay", r#"{"ids":["17-0","gone"]}"#, some, 1),
        (
            "discard",
            r#"{"delivery":"nobody"}"#,
            Which::Delivery("nobody".into()),
            0,
        ),
        ("discard", r#"{"all":true}"#, Which::All, 2),
    ] {
        let target = format!("dead-letters/{verb}");
        check(&target, body, format!("{verb} {which:?}"), changed).await;
    }
    for verb in ["pause", "resume", "retry"] {
        let target = format!("destinations/{DESTINATION}/{verb}");
        check(&target, "", format!("{verb} {DESTINATION}"), 1).await;
    }
    admin.stop().await;
}

#[tokio::test]
async fn an_edited_batch_reaches_the_daemon_to_the_letter() {
    let admin = Running::start().await;
    let put = async |target: &str, headers: &[(&str, &str)], body: &str| {
        admin.ask("PUT", target, headers, body).await
    };
    let marked = [("x-looker-feed", "1")];
    let target = "/api/v1/dead-letters/17-1";
    let batch = r#"{"n":9007199254740993, "x":1.10}"#;
    let body = format!("{{\"batch\":{batch}}}");
    // A foreign page, and a form.
    let foreign = [("x-looker-feed", "1"), ("origin", "https://evil.example")];
    assert_eq!(put(target, &foreign, &body).await.0, 403);
    assert_eq!(put(target, &[], &body).await.0, 403);
    let large = format!("{{\"batch\":{{\"a\":\"{}\"}}}}", "a".repeat(1 << 20));
    for (wrong, want) in [
        ("{}", 400),
        (r#"{"batch":{},"more":1}"#, 400),
        (&*large, 413),
    ] {
        assert_eq!(put(target, &marked, wrong).await.0, want, "{wrong:.40}");
    }
    assert_eq!(admin.daemon.script().calls, Vec::<String>::new());

    let (status, text) = put(target, &marked, &body).await;
    assert_eq!(status, 200, "{text}");
    let edited: Edited = serde_json::from_str(&text).unwrap();
    assert_eq!((edited.changed, &*edited.id), (1, "18-17-1"));
    let call = format!("edit 17-1 {batch} false");
    assert_eq!(admin.daemon.script().calls.last(), Some(&call));
    let (status, _) = put(target, &marked, &body).await;
    assert_eq!(status, 404, "it has another id");
    let body = format!("{{\"batch\":{EXACT},\"may_double\":true}}");
    let (_, text) = put("/api/v1/dead-letters/17-2", &marked, &body).await;
    let edited: Edited = serde_json::from_str(&text).unwrap();
    assert_eq!(edited.changed, 0);
    let call = format!("edit 17-2 {EXACT} true");
    assert_eq!(admin.daemon.script().calls.last(), Some(&call));
    admin.stop().await;
}

#[tokio::test]
async fn what_cannot_be_understood_changes_nothing() {
    let admin = Running::start().await;
    let many = format!("{{\"ids\":[{}\"x\"]}}", "\"x\",".repeat(1000));
    let large = " ".repeat(300 << 10);
    for (body, want) in [
        ("", 400),
        ("{}", 400),
        ("[]", 400),
        (r#"{"all":false}"#, 400),
        (r#"{"ids":[]}"#, 400),
        (r#"{"ids":["a"],"all":true}"#, 400),
        (r#"{"ids":["a"],"delivery":"b"}"#, 400),
        (r#"{"ids":[""]}"#, 400),
        (r#"{"ids":["a\u0000"]}"#, 400),
        (r#"{"everything":true,"all":true}"#, 400),
        (many.as_str(), 400),
        (large.as_str(), 413),
    ] {
        let (status, text) = admin.post("/api/v1/dead-letters/discard", body).await;
        assert_eq!(status, want, "{:.60}", body);
        let error: Value = serde_json::from_str(&text).unwrap();
        assert!(
            error["error"].as_str().is_some_and(|why| why.len() > 10),
            "{text}"
        );
    }
    for target in [
        "/api/v1/deliveries?limit=0",
        "/api/v1/deliveries?limit=501",
        "/api/v1/deliveries?limit=many",
        "/api/v1/deliveries?whatever=1",
        "/api/v1/deliveries/%00",
        "/api/v1/deliveries/%ff",
        "/api/v1/history?since=-1",
        &format!("/api/v1/dead-letters?after={}", "x".repeat(200)),
    ] {
        let (status, text) = admin.get(target).await;
        assert_eq!(status, 400, "{target}");
        assert!(text.starts_with("{\"error\":"), "{text}");
    }
    assert_eq!(admin.daemon.script().calls, Vec::<String>::new());
    admin.stop().await;
}

#[tokio::test]
async fn problems_of_the_daemon_have_a_status_and_a_sentence() {
    let admin = Running::start().await;
    for (problem, want) in [
        (Problem::Unknown("It is gone.".into()), 404),
        (Problem::Refused("It cannot be done now.".into()), 409),
        (Problem::Failed("The disk failed.".into()), 500),
    ] {
        let sentence = serde_json::json!({ "error": problem.to_string() }).to_string();
        admin.daemon.script().problem = Some(problem);
        for target in [
            "/api/v1/deliveries",
            "/api/v1/deliveries/x",
            "/api/v1/deliveries/x/rejected",
            "/api/v1/deliveries/x/rejected/export",
            "/api/v1/failed-deliveries",
            "/api/v1/failed-deliveries/x",
            "/api/v1/dead-letters",
            "/api/v1/dead-letters/x",
            "/api/v1/dead-letters/export",
        ] {
            let answer = admin.get(target).await;
            assert_eq!(answer, (want, sentence.clone()), "{target}");
        }
        let target = format!("/api/v1/destinations/{DESTINATION}/pause");
        assert_eq!(admin.post(&target, "").await, (want, sentence));
    }
    assert_eq!(admin.get("/nowhere").await.0, 404);
    assert_eq!(admin.post("/api/v1/overview", "").await.0, 405);
    assert_eq!(admin.get("/api/v1/dead-letters/replay").await.0, 405);
    admin.stop().await;
}

#[tokio::test]
async fn probes_say_whether_deliveries_are_taken_and_why_not() {
    let admin = Running::start().await;
    assert_eq!(admin.get("/livez").await, (200, "ok\n".into()));
    // The roll-up stands below; no account is named, since probes have no token.
    let said = "ready\nattention: dead_letters\n";
    assert_eq!(admin.get("/readyz").await, (200, said.into()));
    {
        let overview = &mut admin.daemon.script().overview;
        overview.ready = false;
        overview.not_ready = Some("The disk is full.".into());
    }
    assert_eq!(admin.get("/livez").await.0, 200);
    let said = "The disk is full.\nfailing: not_ready\nattention: dead_letters\n";
    assert_eq!(admin.get("/readyz").await, (503, said.into()));
    admin.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_dead_or_stuck_is_not_alive() {
    let admin = Running::start().await;
    let dead = Problem::Failed("The outbox's thread has ended.".into());
    admin.daemon.script().problem = Some(dead);
    let said = (503, "The outbox's thread has ended.\n".to_owned());
    assert_eq!(admin.get("/livez").await, said);

    // A part that holds its lock forever: the question is not waited for without end.
    let (held, lock) = std::sync::mpsc::channel();
    {
        let mut script = admin.daemon.script();
        script.problem = None;
        script.stuck = Some(lock);
        script.calls.clear();
    }
    let time_passes = async {
        while admin.daemon.script().calls != ["alive"] {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(16)).await;
        tokio::time::resume();
    };
    let ((status, text), ()) = tokio::join!(admin.get("/livez"), time_passes);
    assert_eq!(status, 503);
    assert!(text.contains("did not answer within 15 seconds"), "{text}");
    // The next one is answered: one that is stuck has one place of several.
    assert_eq!(admin.get("/livez").await, (200, "ok\n".into()));
    drop(held);
    admin.stop().await;
}

#[tokio::test]
async fn downloads_are_whole_and_one_entry_is_one_line() {
    let admin = Running::start().await;
    let (status, text) = admin.get("/api/v1/dead-letters/export").await;
    assert_eq!(status, 200);
    let letters: Vec<DeadLetter> = text
        .split_terminator('\n')
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<_> = letters.iter().map(|letter| &letter.id).collect();
    assert_eq!(ids, ["17-0", "17-1", "17-2"]);
    for letter in &letters {
        assert!(letter.reason.contains(HOSTILE));
        assert_eq!(letter.batch.as_ref().unwrap().0.get(), EXACT);
    }

    let target = format!("/api/v1/deliveries/{DELIVERY}/rejected/export");
    let (_, text) = admin.get(&target).await;
    assert_eq!(text.lines().count(), 3);

    admin.daemon.script().letters.clear();
    let answer = admin.get("/api/v1/dead-letters/export").await;
    assert_eq!(answer, (200, String::new()));
    admin.stop().await;
}

#[tokio::test]
async fn a_download_that_fails_midway_does_not_end_well() {
    let admin = Running::start().await;
    let gone = Problem::Unknown("It was replayed just now.".into());
    admin.daemon.script().unreadable = Some(("17-1".into(), gone));
    let (status, text) = admin.get("/api/v1/dead-letters/export").await;
    assert_eq!((status, text.lines().count()), (200, 2));

    // The last letter is in the second part, when the answer has begun.
    let failed = Problem::Failed("The disk failed.".into());
    admin.daemon.script().unreadable = Some(("17-2".into(), failed));
    let whole = async {
        let target = "/api/v1/dead-letters/export";
        let response = admin.try_open("GET", target, &[], "").await?;
        response.into_body().collect().await
    };
    assert!(whole.await.is_err());
    admin.stop().await;
}

#[tokio::test]
async fn the_description_holds_every_route_and_no_other() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let described = description["paths"].as_object().unwrap();
    let mut routes: Vec<_> = routes().into_iter().map(|(path, _)| path).collect();
    let mut paths: Vec<_> = described.keys().map(String::as_str).collect();
    routes.sort_unstable();
    paths.sort_unstable();
    assert_eq!(routes, paths);

    // And with the method that it says: no route answers 405 to it.
    let admin = Running::start().await;
    for (path, item) in described {
        for method in item.as_object().unwrap().keys() {
            let target = path.replace("{id}", "x").replace("{file}", "main.js");
            let method = method.to_uppercase();
            let headers = [("x-looker-feed", "1")];
            let response = admin.open(&method, &target, &headers, "").await;
            assert_ne!(response.status().as_u16(), 405, "{method} {path}");
        }
    }
    let answer = admin.get("/api/v1/openapi.json").await;
    assert_eq!(answer, (200, OPENAPI.into()));
    admin.stop().await;
}

#[tokio::test]
async fn answers_hold_what_their_schema_says() {
    let mut description: Value = serde_json::from_str(OPENAPI).unwrap();
    let admin = Running::start().await;
    let schemas = description["components"]["schemas"].take();
    let delivery = format!("deliveries/{DELIVERY}");
    let rejected = format!("deliveries/{DELIVERY}/rejected");
    let failed = format!("failed-deliveries/{}", admin.daemon.script().failed[1].id);
    for (target, name) in [
        ("overview", "Overview"),
        ("history", "History"),
        ("history?range=7d", "History"),
        ("dead-letters/groups", "Groups"),
        ("rejected-rows/groups", "Groups"),
        ("schedules", "Schedules"),
        ("configuration", "Setting"),
        ("audit", "Actions"),
        ("people/lookups", "Lookup"),
        ("people/lookups/aa", "Lookup"),
        ("deliveries", "Deliveries"),
        (&delivery, "Delivery"),
        (&rejected, "RejectedRows"),
        ("failed-deliveries", "FailedDeliveries"),
        (&failed, "FailedDelivery"),
        ("dead-letters", "DeadLetters"),
        ("dead-letters/17-0", "DeadLetter"),
        ("nowhere", "Error"),
    ] {
        let target = format!("/api/v1/{target}");
        let schema = serde_json::json!({
            "$ref": format!("#/components/schemas/{name}"),
            "components": { "schemas": schemas },
        });
        let schema = jsonschema::validator_for(&schema).unwrap();
        let (_, text) = admin.get(&target).await;
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        // A list without parts: one of it stands for all.
        if let Some(list) = answer.as_array_mut() {
            answer = list.remove(0);
        }
        let errors: Vec<_> = schema.iter_errors(&answer).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{target}: {errors:?}");
        // Nothing is answered that is not described.
        if let (Some(answer), Some(known)) =
            (answer.as_object(), schemas[name]["properties"].as_object())
        {
            for key in answer.keys() {
                assert!(known.contains_key(key), "{name}.{key} is not described");
            }
        }
    }
    admin.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let admin = Running::start().await;
    let mut stream = tokio::net::TcpStream::connect(admin.addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".repeat(100);
    let asking = async { while stream.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .expect("the connection is closed");
    // Others are served.
    assert_eq!(admin.open("GET", "/livez", &[], "").await.status(), 200);
    admin.stop().await;
}
