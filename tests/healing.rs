//! Deliveries that heal themselves, over the real binary: what failed for a passing reason is asked for
//! again by Looker's API, arrives once, and nothing is asked for that need not be.

mod support;

#[path = "healing/kills.rs"]
mod kills;
#[path = "healing/operator.rs"]
mod operator;
#[path = "healing/scene.rs"]
mod scene;
#[path = "postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
#[path = "healing/shared.rs"]
mod shared;

use std::collections::BTreeMap;
use std::time::Duration;

use looker_feed::control::view::{Delivery, FailedDelivery};
use looker_feed::looker::{ApiFault, Failure, Schedule, Shape, User};
use looker_feed::model::DataType;
use scene::{all_arrive, calls, cut, failed, half, looks_again, paused, shape, stands, start};
use support::{World, run, run_line};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_cut_is_asked_for_and_arrives_once() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let schedules = world.api.schedules();
    let nightly = shape(1, 3_000);
    let id = schedules.add(cut("Nightly", nightly.clone(), 2));
    let told = schedules.run_and_tell(id).await.expect("an answer");
    assert!(!told.is_success(), "it was cut");
    let told = told.message().expect("words");
    assert!(told.contains("will have Looker run it again"), "{told}");
    assert!(!told.contains(".."), "{told}");
    let one = stands(&daemon, "Nightly", "done").await;
    let again = one.again.clone().unwrap();
    assert_eq!((one.reason.as_str(), again.count), ("cut", 2), "{one:?}");
    let committed: Vec<_> = again.tries.iter().map(|one| one.committed).collect();
    assert_eq!(
        committed,
        [Some(false), Some(true)],
        "the first was cut too"
    );
    all_arrive(&world, &daemon, std::slice::from_ref(&nightly)).await;
    assert_eq!(schedules.copies(id), 2);

    // It is told what belongs to what.
    let deliveries: Vec<Delivery> = daemon.settled().await;
    assert_eq!(deliveries.len(), 1);
    let repeat = deliveries[0].repeat_of.clone().unwrap();
    assert_eq!((repeat.delivery, repeat.number), (one.id.clone(), 2));
    assert_eq!(again.tries[1].delivery.as_ref(), Some(&deliveries[0].id));
    let repeats: Vec<_> = failed(&daemon).await;
    assert_eq!(repeats.len(), 2, "the first try is one of its own");
    let first = &repeats[0];
    assert_eq!(first.repeat_of.as_ref().map(|of| of.number), Some(1));
    assert_eq!(first.schedule, one.schedule, "not the copy's");
    let admin = daemon.admin.to_string();
    let (_, table, _) = run(&["deliveries", "--failed"], &[("ADMIN_URL", &admin)]);
    assert!(table.contains("done"), "{table}");
    let overview = daemon.overview().await;
    assert_eq!((overview.ask_again.asked, overview.ask_again.done), (2, 1));
    assert_eq!(overview.ask_again.lookers.len(), 1);

    // It is so after a restart, and nothing more is asked.
    assert!(daemon.terminate().success());
    let daemon = start(&world, home.path(), &[]);
    assert_eq!(stands(&daemon, "Nightly", "done").await.id, one.id);
    assert_eq!(schedules.copies(id), 2);
    // The key's secret is nowhere but in Looker's login.
    let mut told = vec![daemon.log()];
    let pages = ["configuration", "overview", "failed-deliveries"];
    let pages = pages.map(|page| format!("/api/v1/{page}"));
    for path in pages.iter().map(String::as_str).chain(["/metrics"]) {
        let (_, body) = daemon.call("GET", path, "").await;
        told.push(String::from_utf8_lossy(&body).into_owned());
    }
    for (at, text) in told.iter().enumerate() {
        assert!(!text.is_empty(), "{at}");
        assert!(!text.contains("secret-of-the-client"), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_fail_again_is_not_asked_for_until_a_person_says_so() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let schedules = world.api.schedules();
    let wide = shape(2, 100);
    let mut schedule = Schedule::new("Wide", wide.clone(), 8);
    let form = [("data_type", "event_data"), ("environment", "nowhere")];
    let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
    schedule.form = Some(BTreeMap::from(form));
    let id = schedules.add(schedule);
    assert!(!schedules.run(id).await, "there is no such environment");
    let one = failed(&daemon).await.remove(0);
    assert_eq!((&*one.reason, one.passing), ("request", false));
    assert_eq!(one.again, None);
    assert!(one.why_not.unwrap().contains("would not help"));
    assert!(daemon.terminate().success());
    // It is mended; nothing is asked for by itself all the same.
    schedules.change(id, |schedule| schedule.form = None);
    let daemon = start(&world, home.path(), &[]);
    let admin = daemon.admin.to_string();
    let ask = |arguments: &[&str]| run(arguments, &[("ADMIN_URL", &admin)]);
    assert_eq!(calls(&world, "run_once"), 0);
    let (code, out, err) = ask(&["ask-again", &one.id]);
    assert_eq!(code, Some(0), "{out}{err}");
    stands(&daemon, "Wide", "done").await;
    all_arrive(&world, &daemon, &[wide]).await;
    let (code, _, err) = ask(&["ask-again", &"0".repeat(32)]);
    assert_eq!(code, Some(3), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_gone_or_off_is_said_and_asked_for_no_more() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let schedules = world.api.schedules();
    let gone = schedules.add(cut("Gone", shape(3, 500), 1));
    let off = schedules.add(cut("Off", shape(4, 500), 1));
    let foreign = schedules.add(cut("Foreign", shape(5, 500), 1));
    let not_ours = User {
        permissions: ["access_data".to_owned()].into(),
        ..User::admin()
    };
    world.api.put_user(not_ours);
    schedules.change(foreign, |schedule| schedule.owner = 99);
    for id in [gone, off, foreign] {
        let run = schedules.run(id);
        assert!(!run.await);
        if id == gone {
            schedules.remove(id);
        }
        schedules.change(id, |schedule| schedule.enabled = id != off);
    }
    for (title, state, words) in [
        ("Gone", "given_up", "gone in Looker"),
        ("Off", "called_off", "disabled"),
        ("Foreign", "given_up", "only an admin"),
    ] {
        let why = why(&stands(&daemon, title, state).await);
        assert!(why.contains(words), "{title}: {why}");
    }
    assert_eq!(schedules.copies(off) + schedules.copies(foreign), 0);
    let again = daemon.overview().await.ask_again;
    assert_eq!(again.given_up, 2);
    let blind = again.lookers[0].blind.as_ref();
    assert!(blind.is_none_or(|why| why.contains("see_system_activity")));
}

/// Why what is done about a failed delivery stands as it does.
fn why(one: &FailedDelivery) -> String {
    one.again.clone().unwrap().why.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_said_once_and_not_stormed_with() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let wrong = [("LOOKER__API__CLIENT_SECRET", "not-the-secret")];
    let daemon = start(&world, home.path(), &wrong);
    let schedules = world.api.schedules();
    let ids: Vec<_> = (0..5)
        .map(|n| schedules.add(cut(&format!("Job {n}"), shape(10 + n, 200), 1)))
        .collect();
    for id in &ids {
        assert!(!schedules.run(*id).await);
    }
    daemon.says("refuses the API key").await;
    sleep(Duration::from_secs(2)).await;
    assert!(calls(&world, "login") <= 2, "{:?}", world.api.calls());
    let again = daemon.overview().await.ask_again;
    let trouble = again.lookers[0].trouble.clone().unwrap();
    assert!(trouble.contains("client_secret"), "{trouble}");
    assert_eq!(again.open["waiting"], 5);
    let one = stands(&daemon, "Job 0", "waiting").await;
    assert!(why(&one).contains("refuses the API key"));
    let log = daemon.log();
    let said = log.matches("Looker cannot be asked again now").count();
    assert_eq!(said, 1, "{log}");
    assert!(!log.contains("not-the-secret"));
    // With the right one all come.
    assert!(daemon.terminate().success());
    let daemon = start(&world, home.path(), &[]);
    let shapes: Vec<_> = (0..5).map(|n| shape(10 + n, 200)).collect();
    all_arrive(&world, &daemon, &shapes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_tried_and_tags_are_without_a_daemon() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let outbox = home.path().join("outbox").display().to_string();
    let url = world.looker.base().to_string();
    let with = async |secret: &'static str, line: &'static str| {
        let (url, outbox) = (url.clone(), outbox.clone());
        let ran = tokio::task::spawn_blocking(move || {
            let settings = [
                ("INTAKE__SECRET", "0123456789abcdef0123456789abcdef"),
                ("OUTBOX__PATH", outbox.as_str()),
                ("LOOKER__API__URL", url.as_str()),
                ("LOOKER__API__CLIENT_ID", "client-of-the-feed"),
                ("LOOKER__API__CLIENT_SECRET", secret),
            ];
            run_line(line, &settings)
        });
        ran.await.unwrap()
    };
    let good = "secret-of-the-client";
    let schedules = world.api.schedules();
    let look = schedules.add(Schedule::new("Look", shape(70, 50), 42));
    for line in ["looker status", "check-config --online"] {
        let (code, out, err) = with(good, line).await;
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(out.contains("logged in as"), "{out}");
        let (code, out, err) = with("wrong-secret", line).await;
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(out.contains("refuses the API key"), "{out}");
        assert!(!(out + &err).contains("wrong-secret"));
    }
    let of_look = "preview --look 42 --data-type event --json";
    let of_query = "preview --query slug42 --data-type event --json";
    for line in [of_look, of_query] {
        let (code, out, err) = with(good, line).await;
        assert_eq!(code, Some(0), "{out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["counts"]["rows"], 50, "{out}");
    }
    let (code, _, err) = with(good, "preview --look 41 --data-type event").await;
    assert_eq!(code, Some(1));
    assert!(err.contains("does not know"), "{err}");
    // What is misspelt is an error.
    let (code, out, err) = with(good, "preview --explore shop/orders").await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("did you mean mp_user_attribute?"), "{out}");
    assert_eq!(schedules.copies(look), 0);
    assert_eq!(calls(&world, "login"), calls(&world, "logout") + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_late_and_refused_answers_double_nothing() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let (api, schedules) = (&world.api, world.api.schedules());
    let mut shapes = Vec::new();
    let faults = [
        // Looker runs it, and its answer never comes: the delivery is known by its content.
        ApiFault::LoseAnswer,
        // It comes in before the answer.
        ApiFault::Slow(Duration::from_millis(1_500)),
        ApiFault::Status(429),
        ApiFault::Status(503),
        ApiFault::Html,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let shape = shape(20 + n as u64, 400);
        let title = format!("Fault {n}");
        let id = schedules.add(cut(&title, shape.clone(), 1));
        api.fail_next("run_once", fault);
        assert!(!schedules.run(id).await);
        stands(&daemon, &title, "done").await;
        all_arrive(&world, &daemon, std::slice::from_ref(&shape)).await;
        assert_eq!(schedules.copies(id), 1, "{fault:?}");
        shapes.push(shape);
    }
    // Looker is restarted: its tokens are gone, and one login makes it good.
    api.forget_tokens();
    let last = shape(30, 400);
    let id = schedules.add(cut("Restarted", last.clone(), 1));
    let before = calls(&world, "login");
    assert!(!schedules.run(id).await);
    stands(&daemon, "Restarted", "done").await;
    shapes.push(last);
    all_arrive(&world, &daemon, &shapes).await;
    assert_eq!(calls(&world, "login"), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_sends_it_by_hand_calls_it_off() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &paused("60s"));
    let schedules = world.api.schedules();
    let daily = shape(40, 800);
    let id = schedules.add(cut("Daily", daily.clone(), 1));
    // Another schedule of the same Look and title, with an account of its own, is another one.
    let mut twin = cut("Daily", shape(41, 800), 1);
    twin.api_key = "key-of-another-account".to_owned();
    let other = schedules.add(twin);
    assert!(!schedules.run(id).await);
    assert!(!schedules.run(other).await);
    assert!(schedules.send_by_hand(id).await);
    let off = stands(&daemon, "Daily", "called_off").await;
    assert!(why(&off).contains("came in by itself"));
    all_arrive(&world, &daemon, std::slice::from_ref(&daily)).await;
    let waiting = stands(&daemon, "Daily", "waiting").await;
    assert_ne!(waiting.id, off.id);
    assert_eq!(calls(&world, "run_once"), 0);
    let admin = daemon.admin.to_string();
    let stop = ["ask-again", "--stop", &waiting.id];
    let (code, out, _) = run(&stop, &[("ADMIN_URL", &admin)]);
    assert_eq!(code, Some(0), "{out}");
    stands(&daemon, "Daily", "called_off").await;
    assert_eq!(schedules.copies(other), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_while_the_daemon_was_away_is_found_and_asked_for() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let schedules = world.api.schedules();
    let fine = shape(50, 300);
    let before = schedules.add(Schedule::new("Before", fine.clone(), 50));
    assert!(schedules.run(before).await);
    assert!(daemon.terminate().success());
    let shapes: Vec<_> = (51..54).map(|seed| shape(seed, 300)).collect();
    let schedule = |shape: &Shape| {
        let title = format!("Missed {}", shape.seed);
        schedules.add(Schedule::new(&title, shape.clone(), shape.seed))
    };
    let ids: Vec<_> = shapes.iter().map(schedule).collect();
    for id in &ids {
        assert!(!schedules.run(*id).await, "nobody is there");
    }
    let daemon = start(&world, home.path(), &[]);
    all_arrive(&world, &daemon, &shapes).await;
    for (id, shape) in ids.iter().zip(&shapes) {
        let one = stands(&daemon, &format!("Missed {}", shape.seed), "done").await;
        assert_eq!(one.reason, "missed");
        assert_eq!(schedules.copies(*id), 1);
    }
    assert_eq!(schedules.copies(before), 0);
    all_arrive(&world, &daemon, &[fine]).await;
    // It looks again and again, and finds nothing new.
    looks_again(&world, &daemon).await;
    assert_eq!(failed(&daemon).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_the_schedules_own_for_what_only_changes_are_held_against() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = start(&world, home.path(), &[]);
    let schedules = world.api.schedules();
    let users = Shape {
        data_type: DataType::User,
        ..shape(60, 400)
    };
    let mut schedule = Schedule::new("Audience", users, 60);
    let form = [
        ("data_type", "user_data"),
        ("environment", "development"),
        ("only_changes", "yes"),
    ];
    let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
    schedule.form = Some(BTreeMap::from(form));
    let failure = Failure::CutAfter(half(&schedule.shape));
    schedule.failures = [None, Some(failure)].into();
    let id = schedules.add(schedule);
    assert!(schedules.run(id).await);
    daemon.settled().await;
    assert!(!schedules.run(id).await, "the second is cut");
    stands(&daemon, "Audience", "done").await;
    let deliveries = daemon.settled().await;
    assert_eq!(deliveries.len(), 2);
    let repeat = deliveries.iter().find(|one| one.repeat_of.is_some());
    let repeat = repeat.unwrap();
    assert_eq!(repeat.rows.unchanged, repeat.rows_in, "{repeat:?}");
}
